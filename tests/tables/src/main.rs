//! `coord-table-campaigns everything MINUTES DOCUMENTS [SEED]` and `coord-table-campaigns shards sqlite|mongodb MINUTES
//! [SEED]` run a campaign and print what was found. They fail on violations, and where there was too little to find.
//!
//! The writer is the program in `COORD_TABLE_WRITER`, the reconcilers are Rust's and those in `COORD_TABLE_WORKER_C`,
//! `…_GO` and `…_PYTHON`; each may have arguments, between spaces. README.md says what they do.

#![expect(clippy::print_stdout, reason = "this program's output")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use coord_table_campaigns::{check, everything, shards};
use coord_tests::servers;

const USAGE: &str =
    "usage: coord-table-campaigns everything MINUTES DOCUMENTS [SEED] | shards sqlite|mongodb MINUTES [SEED]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match words[..] {
        ["everything", minutes, documents] => everything(minutes, documents, "1"),
        ["everything", minutes, documents, seed] => everything(minutes, documents, seed),
        ["shards", store @ ("sqlite" | "mongodb"), minutes] => shards(store, minutes, "1"),
        ["shards", store @ ("sqlite" | "mongodb"), minutes, seed] => shards(store, minutes, seed),
        _ => Err(USAGE.to_owned()),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("coord-table-campaigns: {message}");
            ExitCode::from(2)
        }
    }
}

fn everything(minutes: &str, documents: &str, seed: &str) -> Result<bool, String> {
    let writer = command("COORD_TABLE_WRITER").ok_or("COORD_TABLE_WRITER names no program that writes")?;
    let mut workers = vec![("rust".to_owned(), vec![program()?.display().to_string(), "witness".to_owned()])];
    for language in ["C", "GO", "PYTHON"] {
        match command(&format!("COORD_TABLE_WORKER_{language}")) {
            Some(command) => workers.push((language.to_lowercase(), command)),
            None => servers::skip(&format!("COORD_TABLE_WORKER_{language} names no reconciler")),
        }
    }
    let plan = everything::Plan {
        folder: folder("everything"),
        length: minutes_of(minutes)?,
        documents: documents.parse().map_err(|_| format!("'{documents}' is not a number of documents"))?,
        seed: seed_of(seed)?,
        writer,
        workers,
    };
    let findings = everything::run(&plan).map_err(|error| error.to_string())?.ok_or("there is no mongod")?;
    println!("{findings:#?}");
    clean(&plan.folder, findings.violations.is_empty());
    let tried = findings.writes > 0 && findings.downs > 0 && findings.kills > 0 && findings.rollovers > 0;
    Ok(findings.violations.is_empty() && tried)
}

fn shards(store: &str, minutes: &str, seed: &str) -> Result<bool, String> {
    let folder = folder(store);
    let ttl = Duration::from_secs(if store == "sqlite" { 3 } else { 5 });
    let seconds = ttl.as_secs();
    let url = match store {
        "sqlite" => format!("sqlite:///{}/coord.db?coord.ttl={seconds}s", folder.display()),
        _ => {
            let uri = servers::shared_uri().ok_or("there is no mongod")?;
            let separator = if uri.contains('?') { '&' } else { '?' };
            format!("{uri}{separator}coord.prefix=shards{}_&coord.ttl={seconds}s", std::process::id())
        }
    };
    let plan = shards::Plan {
        folder,
        url,
        ttl,
        length: minutes_of(minutes)?,
        seed: seed_of(seed)?,
        program: program()?,
        replicas: 4,
    };
    println!("shards on {store}: {minutes} minutes, seed {seed}, histories in {}", plan.folder.display());
    let findings: check::Findings = shards::run(&plan).map_err(|error| error.to_string())?;
    println!("{findings:#?}");
    clean(&plan.folder, findings.violations.is_empty());
    Ok(findings.violations.is_empty() && findings.moves > 0 && findings.writes > 0)
}

/// What is left is only of use after a violation.
fn clean(folder: &PathBuf, good: bool) {
    if good {
        let _ = std::fs::remove_dir_all(folder);
    }
}

fn program() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    Ok(own.with_file_name("table-worker"))
}

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("coord-tables-{}-{name}", std::process::id()))
}

fn command(variable: &str) -> Option<Vec<String>> {
    let words: Vec<String> = std::env::var(variable).ok()?.split_whitespace().map(str::to_owned).collect();
    (!words.is_empty()).then_some(words)
}

fn minutes_of(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| format!("'{text}' is not a number of minutes"))?;
    Duration::try_from_secs_f64(minutes * 60.0).map_err(|error| error.to_string())
}

fn seed_of(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("'{text}' is not a seed"))
}
