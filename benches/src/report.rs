//! The table: on the terminal and, with versions, machine and notes, in `benches/RESULTS.md`.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use coord_bench_worker::Result;

use crate::book::{Book, Goal, Line, Unit, spread};
use crate::plot;
use crate::rows::Row;

/// Writes the results of this run.
pub(crate) fn write(book: &Book, rows: &[&Row], rounds: usize) -> Result<()> {
    let table = table(book, rows);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let notes = fs::read_to_string(here.join("notes.md")).unwrap_or_default();
    let mut text = String::from("# Measured\n\n");
    writeln!(
        text,
        "Written by `make bench`. {rounds} interleaved rounds on one machine with servers and clients together; each \
         figure is the median of the rounds, with the least and the greatest behind it. Absolute figures belong to the \
         machine; the ratios are between figures of the same round.\n"
    )?;
    text.push_str(&machine());
    text.push_str(&table);
    if !book.left_out().is_empty() {
        text.push_str("\nLeft out:\n\n");
        for what in book.left_out() {
            writeln!(text, "- {what}")?;
        }
    }
    text.push_str("\n![Latencies](results.svg)\n");
    if !notes.is_empty() {
        write!(text, "\n{notes}")?;
    }
    fs::write(here.join("RESULTS.md"), text)?;
    fs::write(here.join("results.svg"), plot::draw(book))?;
    let mut out = std::io::stdout().lock();
    write!(out, "{table}")?;
    for what in book.left_out() {
        writeln!(out, "left out: {what}")?;
    }
    Ok(())
}

fn table(book: &Book, rows: &[&Row]) -> String {
    let mut text = String::from("| | | median | least – greatest | goal | |\n|---|---|--:|--:|--:|---|\n");
    let mut row = 0;
    for line in book.lines() {
        if line.row != row {
            row = line.row;
            let title = rows.iter().find(|r| r.number == row).map_or("", |r| r.title);
            text.push_str(&format!("| **{row}** | **{title}** | | | | |\n"));
        }
        text.push_str(&show(line));
    }
    text
}

fn show(line: &Line) -> String {
    let (median, least, most) = spread(&line.values);
    let number = |value| number(value, line.unit);
    let (goal, met) = match line.goal {
        Goal::AtMost(limit) => (format!("≤ {}", number(limit)), line.goal.is_met(median)),
        Goal::AtLeast(limit) => (format!("≥ {}", number(limit)), line.goal.is_met(median)),
        Goal::None => (String::new(), None),
    };
    let met = match met {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "",
    };
    let range = if line.values.len() > 1 { format!("{} – {}", number(least), number(most)) } else { String::new() };
    format!("| | {} | {} | {range} | {goal} | {met} |\n", line.what, number(median))
}

/// A number as people read it.
pub(crate) fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Time if value < 1e3 => format!("{value:.0} ns"),
        Unit::Time if value < 1e6 => format!("{} µs", three_digits(value / 1e3)),
        Unit::Time if value < 1e9 => format!("{} ms", three_digits(value / 1e6)),
        Unit::Time => format!("{} s", three_digits(value / 1e9)),
        Unit::PerSecond => format!("{value:.0}/s"),
        Unit::Ratio => three_digits(value),
        Unit::Bytes if value < 1024.0 * 1024.0 => format!("{value:.0} B"),
        Unit::Bytes => format!("{:.1} MiB", value / 1024.0 / 1024.0),
        Unit::Count => three_digits(value),
        Unit::Percent => format!("{value:.3} %"),
    }
}

fn three_digits(value: f64) -> String {
    match value {
        v if v == v.round() && v < 1e6 => format!("{v:.0}"),
        v if v < 1.0 => format!("{v:.3}"),
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut text = format!(
        "{cores} cores of {}, Linux {}, load {} at the end. SQLite {}.",
        model.trim_start_matches(['\t', ' ', ':']),
        kernel.trim(),
        load.split_whitespace().next().unwrap_or("?"),
        rusqlite::version(),
    );
    for (program, arguments) in [
        ("mongod", &["--version"][..]),
        ("etcd", &["--version"]),
        ("redis-server", &["--version"]),
        ("python", &["--version"]),
        ("rustc", &["--version"]),
        ("cc", &["--version"]),
        ("go", &["version"]),
    ] {
        if let Some(first) = first_line(program, arguments) {
            text.push_str(&format!(" {first}."));
        }
    }
    if let Some(packages) = peers_in_python() {
        text.push_str(&format!(" {packages}."));
    }
    text.push_str("\n\n");
    text
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned()).filter(|line| !line.is_empty())
}

fn peers_in_python() -> Option<String> {
    let listing = "import importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in ('filelock', \
                   'fasteners', 'redis', 'kazoo')))";
    first_line("python", &["-c", listing])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_with_what_reads_best() {
        let shown = [
            number(740.0, Unit::Time),
            number(13_200.0, Unit::Time),
            number(1_430_000.0, Unit::Time),
            number(2e9, Unit::Time),
            number(1.104, Unit::Ratio),
            number(0.71, Unit::Ratio),
            number(16.0 * 1024.0 * 1024.0, Unit::Bytes),
        ];
        assert_eq!(shown, ["740 ns", "13.2 µs", "1.43 ms", "2 s", "1.10", "0.710", "16.0 MiB"]);
    }
}
