//! `table-worker replica|witness URL TABLE FILE`: one process of a campaign. Ends with its input.

use std::path::Path;
use std::process::ExitCode;

use coord_table_campaigns::worker::{replica, witness};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, url, table, file] = &arguments[..] else {
        eprintln!("usage: table-worker replica|witness URL TABLE FILE");
        return ExitCode::from(2);
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("table-worker: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        match kind.as_str() {
            "replica" => replica(url, table, Path::new(file)).await,
            _ => witness(url, table, Path::new(file)).await,
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("table-worker: {error}");
            ExitCode::FAILURE
        }
    }
}
