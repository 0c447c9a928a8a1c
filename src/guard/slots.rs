//! A number of places, taken or not: for work that is left out when there is none.

use crate::sync::{Arc, Mutex, lock};

/// A bounded number of places.
#[derive(Debug)]
pub struct Slots {
    max: u32,
    taken: Mutex<u32>,
}

/// A place; free again when dropped.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Slots {
    /// A number of places, all of them free.
    pub fn new(max: u32) -> Arc<Self> {
        Arc::new(Slots { max, taken: Mutex::new(0) })
    }

    /// Takes a place, if one is free.
    pub fn take(self: &Arc<Self>) -> Option<Slot> {
        let mut taken = lock(&self.taken);
        (*taken < self.max).then(|| {
            *taken += 1;
            Slot(Arc::clone(self))
        })
    }

    /// How many places are taken now.
    pub fn taken(&self) -> u32 {
        *lock(&self.taken)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *lock(&self.0.taken) -= 1;
    }
}
