//! The contract that every tier below memory keeps. Today there is one, in Redis; a tier on disk
//! would be a second one.
//!
//! **Lookup order.** Memory is asked first, then the tiers in the order of the process's list, from
//! fast to slow. The first hit that the purge log and RFC 9111 allow to be used ends the search; a
//! miss or a failure of one tier leads to the next. A tier is asked by [`Tier::lookup`], which adds
//! the deadline, and never waits for another tier.
//!
//! **Copy up.** The caller puts what a tier has found into memory. A tier neither knows the tiers
//! above it nor copies between tiers.
//!
//! **Copy down.** What is stored in memory is offered to every tier. [`Tier::offer`] must not wait: a
//! tier queues the write behind the response, or drops it. A server error must not replace another
//! response in a tier ([`Entry::is_good`]), and an older response must not replace a more recent one
//! ([`Recency`](outrigger_semantics::Recency)).
//!
//! **Validity.** A tier deletes nothing because of a purge, and judges no freshness: an entry keeps
//! the log positions of its fetch, and the caller compares them when it has been read. What a tier
//! must compare itself is the key, the selecting fields and the fingerprint of the caching rules,
//! since its entries outlive policies and processes.
//!
//! **Failure.** A tier that fails answers [`Lookup::Unavailable`] and never [`Lookup::Miss`]: the
//! metrics tell them apart, and an unavailable tier must not look like an empty one. A damaged value
//! is a miss ([`Miss::Refused`](crate::Miss::Refused)) and is counted by the tier.
//!
//! **Optional parts.** A tier that no other pod shares needs no [`Tier::claim`] and
//! [`Tier::settle`]; one without connections needs no [`Tier::attach`]; one without warm start needs
//! no [`Tier::note_hot`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::entry::Entry;
use crate::lookup::{Lookup, ShareRules, Unavailable, Wanted};

/// A tier below memory. Implementors write [`Tier::fetch`]; callers use [`Tier::lookup`].
#[async_trait]
pub trait Tier: Send + Sync {
    /// The stable name in metrics and in answers to operators.
    fn name(&self) -> &'static str;

    /// The longest time that a lookup may take.
    fn deadline(&self) -> Duration;

    /// Looks for a stored response, without regard to time. The future is dropped at the deadline.
    async fn fetch(&self, wanted: Wanted<'_>) -> Lookup;

    /// Hands a stored response to the tier; `false` if the tier does not take it. Must not wait.
    fn offer(&self, entry: &Arc<Entry>, rules: &ShareRules) -> bool;

    /// Names who is told of an entry that the tier did not take since it has a more recent one: the
    /// copy in memory is then out of date. Called once, before the tier is used.
    fn on_overtaken(&self, _tell: OnOvertaken) {}

    /// Called once on each worker's runtime before the worker takes traffic, so that connections can
    /// live on the runtime that uses them. Workers are numbered from zero.
    fn attach(&self, _worker: usize) {}

    /// Notes a hit on an entry in memory. Called for a sample of the hits, on the hit path: it must
    /// not wait.
    fn note_hot(&self, _entry: &Entry, _rules: &ShareRules) {}

    /// Counts a lookup on behalf of a client, once the caller knows what came of it. Lookups that were
    /// refused or failed are counted by the tier itself.
    fn count(&self, _found: Counted) {}

    /// Asks for the right to fetch what is missing, where pods fetch one at a time. While another
    /// pod has the right, this waits for a stored response that is `usable`, within a bound of its
    /// own.
    async fn claim(&self, _wanted: Wanted<'_>, _usable: &Usable<'_>) -> Claim {
        Claim::Free
    }

    /// Ends a claim, so that other pods need not wait until its time has passed. Must not wait.
    fn settle(&self, _ticket: ClaimTicket, _how: Settled) {}

    /// Looks for a stored response within the tier's deadline.
    async fn lookup(&self, wanted: Wanted<'_>) -> Lookup {
        match tokio::time::timeout(self.deadline(), self.fetch(wanted)).await {
            Ok(found) => found,
            Err(_) => Lookup::Unavailable(Unavailable::Deadline),
        }
    }
}

/// Is told of an entry that is out of date.
pub type OnOvertaken = Box<dyn Fn(&Entry) + Send + Sync>;

/// Decides whether a stored response answers the request that waits for it.
pub type Usable<'a> = dyn Fn(&Arc<Entry>) -> bool + Send + Sync + 'a;

/// What came of a lookup that a tier has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// A stored response was found.
    Hit,
    /// A stored response was found that a purge had invalidated.
    Purged,
    /// No stored response was found.
    Miss,
    /// Stored responses were found, but for other selecting fields.
    VaryMiss,
}

/// The answer to the question who may fetch.
#[derive(Debug)]
pub enum Claim {
    /// The tier does not coordinate fetches, or cannot now: fetch.
    Free,
    /// Fetch on behalf of all pods, and settle the claim afterwards.
    Lead(ClaimTicket),
    /// Another pod has fetched the response meanwhile.
    Fetched(Arc<Entry>),
    /// Another pod has found out that the response cannot be shared: fetch without waiting.
    Uncacheable,
}

/// The right to fetch one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimTicket {
    /// The claim's name in the tier.
    pub name: Arc<[u8]>,
    /// A random number that distinguishes this claim from later ones under the name.
    pub token: u64,
}

/// How a claimed fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// What can be shared has been offered, or the fetch has failed.
    Done,
    /// The response cannot be shared.
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
