//! This project as `benches/run` builds it for other languages, in `target/bench-stage`, and the programs of
//! `benches/languages` that measure it from within.

use std::path::PathBuf;
use std::process::Command;

use coord_bench_worker::Result;

use crate::process::Worker;
use crate::servers::find;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Language {
    Rust,
    C,
    Go,
    Python,
}

impl Language {
    pub(crate) const ALL: [Self; 4] = [Self::Rust, Self::C, Self::Go, Self::Python];

    /// What the table calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::C => "C",
            Self::Go => "Go",
            Self::Python => "Python",
        }
    }

    /// Its program, connected to the memory store. The lines that it takes are told by `benches/languages/rust/main.rs`.
    pub(crate) fn start(self) -> Result<Worker> {
        let command = match self {
            Self::Rust => Command::new(std::env::current_exe()?.with_file_name("coord-bench-rust")),
            Self::C => linked("bench-c")?,
            Self::Go => linked("bench-go")?,
            Self::Python => {
                let mut command = python()?;
                command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/languages/python/main.py"));
                command
            }
        };
        let worker = Worker::start(self.name(), command)?;
        worker.ready()?;
        Ok(worker)
    }
}

/// A Python that imports the package from the wheel.
pub(crate) fn python() -> Result<Command> {
    let package = built("python")?;
    let mut command = Command::new(find("python").ok_or("there is no python on the PATH (run by benches/run)")?);
    command.env("PYTHONPATH", package);
    Ok(command)
}

/// What was built under this name.
pub(crate) fn built(name: &str) -> Result<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench-stage")).join(name);
    if path.exists() { Ok(path) } else { Err(format!("benches/run has not built target/bench-stage/{name}").into()) }
}

fn linked(program: &str) -> Result<Command> {
    let mut command = Command::new(built(program)?);
    command.env("LD_LIBRARY_PATH", built("lib")?);
    Ok(command)
}
