//! Reading: the value under a name, and whether it answers what was asked.
//!
//! A key that varies has a descriptor under its own name, which lists the selecting fields; each
//! variant has a name made from their values.

use std::sync::Arc;

use http::HeaderName;
use outrigger_semantics::Variant;
use tokio::time::Instant;

use super::counts::LookupResult;
use super::shard::RawValue;
use super::tier::RedisTier;
use crate::entry::Entry;
use crate::envelope::Value;
use crate::envelope::seal::Keys;
use crate::lookup::{Lookup, Miss, Unavailable, Wanted};

/// What reading a value brought.
pub(super) enum Read {
    /// A value that was written by a process like this one.
    Value(Value),
    /// Nothing is stored under the name.
    Absent,
    /// The value is damaged or foreign; it has been counted.
    Refused,
}

impl RedisTier {
    /// Looks for a stored response that was stored by the wanted rules.
    pub(super) async fn find(&self, wanted: Wanted<'_>) -> Lookup {
        let until = Instant::now() + self.settings.read_timeout;
        if let Some(vary) = self.descriptors.get(&wanted.digest) {
            return self.variant(&vary, &wanted, until).await;
        }
        let name = self.settings.names.entry(wanted.scope, wanted.digest);
        match self.value(&name, until).await {
            Ok(Read::Absent) => Lookup::Miss(Miss::Uri),
            Ok(Read::Refused) => Lookup::Miss(Miss::Refused),
            Ok(Read::Value(Value::Entry(entry))) => self.checked(*entry, &wanted),
            Ok(Read::Value(Value::Descriptor { key, names })) if key == wanted.key => {
                let vary: Arc<[HeaderName]> = names.into();
                self.descriptors.insert(wanted.digest, Arc::clone(&vary));
                self.variant(&vary, &wanted, until).await
            }
            Ok(Read::Value(Value::Descriptor { .. })) => {
                self.counts.lookup(LookupResult::Foreign);
                Lookup::Miss(Miss::Refused)
            }
            Err(why) => Lookup::Unavailable(why),
        }
    }

    /// Reads the value under a name.
    pub(super) async fn value(&self, name: &[u8], until: Instant) -> Result<Read, Unavailable> {
        let limit = self.settings.codec.bytes_max();
        let asked = self.shard(name).get(name, limit, until, &self.counts).await?;
        let bytes = match asked {
            RawValue::Absent => return Ok(Read::Absent),
            RawValue::Foreign => {
                self.counts.lookup(LookupResult::Foreign);
                return Ok(Read::Refused);
            }
            RawValue::Found(bytes) => bytes,
        };
        let ring = self.keys.as_ref().map(Keys::ring);
        match self.settings.codec.read(bytes, name, ring.as_deref()) {
            Ok(Value::Entry(mut entry)) => {
                if !self.settings.shared_log {
                    (entry.born_seq, entry.seen_seq) = (0, 0);
                }
                Ok(Read::Value(Value::Entry(entry)))
            }
            Ok(value) => Ok(Read::Value(value)),
            Err(refused) => {
                self.counts.lookup(LookupResult::of_refused(refused));
                Ok(Read::Refused)
            }
        }
    }

    /// Checks that an entry answers what was asked.
    fn checked(&self, entry: Entry, wanted: &Wanted<'_>) -> Lookup {
        let refused = if *entry.key != *wanted.key {
            LookupResult::Foreign
        } else if entry.rules_fingerprint != wanted.rules_fingerprint {
            LookupResult::Policy
        } else if entry.variant.matches(wanted.headers) {
            return Lookup::Hit(Arc::new(entry));
        } else {
            return Lookup::Miss(Miss::Variant);
        };
        self.counts.lookup(refused);
        Lookup::Miss(Miss::Refused)
    }

    /// Looks for the variant that the request's fields select.
    async fn variant(&self, vary: &[HeaderName], wanted: &Wanted<'_>, until: Instant) -> Lookup {
        let variant = Variant::of_names(vary, wanted.headers);
        let name = self.settings.names.variant(wanted.scope, wanted.key, &variant);
        match self.value(&name, until).await {
            Ok(Read::Value(Value::Entry(entry))) => self.checked(*entry, wanted),
            Ok(Read::Refused) => Lookup::Miss(Miss::Refused),
            Ok(_) => Lookup::Miss(Miss::Variant),
            Err(why) => Lookup::Unavailable(why),
        }
    }
}
