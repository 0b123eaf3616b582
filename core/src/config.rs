//! The connection URL and its options, parsed once. The same options are set in a URL (`coord.ttl=30s`), by name
//! from C, Go and Python, and by the methods of [`Options`] in Rust; what is set in code wins over the URL.
//!
//! | option | value | default | meaning |
//! |---|---|---|---|
//! | `ttl` | duration | 30 s on MongoDB, else 10 s | how long others wait before they may declare this client dead |
//! | `stop_margin` | duration | 0 | how much earlier than it must this client stops believing in its holds |
//! | `name` | text | empty | the owner's name, for people |
//! | `label.KEY` | text | none | a label of the owner; at most 32 of 256 bytes |
//! | `namespace` | part of a name | `default` | first part of names given without one |
//! | `scope` | part of a name | `default` | second part of names given without one |
//! | `max_queue` | 1 to 1000 | 256 | how many may wait for one lock |
//! | `host_liveness` | `auto`, `off` | `auto` | whether a kernel lock may prove the death of a process on this host |
//! | `durability` | `normal`, `full` | `normal` | SQLite: whether coordination survives a power loss |
//! | `prefix` | part of a name | `coord_` | MongoDB: what the names of our collections begin with |
//! | `pool` | 2 to 1000 | 100 | MongoDB: the most connections for everything but renewals |
//! | `close_timeout` | duration | 3 s | Python: how long `close` may take, if it is not told, and the exit of the process |
//! | `clock` | `system`, `manual` | `system` | memory: whether time stands still until a test moves it (see [`crate::testing`]) |
//!
//! A duration is a number with `ms`, `s`, `m` or `h`; without a unit it is seconds. What is said of one store is
//! accepted on the others, too, and does nothing there; only `clock` is refused. In other languages than Python `close`
//! is told how long it may take.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::name::check_part;
use crate::protocol::claim::MAX_QUEUE;
use crate::protocol::session::Timing;

/// The environment variable that is read when no URL is given.
pub const URL_VARIABLE: &str = "COORD_URL";

/// The ttl of a session on a store of one machine.
pub const TTL_ONE_MACHINE: Duration = Duration::from_secs(10);

/// The ttl of a session on MongoDB: electing a new primary takes 11 s after a kill and up to 20 s after a freeze in
/// a replica set with default settings, and no session should be suspended by that.
pub const TTL_REPLICA_SET: Duration = Duration::from_secs(30);

const MAX_LABELS: usize = 32;
const MAX_LABEL_BYTES: usize = 256;
const MAX_NAME_BYTES: usize = 256;

/// Where the store is.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// In this process; shared by name unless the name is empty.
    Memory {
        /// The name.
        name: String,
    },
    /// In a file of this machine.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
    /// In a MongoDB replica set.
    MongoDb {
        /// The URI for the driver, our own options removed. Contains the password: never logged.
        uri: String,
    },
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

impl fmt::Display for Location {
    /// The location without credentials and options.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { name } => write!(f, "memory:{name}"),
            Self::Sqlite { path } => write!(f, "sqlite:///{}", path.display()),
            Self::MongoDb { uri } => f.write_str(&redacted(uri)),
        }
    }
}

/// Whether a kernel lock may prove the death of a process on the same host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostLiveness {
    /// Where the file system and the store allow it.
    #[default]
    Auto,
    /// Never: for hosts that close descriptors they do not own, or checkpoint processes.
    Off,
}

/// How durable coordination records are in SQLite. User data is always durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A power loss may undo the last moments; every holder on this machine is dead then too.
    #[default]
    Normal,
    /// Every commit is synced.
    Full,
}

/// What time a store in memory goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockKind {
    /// The machine's.
    #[default]
    System,
    /// One that stands still until a test moves it.
    Manual,
}

/// How to connect: a URL and options. Nothing is checked against the store before `connect`.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) location: Location,
    pub(crate) ttl: Option<Duration>,
    pub(crate) stop_margin: Duration,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) namespace: String,
    pub(crate) scope: String,
    pub(crate) max_queue: u32,
    pub(crate) host_liveness: HostLiveness,
    pub(crate) durability: Durability,
    pub(crate) prefix: String,
    pub(crate) pool: u32,
    pub(crate) close_timeout: Duration,
    pub(crate) clock: ClockKind,
}

impl Options {
    /// Parses a URL: `memory:`, `memory:name`, `sqlite:///relative.db`, `sqlite:////absolute.db`, `mongodb://…` or
    /// `mongodb+srv://…`, with options of ours as `coord.`-prefixed query parameters.
    ///
    /// # Errors
    /// `InvalidArgument` that says which part is wrong. The message never contains a password.
    pub fn parse(url: &str) -> Result<Self> {
        let (base, query) = match url.split_once('?') {
            Some((base, query)) => (base, query),
            None => (url, ""),
        };
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key.strip_prefix("coord.") {
                Some(key) => ours.push((key, percent_decode(value)?)),
                None => theirs.push(pair),
            }
        }
        let mut options = Self::at(parse_location(base, &theirs)?);
        for (key, value) in ours {
            options.set(key, &value)?;
        }
        Ok(options)
    }

    /// The URL in the variable `COORD_URL` if it is set, else the default file in the user's state directory
    /// (`$XDG_STATE_HOME/coord/coord.db`, or `~/.local/state/coord/coord.db`).
    ///
    /// # Errors
    /// `InvalidArgument` if the variable is not a URL, or if there is no home directory to put a file into.
    pub fn from_environment() -> Result<Self> {
        if let Some(url) = std::env::var_os(URL_VARIABLE) {
            let url = url.to_str().ok_or_else(|| Error::invalid(format!("{URL_VARIABLE} is not UTF-8")))?;
            return Self::parse(url);
        }
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .ok_or_else(|| {
                Error::invalid(format!("no URL was given, and neither {URL_VARIABLE}, XDG_STATE_HOME nor HOME is set"))
            })?;
        Ok(Self::at(Location::Sqlite { path: state.join("coord/coord.db") }))
    }

    fn at(location: Location) -> Self {
        Self {
            location,
            ttl: None,
            stop_margin: Duration::ZERO,
            name: String::new(),
            labels: BTreeMap::new(),
            namespace: "default".into(),
            scope: "default".into(),
            max_queue: 256,
            host_liveness: HostLiveness::Auto,
            durability: Durability::Normal,
            prefix: "coord_".into(),
            pool: 100,
            close_timeout: Duration::from_secs(3),
            clock: ClockKind::System,
        }
    }

    /// Sets one option by its name, as in a URL but without the prefix `coord.`.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no such option, or if the value is not in its range.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "ttl" => self.ttl = Some(parse_duration(key, value)?),
            "stop_margin" => self.stop_margin = parse_duration(key, value)?,
            "name" => self.name = bounded(key, value, MAX_NAME_BYTES)?,
            "namespace" => self.namespace = part(key, value)?,
            "scope" => self.scope = part(key, value)?,
            "max_queue" => self.max_queue = parse_number(key, value, 1, MAX_QUEUE)?,
            "host_liveness" => {
                self.host_liveness = choose(key, value, &[("auto", HostLiveness::Auto), ("off", HostLiveness::Off)])?;
            }
            "durability" => {
                self.durability = choose(key, value, &[("normal", Durability::Normal), ("full", Durability::Full)])?;
            }
            "prefix" => self.prefix = part(key, value)?,
            "pool" => self.pool = parse_number(key, value, 2, 1_000)?,
            "close_timeout" => self.close_timeout = parse_duration(key, value)?,
            "clock" => {
                self.clock = choose(key, value, &[("system", ClockKind::System), ("manual", ClockKind::Manual)])?;
                if self.clock == ClockKind::Manual && !matches!(self.location, Location::Memory { .. }) {
                    return Err(Error::invalid("only the memory store has a manual clock; it is for tests"));
                }
            }
            _ => match key.strip_prefix("label.") {
                Some(label) => self.set_label(label, value)?,
                None => {
                    return Err(Error::invalid(format!(
                        "there is no option '{}'; the options are ttl, stop_margin, name, label.KEY, namespace, scope, \
                         max_queue, host_liveness, durability, prefix, pool, close_timeout and clock",
                        key.chars().take(64).collect::<String>()
                    )));
                }
            },
        }
        self.timing().map(|_| ())
    }

    fn set_label(&mut self, label: &str, value: &str) -> Result<()> {
        if label.is_empty() || label.len() > MAX_LABEL_BYTES {
            return Err(Error::invalid(format!("the key of a label has 1 to {MAX_LABEL_BYTES} bytes")));
        }
        let value = bounded("a label", value, MAX_LABEL_BYTES)?;
        if self.labels.len() >= MAX_LABELS && !self.labels.contains_key(label) {
            return Err(Error::invalid(format!("a client has at most {MAX_LABELS} labels")));
        }
        self.labels.insert(label.to_owned(), value);
        Ok(())
    }

    /// Sets the time after which others may declare this client dead when it gives no sign of life.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not from 1 s to a day.
    pub fn ttl(mut self, ttl: Duration) -> Result<Self> {
        self.ttl = Some(ttl);
        self.timing()?;
        Ok(self)
    }

    /// Sets the owner's name, for people.
    ///
    /// # Errors
    /// `InvalidArgument` if it is longer than 256 bytes.
    pub fn name(mut self, name: &str) -> Result<Self> {
        self.set("name", name)?;
        Ok(self)
    }

    /// Adds a label to the owner.
    ///
    /// # Errors
    /// `InvalidArgument` if key or value is longer than 256 bytes, or if there are 32 labels already.
    pub fn label(mut self, key: &str, value: &str) -> Result<Self> {
        self.set_label(key, value)?;
        Ok(self)
    }

    /// Sets the namespace and the scope of names that are given without.
    ///
    /// # Errors
    /// `InvalidArgument` if one is not a valid part of a name.
    pub fn scope(mut self, namespace: &str, scope: &str) -> Result<Self> {
        self.set("namespace", namespace)?;
        self.set("scope", scope)?;
        Ok(self)
    }

    /// Where the store is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The timing of the session.
    pub(crate) fn timing(&self) -> Result<Timing> {
        let default = match self.location {
            Location::MongoDb { .. } => TTL_REPLICA_SET,
            _ => TTL_ONE_MACHINE,
        };
        Timing::new(self.ttl.unwrap_or(default), self.stop_margin).map_err(Error::invalid)
    }
}

fn parse_location(base: &str, theirs: &[&str]) -> Result<Location> {
    let refuse_options = |store: &str| match theirs.first() {
        None => Ok(()),
        Some(option) => {
            let key = option.split('=').next().unwrap_or_default();
            Err(Error::invalid(format!("a {store} URL has no option '{key}'; options of ours begin with 'coord.'")))
        }
    };
    if let Some(name) = base.strip_prefix("memory:") {
        refuse_options("memory")?;
        if !name.is_empty() {
            check_part(name)?;
        }
        return Ok(Location::Memory { name: name.into() });
    }
    if let Some(rest) = base.strip_prefix("sqlite:") {
        refuse_options("sqlite")?;
        let path = rest.strip_prefix("///").filter(|path| !path.is_empty() && *path != "/").ok_or_else(|| {
            Error::invalid("an SQLite URL is sqlite:///relative/file.db or sqlite:////absolute/file.db")
        })?;
        let path = percent_decode(path)?;
        if path.contains('\0') || path.ends_with('/') {
            return Err(Error::invalid("the path of an SQLite URL must name a file"));
        }
        return Ok(Location::Sqlite { path: path.into() });
    }
    if base.starts_with("mongodb://") || base.starts_with("mongodb+srv://") {
        let mut uri = base.to_owned();
        if !theirs.is_empty() {
            // The driver wants a slash between hosts and options, also where no database is named.
            let hosts = base.split_once("://").map_or("", |(_, hosts)| hosts);
            if !hosts.contains('/') {
                uri.push('/');
            }
            uri.push('?');
            uri.push_str(&theirs.join("&"));
        }
        return Ok(Location::MongoDb { uri });
    }
    let scheme: String = base.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '+').take(20).collect();
    Err(Error::invalid(format!(
        "a URL begins with memory:, sqlite:///, mongodb:// or mongodb+srv://, not with '{scheme}'"
    )))
}

/// A MongoDB URI without user, password and options.
fn redacted(uri: &str) -> String {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("mongodb", uri));
    let rest = rest.split('?').next().unwrap_or_default();
    let hosts = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
    format!("{scheme}://{hosts}")
}

pub(crate) fn parse_duration(key: &str, value: &str) -> Result<Duration> {
    let split = value.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(value.len());
    let (number, unit) = value.split_at(split);
    let scale = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    let seconds = number.parse::<f64>().unwrap_or(f64::NAN) * scale;
    // A hundred years: beyond it the clocks' own range would end.
    if !(0.0..=3_155_760_000.0).contains(&seconds) {
        return Err(Error::invalid(format!(
            "{key} is a duration such as 500ms, 30s, 5m or 1h, not '{}'",
            value.chars().take(32).collect::<String>()
        )));
    }
    Ok(Duration::from_secs_f64(seconds))
}

pub(crate) fn parse_number(key: &str, value: &str, min: u32, max: u32) -> Result<u32> {
    value.parse().ok().filter(|n| (min..=max).contains(n)).ok_or_else(|| {
        Error::invalid(format!(
            "{key} is a number from {min} to {max}, not '{}'",
            value.chars().take(32).collect::<String>()
        ))
    })
}

pub(crate) fn choose<T: Copy>(key: &str, value: &str, choices: &[(&str, T)]) -> Result<T> {
    choices.iter().find(|(name, _)| *name == value).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        Error::invalid(format!(
            "{key} is one of {}, not '{}'",
            names.join(", "),
            value.chars().take(32).collect::<String>()
        ))
    })
}

fn bounded(key: &str, value: &str, max: usize) -> Result<String> {
    if value.len() > max {
        return Err(Error::invalid(format!("{key} has at most {max} bytes; this one has {}", value.len())));
    }
    Ok(value.to_owned())
}

fn part(key: &str, value: &str) -> Result<String> {
    check_part(value).map_err(|error| Error::invalid(format!("{key}: {error}")))?;
    bounded(key, value, 100)
}

pub(crate) fn percent_decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()];
        let decoded = match digits {
            [Some(high), Some(low)] => char::from(high).to_digit(16).zip(char::from(low).to_digit(16)),
            _ => None,
        };
        let (high, low) =
            decoded.ok_or_else(|| Error::invalid("a '%' in a URL is followed by two hexadecimal digits"))?;
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| Error::invalid("a URL is UTF-8 after its percent signs are decoded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_their_store() {
        let at = |url| Options::parse(url).unwrap().location;
        assert_eq!(at("memory:"), Location::Memory { name: String::new() });
        assert_eq!(at("memory:shared"), Location::Memory { name: "shared".into() });
        assert_eq!(at("sqlite:///t.db"), Location::Sqlite { path: "t.db".into() });
        assert_eq!(at("sqlite:////var/t%20x.db"), Location::Sqlite { path: "/var/t x.db".into() });
        assert_eq!(
            at("mongodb://u:p@h1,h2/db?replicaSet=rs&coord.ttl=15s&w=1"),
            Location::MongoDb { uri: "mongodb://u:p@h1,h2/db?replicaSet=rs&w=1".into() }
        );
        assert_eq!(at("mongodb://h?w=1"), Location::MongoDb { uri: "mongodb://h/?w=1".into() });
    }

    #[test]
    fn options_come_from_the_url() {
        let options = Options::parse("memory:?coord.ttl=2500ms&coord.label.zone=a%26b&coord.max_queue=3").unwrap();
        assert_eq!(options.ttl, Some(Duration::from_millis(2500)));
        assert_eq!(options.labels["zone"], "a&b");
        assert_eq!(options.max_queue, 3);
    }

    #[test]
    fn mistakes_are_named() {
        for (url, needle) in [
            ("", "begins with"),
            ("redis://h", "'redis'"),
            ("sqlite:t.db", "sqlite:///"),
            ("sqlite:///", "sqlite:///"),
            ("sqlite:///d/", "name a file"),
            ("sqlite:///t.db?mode=ro", "'mode'"),
            ("memory:a b", "' '"),
            ("memory:?coord.tll=3", "'tll'"),
            ("memory:?coord.ttl=0.5", "1 s"),
            ("memory:?coord.ttl=-1", "duration"),
            ("memory:?coord.ttl=1e99", "duration"),
            ("memory:?coord.pool=1", "2 to 1000"),
            ("memory:?coord.durability=maybe", "normal, full"),
            ("memory:?coord.stop_margin=9s", "stop margin"),
            ("memory:?coord.name=%zz", "hexadecimal"),
            ("memory:?coord.clock=broken", "system, manual"),
            ("sqlite:///t.db?coord.clock=manual", "memory store"),
        ] {
            let error = Options::parse(url).unwrap_err();
            assert!(error.message().contains(needle), "{url}: {error}");
        }
    }

    #[test]
    fn a_location_never_shows_its_password() {
        let location = Options::parse("mongodb://user:s3cret@h1:1,h2:2/db?authSource=x").unwrap().location;
        assert_eq!(location.to_string(), "mongodb://h1:1,h2:2/db");
        assert!(!format!("{location:?}").contains("s3cret"));
        let error = Options::parse("mongo://user:s3cret@h").unwrap_err();
        assert!(!format!("{error:?}").contains("s3cret"));
    }

    proptest::proptest! {
        #[test]
        fn parse_never_panics(url in "(memory:|sqlite:///|mongodb://)?.*") {
            let _ = Options::parse(&url);
        }
    }
}
