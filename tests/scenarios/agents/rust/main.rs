//! The Rust agent: takes one command a line from the conductor, and answers with one line. README.md of the scenarios
//! has the words.

mod actor;
mod contest;
mod elections;
mod reconcilers;
mod reply;
mod services;
mod tables;

use std::io::{BufRead, Write};
use std::process::ExitCode;

use coord_scenarios::words::Words;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("coord-agent: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut actor = actor::Actor::default();
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let answer = match Words::parse(&line) {
            Ok(command) => runtime.block_on(actor.answer(&command)),
            Err(error) => reply::fail(&error),
        };
        if writeln!(output, "{answer}").and_then(|()| output.flush()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    runtime.block_on(actor.end());
    ExitCode::SUCCESS
}
