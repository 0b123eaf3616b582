//! Who is measured inside this program: this project's lock, and the bare stores under it.

mod change_stream;
mod mongodb;
mod ours;
mod sqlite;

use coord_bench_worker::{Result, serve};
pub(crate) use mongodb::client as mongodb_client;

/// Becomes the worker of this subject, for as long as its standard input lasts.
///
/// # Errors
/// Those of connecting.
pub(crate) fn work(subject: &str, url: &str) -> Result<()> {
    match subject {
        "coord" => serve(ours::connect(url)),
        "sqlite-normal" => serve(sqlite::connect(url, sqlite::Synchronous::Normal)),
        "sqlite-full" => serve(sqlite::connect(url, sqlite::Synchronous::Full)),
        "mongodb-pair" => serve(mongodb::connect(url)),
        "mongodb-one" => serve(mongodb::connect_to_one(url)),
        "mongodb-lock" => serve(change_stream::connect(url)),
        _ => Err(format!("there is no subject '{subject}'").into()),
    }
}
