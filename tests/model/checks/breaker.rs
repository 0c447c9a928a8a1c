//! A breaker between threads that see success and failure at the same time.

use std::collections::HashMap;
use std::sync::Mutex as Aside;
use std::time::Duration;

use shuttle::thread;

use crate::breaker::{Breaker, BreakerRules, Force, State, Ticket, TicketResult, Transition};
use crate::explore::{Ghost, choose, explore, together};
use crate::sync::Arc;

const PROBES: usize = 2;
const RULES: BreakerRules = BreakerRules {
    failure_percent: None,
    slow_percent: None,
    requests_min: 1,
    consecutive: Some(2),
    consecutive_for: Duration::ZERO,
    window: Duration::from_secs(10),
    open_for: Duration::from_secs(1),
    open_max: Duration::from_secs(4),
    probes: PROBES as u32,
};
const FINE: TicketResult = TicketResult::Succeeded { slow: false };
/// When a breaker that opened at zero may be probed.
const AFTERWARDS: Duration = Duration::from_secs(2);

fn ms(millis: usize) -> Duration {
    Duration::from_millis(millis as u64)
}

fn ticket(breaker: &Breaker, now: Duration) -> Option<Ticket> {
    breaker.admit(now).ticket.ok()
}

fn settle(
    breaker: &Breaker,
    ticket: Ticket,
    result: TicketResult,
    now: Duration,
) -> Option<Transition> {
    breaker.settle(ticket, result, now, 0.0, || true)
}

/// A breaker that opened at zero, and a ticket of the time before for each of `late`.
fn opened(late: usize) -> (Arc<Breaker>, Vec<Ticket>) {
    let breaker = Arc::new(Breaker::new(RULES));
    let late = (0..late).filter_map(|_| ticket(&breaker, ms(0))).collect();
    for _ in 0..2 {
        let ticket = ticket(&breaker, ms(0)).expect("still closed");
        settle(&breaker, ticket, TicketResult::Failed, ms(0));
    }
    assert_eq!(breaker.state(), State::Open);
    (breaker, late)
}

/// What a storm knows beside the breaker.
#[derive(Debug, Default)]
struct Storm {
    millis: Ghost,
    probing: Aside<HashMap<u64, usize>>,
    changes: Aside<Vec<Transition>>,
}

impl Storm {
    fn request(&self, breaker: &Breaker) {
        let now = ms(self.millis.add(choose(2) * 700));
        let admitted = breaker.admit(now);
        self.changes.lock().unwrap().extend(admitted.transition);
        let Ok(ticket) = admitted.ticket else { return };
        let epoch = ticket.epoch();
        if ticket.is_probe() {
            let mut probing = self.probing.lock().unwrap();
            let under_way = probing.entry(epoch).or_default();
            *under_way += 1;
            assert!(*under_way <= PROBES, "too many probes of one period");
        }
        thread::yield_now();
        if ticket.is_probe() {
            // Taken off here before it is there, and so never more than it has.
            *self.probing.lock().unwrap().get_mut(&epoch).unwrap() -= 1;
        }
        let result =
            [FINE, TicketResult::Failed, TicketResult::Failed, TicketResult::Unknown][choose(4)];
        let change = settle(breaker, ticket, result, now);
        self.changes.lock().unwrap().extend(change);
    }

    /// Every change was told once: as often as a state was left, it had been entered.
    fn is_told_in_full(&self, last: State) {
        let changes = self.changes.lock().unwrap();
        for state in [State::Closed, State::Open, State::HalfOpen] {
            let entered = changes.iter().filter(|change| change.to == state).count();
            let left = changes.iter().filter(|change| change.from == state).count();
            let (first, last) = (state == State::Closed, state == last);
            assert_eq!(entered + usize::from(first), left + usize::from(last), "{changes:?}");
        }
        for change in changes.iter() {
            let (from, to) = (change.from, change.to);
            let legal = matches!(
                (from, to),
                (State::Closed | State::HalfOpen, State::Open)
                    | (State::Open, State::HalfOpen)
                    | (State::HalfOpen, State::Closed)
            );
            assert!(legal, "{change:?}");
        }
    }
}

#[test]
fn probes_are_bounded_and_every_change_is_told_once() {
    explore(2000, || {
        let breaker = Arc::new(Breaker::new(RULES));
        let storm = Arc::new(Storm::default());
        let (of, in_storm) = (Arc::clone(&breaker), Arc::clone(&storm));
        together(4, move |_| (0..6).for_each(|_| in_storm.request(&of)));
        storm.is_told_in_full(breaker.state());
    });
}

#[test]
fn after_the_outage_it_closes_again() {
    explore(1000, || {
        let breaker = Arc::new(Breaker::new(RULES));
        let storm = Arc::new(Storm::default());
        let (of, in_storm) = (Arc::clone(&breaker), Arc::clone(&storm));
        together(3, move |at| {
            (0..4).for_each(|_| in_storm.request(&of));
            // Who is gone and never tells how it went.
            if at == 0 {
                let _lost = ticket(&of, ms(in_storm.millis.get()));
            }
        });
        let of = Arc::clone(&breaker);
        together(3, move |_| {
            for _ in 0..10 {
                let now = ms(storm.millis.add(500));
                if let Some(ticket) = ticket(&of, now) {
                    settle(&of, ticket, FINE, now);
                }
            }
        });
        assert_eq!(breaker.state(), State::Closed);
    });
}

#[test]
fn one_failed_probe_outweighs_those_that_succeed() {
    explore(4000, || {
        let (breaker, _) = opened(0);
        let failed_probes = Arc::new(Ghost::default());
        let (of, failed) = (Arc::clone(&breaker), Arc::clone(&failed_probes));
        together(4, move |at| {
            let Some(ticket) = ticket(&of, AFTERWARDS) else { return };
            thread::yield_now();
            let result = [TicketResult::Failed, TicketResult::Unknown, FINE, FINE][at];
            if at == 0 && ticket.is_probe() {
                failed.add(1);
            }
            settle(&of, ticket, result, AFTERWARDS);
        });
        let left_closed = breaker.state() == State::Closed;
        assert!(!(left_closed && failed_probes.get() > 0), "closed in spite of a failed probe");
        assert!(failed_probes.get() == 0 || breaker.state() == State::Open);
    });
}

#[test]
fn late_results_of_an_outage_change_nothing() {
    const LATE: usize = 2;
    explore(3000, || {
        let (breaker, late) = opened(LATE);
        let late = Arc::new(Aside::new(late));
        let of = Arc::clone(&breaker);
        together(LATE + PROBES, move |at| {
            if at >= LATE {
                let probe = ticket(&of, AFTERWARDS).expect("a place for each probe");
                assert!(probe.is_probe());
                settle(&of, probe, FINE, AFTERWARDS);
                return;
            }
            let ticket = late.lock().unwrap().pop().expect("one for each");
            assert_eq!(settle(&of, ticket, TicketResult::Failed, AFTERWARDS), None);
        });
        let status = breaker.status(AFTERWARDS);
        assert_eq!((status.state, status.failed, status.requests), (State::Closed, 0, 0));
    });
}

#[test]
fn it_does_not_open_when_it_may_not() {
    explore(2000, || {
        let breaker = Arc::new(Breaker::new(RULES));
        let of = Arc::clone(&breaker);
        together(4, move |at| {
            for _ in 0..3 {
                let ticket = ticket(&of, ms(0)).expect("never open");
                let result = if at == 0 { FINE } else { TicketResult::Failed };
                assert_eq!(of.settle(ticket, result, ms(0), 0.0, || false), None);
            }
        });
        assert_eq!(breaker.state(), State::Closed);
    });
}

#[test]
fn what_is_forced_wins_over_results() {
    explore(2000, || {
        let breaker = Arc::new(Breaker::new(RULES));
        let force = [Force::Open, Force::Closed][choose(2)];
        let forced = Arc::new(Ghost::default());
        let (of, is_forced) = (Arc::clone(&breaker), Arc::clone(&forced));
        together(4, move |at| {
            if at == 0 {
                of.force(Some(force), ms(0));
                is_forced.add(1);
                return;
            }
            for _ in 0..3 {
                let before = is_forced.get() > 0;
                let ticket = ticket(&of, ms(0));
                if before {
                    assert_eq!(ticket.is_some(), force == Force::Closed);
                }
                if let Some(ticket) = ticket {
                    assert!(!ticket.is_probe());
                    let change = settle(&of, ticket, TicketResult::Failed, ms(0));
                    assert!(change.is_none() || !before, "{change:?} although forced");
                }
            }
        });
        let wanted = if force == Force::Open { State::Open } else { State::Closed };
        assert_eq!(breaker.state(), wanted);
        breaker.force(None, ms(0));
        assert_eq!(breaker.state(), State::Closed, "it judges anew");
    });
}
