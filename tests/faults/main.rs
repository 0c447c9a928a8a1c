//! The fault matrix: an upstream that fails in all its ways under a steady load,
//! and what of the service is left.
//!
//! Rows and what they promise are in `rows.rs`. The ordinary tests run Outrigger
//! alone and judge what is no time; `matrix_beside_nginx_varnish_and_envoy` runs
//! four proxies side by side and prints a table (`tests/bench/faults`).

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answer;
mod checks;
mod figures;
mod load;
mod origin;
mod outrigger;
mod peers;
mod rows;
mod scenario;
mod table;

use outrigger_test_support as support;

use figures::Figures;
use outrigger::outrigger;
use rows::{ROWS, Row};
use table::Line;

/// Requests a second in the ordinary tests, where several rows run at once in a debug build.
const PER_SECOND: u32 = 100;

/// Runs a group of rows at once, each with a process of its own, and judges them.
async fn judge(rows: &'static [Row]) {
    let one = |row: &'static Row| {
        tokio::spawn(async move {
            let subjects = [outrigger().await];
            let figures = scenario::run(row, &subjects, PER_SECOND).await.remove(0);
            Line { row: *row, proxy: subjects[0].name, figures }
        })
    };
    let running: Vec<_> = rows.iter().map(one).collect();
    let mut lines = Vec::new();
    for line in running {
        lines.push(line.await.expect("a row runs to its end"));
    }
    println!("{}", table::markdown(&lines));
    let broken: Vec<String> = lines.iter().flat_map(|l| broken(&l.row, &l.figures)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

/// What a row has promised and not kept.
fn broken(row: &Row, figures: &Figures) -> Vec<String> {
    let (promised, f) = (row.expect, figures);
    let mut broken = Vec::new();
    let mut check = |kept: bool, what: String| {
        if !kept {
            broken.push(format!("{}: {what}", row.name));
        }
    };
    check(f.healthy.of == f.healthy.all, format!("served in health: {:?}", f.healthy));
    check(
        f.upstream <= promised.upstream_max,
        format!("reached the upstream: {:.2} times what did in health", f.upstream),
    );
    check(f.hot.ratio() >= promised.hot_min, format!("hot served: {:?}", f.hot));
    check(
        f.uncacheable.ratio() >= promised.uncacheable_min,
        format!("uncacheable served: {:?}", f.uncacheable),
    );
    check(f.new.ratio() >= promised.new_min, format!("new served: {:?}", f.new));
    check(f.wrong == 0, format!("wrong bodies: {}", f.wrong));
    check(f.recovery.is_some(), "no recovery".to_owned());
    broken
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_fail() {
    judge(ROWS[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_break() {
    judge(ROWS[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_do_not_come() {
    judge(ROWS[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_half_well() {
    judge(ROWS[3]).await;
}

/// Requests a second for each of the proxies in the comparison.
const PER_SECOND_EACH: u32 = 200;

/// Every row with four proxies at the same moments, each with a new process and an origin of its
/// own. `MATRIX_ROWS` picks the rows whose names contain it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark: tests/bench/faults"]
async fn matrix_beside_nginx_varnish_and_envoy() {
    let picked = std::env::var("MATRIX_ROWS").unwrap_or_default();
    let mut lines = Vec::new();
    for row in ROWS.into_iter().flatten().filter(|row| row.name.contains(&picked)) {
        eprintln!("{} …", row.name);
        let subjects = [outrigger().await, peers::nginx(), peers::varnish(), peers::envoy()];
        let figures = scenario::run(row, &subjects, PER_SECOND_EACH).await;
        for (subject, figures) in subjects.iter().zip(figures) {
            let well = figures.healthy;
            assert!(well.ratio() > 0.99, "{} in health: {well:?}", subject.name);
            lines.push(Line { row: *row, proxy: subject.name, figures });
        }
    }
    println!("{}\n{}", table::markdown(&lines), table::ranking(&lines));
}
