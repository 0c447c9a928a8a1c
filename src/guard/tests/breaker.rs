//! When it opens, probes and closes.

use std::time::Duration;

use crate::breaker::*;
use proptest::prelude::*;

const RULES: BreakerRules = BreakerRules {
    failure_percent: Some(50),
    slow_percent: None,
    requests_min: 4,
    consecutive: None,
    consecutive_for: Duration::ZERO,
    window: Duration::from_secs(10),
    open_for: Duration::from_secs(1),
    open_max: Duration::from_secs(8),
    probes: 2,
};
const FINE: TicketResult = TicketResult::Succeeded { slow: false };

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn run(breaker: &Breaker, result: TicketResult, now: Duration) -> Option<Transition> {
    let ticket = breaker.admit(now).ticket.expect("admitted");
    breaker.settle(ticket, result, now, 0.0, || true)
}

fn opened(rules: BreakerRules) -> Breaker {
    let breaker = Breaker::new(rules);
    for _ in 0..4 {
        run(&breaker, TicketResult::Failed, ms(0));
    }
    assert_eq!(breaker.state(), State::Open);
    breaker
}

#[test]
fn it_opens_by_share_and_not_below_the_minimum() {
    let breaker = Breaker::new(RULES);
    for result in [TicketResult::Failed, TicketResult::Failed, FINE] {
        assert_eq!(run(&breaker, result, ms(1)), None);
    }
    let transition = run(&breaker, FINE, ms(2)).expect("half of four failed");
    assert_eq!((transition.to, transition.reason), (State::Open, Reason::FailureRatio));
    assert_eq!((transition.requests, transition.failed), (4, 2));
    assert_eq!(breaker.admit(ms(502)).ticket, Err(ms(500)));
    assert_eq!(breaker.rejects(ms(502)), Some(ms(500)));
}

#[test]
fn slow_requests_open_it_where_that_is_asked_for() {
    let breaker = Breaker::new(BreakerRules { slow_percent: Some(75), ..RULES });
    for _ in 0..3 {
        assert_eq!(run(&breaker, TicketResult::Succeeded { slow: true }, ms(1)), None);
    }
    let transition = run(&breaker, FINE, ms(1)).expect("three of four were slow");
    assert_eq!(transition.reason, Reason::SlowRatio);
    let indifferent = Breaker::new(RULES);
    for _ in 0..9 {
        assert_eq!(run(&indifferent, TicketResult::Succeeded { slow: true }, ms(1)), None);
    }
}

#[test]
fn failures_in_a_row_open_it_where_that_is_asked_for() {
    let rules = BreakerRules { failure_percent: None, consecutive: Some(3), ..RULES };
    let breaker = Breaker::new(rules);
    for result in [
        TicketResult::Failed,
        TicketResult::Failed,
        FINE,
        TicketResult::Failed,
        TicketResult::Failed,
    ] {
        assert_eq!(run(&breaker, result, ms(1)), None);
    }
    let transition = run(&breaker, TicketResult::Failed, ms(1)).expect("three in a row");
    assert_eq!(transition.reason, Reason::ConsecutiveFailures);
}

#[test]
fn a_row_of_failures_must_last() {
    let rules = BreakerRules {
        failure_percent: None,
        consecutive: Some(3),
        consecutive_for: Duration::from_secs(1),
        ..RULES
    };
    let breaker = Breaker::new(rules);
    for _ in 0..50 {
        assert_eq!(run(&breaker, TicketResult::Failed, ms(400)), None, "a burst");
    }
    assert_eq!(run(&breaker, FINE, ms(800)), None);
    for now in [900, 1_100, 1_899] {
        assert_eq!(run(&breaker, TicketResult::Failed, ms(now)), None);
    }
    assert!(run(&breaker, TicketResult::Failed, ms(1_900)).is_some(), "an outage");
}

#[test]
fn probes_that_succeed_close_it() {
    let breaker = opened(RULES);
    let first = breaker.admit(ms(1000));
    assert_eq!(first.transition.map(|t| t.to), Some(State::HalfOpen));
    let second = breaker.admit(ms(1001)).ticket.expect("two probes");
    assert!(breaker.admit(ms(1002)).ticket.is_err(), "and no third");
    let first = first.ticket.expect("a probe");
    assert!(first.is_probe());
    assert_eq!(breaker.settle(first, FINE, ms(1003), 0.0, || true), None);
    let closing = breaker.settle(second, FINE, ms(1004), 0.0, || true);
    assert_eq!(closing.map(|t| t.to), Some(State::Closed));
    assert!(!breaker.admit(ms(1005)).ticket.expect("closed").is_probe());
}

#[test]
fn a_probe_that_fails_opens_it_for_longer() {
    let breaker = opened(RULES);
    let mut now = ms(0);
    for wanted in [2, 4, 8, 8] {
        now += ms(8000);
        let reopening = run(&breaker, TicketResult::Failed, now).expect("open again");
        assert_eq!(reopening.reason, Reason::ProbeFailed);
        assert_eq!(reopening.open_for, Some(Duration::from_secs(wanted)));
    }
}

#[test]
fn a_relapse_counts_as_the_same_outage() {
    let breaker = opened(RULES);
    run(&breaker, FINE, ms(1000));
    run(&breaker, FINE, ms(1000));
    assert_eq!(breaker.state(), State::Closed);
    let mut last = None;
    for _ in 0..4 {
        last = last.or(run(&breaker, TicketResult::Failed, ms(1500)));
    }
    assert_eq!(last.and_then(|t| t.open_for), Some(Duration::from_secs(2)));
}

#[test]
fn late_results_of_an_outage_do_not_count() {
    let breaker = Breaker::new(RULES);
    let late: Vec<Ticket> = (0..3).map(|_| breaker.admit(ms(0)).ticket.expect("closed")).collect();
    for _ in 0..4 {
        run(&breaker, TicketResult::Failed, ms(0));
    }
    let probe = breaker.admit(ms(1000)).ticket.expect("a probe");
    for ticket in late {
        assert_eq!(breaker.settle(ticket, TicketResult::Failed, ms(1001), 0.0, || true), None);
    }
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(breaker.settle(probe, FINE, ms(1002), 0.0, || true), None);
}

#[test]
fn a_probe_that_never_ends_does_not_hold_up_recovery() {
    let breaker = opened(RULES);
    let stuck: Vec<Ticket> =
        (0..2).map(|_| breaker.admit(ms(1000)).ticket.expect("a probe")).collect();
    assert!(breaker.admit(ms(1500)).ticket.is_err());
    run(&breaker, FINE, ms(2000));
    for ticket in stuck {
        assert_eq!(breaker.settle(ticket, TicketResult::Failed, ms(2001), 0.0, || true), None);
    }
    let closing = run(&breaker, FINE, ms(2002)).expect("closed");
    assert_eq!(closing.to, State::Closed);
}

#[test]
fn a_probe_whose_client_left_is_given_to_another() {
    let breaker = opened(RULES);
    for _ in 0..5 {
        run(&breaker, TicketResult::Unknown, ms(1000));
    }
    assert_eq!(breaker.state(), State::HalfOpen);
}

#[test]
fn an_operator_wins() {
    let breaker = Breaker::new(RULES);
    let forced = breaker.force(Some(Force::Open), ms(0)).expect("a change");
    assert_eq!((forced.to, forced.reason), (State::Open, Reason::Forced));
    assert!(breaker.admit(ms(100_000)).ticket.is_err());
    assert_eq!(breaker.force(Some(Force::Open), ms(1)), None);
    breaker.force(Some(Force::Closed), ms(1));
    for _ in 0..9 {
        assert_eq!(run(&breaker, TicketResult::Failed, ms(2)), None);
    }
    let released = breaker.force(None, ms(3)).expect("a change");
    assert_eq!((released.to, released.reason), (State::Closed, Reason::Released));
    assert_eq!(breaker.status(ms(3)).failed, 0);
}

#[test]
fn what_may_not_open_stays_closed() {
    let breaker = Breaker::new(RULES);
    for _ in 0..9 {
        let ticket = breaker.admit(ms(0)).ticket.expect("closed");
        assert_eq!(breaker.settle(ticket, TicketResult::Failed, ms(0), 0.0, || false), None);
    }
}

#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    Admit,
    Settle(usize, TicketResult),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let result = prop_oneof![
        Just(FINE),
        Just(TicketResult::Failed),
        Just(TicketResult::Failed),
        Just(TicketResult::Unknown)
    ];
    let act = prop_oneof![
        (0u64..700).prop_map(Act::Wait),
        Just(Act::Admit),
        Just(Act::Admit),
        (0usize..8, result).prop_map(|(at, result)| Act::Settle(at, result)),
    ];
    proptest::collection::vec(act, 1..200)
}

proptest! {
    /// Whatever happens: open rejects, half-open lets no more than its probes be under way,
    /// nothing opens below the minimum, and peace brings everything back.
    #[test]
    fn it_keeps_its_promises(acts in acts(), jitter in 0.0f64..1.0) {
        let breaker = Breaker::new(RULES);
        let mut now = ms(0);
        let mut open: Vec<(Ticket, bool)> = Vec::new();
        for act in acts {
            match act {
                Act::Wait(millis) => now += ms(millis),
                Act::Admit => {
                    let looked = breaker.rejects(now);
                    let admitted = breaker.admit(now);
                    prop_assert_eq!(looked.is_none(), admitted.ticket.is_ok());
                    if let Ok(ticket) = admitted.ticket {
                        let probe = ticket.is_probe();
                        let epoch = ticket.epoch();
                        open.push((ticket, probe));
                        let probes = open.iter().filter(|(t, p)| *p && t.epoch() == epoch);
                        prop_assert!(!probe || probes.count() <= 2);
                    } else {
                        prop_assert_ne!(breaker.state(), State::Closed);
                    }
                }
                Act::Settle(at, result) if at < open.len() => {
                    let (ticket, _) = open.swap_remove(at);
                    if let Some(change) = breaker.settle(ticket, result, now, jitter, || true)
                        && change.from == State::Closed
                    {
                        prop_assert!(change.requests >= 4 && change.failed * 2 >= change.requests);
                        let left = breaker.status(now).open_left;
                        prop_assert!(left >= ms(1000) && left <= ms(9600));
                    }
                }
                Act::Settle(..) => {}
            }
        }
        now += Duration::from_secs(10);
        for _ in 0..2 {
            run(&breaker, FINE, now);
        }
        prop_assert_eq!(breaker.state(), State::Closed);
    }
}
