//! A key file and certificates for servers that want them, made by the `openssl` command.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Writes the key that the members of a set authenticate to each other with.
///
/// # Errors
/// What the operating system says.
pub fn key_file(folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join("key");
    fs::write(&path, "OnlyForTestsOnLoopback".repeat(4))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(path)
}

/// A certificate authority and what it signed, as PEM files.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authority's certificate: what a client has to trust.
    pub ca: PathBuf,
    /// The certificate and the key of a server on `localhost` and 127.0.0.1.
    pub server: PathBuf,
}

impl Certificates {
    /// Makes a new authority of this name and a server's certificate.
    ///
    /// # Errors
    /// If `openssl` is missing or refuses.
    pub fn make(folder: &Path, name: &str) -> io::Result<Self> {
        let file = |suffix: &str| folder.join(format!("{name}{suffix}"));
        let (ca, ca_key) = (file("-ca.pem"), file("-ca.key"));
        let (cert, key, request, server) = (file(".crt"), file(".key"), file(".csr"), file(".pem"));
        let extensions = file(".ext");
        fs::write(
            &extensions,
            "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n\
             basicConstraints=CA:FALSE\n",
        )?;
        let curve: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        openssl(
            &[&["req", "-x509", "-days", "2", "-subj", &format!("/CN={name} authority")], curve].concat(),
            &[("-keyout", &ca_key), ("-out", &ca)],
        )?;
        openssl(
            &[&["req", "-subj", "/O=coord tests/CN=localhost"], curve].concat(),
            &[("-keyout", &key), ("-out", &request)],
        )?;
        openssl(
            &["x509", "-req", "-days", "2", "-CAcreateserial"],
            &[("-in", &request), ("-CA", &ca), ("-CAkey", &ca_key), ("-extfile", &extensions), ("-out", &cert)],
        )?;
        fs::write(&server, fs::read_to_string(&cert)? + &fs::read_to_string(&key)?)?;
        Ok(Self { ca, server })
    }
}

fn openssl(arguments: &[&str], files: &[(&str, &Path)]) -> io::Result<()> {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    for (option, file) in files {
        command.arg(option).arg(file);
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!(
            "openssl {} failed: {}",
            arguments[0],
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    Ok(())
}
