//! `coord-fuzz all SECONDS [SEED]` plays every target for so long, two at a time, each in a process of its own;
//! `coord-fuzz TARGET SECONDS [SEED]` one; `coord-fuzz TARGET FILE` plays one file.
//!
//! An input that panics, kills the process or does not come to an end is left in `target/fuzz`.

#![expect(clippy::print_stdout, reason = "this program's output")]
#![allow(clippy::disallowed_methods, reason = "a test is a program of its own")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coord_fuzz::mutate::{Random, input};
use coord_fuzz::{TARGETS, Target};

/// One input may take this long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let seed_of = |text: &str| text.parse::<u64>().ok();
    match words[..] {
        ["all", seconds] => all(seconds, &fresh_seed()),
        ["all", seconds, seed] => all(seconds, seed),
        [name, what] => match (find(name), what.parse::<u64>()) {
            (Some(target), Ok(seconds)) => play(target, seconds, fresh_seed().parse().unwrap_or(1)),
            (Some(target), Err(_)) => one(target, Path::new(what)),
            (None, _) => usage(),
        },
        [name, seconds, seed] => match (find(name), seconds.parse::<u64>(), seed_of(seed)) {
            (Some(target), Ok(seconds), Some(seed)) => play(target, seconds, seed),
            _ => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    eprintln!("usage: coord-fuzz all|TARGET SECONDS [SEED] | TARGET FILE; targets: {}", names.join(", "));
    ExitCode::from(2)
}

fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

fn fresh_seed() -> String {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    time.as_secs().to_string()
}

fn all(seconds: &str, seed: &str) -> ExitCode {
    let Ok(program) = std::env::current_exe() else { return ExitCode::FAILURE };
    let left = Mutex::new(TARGETS.iter().collect::<Vec<_>>());
    let failed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(target) = left.lock().unwrap_or_else(PoisonError::into_inner).pop() else { return };
                    let status = Command::new(&program).args([target.name, seconds, seed]).status();
                    if !status.as_ref().is_ok_and(|status| status.success()) {
                        println!("{}: FAILED ({status:?}); the input is in {}", target.name, current(target).display());
                        failed.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("{} passed, {failed} failed", TARGETS.len() as u64 - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Where the input that is being played is, until it has ended well.
fn current(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fuzz").join(target.name)
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.sort();
    files.iter().filter_map(|file| std::fs::read(file).ok()).collect()
}

/// A panic anywhere ends the process, also one that somebody would catch.
fn end_with_every_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        std::process::exit(101);
    }));
}

fn one(target: &Target, file: &Path) -> ExitCode {
    end_with_every_panic();
    match std::fs::read(file) {
        Ok(bytes) => (target.play)(&bytes),
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn play(target: &Target, seconds: u64, seed: u64) -> ExitCode {
    end_with_every_panic();
    let path = current(target);
    let kept = path.parent().map(std::fs::create_dir_all).transpose().and_then(|_| File::create(&path));
    let file = kept.expect("a file for the input under target/fuzz");
    let played = Arc::new(AtomicU64::new(0));
    watch(target.name, Arc::clone(&played));
    let corpus = corpus(target);
    let mut random = Random::new(seed);
    let begun = Instant::now();
    let mut bytes_played = 0;
    let mut next = corpus.clone().into_iter();
    while let Some(bytes) = next
        .next()
        .or_else(|| (begun.elapsed() < Duration::from_secs(seconds)).then(|| input(&mut random, &corpus, target.words)))
    {
        file.write_all_at(&bytes, 0).and_then(|()| file.set_len(bytes.len() as u64)).expect("the input can be kept");
        (target.play)(&bytes);
        bytes_played += bytes.len();
        played.fetch_add(1, Relaxed);
    }
    println!(
        "{}: {} inputs of {} in the corpus and seed {seed}, {bytes_played} bytes, in {:.0} s",
        target.name,
        played.load(Relaxed),
        corpus.len(),
        begun.elapsed().as_secs_f64()
    );
    let _ = std::fs::remove_file(&path);
    ExitCode::SUCCESS
}

/// Ends the process when one input takes too long.
fn watch(name: &'static str, played: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let mut seen = u64::MAX;
        loop {
            let now = played.load(Relaxed);
            if now == seen {
                eprintln!("{name}: an input has not come to an end within {} s", PATIENCE.as_secs());
                std::process::exit(102);
            }
            seen = now;
            std::thread::sleep(PATIENCE);
        }
    });
}
