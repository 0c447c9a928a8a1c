//! Places for fetches that nobody reads.

use crate::coalesce::unread::*;

#[test]
fn places_are_bounded_and_given_back() {
    let fetches = UnreadFetches::new(2, 100);
    let (one, _two) = (fetches.place(None).unwrap(), fetches.place(None).unwrap());
    assert!(fetches.place(None).is_none());
    drop(one);
    assert!(fetches.place(None).is_some());
    assert!(UnreadFetches::new(0, 100).place(None).is_none());
}

#[test]
fn bytes_are_bounded_over_all_of_them() {
    let fetches = UnreadFetches::new(9, 100);
    let (mut one, mut two) = (fetches.place(None).unwrap(), fetches.place(None).unwrap());
    assert!(one.hold(60) && two.hold(40));
    assert!(!one.hold(61));
    drop(two);
    assert!(one.hold(100));
    drop(one);
    assert!(fetches.place(None).unwrap().hold(100));
}

#[test]
fn what_cannot_be_joined_goes_on_once_for_each_key() {
    let fetches = UnreadFetches::new(9, 100);
    let one = fetches.place(Some(1)).unwrap();
    assert!(fetches.place(Some(1)).is_none());
    assert!(fetches.place(Some(2)).is_some());
    drop(one);
    assert!(fetches.place(Some(1)).is_some());
    assert_eq!(fetches.len(), 0);
}
