//! What concurrency an upstream bears, learned from latency: a gradient like that of Netflix's
//! concurrency-limits, with a multiplicative decrease for failures as in AIMD.
//!
//! The mean latency of a short window is compared with the least mean that was seen. While it is
//! within a tolerance, the limit grows by its square root; when requests queue in the upstream,
//! latency rises and the limit falls in proportion. A limit that is not used up does not grow:
//! nothing was learned about it. The least mean goes out of date, for an upstream may have become
//! slower for good: from time to time the limit is halved for a moment to measure it anew, as BBR
//! does for the round trip of a path. A long-term mean in its place was tried. It creeps upwards with
//! the queue that it should show.

use std::time::Duration;

/// The mean latency may be so many times the least before the limit falls.
const TOLERANCE: f64 = 1.5;
/// Weight of what was learned last.
const SMOOTHING: f64 = 0.2;
/// How long the least mean is believed.
const BASE_FOR: Duration = Duration::from_secs(30);
/// The least number of results in a window.
const WINDOW_RESULTS: u32 = 10;
/// The least duration of a window.
const WINDOW_MIN: Duration = Duration::from_millis(100);
/// What is left of the limit after a window with overload.
const DECREASE: f64 = 0.9;

#[derive(Debug, Default)]
struct Results {
    began: Option<Duration>,
    sum_secs: f64,
    answered: u32,
    overloaded: bool,
    in_flight_max: u32,
}

/// Measuring the least mean anew.
#[derive(Clone, Copy, Debug)]
enum Remeasuring {
    /// The limit is halved; what was under way before still comes in.
    Draining { limit: f64 },
    /// What comes in now was sent under the halved limit.
    Measuring { limit: f64 },
}

#[derive(Debug, Default)]
pub(crate) struct Gradient {
    /// The least mean, and when it was seen.
    base: Option<(f64, Duration)>,
    remeasuring: Option<Remeasuring>,
    results: Results,
}

impl Gradient {
    /// Takes a result; a new limit if a window has ended by it. `latency` is `None` for a request
    /// that failed as an overloaded upstream fails.
    pub(crate) fn observe(
        &mut self,
        now: Duration,
        latency: Option<Duration>,
        in_flight: u32,
        limit: f64,
    ) -> Option<f64> {
        let results = &mut self.results;
        let began = *results.began.get_or_insert(now);
        results.in_flight_max = results.in_flight_max.max(in_flight);
        match latency {
            Some(latency) => {
                results.sum_secs += latency.as_secs_f64();
                results.answered += 1;
            }
            None => results.overloaded = true,
        }
        let enough = results.answered >= WINDOW_RESULTS || results.overloaded;
        if !enough || now.saturating_sub(began) < WINDOW_MIN {
            return None;
        }
        let results = std::mem::take(&mut self.results);
        Some(self.next(&results, limit, now))
    }

    fn next(&mut self, results: &Results, limit: f64, now: Duration) -> f64 {
        if results.overloaded {
            let usual = match self.remeasuring.take() {
                Some(Remeasuring::Draining { limit } | Remeasuring::Measuring { limit }) => limit,
                None => limit,
            };
            return usual * DECREASE;
        }
        let mean = (results.sum_secs / f64::from(results.answered.max(1))).max(1e-9);
        match self.remeasuring.take() {
            Some(Remeasuring::Draining { limit: usual }) => {
                self.remeasuring = Some(Remeasuring::Measuring { limit: usual });
                return limit;
            }
            Some(Remeasuring::Measuring { limit: usual }) => {
                self.base = Some((mean, now));
                return usual;
            }
            None => {}
        }
        let used_up = f64::from(results.in_flight_max) >= limit / 2.0;
        let base = match self.base {
            Some((base, _)) if mean > base => base,
            _ => {
                self.base = Some((mean, now));
                mean
            }
        };
        if !used_up {
            return limit;
        }
        let out_of_date = |at: Duration| now.saturating_sub(at) > BASE_FOR;
        if self.base.is_some_and(|(_, at)| out_of_date(at)) {
            self.remeasuring = Some(Remeasuring::Draining { limit });
            return limit / 2.0;
        }
        let gradient = (TOLERANCE * base / mean).clamp(0.5, 1.0);
        let wanted = limit * gradient + limit.sqrt().max(1.0);
        limit * (1.0 - SMOOTHING) + wanted * SMOOTHING
    }
}
