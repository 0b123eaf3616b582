//! How to reach a mail server: a URL and options, parsed once. The same names in a URL (`?tls=none`), by name from C,
//! Go and Python, and in Rust; what is set in code wins over the URL.
//!
//! `smtp://user:password@host:587` speaks STARTTLS, `smtps://user:password@host` TLS from the first byte; a character
//! that has a meaning in URLs is written with a percent sign (`%40`). `smtp://` alone leaves all of it to options.
//!
//! | option | value | default | meaning |
//! |---|---|---|---|
//! | `host`, `port` | text, number | none; 587, 465 for `implicit`, 25 for `none` | the server |
//! | `tls` | `required`, `implicit`, `none` | `required` (`implicit` for `smtps`) | STARTTLS or nothing; TLS at once; in clear, login included |
//! | `ca` | path | none | a PEM file of the only authorities to trust, instead of the public ones |
//! | `user`, `password` | text | none | the login; for `xoauth2` the password is the access token |
//! | `auth` | `auto`, `plain`, `login`, `xoauth2` | `auto` | how to log in; `auto` takes PLAIN, else LOGIN |
//! | `sender`, `sender_name` | address, text | none | who messages are from that do not say |
//! | `reply_to` | address | none | where replies go to messages that do not say |
//! | `hello` | host name | this host's | the name that the server is told |
//! | `connect_timeout` | duration | 15 s | name lookup, connection, TLS and the server's greeting |
//! | `step_timeout` | duration | 60 s | each command and its reply; the content of a message and its reply |
//! | `timeout` | duration | 180 s | a whole send, with its attempts |
//! | `retries` | 0 to 100 | 3 | how often a temporary failure is tried again, within `timeout` |
//! | `retry_min`, `retry_max` | duration | 1 s, 30 s | the wait before the first retry, which doubles; its bound |
//! | `pool` | 1 to 100 | 4 | the most connections |
//! | `idle_timeout` | duration | 30 s | how long an unused connection is kept |
//! | `max_size` | bytes | 26214400 | the largest message on the wire |
//!
//! A duration is a number with `ms`, `s`, `m` or `h`; without a unit it is seconds.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::address::Mailbox;
use super::message::{Defaults, at};
use crate::config::{choose, parse_duration, parse_number, percent_decode};
use crate::error::{Error, Result};

/// Where the mail server is and how to speak to it. Nothing is checked against the server before it is used.
#[derive(Clone)]
pub struct MailerOptions {
    pub(super) host: String,
    port: Option<u16>,
    pub(super) tls: Tls,
    pub(super) ca: Option<PathBuf>,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) auth: Auth,
    sender: Option<Mailbox>,
    sender_name: String,
    reply_to: Option<Mailbox>,
    pub(super) hello: Option<String>,
    pub(super) connect_timeout: Duration,
    pub(super) step_timeout: Duration,
    pub(super) timeout: Duration,
    pub(super) retries: u32,
    pub(super) retry_min: Duration,
    pub(super) retry_max: Duration,
    pub(super) pool: u32,
    pub(super) idle_timeout: Duration,
    pub(super) max_size: usize,
}

/// When a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tls {
    /// After STARTTLS; a server that does not offer it is not used.
    Required,
    /// From the first byte.
    Implicit,
    /// Never: everybody on the way can read and change all of it, the password too.
    None,
}

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Auth {
    /// PLAIN where it is offered, else LOGIN.
    Auto,
    /// PLAIN.
    Plain,
    /// LOGIN.
    Login,
    /// XOAUTH2: the password is an access token.
    Xoauth2,
}

impl MailerOptions {
    /// The options for this host, with STARTTLS.
    pub fn new(host: &str) -> Result<Self> {
        let mut options = Self::default();
        options.set("host", host)?;
        Ok(options)
    }

    /// Parses a URL, `smtp://…` or `smtps://…`, with options as query parameters.
    ///
    /// # Errors
    /// `InvalidArgument` that says which part is wrong. The message never contains a password.
    pub fn parse(url: &str) -> Result<Self> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let Some((scheme, rest)) = base.split_once("://") else {
            return Err(Error::invalid("a mail server's URL begins with smtp:// or smtps://"));
        };
        let tls = match scheme {
            "smtp" => Tls::Required,
            "smtps" => Tls::Implicit,
            _ => return Err(Error::invalid("a mail server's URL begins with smtp:// or smtps://")),
        };
        let mut options = Self { tls, ..Self::default() };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, server) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        options.user = percent_decode(user)?;
        options.password = percent_decode(password)?;
        let (host, port) = split_port(server);
        if !host.is_empty() {
            options.set("host", &percent_decode(host)?)?;
        }
        if let Some(port) = port {
            options.set("port", port)?;
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            options.set(key, &percent_decode(value)?)?;
        }
        Ok(options)
    }

    /// Sets one option by its name.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no such option, or if the value is not in its range.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "host" => self.host = host(value)?,
            "port" => self.port = Some(parse_number(key, value, 1, 65_535)? as u16),
            "tls" => {
                let choices = [("required", Tls::Required), ("implicit", Tls::Implicit), ("none", Tls::None)];
                self.tls = choose(key, value, &choices)?;
            }
            "ca" => self.ca = Some(value.into()),
            "user" => self.user = credential(key, value)?,
            "password" => self.password = credential(key, value)?,
            "auth" => {
                let choices =
                    [("auto", Auth::Auto), ("plain", Auth::Plain), ("login", Auth::Login), ("xoauth2", Auth::Xoauth2)];
                self.auth = choose(key, value, &choices)?;
            }
            "sender" => self.sender = Some(value.parse().map_err(|error| at(key, &error))?),
            "sender_name" => self.sender_name = value.to_owned(),
            "reply_to" => self.reply_to = Some(value.parse().map_err(|error| at(key, &error))?),
            "hello" => self.hello = Some(host(value)?),
            "connect_timeout" => self.connect_timeout = positive(key, value)?,
            "step_timeout" => self.step_timeout = positive(key, value)?,
            "timeout" => self.timeout = positive(key, value)?,
            "retries" => self.retries = parse_number(key, value, 0, 100)?,
            "retry_min" => self.retry_min = positive(key, value)?,
            "retry_max" => self.retry_max = positive(key, value)?,
            "pool" => self.pool = parse_number(key, value, 1, 100)?,
            "idle_timeout" => self.idle_timeout = parse_duration(key, value)?,
            "max_size" => self.max_size = parse_number(key, value, 1, u32::MAX)? as usize,
            _ => {
                return Err(Error::invalid(format!(
                    "there is no option '{}' of a mail server; the options are host, port, tls, ca, user, password, \
                     auth, sender, sender_name, reply_to, hello, connect_timeout, step_timeout, timeout, retries, \
                     retry_min, retry_max, pool, idle_timeout and max_size",
                    key.chars().take(64).collect::<String>()
                )));
            }
        }
        Ok(())
    }

    /// The same options with this one set.
    ///
    /// # Errors
    /// As [`MailerOptions::set`].
    pub fn with(mut self, key: &str, value: &str) -> Result<Self> {
        self.set(key, value)?;
        Ok(self)
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.tls {
            Tls::Required => 587,
            Tls::Implicit => 465,
            Tls::None => 25,
        })
    }

    /// What only together is wrong, and the defaults for messages.
    pub(super) fn defaults(&self) -> Result<Defaults> {
        if self.host.is_empty() {
            return Err(Error::invalid("host: the mail server has no host"));
        }
        if self.user.is_empty() && !self.password.is_empty() {
            return Err(Error::invalid("user: there is a password, but no user"));
        }
        let sender = match &self.sender {
            Some(sender) if self.sender_name.is_empty() => Some(sender.clone()),
            Some(sender) => {
                let named = Mailbox::new(&self.sender_name, sender.address());
                Some(named.map_err(|error| at("sender_name", &error))?)
            }
            None if self.sender_name.is_empty() => None,
            None => return Err(Error::invalid("sender: there is a sender_name, but no sender")),
        };
        Ok(Defaults { sender, reply_to: self.reply_to.clone() })
    }

    /// `text` without the password, in whatever form a server may have sent it back.
    pub(super) fn scrubbed(&self, text: &str) -> String {
        use base64::Engine as _;
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let mut out = text.to_owned();
        if !self.password.is_empty() {
            let plain = format!("\0{}\0{}", self.user, self.password);
            let oauth = format!("user={}\x01auth=Bearer {}\x01\x01", self.user, self.password);
            for secret in [oauth.as_str(), &plain, &self.password] {
                // How the last bytes are encoded depends on what a server has put behind them.
                let (whole, _) = secret.as_bytes().split_at(secret.len() / 3 * 3);
                out = match whole {
                    [] => out.replace(&encode(secret.as_bytes()), "***"),
                    whole => without_run(&out, &encode(whole)),
                };
            }
            out = out.replace(&self.password, "***");
        }
        out.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect()
    }
}

/// `text` with stars for each `secret`, and for what is encoded in one with it.
fn without_run(text: &str, secret: &str) -> String {
    let mut parts = text.split(secret);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("***");
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=')));
    }
    out
}

impl Default for MailerOptions {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: None,
            tls: Tls::Required,
            ca: None,
            user: String::new(),
            password: String::new(),
            auth: Auth::Auto,
            sender: None,
            sender_name: String::new(),
            reply_to: None,
            hello: None,
            connect_timeout: Duration::from_secs(15),
            step_timeout: Duration::from_secs(60),
            timeout: Duration::from_secs(180),
            retries: 3,
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
            pool: 4,
            idle_timeout: Duration::from_secs(30),
            max_size: 25 << 20,
        }
    }
}

impl fmt::Debug for MailerOptions {
    /// Where the server is and as whom to log in, without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("MailerOptions");
        out.field("host", &self.host).field("port", &self.port()).field("tls", &self.tls);
        out.field("user", &self.user).field("sender", &self.sender).finish_non_exhaustive()
    }
}

/// `host:port`, where the host may be an IPv6 address in brackets.
fn split_port(server: &str) -> (&str, Option<&str>) {
    match server.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') && !port.is_empty() => (host, Some(port)),
        _ => (server, None),
    }
}

fn host(value: &str) -> Result<String> {
    let inner = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(value);
    let good = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    let ascii = if inner.is_ascii() { inner.to_owned() } else { idna::domain_to_ascii(inner).unwrap_or_default() };
    if ascii.is_empty() || ascii.len() > 253 || !ascii.chars().all(good) {
        return Err(Error::invalid("host: a mail server's host is a name or an address, such as smtp.example.org"));
    }
    Ok(ascii)
}

fn credential(key: &str, value: &str) -> Result<String> {
    if value.contains('\0') || value.len() > MAX_CREDENTIAL {
        return Err(Error::invalid(format!("{key}: it has at most {MAX_CREDENTIAL} bytes, and no NUL")));
    }
    Ok(value.to_owned())
}

fn positive(key: &str, value: &str) -> Result<Duration> {
    let duration = parse_duration(key, value)?;
    if duration.is_zero() { Err(Error::invalid(format!("{key} must not be zero"))) } else { Ok(duration) }
}

const MAX_CREDENTIAL: usize = 16 << 10;
/// How much of a server's text is kept.
const MAX_TEXT: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_server_and_login() {
        let options = MailerOptions::parse(
            "smtp://ann%40example.org:s%3Acret@mail.example.org:2525/?tls=none&sender=Shop%20%3Cshop@example.org%3E\
             &sender_name=Laden&timeout=5",
        )
        .unwrap();
        assert_eq!((options.host.as_str(), options.port()), ("mail.example.org", 2525));
        assert_eq!((options.user.as_str(), options.password.as_str()), ("ann@example.org", "s:cret"));
        assert_eq!((options.tls, options.timeout), (Tls::None, Duration::from_secs(5)));
        assert_eq!(options.defaults().unwrap().sender.unwrap().to_string(), "\"Laden\" <shop@example.org>");
        assert_eq!(MailerOptions::parse("smtp://h").unwrap().port(), 587);
        assert_eq!(MailerOptions::parse("smtps://[::1]").unwrap().host, "::1");
        assert_eq!(MailerOptions::parse("smtps://[::1]:1465").unwrap().port(), 1465);
        assert_eq!(MailerOptions::parse("smtps://h").unwrap().port(), 465);
        assert_eq!(MailerOptions::parse("smtp://h?tls=none").unwrap().port(), 25);
    }

    #[test]
    fn mistakes_are_named_without_the_password() {
        for (url, needle) in [
            ("", "smtp://"),
            ("mail.example.org", "smtp://"),
            ("http://u:s3cret@h", "smtp://"),
            ("smtp://u:s3cret@", "host"),
            ("smtp://u:s3cret@h:0", "port"),
            ("smtp://u:s3cret@h?tls=maybe", "required"),
            ("smtp://u:s3cret@h?colour=red", "'colour'"),
            ("smtp://u:s3cret@h?sender=nobody", "sender"),
            ("smtp://u:s3cret%0@h", "hexadecimal"),
            ("smtp://u:s3cret@h?timeout=0", "timeout"),
            ("smtp://u:s3cret@h\r\n", "host"),
        ] {
            let error = MailerOptions::parse(url).and_then(|options| options.defaults()).unwrap_err();
            assert!(error.message().contains(needle), "{url}: {error}");
            assert!(!format!("{error:?}").contains("s3cret"), "{url}");
        }
        let options = MailerOptions::parse("smtp://u:s3cret@h").unwrap();
        assert!(!format!("{options:?}").contains("s3cret"));
        let options = MailerOptions::parse("smtp://").unwrap().with("host", "h").unwrap().with("port", "26").unwrap();
        assert!(options.defaults().is_ok() && options.port() == 26);
    }

    #[test]
    fn a_server_that_repeats_the_password_is_not_repeated() {
        let options = MailerOptions::parse("smtp://u:s3cret@h").unwrap();
        let text = options.scrubbed("no: s3cret AHUAczNjcmV0 czNjcmV0\r\n");
        assert_eq!(text, "no: *** *** ***  ");
        // The same with something behind it, and without padding.
        let options = MailerOptions::parse("smtp://u:s3crets@h").unwrap();
        assert_eq!(options.scrubbed("czNjcmV0cyBhbmQ AHUAczNjcmV0cw, czNjcmV0cw== s3crets."), "*** ***, *** ***.");
        let options = MailerOptions::parse("smtp://u:ab@h").unwrap();
        assert_eq!(options.scrubbed("YWI= ab."), "*** ***.");
    }

    proptest::proptest! {
        #[test]
        fn parse_never_panics(url in "(smtps?://)?.*") {
            let _ = MailerOptions::parse(&url);
        }
    }
}
