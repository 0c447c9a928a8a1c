//! What a row has measured of one proxy.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::load::{Asked, Class, Outcome};
use crate::origin::Log;

/// What counts as recovered: uncacheable requests for so long without a failure.
const CLEAN: Duration = Duration::from_millis(500);

/// The moments of a row, since its load began.
#[derive(Clone, Debug)]
pub struct Windows {
    /// Where the proxy and the origin are compared with.
    pub healthy: Range<Duration>,
    /// The fault window.
    pub fault: Range<Duration>,
    /// When the fault was over for good; no later than the end of its window.
    pub over: Duration,
}

/// How many of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Those that count.
    pub of: usize,
    /// All.
    pub all: usize,
}

impl Share {
    fn count(asked: &[Asked], counts: impl Fn(Outcome) -> bool) -> Self {
        let done = |a: &&Asked| a.done.is_some_and(|(outcome, _)| counts(outcome));
        Self { of: asked.iter().filter(done).count(), all: asked.len() }
    }

    /// Those that do not count.
    pub fn lost(self) -> usize {
        self.all - self.of
    }

    /// From 0 to 1; nothing of nothing is all.
    pub fn ratio(self) -> f64 {
        if self.all == 0 { 1.0 } else { self.of as f64 / self.all as f64 }
    }
}

/// What a row has measured of one proxy.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Requests that reached the upstream in the fault window, over those of the healthy window
    /// scaled to the same length.
    pub upstream: f64,
    /// Requests a second that reached it, hot, uncacheable and new: in health, and in the fault.
    pub rates: [[f64; 3]; 2],
    /// Connections that the upstream accepted in the fault window.
    pub connections: usize,
    /// Served in the healthy window: less than all of them makes the measurement worthless.
    pub healthy: Share,
    /// Served in the fault window.
    pub served: Share,
    /// The same of hot requests.
    pub hot: Share,
    /// How many of these were served stale.
    pub hot_stale: usize,
    /// Served of the uncacheable requests.
    pub uncacheable: Share,
    /// Served of the requests for new URLs.
    pub new: Share,
    /// Answers that were not what was asked for, in the whole row.
    pub wrong: usize,
    /// 99th percentile of the answers' latency: in the healthy window, and what the fault adds.
    pub p99: Duration,
    /// The longest that an answer took: in the healthy window, and in the fault.
    pub slowest: [Duration; 2],
    /// In milliseconds; negative where answers in the fault are faster than in health.
    pub p99_added_ms: f64,
    /// From the end of the fault until uncacheable requests succeed, and go on doing so.
    pub recovery: Option<Duration>,
    /// How requests failed in the fault window, the most frequent first.
    pub failures: Vec<(String, usize)>,
}

impl Figures {
    /// Computes them from what was asked since `begin` and what reached the upstream.
    pub fn of(asked: &[Asked], log: &Log, begin: Instant, windows: &Windows) -> Self {
        let healthy = within(asked, &windows.healthy);
        let fault = within(asked, &windows.fault);
        let class = |class| -> Vec<Asked> {
            fault.iter().filter(|asked| asked.class == class).copied().collect()
        };
        let hot = class(Class::Hot);
        let stale = |outcome| outcome == Outcome::Served { stale: true };
        let p99 = p99(&healthy);
        let added = self::p99(&fault).as_secs_f64() - p99.as_secs_f64();
        let connected =
            |window: &Range<Duration>| log.connections(begin + window.start, begin + window.end);
        let rates =
            [&windows.healthy, &windows.fault].map(|window| upstream_rates(log, begin, window));
        let [before, during] = rates.map(|rates| rates.iter().sum::<f64>());
        Self {
            upstream: during / before,
            rates,
            connections: connected(&windows.fault),
            healthy: Share::count(&healthy, Outcome::served),
            served: Share::count(&fault, Outcome::served),
            hot: Share::count(&hot, Outcome::served),
            hot_stale: Share::count(&hot, stale).of,
            uncacheable: Share::count(&class(Class::Uncacheable), Outcome::served),
            new: Share::count(&class(Class::New), Outcome::served),
            wrong: Share::count(asked, |outcome| outcome == Outcome::Wrong).of,
            p99,
            slowest: [&healthy, &fault].map(|asked| slowest(asked)),
            p99_added_ms: added * 1000.0,
            recovery: recovery(asked, windows.over),
            failures: failures(&fault),
        }
    }
}

fn within(asked: &[Asked], window: &Range<Duration>) -> Vec<Asked> {
    asked.iter().filter(|asked| window.contains(&asked.at)).copied().collect()
}

fn upstream_rates(log: &Log, begin: Instant, window: &Range<Duration>) -> [f64; 3] {
    let seconds = (window.end - window.start).as_secs_f64();
    [Class::Hot, Class::Uncacheable, Class::New]
        .map(|class| log.requests(begin + window.start, begin + window.end, class) as f64 / seconds)
}

/// Of whatever was answered: a request without an answer has no latency, it is not served.
fn p99(asked: &[Asked]) -> Duration {
    let answered = |asked: &Asked| match asked.done? {
        (Outcome::Late | Outcome::Broken, _) => None,
        (_, took) => Some(took),
    };
    let mut took: Vec<Duration> = asked.iter().filter_map(answered).collect();
    took.sort_unstable();
    let rank = (took.len() * 99).div_ceil(100).saturating_sub(1);
    took.get(rank).copied().unwrap_or_default()
}

fn slowest(asked: &[Asked]) -> Duration {
    asked.iter().filter_map(|asked| Some(asked.done?.1)).max().unwrap_or_default()
}

/// The first moment after which uncacheable requests are served for a while, all of them; requests
/// that are still open are no success yet.
pub fn recovery(asked: &[Asked], over: Duration) -> Option<Duration> {
    let after: Vec<(Duration, bool)> = asked
        .iter()
        .filter(|asked| asked.class == Class::Uncacheable && asked.at >= over)
        .map(|asked| (asked.at, asked.done.is_some_and(|(outcome, _)| outcome.served())))
        .collect();
    let last = after.last()?.0;
    let clean = |from: usize| {
        let end = after[from].0 + CLEAN;
        let run = after[from..].iter().take_while(|(at, _)| *at <= end);
        last >= end && run.into_iter().all(|(_, served)| *served)
    };
    (0..after.len()).find(|from| clean(*from)).map(|from| after[from].0 - over)
}

fn failures(asked: &[Asked]) -> Vec<(String, usize)> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    let outcomes = asked.iter().filter_map(|asked| Some(asked.done?.0));
    for outcome in outcomes.filter(|outcome| !outcome.served()) {
        let name = match outcome {
            Outcome::Status(status) => status.to_string(),
            other => format!("{other:?}").to_lowercase(),
        };
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}
