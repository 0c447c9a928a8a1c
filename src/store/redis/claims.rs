//! One fetch for many pods: the pod that wins the claim in Redis fetches, the others wait for the
//! value to appear. When anything goes wrong, every pod fetches for itself: a claim only saves work.

use std::sync::Arc;
use std::time::Duration;

use outrigger_redis::client;
use outrigger_semantics::Variant;
use tokio::time::Instant;

use super::commands::UNCACHEABLE;
use super::tier::RedisTier;
use crate::entry::Entry;
use crate::lookup::{Lookup, Wanted};
use crate::tier::{Claim, ClaimTicket, Settled, Tier, Usable};

/// First pause between two looks at the claim.
const PAUSE: Duration = Duration::from_millis(4);
/// Longest pause between two looks at the claim.
const PAUSE_MAX: Duration = Duration::from_millis(32);

/// Ends a claim that will not be used when it is dropped. If another pod holds the claim, that
/// changes nothing.
struct GivingUp<'a> {
    tier: &'a RedisTier,
    ticket: Option<ClaimTicket>,
}

impl GivingUp<'_> {
    fn name(&self) -> &[u8] {
        self.ticket.as_ref().map_or(&[], |ticket| &ticket.name)
    }
}

impl Drop for GivingUp<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.tier.settle(ticket, Settled::Done);
        }
    }
}

/// Who holds the claim.
enum Held {
    Ours,
    Others,
    Uncacheable,
}

impl RedisTier {
    /// Claims the fetch of a key, or waits for what another pod fetches, at most `limit`.
    pub(super) async fn claimed(
        &self,
        wanted: Wanted<'_>,
        limit: Duration,
        usable: &Usable<'_>,
    ) -> Claim {
        // Pods that fetch different variants do not wait for each other. A pod that does not know by
        // what the responses vary fetches beside them: a claim only saves work.
        let names = self.descriptors.get(&wanted.digest);
        let variant = names.map(|names| Variant::of_names(names.iter(), wanted.headers));
        let variant = variant.as_ref().map(|variant| (wanted.key, variant));
        let name = self.settings.names.claim(wanted.scope, wanted.digest, variant);
        let name: Arc<[u8]> = name.into();
        let token = fastrand::u64(1..);
        let until = Instant::now() + limit;
        let mut pause = PAUSE;
        let mut waited = false;
        // The claim may have been won although the answer was lost.
        let mut giving_up = GivingUp { tier: self, ticket: Some(ClaimTicket { name, token }) };
        loop {
            match self.try_claim(giving_up.name(), token, limit).await {
                None => return Claim::Free,
                Some(Held::Uncacheable) => return Claim::Uncacheable,
                Some(Held::Ours) => {
                    // The pod that held it before may have stored the value between two looks.
                    if waited && let Some(entry) = self.fetched(wanted, usable).await {
                        return Claim::Fetched(entry);
                    }
                    return giving_up.ticket.take().map_or(Claim::Free, Claim::Lead);
                }
                Some(Held::Others) => {}
            }
            if Instant::now() >= until {
                return Claim::Free;
            }
            waited = true;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            if let Some(entry) = self.fetched(wanted, usable).await {
                return Claim::Fetched(entry);
            }
        }
    }

    /// What another pod has stored meanwhile. Purged and stale values do not count.
    async fn fetched(&self, wanted: Wanted<'_>, usable: &Usable<'_>) -> Option<Arc<Entry>> {
        match self.lookup(wanted).await {
            Lookup::Hit(entry) if usable(&entry) => Some(entry),
            _ => None,
        }
    }

    /// Tries to win the claim; `None` when Redis does not answer.
    async fn try_claim(&self, name: &[u8], token: u64, limit: Duration) -> Option<Held> {
        let (mut conn, link) = self.shard(name).usable().ok()?;
        let mut pipeline = client::pipe();
        let ms = u64::try_from(limit.as_millis()).unwrap_or(1000).max(1);
        pipeline.cmd("SET").arg(name).arg(token).arg("NX").arg("PX").arg(ms).ignore();
        pipeline.cmd("GET").arg(name);
        let asked = pipeline.query_async::<(Option<String>,)>(&mut conn);
        let answered = tokio::time::timeout(self.settings.read_timeout, asked).await;
        match answered {
            Ok(Ok((Some(held),))) if held == token.to_string() => Some(Held::Ours),
            Ok(Ok((Some(held),))) if held == UNCACHEABLE => Some(Held::Uncacheable),
            Ok(Ok(_)) => Some(Held::Others),
            Ok(Err(error)) => {
                link.note(&error);
                None
            }
            Err(_) => None,
        }
    }
}
