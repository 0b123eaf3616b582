//! URLs and options: an error or options, and the password in neither.

use std::time::Duration;

use coord_core::config::Options;

use crate::input::Input;

/// What URLs are made of.
pub const WORDS: &[&str] = &[
    "mongodb://",
    "mongodb+srv://",
    "sqlite:///",
    "sqlite:////tmp/",
    "memory:",
    "localhost:27017",
    "127.0.0.1",
    "[::1]",
    "@",
    ":",
    "/",
    "?",
    "&",
    "=",
    "%",
    "%40",
    "%2F",
    "%00",
    ",",
    "#",
    "coord.",
    "ttl=",
    "30s",
    "500ms",
    "1h",
    "name=",
    "label.a=",
    "labels=",
    "namespace=",
    "scope=",
    "max_queue=",
    "host_liveness=off",
    "durability=full",
    "prefix=",
    "pool=",
    "close_timeout=",
    "stop_margin=",
    "replicaSet=rs",
    "tls=true",
    "authMechanism=",
    "authMechanismProperties=",
    "tlsCertificateKeyFilePassword=",
    "authSource=admin",
    "w=1",
    PASSWORD,
];

/// A password that must not be told.
const PASSWORD: &str = "s3cretPassw0rd";

const KEYS: [&str; 12] = [
    "ttl",
    "stop_margin",
    "name",
    "labels",
    "namespace",
    "scope",
    "max_queue",
    "host_liveness",
    "durability",
    "prefix",
    "pool",
    "close_timeout",
];

/// Parses, sets, and looks at what is shown.
pub fn play(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.below(3);
    if kind == 0 {
        return with_password(&mut input);
    }
    if kind == 1 {
        let Ok(mut options) = Options::parse("memory:") else { return };
        while !input.is_empty() {
            let key = match input.below(KEYS.len() + 1) {
                known if known < KEYS.len() => KEYS[known].to_owned(),
                _ => input.text(),
            };
            let _ = options.set(&key, &input.text());
        }
        let ttl = Duration::from_nanos(input.number().unsigned_abs());
        let _ = options.clone().ttl(ttl);
        let _ = options.clone().name(&input.text());
        let _ = options.clone().label(&input.text(), &input.text());
        let _ = options.clone().scope(&input.text(), &input.text());
        let _ = format!("{options:?}");
        return;
    }
    let text = String::from_utf8_lossy(input.rest());
    match Options::parse(&text) {
        Ok(options) => drop(format!("{options:?} {}", options.location())),
        Err(error) => drop(format!("{error:?} {error}")),
    }
}

/// A URL of MongoDB with a password in the place of one.
fn with_password(input: &mut Input<'_>) {
    let scheme = ["mongodb://", "mongodb+srv://"][input.below(2)];
    // An '@' or ':' of the user's own would move the password to another place.
    let user: String = input.text().chars().filter(|c| !"@:/?#".contains(*c)).collect();
    let rest = String::from_utf8_lossy(input.rest()).into_owned();
    if rest.contains(PASSWORD) {
        return;
    }
    let url = format!("{scheme}{user}:{PASSWORD}@{rest}");
    let shown = match Options::parse(&url) {
        Ok(options) => format!("{options:?} {} {:?}", options.location(), options.location()),
        Err(error) => format!("{error:?} {error}"),
    };
    assert!(!shown.contains(PASSWORD), "the password of {url:?} is shown: {shown}");
}
