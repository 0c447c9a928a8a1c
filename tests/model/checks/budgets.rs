//! Budgets that are counted: retries, misses, slots.

use std::time::Duration;

use shuttle::thread;

use crate::explore::{Ghost, choose, explore, together};
use crate::misses::{MissBudget, MissRules, OverBudget};
use crate::retry::{RESERVE, RetryBudget};
use crate::slots::Slots;
use crate::sync::Arc;

#[test]
fn retries_never_exceed_their_share_or_the_reserve() {
    const PERCENT: usize = 50;
    explore(2000, || {
        let budget = Arc::new(RetryBudget::new(PERCENT as u8));
        let (requests, retries) = (Arc::new(Ghost::default()), Arc::new(Ghost::default()));
        let allowed = |requests: usize| (requests * PERCENT / 100).max(RESERVE as usize);
        let now = Duration::from_secs(1);
        let (of, asked, given) = (Arc::clone(&budget), Arc::clone(&requests), Arc::clone(&retries));
        together(4, move |_| {
            for _ in 0..4 {
                if choose(2) == 0 {
                    // Counted here before it counts there, and so never less.
                    asked.add(1);
                    of.deposit(now);
                } else if of.withdraw(now).is_ok() {
                    assert!(given.add(1) <= allowed(asked.get()), "more than the share");
                }
            }
        });
        while budget.withdraw(now).is_ok() {
            retries.add(1);
        }
        assert_eq!(retries.get(), allowed(requests.get()), "all that is allowed, and no more");
    });
}

#[test]
fn misses_stay_within_both_bounds_and_all_are_given_back() {
    const MAX: usize = 3;
    const CLIENT_MAX: usize = 2;
    explore(2000, || {
        let rules = MissRules { max: MAX as u32, client_max: Some(CLIENT_MAX as u32) };
        let budget = MissBudget::new(rules);
        let (total, clients) = (Arc::new(Ghost::default()), Arc::new(<[Ghost; 2]>::default()));
        let of = Arc::clone(&budget);
        together(5, move |_| {
            for _ in 0..2 {
                let client = choose(3);
                let mine = clients.get(client);
                match of.begin(mine.map(|_| client as u64)) {
                    Ok(permit) => {
                        assert!(total.add(1) <= MAX);
                        assert!(mine.is_none_or(|mine| mine.add(1) <= CLIENT_MAX));
                        thread::yield_now();
                        total.take(1);
                        mine.into_iter().for_each(|mine| mine.take(1));
                        drop(permit);
                    }
                    Err(why) => assert!(why == OverBudget::Upstream || mine.is_some()),
                }
            }
        });
        assert_eq!((budget.under_way(), budget.clients()), (0, 0));
        let all: Vec<_> = (0..MAX).map(|_| budget.begin(None).expect("room again")).collect();
        assert!(budget.begin(None).is_err());
        drop(all);
    });
}

#[test]
fn slots_are_never_taken_twice_and_all_are_given_back() {
    const MAX: usize = 2;
    explore(2000, || {
        let slots = Slots::new(MAX as u32);
        let taken = Arc::new(Ghost::default());
        let of = Arc::clone(&slots);
        together(4, move |_| {
            for _ in 0..3 {
                let Some(slot) = of.take() else { continue };
                assert!(taken.add(1) <= MAX);
                thread::yield_now();
                taken.take(1);
                drop(slot);
            }
        });
        assert_eq!(slots.taken(), 0);
        assert!((0..MAX).map(|_| slots.take()).collect::<Vec<_>>().iter().all(Option::is_some));
    });
}
