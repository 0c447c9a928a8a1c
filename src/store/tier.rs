//! The contract of tiers that may take time or fail.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::entry::Entry;
use crate::lookup::{Lookup, ShareRules, Unavailable, Wanted};

/// A tier below memory. Implementors write [`Tier::fetch`]; callers use [`Tier::lookup`].
#[async_trait]
pub trait Tier: Send + Sync {
    /// The name in metrics and `Cache-Status`.
    fn name(&self) -> &'static str;

    /// The longest time a lookup may take.
    fn deadline(&self) -> Duration;

    /// Asks the tier, without regard to time.
    async fn fetch(&self, wanted: Wanted<'_>) -> Lookup;

    /// Hands a stored response to the tier. Must not wait: work is queued or dropped. `false` if
    /// the tier will not have it.
    fn offer(&self, entry: &Arc<Entry>, rules: &ShareRules) -> bool;

    /// Called once on each worker's runtime before it takes traffic: connections that live there
    /// need no hand-over between threads.
    fn attach(&self, _worker: usize) {}

    /// Notes a hit on an entry of the memory tier, for tiers that want to know what is hot. Called
    /// for a sample of the hits.
    fn note_hot(&self, _entry: &Entry, _rules: &ShareRules) {}

    /// Counts a lookup on behalf of a client, once it is known what came of it.
    fn count(&self, _found: Counted) {}

    /// Asks for the right to fetch what is missing, where pods fetch one at a time. While another
    /// pod has it this waits for a stored response that is `usable`.
    async fn claim(&self, _wanted: Wanted<'_>, _usable: &Usable<'_>) -> Claim {
        Claim::Free
    }

    /// Ends a claim, so that the others need not wait for its end in time.
    fn settle(&self, _ticket: Ticket, _how: Settled) {}

    /// Asks the tier within its deadline.
    async fn lookup(&self, wanted: Wanted<'_>) -> Lookup {
        match tokio::time::timeout(self.deadline(), self.fetch(wanted)).await {
            Ok(found) => found,
            Err(_) => Lookup::Unavailable(Unavailable::Deadline),
        }
    }
}

/// Whether a stored response answers a request.
pub type Usable<'a> = dyn Fn(&Arc<Entry>) -> bool + Send + Sync + 'a;

/// What came of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Something was there.
    Hit,
    /// Something was there, and a purge had voided it.
    Purged,
    /// Nothing was there.
    Miss,
    /// Nothing was there for these selecting fields.
    VaryMiss,
}

/// The answer to a claim.
#[derive(Debug)]
pub enum Claim {
    /// Nobody keeps order here: fetch.
    Free,
    /// Fetch, and settle the claim.
    Lead(Ticket),
    /// Another pod has fetched it meanwhile.
    Fetched(Arc<Entry>),
    /// Another pod found out that the response cannot be shared: fetch, without waiting.
    Uncacheable,
}

/// The right to fetch one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The key in the tier.
    pub name: Arc<[u8]>,
    /// What tells this claim from others.
    pub token: u64,
}

/// How a claimed fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// What there is to share has been offered, or there was an error.
    Done,
    /// The response is not for others.
    Uncacheable,
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stuck;

    #[async_trait]
    impl Tier for Stuck {
        fn name(&self) -> &'static str {
            "stuck"
        }
        fn deadline(&self) -> Duration {
            Duration::from_millis(5)
        }
        async fn fetch(&self, _: Wanted<'_>) -> Lookup {
            std::future::pending().await
        }
        fn offer(&self, _: &Arc<Entry>, _: &ShareRules) -> bool {
            false
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tier_that_hangs_is_unavailable_and_not_empty() {
        let headers = http::HeaderMap::new();
        let found = Stuck.lookup(Wanted::of(1, b"k", &headers)).await;
        assert!(matches!(found, Lookup::Unavailable(Unavailable::Deadline)));
    }
}
