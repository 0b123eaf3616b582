//! What a client has done, as numbered counters: a new one is a new number, never a new layout.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::time::Duration;

use coord_core::stats::StatsSnapshot;

use crate::boundary::{fallible, quiet, value};
use crate::bytes::{Out, fixed};
use crate::client::{ClientObject, coord_client_t};
use crate::error::{coord_error_t, coord_status_t};
use crate::handle::{self, object};

/// Renewals of the session that were acknowledged.
pub const COORD_STAT_RENEWALS: i32 = 0;
/// Renewals that failed or were not answered in time.
pub const COORD_STAT_FAILED_RENEWALS: i32 = 1;
/// How much validity was left at the latest renewal, in microseconds; -1 before the first.
pub const COORD_STAT_LAST_SLACK_US: i32 = 2;
/// The least validity that was ever left at a renewal, in microseconds; -1 before the first.
pub const COORD_STAT_LEAST_SLACK_US: i32 = 3;
/// How often the session was suspended.
pub const COORD_STAT_SUSPENSIONS: i32 = 4;
/// How many sessions were lost and replaced.
pub const COORD_STAT_LOSSES: i32 = 5;
/// Holds that were granted.
pub const COORD_STAT_GRANTS: i32 = 6;
/// Grants that nobody asked for any more, given back.
pub const COORD_STAT_UNKNOWN_GRANTS: i32 = 7;
/// Acquires that ended at their time limit.
pub const COORD_STAT_TIMEOUTS: i32 = 8;
/// How often the store's stream of notices was opened or had a gap.
pub const COORD_STAT_NOTICE_GAPS: i32 = 9;
/// Sessions of others that this client declared dead.
pub const COORD_STAT_KILLS: i32 = 10;
/// Holds at this moment.
pub const COORD_STAT_HELD: i32 = 11;
/// Waiting acquires at this moment.
pub const COORD_STAT_WAITING: i32 = 12;
/// Steps on sessions asked of the store: openings, renewals, kills, closings.
pub const COORD_STAT_STORE_SESSION_STEPS: i32 = 13;
/// Steps on claims asked of the store: acquires, releases, cancels, takeovers.
pub const COORD_STAT_STORE_CLAIM_STEPS: i32 = 14;
/// Reads asked of the store.
pub const COORD_STAT_STORE_READS: i32 = 15;

/// A snapshot of a client's counters.
pub struct coord_stats_t;

pub(crate) struct StatsObject(StatsSnapshot);

object!(StatsObject, coord_stats_t, 9, "stats");

/// Takes a snapshot of a client's counters.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_stats_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_stats(
    client: *mut coord_client_t,
    out: *mut *mut coord_stats_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let stats = handle::get::<ClientObject>(client)?.client.stats();
        out.put(handle::issue(StatsObject(stats)));
        Ok(())
    })
}

/// One counter (COORD_STAT_...); -1 for a number that this library does not know, and where there is no value yet.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_stats_value(stats: *const coord_stats_t, stat: i32) -> i64 {
    value(-1, || Ok(pick(&handle::get::<StatsObject>(stats)?.0, stat)))
}

/// The name of a counter, e.g. "failed_renewals"; empty for a number that this library does not know, so that 0, 1, 2
/// and so on until then are all there are. Valid for ever.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_stat_name(stat: i32) -> *const c_char {
    fixed(usize::try_from(stat).ok().and_then(|stat| NAMES.get(stat)).copied().unwrap_or_default())
}

/// Destroys a snapshot of counters. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `stats`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_stats_destroy(stats: *mut coord_stats_t) {
    quiet(|| handle::take::<StatsObject>(stats).map(drop));
}

fn pick(stats: &StatsSnapshot, stat: i32) -> i64 {
    let micros = |slack: Option<Duration>| slack.map_or(-1, |slack| slack.as_micros() as i64);
    match stat {
        COORD_STAT_RENEWALS => stats.renewals as i64,
        COORD_STAT_FAILED_RENEWALS => stats.failed_renewals as i64,
        COORD_STAT_LAST_SLACK_US => micros(stats.last_slack),
        COORD_STAT_LEAST_SLACK_US => micros(stats.least_slack),
        COORD_STAT_SUSPENSIONS => stats.suspensions as i64,
        COORD_STAT_LOSSES => stats.losses as i64,
        COORD_STAT_GRANTS => stats.grants as i64,
        COORD_STAT_UNKNOWN_GRANTS => stats.unknown_grants as i64,
        COORD_STAT_TIMEOUTS => stats.timeouts as i64,
        COORD_STAT_NOTICE_GAPS => stats.notice_gaps as i64,
        COORD_STAT_KILLS => stats.kills as i64,
        COORD_STAT_HELD => stats.held as i64,
        COORD_STAT_WAITING => stats.waiting as i64,
        COORD_STAT_STORE_SESSION_STEPS => stats.store.session_steps as i64,
        COORD_STAT_STORE_CLAIM_STEPS => stats.store.claim_steps as i64,
        COORD_STAT_STORE_READS => stats.store.reads as i64,
        _ => -1,
    }
}

/// By number.
const NAMES: [&CStr; 16] = [
    c"renewals",
    c"failed_renewals",
    c"last_slack_us",
    c"least_slack_us",
    c"suspensions",
    c"losses",
    c"grants",
    c"unknown_grants",
    c"timeouts",
    c"notice_gaps",
    c"kills",
    c"held",
    c"waiting",
    c"store_session_steps",
    c"store_claim_steps",
    c"store_reads",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_name_and_a_value() {
        let source = include_str!("stats.rs");
        let stats = StatsSnapshot::default();
        for (number, name) in NAMES.iter().enumerate() {
            let constant = format!("COORD_STAT_{}: i32 = {number};", name.to_str().unwrap().to_uppercase());
            assert!(source.contains(&constant), "{constant}");
            let expected = if name.to_str().unwrap().ends_with("slack_us") { -1 } else { 0 };
            assert_eq!(pick(&stats, number as i32), expected, "{name:?}");
        }
        assert_eq!(pick(&stats, NAMES.len() as i32), -1);
    }
}
