//! The picture: for each kind of operation, the share of samples (up) that took at most so long (right, logarithmic).

use std::fmt::Write as _;

use crate::book::{Book, Unit};
use crate::report::number;

const PICTURES: [(&str, &str); 2] =
    [("pairs", "Uncontended acquire + release"), ("handover", "Release until the next process holds")];

const WIDTH: f64 = 900.0;
const PLOT_WIDTH: f64 = 560.0;
const PLOT_HEIGHT: f64 = 300.0;
const LEFT: f64 = 50.0;
const TOP: f64 = 40.0;
const HEIGHT: f64 = PLOT_HEIGHT + TOP + 50.0;
/// How many points a curve has.
const POINTS: usize = 200;
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"];
const DASHES: [&str; 3] = ["", "6 3", "2 3"];

/// An SVG with a plot for each picture in the book.
pub(crate) fn draw(book: &Book) -> String {
    let drawn: Vec<_> = PICTURES.iter().filter(|(name, _)| !book.picture(name).is_empty()).collect();
    let height = HEIGHT * drawn.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (place, (name, title)) in drawn.iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate({LEFT} {})\">", TOP + HEIGHT * place as f64);
        plot(&mut svg, title, &book.picture(name));
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn plot(svg: &mut String, title: &str, curves: &[(&str, &[u64])]) {
    let scale = Scale::of(curves);
    let _ = writeln!(svg, "<text x=\"0\" y=\"-14\" font-size=\"15\">{}</text>", escaped(title));
    for decade in scale.first..=scale.last {
        let x = scale.x(10f64.powi(decade));
        let label = number(10f64.powi(decade), Unit::Time);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} 0V{PLOT_HEIGHT}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{label}</text>",
            PLOT_HEIGHT + 16.0
        );
    }
    for share in [0, 50, 90, 100] {
        let y = PLOT_HEIGHT * (1.0 - f64::from(share) / 100.0);
        let _ = writeln!(
            svg,
            "<path d=\"M0 {y:.1}H{PLOT_WIDTH}\" stroke=\"#ddd\"/><text x=\"-6\" y=\"{:.1}\" \
             text-anchor=\"end\">{share} %</text>",
            y + 4.0
        );
    }
    for (place, (name, samples)) in curves.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let dash = DASHES[place / COLOURS.len() % DASHES.len()];
        let style = format!("stroke=\"{colour}\" stroke-width=\"1.6\" stroke-dasharray=\"{dash}\" fill=\"none\"");
        let (x, y) = (PLOT_WIDTH + 16.0, 12.0 + 16.0 * place as f64);
        let _ = writeln!(
            svg,
            "<path d=\"{}\" {style}/><path d=\"M{x} {:.1}h24\" {style}/><text x=\"{}\" y=\"{y}\">{}</text>",
            path(&scale, samples),
            y - 4.0,
            x + 30.0,
            escaped(name)
        );
    }
}

fn path(scale: &Scale, samples: &[u64]) -> String {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let mut path = String::new();
    for point in 0..=POINTS {
        let share = point as f64 / POINTS as f64;
        let sample = sorted[((sorted.len() - 1) as f64 * share) as usize];
        let letter = if point == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{letter}{:.1} {:.1}", scale.x(sample as f64), PLOT_HEIGHT * (1.0 - share));
    }
    path
}

/// From nanoseconds to a place on the axis, by whole decades.
struct Scale {
    first: i32,
    last: i32,
}

impl Scale {
    fn of(curves: &[(&str, &[u64])]) -> Self {
        let all = || curves.iter().flat_map(|(_, samples)| samples.iter().copied());
        let least = all().min().unwrap_or(1).max(1) as f64;
        let most = all().max().unwrap_or(10).max(10) as f64;
        let (first, last) = (least.log10().floor() as i32, most.log10().ceil() as i32);
        Self { first, last: last.max(first + 1) }
    }

    fn x(&self, nanos: f64) -> f64 {
        let (first, last) = (f64::from(self.first), f64::from(self.last));
        PLOT_WIDTH * ((nanos.max(1.0).log10() - first) / (last - first)).clamp(0.0, 1.0)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_shows_every_curve_within_its_frame() {
        let mut book = Book::default();
        book.draw("pairs", "a < b", &[900, 1_000, 5_000_000]);
        book.draw("pairs", "c", &[7]);
        let svg = draw(&book);
        assert!(svg.contains("a &lt; b") && svg.matches("stroke-width").count() == 4, "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.contains(&format!("0 0 {WIDTH} {HEIGHT}")));
    }
}
