//! Many grants in a row: rounds under a lock that leave a trace in a file, and cancels that race grants.

use std::fs;

use coord_core::error::Result;
use coord_core::lock::Lock;
use coord_scenarios::words::Words;

use crate::reply;

/// Takes the lock this many times, and each time counts one up in a file, in two steps that another one between them
/// would spoil. The file has the count and the token of the last who wrote; a token from before must not follow.
pub(crate) async fn rounds(lock: &Lock, rounds: u32, file: &str) -> std::result::Result<Words, String> {
    for _ in 0..rounds {
        let held = lock.acquire().await.map_err(|error| error.to_string())?;
        let (count, last) = read(file)?;
        tokio::task::yield_now().await;
        if last >= held.token() {
            return Err(format!("token {last} has written before token {}", held.token()));
        }
        held.check().map_err(|error| error.to_string())?;
        fs::write(file, format!("{} {}\n", count + 1, held.token())).map_err(|error| format!("{file}: {error}"))?;
        held.release().await.map_err(|error| error.to_string())?;
    }
    Ok(reply::ok())
}

fn read(file: &str) -> std::result::Result<(u64, i64), String> {
    let Ok(text) = fs::read_to_string(file) else { return Ok((0, 0)) };
    let numbers =
        text.trim().split_once(' ').and_then(|(count, token)| Some((count.parse().ok()?, token.parse().ok()?)));
    numbers.ok_or_else(|| format!("{file}: '{text}' is not two numbers, so two have written at once"))
}

/// Lets a release and a cancel of the next waiter happen at the same time, this many times. Either the waiter is
/// granted, and releases, or it is cancelled, and must leave nothing behind.
pub(crate) async fn races(lock: &Lock, rounds: u32) -> Result<Words> {
    let (mut granted, mut cancelled) = (0, 0);
    for round in 0..rounds {
        let held = lock.acquire().await?;
        let waiter = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire().await }
        });
        while lock.info().await?.is_none_or(|info| info.waiters.is_empty()) {
            tokio::task::yield_now().await;
        }
        let release = tokio::spawn(async move { held.release().await });
        for _ in 0..round % 4 {
            tokio::task::yield_now().await;
        }
        waiter.abort();
        match waiter.await {
            Ok(held) => {
                held?.release().await?;
                granted += 1;
            }
            Err(_) => cancelled += 1,
        }
        // It is not aborted, and does not panic.
        release.await.unwrap_or(Ok(()))?;
    }
    Ok(reply::ok().with("granted", granted).with("cancelled", cancelled))
}
