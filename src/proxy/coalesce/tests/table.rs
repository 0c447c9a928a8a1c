//! Who leads and who joins.

use std::sync::Arc;

use crate::coalesce::flight::Flight;
use crate::coalesce::table::*;

#[test]
fn the_first_leads_and_the_place_is_free_afterwards() {
    let table = Arc::new(FlightTable::default());
    let leader = table.join((1, 0), 9, 0, |_| false);
    assert!(matches!(leader, Role::Leader(..)));
    assert!(matches!(table.join((1, 0), 9, 0, |_| false), Role::Waiter(_)));
    assert!(matches!(table.join((1, 1), 9, 0, |_| false), Role::Leader(..)));
    assert!(table.begin_refresh((1, 0), 0).is_none());
    drop(leader);
    assert_eq!(table.len(), 0);
    assert!(table.begin_refresh((1, 0), 0).is_some());
}

#[test]
fn a_fetch_from_before_a_purge_is_not_joined() {
    let table = Arc::new(FlightTable::default());
    let overtaken = |flight: &Flight| flight.born_seq() < 1;
    let old = table.join((1, 0), 9, 0, overtaken);
    let new = table.join((1, 0), 9, 1, overtaken);
    assert!(matches!(new, Role::Leader(..)));
    drop(old);
    assert!(matches!(table.join((1, 0), 9, 1, overtaken), Role::Waiter(_)));
}
