//! The import rules hold, and would be missed if they did not.

use coord_architecture::rules::{SKINS, check_core, check_skin, table, test_files};
use coord_architecture::{Violation, golang, report, tree};

#[test]
fn core_keeps_the_rules() {
    let files: Vec<(String, String)> = tree::sources("core/src", &["rs"])
        .into_iter()
        .map(|(path, text)| (path["core/src/".len()..].to_owned(), text))
        .collect();
    assert!(files.len() > 15, "core's sources were not found");
    let tests: Vec<String> = files.iter().flat_map(|(path, text)| test_files(path, text)).collect();
    let of_tests =
        |path: &str| tests.iter().any(|test| path == format!("{test}.rs") || path.starts_with(&format!("{test}/")));
    let violations: Vec<Violation> =
        files.iter().filter(|(path, _)| !of_tests(path)).flat_map(|(path, text)| check_core(path, text)).collect();
    assert!(violations.is_empty(), "{}", report(&violations));
}

#[test]
fn the_languages_crates_keep_the_rules() {
    for skin in &SKINS {
        let folder = format!("{}/src", skin.folder);
        let violations: Vec<Violation> =
            tree::sources(&folder, &["rs"]).iter().flat_map(|(path, text)| check_skin(skin, path, text)).collect();
        assert!(violations.is_empty(), "{}", report(&violations));
    }
}

#[test]
fn go_keeps_the_rules() {
    let sources = tree::sources("go", &["go"]);
    if sources.is_empty() {
        return;
    }
    let go_mod = tree::text("go/go.mod");
    let module = golang::module_path(&go_mod).expect("go.mod names the module");
    assert_eq!(golang::required(&go_mod), [golang::DEPENDENCY], "the Go module has one dependency");
    let violations: Vec<Violation> =
        sources.iter().flat_map(|(path, text)| golang::check(path, text, module)).collect();
    assert!(violations.is_empty(), "{}", report(&violations));
}

#[test]
fn the_document_shows_the_table() {
    let expected = table();
    assert!(
        tree::text("ARCHITECTURE.md").contains(&expected),
        "ARCHITECTURE.md must show the rules that are checked; its table is:\n\n{expected}\n"
    );
}

/// Each is a file of core, a source that breaks one rule, and what the message must say.
const PLANTED: [(&str, &str, &str); 22] = [
    ("protocol/claim.rs", "use crate::store::Store;", "`protocol` must not use `store`"),
    ("protocol/claim.rs", "use tokio::sync::Notify;", "must not use the crate `tokio`"),
    ("protocol/claim.rs", "fn f() { mongodb::bson::doc!{} }", "must not use the crate `mongodb`"),
    ("protocol/session.rs", "use std::time::{Duration, Instant};", "only `time` reads a clock"),
    ("protocol/session.rs", "fn f() { std::time::SystemTime::now(); }", "only `time` reads a clock"),
    ("protocol/session.rs", "use std::time; fn f() { time::Instant::now(); }", "only `time` reads a clock"),
    ("protocol/claim/steps.rs", "use super::super::super::env::Env;", "`protocol` must not use `env`"),
    ("error.rs", "use crate::protocol::claim::Entry;", "`base` must not use `protocol`"),
    ("config.rs", "use crate::store::SharedStore;", "`config` must not use `store`"),
    ("store/mod.rs", "pub mod sqlite; fn f() { sqlite::open() }", "`store` must not use `sqlite`"),
    ("store/mod.rs", "use mongodb::bson::Document;", "must not use the crate `mongodb`"),
    ("store/sqlite/mod.rs", "use super::memory::MemoryStore;", "`sqlite` must not use `memory`"),
    ("store/sqlite/mod.rs", "use crate::lock::Lock;", "`sqlite` must not use `concepts`"),
    ("store/mongodb/stream.rs", "fn f() { tokio::spawn(async {}); }", "only the driver spawns"),
    ("store/mongodb/stream.rs", "use tokio::{sync, task::spawn_blocking};", "only the driver spawns"),
    ("driver/queue.rs", "use crate::session::Session;", "`driver` must not use `session`"),
    ("session/mod.rs", "use crate::store; fn f() { store::mongodb::open(); }", "`session` must not use `mongodb`"),
    ("session/mod.rs", "mod a { use super::super::lock::Held; }", "`session` must not use `concepts`"),
    ("lock.rs", "use crate::store::{Store, memory::MemoryStore};", "`concepts` must not use `memory`"),
    ("lock.rs", "use crate::MemoryStore;", "is in no room"),
    ("lock.rs", "fn f() { tokio::signal::ctrl_c(); }", "not ours"),
    ("surprise.rs", "", "is in no room"),
];

#[test]
fn a_planted_violation_is_found() {
    for (file, source, expected) in PLANTED {
        let found = report(&check_core(file, &format!("\n{source}\n")));
        assert!(found.contains(expected), "{file}: {source}\nexpected: {expected}\nfound: {found}");
        let line = if source.is_empty() { ":1:" } else { ":2:" };
        assert!(found.contains(line) && found.contains("ARCHITECTURE.md"), "{found}");
    }
}

#[test]
fn what_is_allowed_is_not_reported() {
    for (file, source) in [
        ("lib.rs", "pub mod lock; pub use lock::Held; pub use store::memory::MemoryStore;"),
        ("client.rs", "use crate::store::mongodb::MongoStore; use crate::lock::Lock;"),
        (
            "protocol/claim.rs",
            "// use tokio::spawn\n#[cfg(test)] mod tests { use proptest::prelude::*; use crate::env::Env; }",
        ),
        ("protocol/claim.rs", "fn f() -> &'static str { \"tokio::spawn\" }"),
        ("store/sqlite/writer.rs", "use super::super::{Applied, Store}; use super::schema; use rusqlite::Connection;"),
        ("time.rs", "use std::time::SystemTime;"),
        ("driver/runtime.rs", "use tokio::runtime::Builder;"),
    ] {
        assert_eq!(report(&check_core(file, source)), "", "{file}: {source}");
    }
}

#[test]
fn a_skin_that_reaches_inside_is_found() {
    let [ffi, python] = &SKINS;
    let found = |skin, source: &str| report(&check_skin(skin, "ffi/src/lock.rs", source));
    assert!(found(ffi, "use coord_core::store::Store;").contains("only core's public face"));
    assert!(found(ffi, "fn f() { coord_core::protocol::claim::f() }").contains("only core's public face"));
    assert!(found(python, "use {coord_core as core}; fn f() { core::store::f() }").contains("only core's public face"));
    assert_eq!(found(ffi, "use coord_core::{Client, lock::Lock}; use crate::store::Handle;"), "");
}
