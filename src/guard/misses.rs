//! How many fetches for the cache may be under way: for the upstream, and for one client. Random
//! query strings miss every time; the bounds keep them from taking all of the upstream.

use std::collections::HashMap;

use crate::sync::{Arc, Mutex, lock};

/// Bounds on concurrent misses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissRules {
    /// Fetches at a time for the whole upstream.
    pub max: u32,
    /// Fetches at a time for one client; `None` for no bound.
    pub client_max: Option<u32>,
}

/// Which bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverBudget {
    /// The bound for the whole upstream.
    Upstream,
    /// The bound for this client.
    Client,
}

#[derive(Debug, Default)]
struct Inner {
    total: u32,
    clients: HashMap<u64, u32>,
}

/// The misses under way.
#[derive(Debug)]
pub struct MissBudget {
    rules: MissRules,
    inner: Mutex<Inner>,
}

/// A miss under way; it ends when dropped.
#[derive(Debug)]
pub struct MissPermit {
    budget: Arc<MissBudget>,
    client: Option<u64>,
}

impl MissBudget {
    /// A budget with these bounds.
    pub fn new(rules: MissRules) -> Arc<Self> {
        Arc::new(MissBudget { rules, inner: Mutex::default() })
    }

    /// Begins a miss for a client, which is known by a hash; `None` if the client is not known.
    ///
    /// # Errors
    /// Which bound was reached.
    pub fn begin(self: &Arc<Self>, client: Option<u64>) -> Result<MissPermit, OverBudget> {
        let client = client.filter(|_| self.rules.client_max.is_some());
        let mut inner = lock(&self.inner);
        if let (Some(client), Some(max)) = (client, self.rules.client_max)
            && inner.clients.get(&client).is_some_and(|count| *count >= max)
        {
            return Err(OverBudget::Client);
        }
        if inner.total >= self.rules.max {
            return Err(OverBudget::Upstream);
        }
        inner.total += 1;
        if let Some(client) = client {
            *inner.clients.entry(client).or_default() += 1;
        }
        drop(inner);
        Ok(MissPermit { budget: Arc::clone(self), client })
    }

    /// How many fetches run now, of all clients.
    pub fn under_way(&self) -> u32 {
        lock(&self.inner).total
    }

    #[cfg(test)]
    pub(crate) fn clients(&self) -> usize {
        lock(&self.inner).clients.len()
    }
}

impl Drop for MissPermit {
    fn drop(&mut self) {
        let mut inner = lock(&self.budget.inner);
        inner.total -= 1;
        let Some(client) = self.client else { return };
        if let Some(count) = inner.clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                // Only clients with a fetch under way are remembered, so that the map stays small.
                inner.clients.remove(&client);
            }
        }
    }
}
