//! Who may use whom: the table of ARCHITECTURE.md as data. The document shows exactly these rows.

use crate::Violation;
use crate::paths::{self, Named};
use crate::tokens;

/// A part of `coord-core`: some modules, and what they may use.
#[derive(Debug)]
pub struct Room {
    /// What the table calls it.
    pub name: &'static str,
    /// Its modules, as paths below `crate`. The longest that matches decides.
    pub modules: &'static [&'static str],
    /// The other rooms that it may use.
    pub rooms: &'static [&'static str],
    /// The crates that it may use besides `std`.
    pub crates: &'static [&'static str],
    /// What it must never know, in words.
    pub never: &'static str,
}

/// The rooms of `coord-core`, from the ground up.
pub const ROOMS: [Room; 13] = [
    Room {
        name: "base",
        modules: &["error", "failpoints", "mutants", "name", "time"],
        rooms: &[],
        crates: &["fail", "serde", "thiserror", "rustix"],
        never: "anything above it",
    },
    Room {
        name: "protocol",
        modules: &["protocol"],
        rooms: &["base"],
        crates: &["bson", "serde", "sha2", "thiserror"],
        never: "async, clocks, randomness, the trait `Store`, a backend's types",
    },
    Room {
        name: "config",
        modules: &["config"],
        rooms: &["base", "protocol"],
        crates: &["serde"],
        never: "a store, the driver",
    },
    Room {
        name: "env",
        modules: &["env"],
        rooms: &["base", "protocol"],
        crates: &["tokio", "rustix"],
        never: "who uses it",
    },
    Room {
        name: "store",
        modules: &["store"],
        rooms: &["base", "protocol", "env"],
        crates: &["bson", "futures", "serde", "tokio", "tracing"],
        never: "a backend, or its crate",
    },
    Room {
        name: "memory",
        modules: &["store::memory"],
        rooms: &["base", "protocol", "config", "env", "store"],
        crates: &["bson", "futures", "once_cell", "tokio", "tracing"],
        never: "another backend, a concept",
    },
    Room {
        name: "sqlite",
        modules: &["store::sqlite"],
        rooms: &["base", "protocol", "config", "env", "store"],
        crates: &[
            "bson",
            "futures",
            "libc",
            "once_cell",
            "rusqlite",
            "rustix",
            "serde",
            "serde_json",
            "tokio",
            "tracing",
        ],
        never: "another backend, a concept",
    },
    Room {
        name: "mongodb",
        modules: &["store::mongodb"],
        rooms: &["base", "protocol", "config", "env", "store"],
        crates: &["bson", "futures", "mongodb", "once_cell", "rustix", "serde", "sha2", "tokio", "tracing"],
        never: "another backend, a concept",
    },
    Room {
        name: "driver",
        modules: &["driver"],
        rooms: &["base", "protocol", "config", "env", "store"],
        crates: &["futures", "libc", "once_cell", "rustix", "tokio", "tracing"],
        never: "a concept, a backend",
    },
    Room {
        name: "session",
        modules: &["session", "claims", "stats"],
        rooms: &["base", "protocol", "config", "env", "store", "driver"],
        crates: &["futures", "libc", "once_cell", "rustix", "serde", "serde_json", "tokio", "tracing"],
        never: "a backend, a concept that it carries",
    },
    Room {
        name: "client",
        modules: &["client", "testing"],
        rooms: &[
            "base", "protocol", "config", "env", "store", "memory", "sqlite", "mongodb", "driver", "session",
            "concepts",
        ],
        crates: &["futures", "once_cell", "tokio", "tracing"],
        never: "a domain rule. It is the only one that names the backends",
    },
    Room {
        name: "concepts",
        modules: &["acquire", "lock", "election", "owner", "provider", "observer", "table", "reconciler"],
        rooms: &["base", "protocol", "config", "env", "store", "driver", "session", "client"],
        crates: &["bson", "futures", "once_cell", "serde", "serde_json", "tokio", "tracing"],
        never: "a backend, spawning by itself, another concept's inside",
    },
    Room {
        name: "mail",
        modules: &["mail"],
        rooms: &["base", "protocol", "config", "env", "store", "driver", "session", "client"],
        crates: &[
            "base64",
            "bson",
            "futures",
            "idna",
            "lettre",
            "mime_guess",
            "rustix",
            "serde_json",
            "sha2",
            "tokio",
            "tracing",
        ],
        never: "a backend, spawning by itself, another concept's inside",
    },
];

/// A thing that only some modules may name.
#[derive(Debug)]
pub struct Reserved {
    /// The paths.
    pub paths: &'static [&'static str],
    /// The modules that may.
    pub to: &'static [&'static str],
    /// Why.
    pub why: &'static str,
}

/// What only some modules may name, whatever their room.
pub const RESERVED: [Reserved; 3] = [
    Reserved {
        paths: &[
            "std::time::SystemTime",
            "std::time::Instant",
            "std::time::UNIX_EPOCH",
            "tokio::time::Instant",
            "rustix::time::clock_gettime",
            "libc::clock_gettime",
        ],
        // The suite's patience with the store under test is a test's own time, not the protocol's.
        to: &["time", "store::conformance"],
        why: "only `time` reads a clock; take the `Clock` from the `Env`",
    },
    Reserved {
        paths: &["tokio::spawn", "tokio::task", "tokio::runtime"],
        to: &["env", "driver"],
        why: "only the driver spawns; take the `Spawn` from the `Env`",
    },
    Reserved {
        paths: &["tokio::signal", "tokio::process"],
        to: &[],
        why: "the host program's signals and children are not ours",
    },
];

/// A crate outside of core that may use only core's public face.
#[derive(Debug)]
pub struct Skin {
    /// Its folder.
    pub folder: &'static str,
    /// The paths that it must not name.
    pub never: &'static [&'static str],
}

/// The languages' crates.
pub const SKINS: [Skin; 2] = [
    Skin { folder: "ffi", never: &["coord_core::protocol", "coord_core::store", "mongodb", "rusqlite", "pyo3"] },
    Skin {
        folder: "python",
        never: &["coord_core::protocol", "coord_core::store", "mongodb", "rusqlite", "coord_ffi"],
    },
];

const SEE: &str = "see \"Who may use whom\" in ARCHITECTURE.md";

/// Checks one file of `coord-core`, given by its path below `core/src`.
pub fn check_core(file: &str, text: &str) -> Vec<Violation> {
    let module = paths::module_of(file);
    let inside = module.join("::");
    let Some(room) = room_of(&inside) else {
        // The crate's face shows everything.
        let known = module.is_empty();
        let message = format!("`{inside}` is in no room of the table; {SEE}");
        return (!known).then(|| Violation { file: core_file(file), line: 1, message }).into_iter().collect();
    };
    let found = paths::named(&module, &tokens::product(text), &known_crates());
    let mut violations: Vec<Violation> = found
        .iter()
        .filter_map(|named| objection(room, named).or_else(|| reservation(&inside, named)).map(|m| (named.line, m)))
        .map(|(line, message)| Violation { file: core_file(file), line, message: format!("{message}; {SEE}") })
        .collect();
    violations.dedup();
    violations
}

/// Checks one file of a language's crate.
pub fn check_skin(skin: &Skin, file: &str, text: &str) -> Vec<Violation> {
    let mut crates = known_crates();
    crates.extend(["coord_core", "coord_ffi", "pyo3"]);
    let module = file.split_once("/src/").map_or_else(Vec::new, |(_, below)| paths::module_of(below));
    let mut violations: Vec<Violation> = paths::named(&module, &tokens::product(text), &crates)
        .iter()
        .filter(|named| skin.never.iter().any(|path| named.is_within(path)))
        .map(|named| Violation {
            file: file.to_owned(),
            line: named.line,
            message: format!("`{}` must not use `{}`, only core's public face; {SEE}", skin.folder, text_of(named)),
        })
        .collect();
    violations.dedup();
    violations
}

/// The modules below `core/src` that only tests see, as prefixes of paths: found in the file that declares them.
pub fn test_files(file: &str, text: &str) -> Vec<String> {
    let module = paths::module_of(file).join("/");
    let prefix = if module.is_empty() { String::new() } else { format!("{module}/") };
    tokens::product(text).test_modules.iter().map(|name| format!("{prefix}{name}")).collect()
}

/// The table of ARCHITECTURE.md.
pub fn table() -> String {
    let mut lines =
        vec!["| Room | Modules | May use | Crates | Never |".to_owned(), "|---|---|---|---|---|".to_owned()];
    for room in &ROOMS {
        lines.push(format!(
            "| {} | {} | {} | {} | {} |",
            room.name,
            quoted(room.modules),
            if room.rooms.is_empty() { "nothing of ours".to_owned() } else { room.rooms.join(", ") },
            quoted(room.crates),
            room.never
        ));
    }
    lines.join("\n")
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn room_of(path: &str) -> Option<&'static Room> {
    let within = |module: &str| path == module || path.strip_prefix(module).is_some_and(|rest| rest.starts_with("::"));
    ROOMS
        .iter()
        .flat_map(|room| room.modules.iter().map(move |module| (module, room)))
        .filter(|(module, _)| within(module))
        .max_by_key(|(module, _)| module.len())
        .map(|(_, room)| room)
}

fn objection(room: &Room, named: &Named) -> Option<String> {
    let (first, rest) = named.segments.split_first()?;
    if first != "crate" {
        let free = ["std", "core", "alloc"].contains(&first.as_str()) || room.crates.contains(&first.as_str());
        return (!free).then(|| format!("`{}` must not use the crate `{first}`", room.name));
    }
    // `use super::*` at the top of a room names the crate itself.
    let Some(used) = room_of(&rest.join("::")) else {
        return (!rest.is_empty())
            .then(|| format!("`{}` is in no room; name the module where it is defined", text_of(named)));
    };
    let allowed = used.name == room.name || room.rooms.contains(&used.name);
    (!allowed).then(|| format!("`{}` must not use `{}` ({})", room.name, used.name, text_of(named)))
}

fn reservation(inside: &str, named: &Named) -> Option<String> {
    let reserved = RESERVED.iter().find(|reserved| reserved.paths.iter().any(|path| named.is_within(path)))?;
    let may = |module: &&str| inside == *module || inside.starts_with(&format!("{module}::"));
    (!reserved.to.iter().any(may)).then(|| format!("`{}` is not for `{inside}`: {}", text_of(named), reserved.why))
}

fn known_crates() -> Vec<&'static str> {
    let mut crates: Vec<_> = ROOMS.iter().flat_map(|room| room.crates).copied().collect();
    crates.extend(["std", "core", "alloc"]);
    crates.sort_unstable();
    crates.dedup();
    crates
}

fn core_file(file: &str) -> String {
    format!("core/src/{file}")
}

fn text_of(named: &Named) -> String {
    named.segments.join("::")
}
