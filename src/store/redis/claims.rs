//! One fetch for many pods: who wins the claim in Redis fetches, the others wait for the value to
//! appear. Whatever goes wrong, everybody fetches: a claim saves work, nothing depends on it.

use std::sync::Arc;
use std::time::Duration;

use outrigger_redis::client;
use tokio::time::Instant;

use super::RedisTier;
use crate::entry::Entry;
use crate::lookup::{Lookup, Wanted};
use crate::tier::{Claim, Settled, Ticket, Tier, Usable};

/// What a claim says once it is known that the response is not for others.
pub(super) const UNCACHEABLE: &str = "-";
/// First pause between looks, and the longest.
const PAUSE: Duration = Duration::from_millis(4);
const PAUSE_MAX: Duration = Duration::from_millis(32);

/// Gives a claim back that nobody will use. Where it is another's, that changes nothing.
struct GivingUp<'a> {
    tier: &'a RedisTier,
    ticket: Option<Ticket>,
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

/// What stands under the claim's name.
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
        let name: Arc<[u8]> = self.settings.names.claim(wanted.scope, wanted.digest).into();
        let token = fastrand::u64(1..);
        let until = Instant::now() + limit;
        let mut pause = PAUSE;
        let mut waited = false;
        // A claim may be ours although its answer never came.
        let mut giving_up = GivingUp { tier: self, ticket: Some(Ticket { name, token }) };
        loop {
            match self.try_claim(giving_up.name(), token, limit).await {
                None => return Claim::Free,
                Some(Held::Uncacheable) => return Claim::Uncacheable,
                Some(Held::Ours) => {
                    // The one before us may have ended between two looks.
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

    /// What has been fetched meanwhile. What was there before, void or stale, is of no use.
    async fn fetched(&self, wanted: Wanted<'_>, usable: &Usable<'_>) -> Option<Arc<Entry>> {
        match self.lookup(wanted).await {
            Lookup::Hit(entry) if usable(&entry) => Some(entry),
            _ => None,
        }
    }

    /// `None` when Redis does not answer.
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
