//! Removes the records of claims that nobody has used for a day, so that a store does not grow for ever with names that
//! are used once.
//!
//! The store's date says what is old, as it dated the grants, and no harm is done if it is wrong: a record goes only while
//! it is free, in the step that looks, and tokens grow across that (see [`ClaimStep::Collect`]).

use std::sync::Arc;
use std::time::Duration;

use super::Session;
use crate::error::{Code, Result};
use crate::protocol::claim::ClaimStep;
use crate::store::{ClaimQuery, Store};
use crate::time::WallTime;

/// How long a free claim is kept after its latest grant, in milliseconds: a day.
const KEEP_UNUSED: i64 = 86_400_000;

/// How often is looked for those that can go.
const PERIOD: Duration = Duration::from_secs(3600);

/// How many are read at once.
const BATCH: usize = 500;

/// The pause between two batches, so that thousands of records that are old at once are in nobody's way.
const BETWEEN: Duration = Duration::from_secs(1);

/// Collects until it is aborted. For one client of a store at a time, though more would do no harm.
pub(super) async fn run(session: &Arc<Session>) {
    // Soon for the first time: where keepers live for less than an hour, each has to begin anew.
    let mut pause = session.timing().ttl;
    loop {
        session.env().sleep(session.env().jittered(pause)).await;
        pause = PERIOD;
        match collect(session).await {
            Ok(0) => {}
            Ok(gone) => {
                tracing::debug!(gone, "records of claims that nobody used for a day are removed");
                // There may be more. Those of which none can go yet would come again.
                pause = BETWEEN;
            }
            Err(error) => tracing::debug!(%error, "the records of unused claims could not be removed"),
        }
    }
}

/// Collects a batch. Returns how many are gone.
async fn collect(session: &Arc<Session>) -> Result<usize> {
    let now = match session.store().documents() {
        Some(documents) => documents.date().await?,
        // Only a simulated store has none; its date is the simulation's.
        None => session.env().clock.wall(),
    };
    let before = WallTime(now.0.saturating_sub(KEEP_UNUSED));
    let mut gone = 0;
    for claim in session.store().claims(ClaimQuery::Unused { before, limit: BATCH }).await? {
        match session.store().apply_claim(claim.key, ClaimStep::Collect).await {
            Ok(collected) => gone += usize::from(collected.is_some()),
            // One that is damaged keeps no other.
            Err(error) if error.code() == Code::CorruptState => {}
            Err(error) => return Err(error),
        }
    }
    Ok(gone)
}
