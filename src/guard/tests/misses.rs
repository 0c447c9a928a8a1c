//! Bounds on concurrent misses.

use crate::misses::*;

#[test]
fn both_bounds_hold_and_nothing_is_remembered_for_nothing() {
    let budget = MissBudget::new(MissRules { max: 3, client_max: Some(2) });
    let mine: Vec<_> = (0..2).map(|_| budget.begin(Some(1)).expect("room")).collect();
    assert_eq!(budget.begin(Some(1)).unwrap_err(), OverBudget::Client);
    let other = budget.begin(Some(2)).expect("room");
    assert_eq!(budget.begin(Some(3)).unwrap_err(), OverBudget::Upstream);
    assert_eq!(budget.begin(None).unwrap_err(), OverBudget::Upstream);
    drop((mine, other));
    assert_eq!(budget.under_way(), 0);
    assert_eq!(budget.clients(), 0);
}
