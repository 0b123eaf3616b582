//! The ledger that the workers share, and what must be true of it. Pure.
//!
//! An entry is a line `entry TOKEN LANGUAGE PID BEGIN END end`, written in two halves with a pause between them; the
//! times are nanoseconds of the monotonic clock, which all processes of a machine share. Of a writer that was killed
//! between the halves, the next one writes ` torn` to the end of the line. Two writers at one time would leave a line
//! that is neither.

use std::time::Duration;

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) token: i64,
    pub(crate) pid: u32,
    /// When its writer had been granted the lock.
    pub(crate) begin: u64,
    /// When its writer went on to release it; none if it was killed before.
    pub(crate) end: Option<u64>,
}

/// Reads and checks a ledger.
///
/// # Errors
/// The line that is wrong, and how.
pub(crate) fn read(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let place = || format!("line {} of the ledger, '{line}'", index + 1);
        let entry = parse(line).ok_or_else(|| format!("{}: two have written at once", place()))?;
        if let Some(before) = entries.last() {
            if entry.token <= before.token {
                return Err(format!("{}: its token is not above {}, the one before", place(), before.token));
            }
            if before.end.is_some_and(|end| entry.begin < end) {
                return Err(format!("{}: it begins before the one before has ended", place()));
            }
        }
        entries.push(entry);
    }
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the ledger ends in the middle of an entry".into());
    }
    Ok(entries)
}

fn parse(line: &str) -> Option<Entry> {
    let words: Vec<&str> = line.split(' ').collect();
    let (head, end) = match words[..] {
        [.., end, "end"] if words.len() == 7 => (&words[..5], Some(end.parse().ok()?)),
        [.., "torn"] if words.len() == 6 => (&words[..5], None),
        _ => return None,
    };
    let ["entry", token, _, pid, begin] = head else { return None };
    let entry = Entry { token: token.parse().ok()?, pid: pid.parse().ok()?, begin: begin.parse().ok()?, end };
    entry.end.is_none_or(|end| end >= entry.begin).then_some(entry)
}

/// The times from the end of one entry to the begin of the next where another process wrote that, sorted.
pub(crate) fn hand_overs(entries: &[Entry]) -> Vec<Duration> {
    let mut times: Vec<Duration> = entries
        .windows(2)
        .filter(|pair| pair[0].pid != pair[1].pid)
        .filter_map(|pair| Some(Duration::from_nanos(pair[1].begin - pair[0].end?)))
        .collect();
    times.sort_unstable();
    times
}

/// The longest time in which nobody held the lock.
pub(crate) fn longest_gap(entries: &[Entry]) -> Duration {
    let gaps = entries.windows(2).filter_map(|pair| Some(pair[1].begin - pair[0].end?));
    Duration::from_nanos(gaps.max().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_ledger_is_read() {
        let text =
            "entry 1 C 7 100 200 end\nentry 2 Go 8 250 torn\nentry 5 C 7 400 500 end\nentry 6 Go 9 600 601 end\n";
        let entries = read(text).unwrap();
        assert_eq!(entries.len(), 4);
        assert_eq!((entries[1].end, entries[1].pid), (None, 8));
        assert_eq!(hand_overs(&entries), [Duration::from_nanos(50), Duration::from_nanos(100)]);
        assert_eq!(longest_gap(&entries), Duration::from_nanos(100));
    }

    #[test]
    fn every_violation_is_found() {
        for (text, needle) in [
            ("entry 1 C 7 100entry 2 Go 8 150 200 end\n 200 end\n", "at once"),
            ("entry 1 C 7 100 torn torn\n", "at once"),
            ("entry 2 C 7 100 200 end\nentry 2 Go 8 300 400 end\n", "not above 2"),
            ("entry 1 C 7 100 200 end\nentry 2 Go 8 150 400 end\n", "before the one before"),
            ("entry 1 C 7 100 200 end\nentry 2 Go 8 150", "at once"),
            ("entry 1 C 7 100 200 end", "in the middle"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(needle), "{text:?}: {error}");
        }
    }
}
