//! `table-worker replica URL TABLE FILE` or `table-worker witness URL TABLE`: one process of a campaign. Ends with its
//! input.

use std::path::Path;
use std::process::ExitCode;

use coord_table_campaigns::worker::{replica, witness};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("table-worker: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = match words[..] {
        ["replica", url, table, file] => runtime.block_on(replica(url, table, Path::new(file))),
        ["witness", url, table, ..] => runtime.block_on(witness(url, table)),
        _ => {
            eprintln!("usage: table-worker replica URL TABLE FILE | witness URL TABLE");
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("table-worker: {error}");
            ExitCode::FAILURE
        }
    }
}
