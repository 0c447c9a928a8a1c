//! The fault matrix: an upstream that fails in all its ways under a steady load,
//! and what of the service is left.
//!
//! Rows and what they promise are in `rows.rs`. The ordinary tests run Outrigger
//! beside a control (`trial.rs`) and judge what is no time;
//! `matrix_beside_nginx_varnish_and_envoy` runs four proxies side by side and
//! prints a table (`tests/bench/faults`).

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
mod trial;

use outrigger_test_support as support;

use outrigger::outrigger;
use rows::{ROWS, Row};
use table::Line;
use tokio::sync::Mutex;
use trial::Trial;

/// How often a row may run until its control is not disturbed.
const ATTEMPTS: usize = 5;

/// One group at a time: two would measure the machine.
static TURNS: Mutex<()> = Mutex::const_new(());

/// Runs a group of rows at once, each with processes of its own, and judges them. A row that broke
/// a promise while the control beside it was disturbed has shown nothing, and runs again.
async fn judge(rows: &'static [Row]) {
    let _turn = TURNS.lock().await;
    let mut left = rows.to_vec();
    for attempt in 1..=ATTEMPTS {
        let trials = run_all(&left).await;
        let lines: Vec<_> = trials.iter().flat_map(|trial| trial.lines()).collect();
        println!("{}", table::markdown(&lines));
        let mut broken = Vec::new();
        left.clear();
        for trial in trials {
            let promises = trial.broken();
            if promises.is_empty() {
                continue;
            }
            if attempt < ATTEMPTS && trial.is_void() {
                println!(
                    "{}: again, since the control was disturbed: {promises:#?}",
                    trial.row.name
                );
                left.push(trial.row);
            } else {
                broken.extend(promises);
            }
        }
        assert!(broken.is_empty(), "{broken:#?}");
        if left.is_empty() {
            return;
        }
    }
}

async fn run_all(rows: &[Row]) -> Vec<Trial> {
    let running: Vec<_> = rows.iter().map(|row| tokio::spawn(Trial::run(*row))).collect();
    let mut trials = Vec::new();
    for trial in running {
        trials.push(trial.await.expect("a row runs to its end"));
    }
    trials
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
