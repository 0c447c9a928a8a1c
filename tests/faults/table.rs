//! The table that a run prints, and who is best and worst in each row of it.

use std::fmt::Write as _;

use crate::figures::{Figures, Share};
use crate::rows::Row;

/// What one proxy has shown in one row.
pub struct Line {
    /// The row.
    pub row: Row,
    /// The proxy.
    pub proxy: &'static str,
    /// What was measured.
    pub figures: Figures,
}

const HEAD: &str = "\
| row | proxy | upstream, × healthy | hot + uncacheable + new, 1/s | connections | served | hot | of these stale | uncacheable | new | wrong | \
p99 healthy | p99 added | recovery | failures |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
";

/// All lines as a markdown table.
pub fn markdown(lines: &[Line]) -> String {
    let mut text = String::from(HEAD);
    for Line { row, proxy, figures } in lines {
        let f = figures;
        let failures: Vec<_> = f.failures.iter().map(|(what, n)| format!("{what} {n}")).collect();
        let stale = Share { of: f.hot_stale, all: f.hot.of };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {proxy} | {:.2} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} ms | {:+.1} ms | {} | {} |",
            row.name,
            f.upstream,
            f.rates.map(rates).join(" → "),
            f.connections,
            percent(f.served),
            percent(f.hot),
            percent(stale),
            percent(f.uncacheable),
            percent(f.new),
            f.wrong,
            f.p99.as_secs_f64() * 1000.0,
            f.p99_added_ms,
            f.recovery.map_or("none".to_owned(), |time| format!("{:.2} s", time.as_secs_f64())),
            failures.join(", "),
        );
    }
    text
}

fn rates(rates: [f64; 3]) -> String {
    rates.map(|rate| format!("{rate:.0}")).join(" + ")
}

/// Rounded down: 100 % means all.
fn percent(share: Share) -> String {
    format!("{:.1} %", (share.ratio() * 1000.0).floor() / 10.0)
}

/// A figure to be compared: its name, its value (less is better), how far apart two values are
/// the same, and how it is printed.
type Measure = (&'static str, fn(&Figures) -> f64, f64, fn(f64) -> String);

const MEASURES: [Measure; 4] = [
    ("served", |f| -f.served.ratio(), 0.005, |value| format!("{:.1} %", -100.0 * value)),
    ("upstream", |f| f.upstream, 0.02, |value| format!("{value:.2}")),
    ("p99 added", |f| f.p99_added_ms, 5.0, |value| format!("{value:+.0} ms")),
    (
        "recovery",
        |f| f.recovery.map_or(f64::INFINITY, |time| time.as_secs_f64()),
        0.05,
        |value| format!("{value:.2} s"),
    ),
];

/// For each row, who is best and who is worst by each measure.
pub fn ranking(lines: &[Line]) -> String {
    let mut text = String::new();
    for row in lines.chunk_by(|a, b| a.row.name == b.row.name) {
        let by = MEASURES.map(|(name, value, same, print)| {
            let of = |line: &Line| value(&line.figures);
            let best = row.iter().map(of).fold(f64::INFINITY, f64::min);
            let worst = row.iter().map(of).fold(f64::NEG_INFINITY, f64::max);
            if worst - best <= same || worst == best {
                return format!("{name}: all {}", print(best));
            }
            let near = |to: f64| {
                let near = |line: &&Line| of(line) == to || (of(line) - to).abs() <= same;
                row.iter().filter(near).map(|line| line.proxy).collect::<Vec<_>>().join(" and ")
            };
            let (first, last) = (near(best), near(worst));
            format!("{name}: best {first} ({}), worst {last} ({})", print(best), print(worst))
        });
        let _ = writeln!(text, "- {}: {}", row[0].row.name, by.join("; "));
    }
    text
}
