//! One stored response (RFC 9111 §2), prepared for serving.
//!
//! Header values are copied into one allocation of exactly their size: what arrives from a connection
//! are slices of its read buffers, and a small slice would keep a large buffer alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{AGE, CACHE_STATUS, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use outrigger_semantics::partial::Part;
use outrigger_semantics::storable::has_validator;
use outrigger_semantics::{Lifetimes, Recency, UnixMillis, Variant, fields, tags};

/// A stored response, shared by all requests that it is served to.
#[derive(Debug)]
pub struct Entry {
    /// The canonical key. It begins with the canonical URI.
    pub key: Arc<[u8]>,
    /// Digest of the canonical key.
    pub digest: u128,
    /// Length of the canonical URI, with which the key begins.
    pub uri_len: usize,
    /// Digest of the canonical URI, by which purges name the entry.
    pub uri_digest: u128,
    /// Status code of the response.
    pub status: StatusCode,
    /// Header fields as served. `Age` and `Cache-Status` are present, and a hit sets their values.
    pub headers: HeaderMap,
    /// The complete body, or one part of it.
    pub body: Bytes,
    /// Set if the body is a part of the representation (RFC 9111 §3.3).
    pub part: Option<Part>,
    /// The selecting fields (RFC 9111 §4.1).
    pub variant: Variant,
    /// Points in time that reuse depends on.
    pub lifetimes: Lifetimes,
    /// Tags by which purges name the entry.
    pub tags: Box<[Box<str>]>,
    /// Position of the purge log that this pod had applied before the fetch began.
    pub born_seq: u64,
    /// Position that the purge log had reached when the response had arrived: what a client that
    /// reads the response has seen.
    pub seen_seq: u64,
    /// Hash of the caching rules by which it was stored. Values in Redis carry it as a field.
    pub rules_fingerprint: u64,
    /// How recent it is: which of two responses under a key stays (RFC 9111 §4).
    pub recency: Recency,
    /// When it was stored, by the proxy's clock.
    pub stored_at: UnixMillis,
    /// How long the upstream took for it, milliseconds.
    pub fetch_millis: u32,
    /// Position and mark of [`Entry::checked`], in one word.
    pub(crate) checked: AtomicU64,
    /// Roughly how often memory has answered with it, at most 255.
    pub(crate) hits: AtomicU8,
}

/// Positions of the purge log around a fetch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSpan {
    /// What this pod had applied before the fetch began.
    pub born: u64,
    /// What the log had reached when the response had arrived; never less than `born`.
    pub seen: u64,
}

/// What an entry is made from.
#[derive(Debug)]
pub struct Draft<'a> {
    /// The canonical key, which begins with the canonical URI.
    pub key: &'a [u8],
    /// Digest of the canonical key.
    pub digest: u128,
    /// Length of the canonical URI within the key.
    pub uri_len: usize,
    /// Digest of the canonical URI.
    pub uri_digest: u128,
    /// Status code of the response.
    pub status: StatusCode,
    /// Header fields of the response, hop-by-hop fields already removed.
    pub headers: &'a HeaderMap,
    /// Fields that must not be stored.
    pub omit: &'a [HeaderName],
    /// The complete body, or one part of it.
    pub body: Bytes,
    /// Set if the body is a part of the representation (RFC 9111 §3.3).
    pub part: Option<Part>,
    /// The selecting fields (RFC 9111 §4.1).
    pub variant: Variant,
    /// Points in time that reuse depends on.
    pub lifetimes: Lifetimes,
    /// Positions of the purge log around the fetch.
    pub log: LogSpan,
    /// Hash of the caching rules by which it is stored.
    pub rules_fingerprint: u64,
    /// How recent the response is (RFC 9111 §4).
    pub recency: Recency,
    /// The time of storing, by the proxy's clock.
    pub now: UnixMillis,
    /// How long the upstream took for it, milliseconds.
    pub fetch_millis: u32,
}

impl Entry {
    /// Prepares a response for storing.
    pub fn new(draft: Draft<'_>) -> Self {
        let mut headers = compact(draft.headers, draft.omit);
        let tags = tags::of(&headers).into_boxed_slice();
        headers.insert(AGE, HeaderValue::from_static("0"));
        if !headers.contains_key(CACHE_STATUS) {
            headers.insert(CACHE_STATUS, HeaderValue::from_static("Outrigger"));
        }
        let bodiless = matches!(draft.status.as_u16(), 204 | 304);
        if draft.part.is_none() && !bodiless {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(draft.body.len()));
        }
        Entry {
            key: draft.key.into(),
            digest: draft.digest,
            uri_len: draft.uri_len,
            uri_digest: draft.uri_digest,
            status: draft.status,
            tags,
            headers,
            body: draft.body,
            part: draft.part,
            variant: draft.variant,
            lifetimes: draft.lifetimes,
            born_seq: draft.log.born,
            seen_seq: draft.log.seen.max(draft.log.born),
            rules_fingerprint: draft.rules_fingerprint,
            recency: draft.recency,
            stored_at: draft.now,
            fetch_millis: draft.fetch_millis,
            checked: AtomicU64::new(0),
            hits: AtomicU8::new(0),
        }
    }

    /// A draft of the same response: what changes it replaces fields of this.
    pub fn draft(&self) -> Draft<'_> {
        Draft {
            key: &self.key,
            digest: self.digest,
            uri_len: self.uri_len,
            uri_digest: self.uri_digest,
            status: self.status,
            headers: &self.headers,
            omit: &[],
            body: self.body.clone(),
            part: self.part,
            variant: self.variant.clone(),
            lifetimes: self.lifetimes,
            log: LogSpan { born: self.born_seq, seen: self.seen_seq },
            rules_fingerprint: self.rules_fingerprint,
            recency: self.recency,
            now: self.stored_at,
            fetch_millis: self.fetch_millis,
        }
    }

    /// The same response after an answer that ended some of its uses: `lifetimes` say which. It is as
    /// recent as that answer, so that it takes the place of copies in other tiers. The body is
    /// dropped where no validation can bring it back.
    pub fn superseded(&self, lifetimes: Lifetimes, recency: Recency, now: UnixMillis) -> Self {
        let body = match lifetimes.invalid && !has_validator(&self.headers) {
            true => Bytes::new(),
            false => self.body.clone(),
        };
        Entry::new(Draft { body, lifetimes, recency, now, ..self.draft() })
    }

    /// Whether a validation or a failure of the upstream can bring it into use. What is invalid and
    /// has no validator is kept only to outlast older copies in other tiers.
    pub fn is_of_use(&self) -> bool {
        !self.lifetimes.invalid || has_validator(&self.headers)
    }

    /// The canonical URI, as bytes of the key.
    pub fn uri(&self) -> &[u8] {
        &self.key[..self.uri_len.min(self.key.len())]
    }

    /// Bytes of memory that the entry takes, with its part of the memory tier's index.
    pub fn weight(&self) -> usize {
        // The entry, its slot, the reference counts, and its part of the memory tier's index.
        const FIXED: usize = 1100;
        // A bucket of the header table, and the allocation of a name that is not a standard one.
        const PER_FIELD: usize = 120;
        let headers: usize =
            self.headers.iter().map(|(n, v)| PER_FIELD + n.as_str().len() + v.len()).sum();
        let tags: usize = self.tags.iter().map(|tag| 16 + tag.len()).sum();
        FIXED + self.key.len() + headers + tags + self.variant.weight() + self.body.len()
    }

    /// Whether this is no server error: those never replace other responses, and are not served in
    /// place of an upstream that fails.
    pub fn is_good(&self) -> bool {
        !self.status.is_server_error()
    }

    /// Notes that memory has answered with it. Two threads may count once.
    pub(crate) fn note_hit(&self) {
        let hits = self.hits.load(Ordering::Relaxed);
        if hits < u8::MAX {
            self.hits.store(hits + 1, Ordering::Relaxed);
        }
    }

    /// Up to which change of the purge log's mirror the entry was found valid, with a mark whether a
    /// soft purge touched it. Zero when never checked.
    pub fn checked(&self) -> (u64, bool) {
        let value = self.checked.load(Ordering::Acquire);
        (value >> 1, value & 1 == 1)
    }

    /// Remembers a check, so that the next hit compares one number.
    pub fn set_checked(&self, change: u64, soft: bool) {
        self.checked.store(change << 1 | u64::from(soft), Ordering::Release);
    }
}

/// Copies header fields so that all values share one allocation of their size.
fn compact(headers: &HeaderMap, omit: &[HeaderName]) -> HeaderMap {
    let keeps =
        |name: &HeaderName| *name != AGE && !omit.contains(name) && !fields::is_never_stored(name);
    let total = headers.iter().filter(|(name, _)| keeps(name)).map(|(_, v)| v.len()).sum();
    let mut values = BytesMut::with_capacity(total);
    for (_, value) in headers.iter().filter(|(name, _)| keeps(name)) {
        values.extend_from_slice(value.as_bytes());
    }
    let mut values = values.freeze();
    let mut copy = HeaderMap::with_capacity(headers.keys_len() + 3);
    for (name, value) in headers.iter().filter(|(name, _)| keeps(name)) {
        let bytes = values.split_to(value.len());
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes) {
            copy.append(name.clone(), value);
        }
    }
    copy
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use outrigger_semantics::FreshnessSource;

    /// An entry for tests: `key`, one optional header field, and a body.
    pub(crate) fn entry(key: &str, field: Option<(&'static str, &str)>, body: &str) -> Entry {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = field {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        let mut request = HeaderMap::new();
        if let Some(("vary", _)) = field {
            request.insert("x-v", HeaderValue::from_str(body).unwrap());
        }
        let digest = u128::from(key.len() as u64) << 64 | 7;
        Entry::new(Draft {
            key: key.as_bytes(),
            digest,
            uri_len: key.len(),
            uri_digest: digest,
            status: StatusCode::OK,
            variant: Variant::of(&headers, &request, &[]),
            headers: &headers,
            omit: &[],
            body: Bytes::copy_from_slice(body.as_bytes()),
            part: None,
            lifetimes: Lifetimes {
                born: UnixMillis(0),
                fresh_until: UnixMillis(1000),
                stale_while_revalidate_until: UnixMillis(1000),
                stale_if_error_until: UnixMillis(1000),
                no_cache: false,
                invalid: false,
                forbids_stale: false,
                immutable: false,
                policy_alone: false,
                source: FreshnessSource::MaxAge,
            },
            log: LogSpan::default(),
            rules_fingerprint: 0,
            recency: Recency::default(),
            now: UnixMillis(0),
            fetch_millis: 1,
        })
    }

    #[test]
    fn stored_fields_leave_out_what_belongs_to_one_connection() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("proxy-authenticate", "x"), ("age", "3"), ("x-secret", "1"), ("x-kept", "2")]
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let got = compact(&headers, &[HeaderName::from_static("x-secret")]);
        assert_eq!(got.len(), 1);
        assert_eq!(got["x-kept"], "2");
    }

    #[test]
    fn weight_counts_all_that_grows() {
        let small = entry("k", None, "b").weight();
        assert_eq!(entry("k", None, "bb").weight(), small + 1);
        assert_eq!(entry("kk", None, "b").weight(), small + 1);
    }
}
