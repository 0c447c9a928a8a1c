//! Places taken and left.

use crate::slots::*;

#[test]
fn a_place_is_free_again_when_it_is_left() {
    let slots = Slots::new(1);
    let slot = slots.take().expect("a place");
    assert!(slots.take().is_none());
    drop(slot);
    assert_eq!(slots.taken(), 0);
    assert!(slots.take().is_some());
}
