//! Draws miss ratio against memory: one panel per trace, one line per policy, memory on a logarithmic axis.

use super::report::{CellReport, Report, TraceReport, bytes};
use crate::eviction::Eviction;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
/// Height of a panel, including title and labels.
const HEIGHT: f64 = 360.0;
/// The plotted area in a panel.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 640.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 300.0;

/// Horizontal grid lines of a panel.
const LEVELS: u32 = 5;

/// One colour per policy, distinguishable by colour-blind readers (Okabe and Ito).
const COLOURS: [&str; Eviction::ALL.len()] =
    ["#0072b2", "#56b4e9", "#d55e00", "#009e73", "#000000", "#e69f00", "#cc79a7", "#f0e442"];

/// The plot as an SVG document.
pub fn svg(report: &Report) -> String {
    let height = HEIGHT * report.traces.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (i, trace) in report.traces.iter().enumerate() {
        svg += &format!("<g transform=\"translate(0 {})\">\n{}</g>\n", HEIGHT * i as f64, panel(trace));
    }
    svg + "</svg>\n"
}

/// An HTML page with the plot and the table.
pub fn html(report: &Report) -> String {
    let title = "Pinion replay: miss ratio by memory";
    let (svg, table) = (svg(report), escaped(&report.table()));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<h1>{title}</h1>\n\
         {svg}<pre>\n{table}</pre>\n</html>\n"
    )
}

/// Maps values to coordinates within a panel.
struct Axes {
    log_least: f64,
    log_span: f64,
    miss_most: f64,
}

impl Axes {
    fn of(cells: &[CellReport]) -> Self {
        let logs = || cells.iter().map(log);
        let (least, most) = (logs().fold(f64::INFINITY, f64::min), logs().fold(0.0, f64::max));
        // Rounded up to the next tenth, so that the grid has short labels.
        let miss_most =
            cells.iter().filter_map(miss).fold(0.1, |most: f64, miss| most.max((miss * 10.0).ceil() / 10.0));
        Self { log_least: least, log_span: most - least, miss_most }
    }

    /// A single amount of memory is drawn in the middle.
    fn x(&self, cell: &CellReport) -> f64 {
        let part = if self.log_span > 0.0 { (log(cell) - self.log_least) / self.log_span } else { 0.5 };
        LEFT + part * (RIGHT - LEFT)
    }

    fn y(&self, miss: f64) -> f64 {
        BOTTOM - miss / self.miss_most * (BOTTOM - TOP)
    }
}

fn log(cell: &CellReport) -> f64 {
    (cell.capacity_bytes.max(1) as f64).ln()
}

fn miss(cell: &CellReport) -> Option<f64> {
    cell.object_hit_ratio.map(|hit| 1.0 - hit)
}

fn panel(trace: &TraceReport) -> String {
    let axes = Axes::of(&trace.cells);
    let scaled = if trace.scale > 1 { format!(", sizes divided by {}", trace.scale) } else { String::new() };
    let title =
        format!("{}: {} requests, footprint {}{scaled}", trace.trace, trace.requests, bytes(trace.footprint_bytes));
    let mut panel = text(LEFT, TOP - 18.0, "start", &title);
    for level in 0..=LEVELS {
        let miss = axes.miss_most * f64::from(level) / f64::from(LEVELS);
        let y = axes.y(miss);
        line(&mut panel, (LEFT, y), (RIGHT, y), "#ddd");
        panel += &text(LEFT - 8.0, y + 4.0, "end", &format!("{:.0}%", miss * 100.0));
    }
    line(&mut panel, (LEFT, TOP), (LEFT, BOTTOM), "#444");
    line(&mut panel, (LEFT, BOTTOM), (RIGHT, BOTTOM), "#444");
    panel += &text((LEFT + RIGHT) / 2.0, BOTTOM + 50.0, "middle", "memory (logarithmic)");
    panel += &format!("<g transform=\"translate(16 {}) rotate(-90)\">", (TOP + BOTTOM) / 2.0);
    panel += &(text(0.0, 0.0, "middle", "miss ratio").trim_end().to_owned() + "</g>\n");

    let policies = Eviction::ALL.iter().zip(COLOURS);
    let curves = policies.map(|(policy, colour)| (policy.name(), colour, curve(trace, policy.name())));
    for (i, (name, colour, cells)) in curves.filter(|(.., cells)| !cells.is_empty()).enumerate() {
        if i == 0 {
            for cell in &cells {
                label(&mut panel, axes.x(cell), cell);
            }
        }
        draw(&mut panel, &axes, &cells, colour);
        let y = TOP + 18.0 * i as f64;
        line(&mut panel, (RIGHT + 20.0, y), (RIGHT + 40.0, y), colour);
        panel += &text(RIGHT + 46.0, y + 4.0, "start", name);
    }
    panel
}

/// The cells of a policy that have a miss ratio, ordered by memory.
fn curve<'a>(trace: &'a TraceReport, policy: &str) -> Vec<&'a CellReport> {
    let mut cells: Vec<_> = trace.cells.iter().filter(|c| c.policy == policy && miss(c).is_some()).collect();
    cells.sort_by_key(|cell| cell.capacity_bytes);
    cells
}

fn draw(panel: &mut String, axes: &Axes, cells: &[&CellReport], colour: &str) {
    let points: Vec<(f64, f64)> = cells.iter().filter_map(|cell| Some((axes.x(cell), axes.y(miss(cell)?)))).collect();
    let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let path = path.join(" ");
    let _ = writeln!(panel, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
    for (x, y) in points {
        let _ = writeln!(panel, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }
}

/// Label for an amount of memory: as given, and in bytes if that was a percentage.
fn label(panel: &mut String, x: f64, cell: &CellReport) {
    line(panel, (x, BOTTOM), (x, BOTTOM + 4.0), "#444");
    *panel += &text(x, BOTTOM + 18.0, "middle", &cell.memory);
    if cell.fraction.is_some() {
        *panel += &text(x, BOTTOM + 32.0, "middle", &bytes(cell.capacity_bytes));
    }
}

fn line(panel: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(panel, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>");
}

fn text(x: f64, y: f64, anchor: &str, words: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n", escaped(words))
}

/// Escapes text for XML. File names may contain anything; control characters, which XML forbids, are replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c if c.is_control() && c != '\n' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
