//! What was measured: figures and ratios by row, one value per round, and the samples that are drawn.

use std::collections::BTreeMap;

/// What a ratio (or a figure that has a goal of its own) should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// For comparison only.
    None,
}

impl Goal {
    pub(crate) fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(limit) => Some(value <= limit),
            Self::AtLeast(limit) => Some(value >= limit),
            Self::None => None,
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) row: u32,
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) goal: Goal,
    /// One per round.
    pub(crate) values: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nanoseconds, shown as what is read best.
    Time,
    PerSecond,
    Ratio,
    Bytes,
    Count,
    Percent,
}

/// All lines in the order in which they were first noted.
#[derive(Debug, Default)]
pub(crate) struct Book {
    lines: Vec<Line>,
    absent: Vec<String>,
    /// Latencies to draw, by picture and curve.
    curves: BTreeMap<(&'static str, String), Vec<u64>>,
}

impl Book {
    /// Notes a figure of this round.
    pub(crate) fn figure(&mut self, row: u32, what: impl Into<String>, unit: Unit, value: f64) {
        self.goal(row, what, unit, value, Goal::None);
    }

    /// Notes a figure that has a goal.
    pub(crate) fn goal(&mut self, row: u32, what: impl Into<String>, unit: Unit, value: f64, goal: Goal) {
        let what = what.into();
        match self.lines.iter_mut().find(|line| line.row == row && line.what == what) {
            Some(line) => line.values.push(value),
            None => self.lines.push(Line { row, what, unit, goal, values: vec![value] }),
        }
    }

    /// Notes a ratio of two figures of this round, if both are there.
    pub(crate) fn ratio(
        &mut self,
        row: u32,
        what: impl Into<String>,
        over: Option<f64>,
        under: Option<f64>,
        goal: Goal,
    ) {
        if let (Some(over), Some(under)) = (over, under)
            && under > 0.0
        {
            self.goal(row, what, Unit::Ratio, over / under, goal);
        }
    }

    /// Says once what could not be measured.
    pub(crate) fn absent(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.absent.contains(&what) {
            eprintln!("  left out: {what}");
            self.absent.push(what);
        }
    }

    /// Adds samples to a curve of a picture.
    pub(crate) fn draw(&mut self, picture: &'static str, curve: impl Into<String>, samples: &[u64]) {
        self.curves.entry((picture, curve.into())).or_default().extend(samples);
    }

    /// The lines by row.
    pub(crate) fn lines(&self) -> Vec<&Line> {
        let mut lines: Vec<&Line> = self.lines.iter().collect();
        lines.sort_by_key(|line| line.row);
        lines
    }

    pub(crate) fn left_out(&self) -> &[String] {
        &self.absent
    }

    /// The curves of one picture.
    pub(crate) fn picture(&self, picture: &str) -> Vec<(&str, &[u64])> {
        let of_it = self.curves.iter().filter(|((name, _), _)| *name == picture);
        of_it.map(|((_, curve), samples)| (curve.as_str(), samples.as_slice())).collect()
    }
}

/// The sample below which this share of them is; 0 of none.
pub(crate) fn quantile(samples: &mut [u64], share: f64) -> u64 {
    samples.sort_unstable();
    let last = samples.len().saturating_sub(1);
    samples.get((last as f64 * share).round() as usize).copied().unwrap_or(0)
}

/// Median, least and greatest of the rounds.
pub(crate) fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, most) = (sorted.first().copied().unwrap_or(f64::NAN), sorted.last().copied().unwrap_or(f64::NAN));
    let middle = sorted.len() / 2;
    let median = match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    };
    (median, least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_spreads_are_of_the_sorted_values() {
        assert_eq!(quantile(&mut [30, 10, 20], 0.5), 20);
        assert_eq!(quantile(&mut [30, 10, 20], 0.99), 30);
        assert_eq!(quantile(&mut [], 0.5), 0);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), (2.0, 1.0, 3.0));
        assert_eq!(spread(&[4.0, 2.0]), (3.0, 2.0, 4.0));
    }

    #[test]
    fn a_value_of_the_next_round_joins_its_line() {
        let mut book = Book::default();
        book.ratio(2, "b", Some(3.0), Some(2.0), Goal::AtMost(1.0));
        book.ratio(2, "b", Some(1.0), Some(2.0), Goal::AtMost(1.0));
        book.ratio(2, "b", Some(1.0), Some(0.0), Goal::AtMost(1.0));
        book.figure(1, "a", Unit::Time, 5.0);
        let lines = book.lines();
        assert_eq!(lines.iter().map(|line| line.row).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(lines[1].values, [1.5, 0.5]);
        assert_eq!(lines[1].goal.is_met(1.5), Some(false));
    }
}
