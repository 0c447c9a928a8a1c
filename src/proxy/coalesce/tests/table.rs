//! Who leads and who joins.

use std::sync::Arc;
use std::time::Instant;

use crate::coalesce::flight::Flight;
use crate::coalesce::table::*;

#[test]
fn the_first_leads_and_the_place_is_free_afterwards() {
    let table = Arc::new(FlightTable::default());
    let leader = table.join((1, 0), 9, 0, Instant::now(), |_| false);
    assert!(matches!(leader, Role::Leader(..)));
    assert!(matches!(table.join((1, 0), 9, 0, Instant::now(), |_| false), Role::Waiter(_)));
    assert!(matches!(table.join((1, 1), 9, 0, Instant::now(), |_| false), Role::Leader(..)));
    assert!(table.begin_refresh((1, 0), 0, Instant::now()).is_none());
    drop(leader);
    assert_eq!(table.len(), 0);
    assert!(table.begin_refresh((1, 0), 0, Instant::now()).is_some());
}

#[test]
fn a_fetch_from_before_a_purge_is_not_joined() {
    let table = Arc::new(FlightTable::default());
    let overtaken = |flight: &Flight| flight.born_seq() < 1;
    let old = table.join((1, 0), 9, 0, Instant::now(), overtaken);
    let new = table.join((1, 0), 9, 1, Instant::now(), overtaken);
    assert!(matches!(new, Role::Leader(..)));
    drop(old);
    assert!(matches!(table.join((1, 0), 9, 1, Instant::now(), overtaken), Role::Waiter(_)));
}

#[test]
fn a_fetch_is_found_by_its_variant_too_once_that_is_known() {
    let table = Arc::new(FlightTable::default());
    let join = |hint| table.join((1, hint), 9, 0, Instant::now(), |_| false);
    let Role::Leader(mut first, _reader) = join(0) else { panic!("it leads") };
    let Role::Leader(second, _other) = join(8) else { panic!("another variant leads") };
    // A variant that has a fetch keeps it.
    first.list_as(8);
    first.list_as(7);
    assert!(matches!(join(7), Role::Waiter(_)));
    assert!(matches!(join(0), Role::Waiter(_)));
    assert_eq!(table.len(), 2, "each is counted once");
    drop(first);
    assert_eq!(table.len(), 1, "it is gone under both keys");
    assert!(matches!(join(8), Role::Waiter(_)));
    drop(second);
    assert_eq!(table.len(), 0);
}
