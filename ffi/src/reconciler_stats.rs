//! What a reconciler is doing and has done: numbered counters, its shards, and the keys that are parked.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::time::Duration;

use coord_core::reconciler::ReconcilerStats;

use crate::boundary::{fallible, quiet, value};
use crate::bytes::{Lent, LentBytes, Out, empty, fixed};
use crate::error::{coord_error_t, coord_status_t};
use crate::handle::{self, object};
use crate::reconciler::{ReconcilerObject, coord_reconciler_t};

/// Keys that wait for a worker.
pub const COORD_RECONCILER_STAT_READY: i32 = 0;
/// Keys that are due later: after an error, or planned.
pub const COORD_RECONCILER_STAT_DELAYED: i32 = 1;
/// Keys that are being run.
pub const COORD_RECONCILER_STAT_IN_FLIGHT: i32 = 2;
/// Keys that are parked.
pub const COORD_RECONCILER_STAT_PARKED: i32 = 3;
/// How long the first of the ready keys has been ready, in microseconds.
pub const COORD_RECONCILER_STAT_OLDEST_US: i32 = 4;
/// How long the longest of the present runs has been going on, in microseconds.
pub const COORD_RECONCILER_STAT_LONGEST_RUN_US: i32 = 5;
/// Runs that have ended.
pub const COORD_RECONCILER_STAT_RUNS: i32 = 6;
/// Those that ended with an error, terminal ones included.
pub const COORD_RECONCILER_STAT_ERRORS: i32 = 7;
/// Runs that began after an error of their key.
pub const COORD_RECONCILER_STAT_RETRIES: i32 = 8;
/// Runs that ended with a terminal error.
pub const COORD_RECONCILER_STAT_TERMINAL: i32 = 9;
/// Runs that asked for another one later.
pub const COORD_RECONCILER_STAT_REQUEUED: i32 = 10;
/// Runs whose result did not count, because their shard or the leadership was lost.
pub const COORD_RECONCILER_STAT_FENCED: i32 = 11;
/// Runs that were destroyed without having been completed.
pub const COORD_RECONCILER_STAT_DROPPED: i32 = 12;
/// How long all runs that have ended took together, in microseconds.
pub const COORD_RECONCILER_STAT_RUN_TIME_US: i32 = 13;
/// How long the longest of them took, in microseconds.
pub const COORD_RECONCILER_STAT_LONGEST_ENDED_RUN_US: i32 = 14;
/// How long all keys together were ready before they were run, in microseconds.
pub const COORD_RECONCILER_STAT_QUEUE_TIME_US: i32 = 15;
/// 1 if every key of the source has been seen, else 0.
pub const COORD_RECONCILER_STAT_SYNCED: i32 = 16;
/// 1 if it is paused, else 0.
pub const COORD_RECONCILER_STAT_PAUSED: i32 = 17;

/// A snapshot of a reconciler's counters, and of the shards that its replica holds.
pub struct coord_reconciler_stats_t;

/// The keys that are parked, at one moment. What it lends is valid until it is destroyed.
pub struct coord_parked_list_t;

pub(crate) struct ReconcilerStatsObject(ReconcilerStats);

pub(crate) struct ParkedListObject(Vec<Parked>);

struct Parked {
    key: LentBytes,
    reason: Lent,
    parked_ms: i64,
}

object!(ReconcilerStatsObject, coord_reconciler_stats_t, 48, "stats of a reconciler");
object!(ParkedListObject, coord_parked_list_t, 49, "list of parked keys");

/// Takes a snapshot of a reconciler's counters.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_reconciler_stats_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_reconciler_stats(
    reconciler: *mut coord_reconciler_t,
    out: *mut *mut coord_reconciler_stats_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let stats = handle::get::<ReconcilerObject>(reconciler)?.reconciler().stats();
        out.put(handle::issue(ReconcilerStatsObject(stats)));
        Ok(())
    })
}

/// One counter (COORD_RECONCILER_STAT_...); -1 for a number that this library does not know.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_reconciler_stats_value(stats: *const coord_reconciler_stats_t, stat: i32) -> i64 {
    value(-1, || Ok(pick(&handle::get::<ReconcilerStatsObject>(stats)?.0, stat)))
}

/// The name of a counter, e.g. "in_flight"; empty for a number that this library does not know, so that 0, 1, 2 and so on
/// until then are all there are. Valid for ever.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_reconciler_stat_name(stat: i32) -> *const c_char {
    fixed(usize::try_from(stat).ok().and_then(|stat| NAMES.get(stat)).copied().unwrap_or_default())
}

/// How many shards this replica holds; 1 for the leadership, 0 in the mode "all".
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_reconciler_stats_shard_count(stats: *const coord_reconciler_stats_t) -> usize {
    value(0, || Ok(handle::get::<ReconcilerStatsObject>(stats)?.0.shards.len()))
}

/// The number of the shard at this place, in ascending order, 0 for the leadership; 0 beyond the end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_reconciler_stats_shard(stats: *const coord_reconciler_stats_t, index: usize) -> u32 {
    value(0, || Ok(handle::get::<ReconcilerStatsObject>(stats)?.0.shards.get(index).copied().unwrap_or(0)))
}

/// Destroys a snapshot of counters. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `stats`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_reconciler_stats_destroy(stats: *mut coord_reconciler_stats_t) {
    quiet(|| handle::take::<ReconcilerStatsObject>(stats).map(drop));
}

/// Lists the keys that were said to be impossible to reconcile (COORD_OUTCOME_TERMINAL), and have not changed since.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_parked_list_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_reconciler_parked(
    reconciler: *mut coord_reconciler_t,
    out: *mut *mut coord_parked_list_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let object = handle::get::<ReconcilerObject>(reconciler)?;
        let format = object.format();
        let parked = object.reconciler().parked().into_iter().map(|parked| {
            Ok(Parked {
                key: format.lend_key(&parked.key)?,
                reason: Lent::new(&parked.reason),
                parked_ms: parked.parked_for.as_millis() as i64,
            })
        });
        let list = parked.collect::<coord_core::error::Result<_>>()?;
        out.put(handle::issue(ParkedListObject(list)));
        Ok(())
    })
}

/// How many keys there are in the list; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_parked_list_count(list: *const coord_parked_list_t) -> usize {
    value(0, || Ok(handle::get::<ParkedListObject>(list)?.0.len()))
}

/// The key at this place, in the reconciler's format; empty beyond the end. It ends with a zero, which
/// coord_parked_list_key_length does not count.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_parked_list_key(list: *const coord_parked_list_t, index: usize) -> *const c_char {
    entry(list, index, empty(), |parked| parked.key.start())
}

/// The length in bytes of the key at this place; 0 beyond the end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_parked_list_key_length(list: *const coord_parked_list_t, index: usize) -> usize {
    entry(list, index, 0, |parked| parked.key.length())
}

/// What was said of the key at this place; empty beyond the end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_parked_list_reason(list: *const coord_parked_list_t, index: usize) -> *const c_char {
    entry(list, index, empty(), |parked| parked.reason.start())
}

/// For how long the key at this place has been parked, in milliseconds; 0 beyond the end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_parked_list_parked_ms(list: *const coord_parked_list_t, index: usize) -> i64 {
    entry(list, index, 0, |parked| parked.parked_ms)
}

fn entry<T: Copy>(list: *const coord_parked_list_t, index: usize, neutral: T, body: impl FnOnce(&Parked) -> T) -> T {
    value(neutral, || Ok(handle::get::<ParkedListObject>(list)?.0.get(index).map_or(neutral, body)))
}

/// Destroys a list of parked keys. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `list`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_parked_list_destroy(list: *mut coord_parked_list_t) {
    quiet(|| handle::take::<ParkedListObject>(list).map(drop));
}

fn pick(stats: &ReconcilerStats, stat: i32) -> i64 {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    match stat {
        COORD_RECONCILER_STAT_READY => stats.ready as i64,
        COORD_RECONCILER_STAT_DELAYED => stats.delayed as i64,
        COORD_RECONCILER_STAT_IN_FLIGHT => stats.in_flight as i64,
        COORD_RECONCILER_STAT_PARKED => stats.parked as i64,
        COORD_RECONCILER_STAT_OLDEST_US => micros(stats.oldest),
        COORD_RECONCILER_STAT_LONGEST_RUN_US => micros(stats.longest_run),
        COORD_RECONCILER_STAT_RUNS => stats.runs as i64,
        COORD_RECONCILER_STAT_ERRORS => stats.errors as i64,
        COORD_RECONCILER_STAT_RETRIES => stats.retries as i64,
        COORD_RECONCILER_STAT_TERMINAL => stats.terminal as i64,
        COORD_RECONCILER_STAT_REQUEUED => stats.requeued as i64,
        COORD_RECONCILER_STAT_FENCED => stats.fenced as i64,
        COORD_RECONCILER_STAT_DROPPED => stats.dropped as i64,
        COORD_RECONCILER_STAT_RUN_TIME_US => micros(stats.run_time),
        COORD_RECONCILER_STAT_LONGEST_ENDED_RUN_US => micros(stats.longest_ended_run),
        COORD_RECONCILER_STAT_QUEUE_TIME_US => micros(stats.queue_time),
        COORD_RECONCILER_STAT_SYNCED => i64::from(stats.synced),
        COORD_RECONCILER_STAT_PAUSED => i64::from(stats.paused),
        _ => -1,
    }
}

/// By number.
const NAMES: [&CStr; 18] = [
    c"ready",
    c"delayed",
    c"in_flight",
    c"parked",
    c"oldest_us",
    c"longest_run_us",
    c"runs",
    c"errors",
    c"retries",
    c"terminal",
    c"requeued",
    c"fenced",
    c"dropped",
    c"run_time_us",
    c"longest_ended_run_us",
    c"queue_time_us",
    c"synced",
    c"paused",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_name_and_a_value() {
        let source = include_str!("reconciler_stats.rs");
        let stats = ReconcilerStats::default();
        for (number, name) in NAMES.iter().enumerate() {
            let shouted = name.to_str().unwrap().to_uppercase();
            let constant = format!("COORD_RECONCILER_STAT_{shouted}: i32 = {number};");
            assert!(source.contains(&constant), "{constant}");
            assert_eq!(pick(&stats, number as i32), 0, "{name:?}");
        }
        assert_eq!(pick(&stats, NAMES.len() as i32), -1);
    }
}
