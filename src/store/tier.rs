//! The contract of tiers that may take time or fail.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::entry::Entry;
use crate::lookup::{Lookup, Unavailable, Wanted};

/// A tier below memory. Implementors write [`Tier::fetch`]; callers use [`Tier::lookup`].
#[async_trait]
pub trait Tier: Send + Sync {
    /// The name in metrics and `Cache-Status`.
    fn name(&self) -> &'static str;

    /// The longest time a lookup may take.
    fn deadline(&self) -> Duration;

    /// Asks the tier, without regard to time.
    async fn fetch(&self, wanted: Wanted<'_>) -> Lookup;

    /// Hands a stored response to the tier. Must not wait: work is queued or dropped.
    fn offer(&self, entry: &Arc<Entry>);

    /// Asks the tier within its deadline.
    async fn lookup(&self, wanted: Wanted<'_>) -> Lookup {
        match tokio::time::timeout(self.deadline(), self.fetch(wanted)).await {
            Ok(found) => found,
            Err(_) => Lookup::Unavailable(Unavailable::Deadline),
        }
    }
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
        fn offer(&self, _: &Arc<Entry>) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_tier_that_hangs_is_unavailable_and_not_empty() {
        let headers = http::HeaderMap::new();
        let found = Stuck.lookup(Wanted { digest: 1, key: b"k", headers: &headers }).await;
        assert!(matches!(found, Lookup::Unavailable(Unavailable::Deadline)));
    }
}
