//! The fields of a value: each is its number, the length of its content, and the content. Unknown
//! numbers are skipped.

use std::sync::atomic::{AtomicU8, AtomicU64};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use outrigger_semantics::freshness::Exchange;
use outrigger_semantics::partial::Part;
use outrigger_semantics::range::ByteRange;
use outrigger_semantics::{FreshnessSource, Lifetimes, Recency, UnixMillis, Variant, fields, vary};

use crate::entry::{Entry, LogSpan};

const KEY: u8 = 1;
const URI_LENGTH: u8 = 2;
const STATUS: u8 = 3;
const HEADER: u8 = 4;
const BODY: u8 = 5;
const LIFETIMES: u8 = 6;
const TAG: u8 = 7;
const LOG: u8 = 8;
const RULES_FINGERPRINT: u8 = 9;
const STORED_AT: u8 = 10;
const FETCH_MILLIS: u8 = 11;
const PART: u8 = 12;
const SELECTOR: u8 = 13;
const RECENCY: u8 = 14;

/// Bound on fields, tags and selectors of a value. No writer of ours exceeds it.
const MANY: usize = 4096;

/// Whether compressing is likely to pay.
pub(super) fn is_compressible(entry: &Entry) -> bool {
    if entry.headers.contains_key(CONTENT_ENCODING) {
        return false;
    }
    let kind = entry.headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let packed: [&[u8]; 6] =
        [b"image/", b"video/", b"audio/", b"font/", b"application/zip", b"application/gzip"];
    !packed.iter().any(|prefix| kind.starts_with(prefix)) || kind.starts_with(b"image/svg")
}

fn put(out: &mut Vec<u8>, number: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.push(number);
    // Values longer than this can express are refused as a whole.
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn put_named(out: &mut Vec<u8>, number: u8, name: &HeaderName, parts: &[&[u8]]) {
    let name = name.as_str().as_bytes();
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes();
    let mut all: Vec<&[u8]> = vec![&length, name];
    all.extend_from_slice(parts);
    put(out, number, &all);
}

pub(super) fn write_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(entry.weight());
    put(&mut out, KEY, &[&entry.key]);
    put(&mut out, URI_LENGTH, &[&u32::try_from(entry.uri_len).unwrap_or(u32::MAX).to_le_bytes()]);
    put(&mut out, STATUS, &[&entry.status.as_u16().to_le_bytes()]);
    for (name, value) in &entry.headers {
        put_named(&mut out, HEADER, name, &[value.as_bytes()]);
    }
    put(&mut out, LIFETIMES, &[&lifetimes_bytes(&entry.lifetimes)]);
    for tag in &entry.tags {
        put(&mut out, TAG, &[tag.as_bytes()]);
    }
    put(&mut out, LOG, &[&entry.born_seq.to_le_bytes(), &entry.seen_seq.to_le_bytes()]);
    put(&mut out, RULES_FINGERPRINT, &[&entry.rules_fingerprint.to_le_bytes()]);
    put(&mut out, STORED_AT, &[&entry.stored_at.0.to_le_bytes()]);
    put(&mut out, FETCH_MILLIS, &[&entry.fetch_millis.to_le_bytes()]);
    let Recency { date, requested_at } = entry.recency;
    put(&mut out, RECENCY, &[&date.0.to_le_bytes(), &requested_at.0.to_le_bytes()]);
    if let Some(part) = &entry.part {
        let numbers = [part.range.first, part.range.last, part.complete_length];
        put(&mut out, PART, &[&numbers.map(u64::to_le_bytes).concat()]);
    }
    for (name, value) in entry.variant.selectors() {
        let present = [u8::from(value.is_some())];
        put_named(&mut out, SELECTOR, name, &[&present, value.unwrap_or_default()]);
    }
    put(&mut out, BODY, &[&entry.body]);
    out
}

pub(super) fn write_descriptor<'a>(
    key: &[u8],
    names: impl Iterator<Item = &'a HeaderName>,
) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, KEY, &[key]);
    for name in names {
        put_named(&mut out, SELECTOR, name, &[&[0]]);
    }
    out
}

fn lifetimes_bytes(times: &Lifetimes) -> Vec<u8> {
    let points = [
        times.born,
        times.fresh_until,
        times.stale_while_revalidate_until,
        times.stale_if_error_until,
    ];
    let mut out = points.map(|point| point.0.to_le_bytes()).concat();
    let flag = |set: bool, bit: u8| u8::from(set) << bit;
    out.push(
        flag(times.no_cache, 0)
            | flag(times.forbids_stale, 1)
            | flag(times.immutable, 2)
            | flag(times.invalid, 3)
            | flag(times.policy_alone, 4),
    );
    out.push(source_code(times.source));
    out
}

fn source_code(source: FreshnessSource) -> u8 {
    match source {
        FreshnessSource::None => 0,
        FreshnessSource::PolicyOverride => 1,
        FreshnessSource::SMaxage => 2,
        FreshnessSource::MaxAge => 3,
        FreshnessSource::Expires => 4,
        FreshnessSource::PolicyStatus => 5,
        FreshnessSource::PolicyDefault => 6,
        FreshnessSource::Heuristic => 7,
    }
}

fn source_of(code: u8) -> Option<FreshnessSource> {
    use FreshnessSource as S;
    [
        S::None,
        S::PolicyOverride,
        S::SMaxage,
        S::MaxAge,
        S::Expires,
        S::PolicyStatus,
        S::PolicyDefault,
        S::Heuristic,
    ]
    .into_iter()
    .find(|source| source_code(*source) == code)
}

/// Reads the fields of a payload, one after the other.
struct Reader<'a> {
    payload: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    /// The next field; `Some(None)` at the end, `None` if what follows is no field.
    fn next(&mut self) -> Option<Option<(u8, Bytes)>> {
        let left = &self.payload[self.at..];
        let Some((head, _)) = left.split_first_chunk::<5>() else {
            return left.is_empty().then_some(None);
        };
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let from = self.at + 5;
        let to = from.checked_add(length).filter(|to| *to <= self.payload.len())?;
        self.at = to;
        Some(Some((head[0], self.payload.slice(from..to))))
    }
}

/// Splits a header name from what follows it.
fn named(field: &Bytes) -> Option<(HeaderName, Bytes)> {
    let (length, rest) = field.split_first_chunk::<2>()?;
    let length = u16::from_le_bytes(*length) as usize;
    let name = HeaderName::from_bytes(rest.get(..length)?).ok()?;
    Some((name, field.slice(2 + length..)))
}

fn u64s<const N: usize>(field: &Bytes) -> Option<[u64; N]> {
    let mut out = [0; N];
    if field.len() != N * 8 {
        return None;
    }
    for (number, chunk) in out.iter_mut().zip(field.chunks_exact(8)) {
        *number = u64::from_le_bytes(chunk.try_into().ok()?);
    }
    Some(out)
}

#[derive(Default)]
struct Partial {
    key: Option<Bytes>,
    uri_len: Option<usize>,
    status: Option<StatusCode>,
    headers: HeaderMap,
    body: Option<Bytes>,
    lifetimes: Option<Lifetimes>,
    tags: Vec<Box<str>>,
    log: Option<LogSpan>,
    rules_fingerprint: u64,
    stored_at: Option<UnixMillis>,
    fetch_millis: u32,
    recency: Option<Recency>,
    part: Option<Part>,
    selectors: Vec<(HeaderName, Option<Box<[u8]>>)>,
}

pub(super) fn read_entry(payload: Bytes) -> Option<Entry> {
    let mut reader = Reader { payload: &payload, at: 0 };
    let mut got = Partial::default();
    let mut count = 0;
    while let Some((number, field)) = reader.next()? {
        count += 1;
        if count > MANY {
            return None;
        }
        got.take(number, field)?;
    }
    got.finish()
}

impl Partial {
    fn take(&mut self, number: u8, field: Bytes) -> Option<()> {
        match number {
            KEY => self.key = Some(field),
            URI_LENGTH => {
                self.uri_len = Some(u32::from_le_bytes(field[..].try_into().ok()?) as usize);
            }
            STATUS => {
                let code = u16::from_le_bytes(field[..].try_into().ok()?);
                self.status = StatusCode::from_u16(code).ok().filter(|_| code >= 200);
            }
            HEADER => {
                let (name, value) = named(&field)?;
                if fields::is_never_stored(&name) {
                    return None;
                }
                self.headers.append(name, HeaderValue::from_maybe_shared(value).ok()?);
            }
            BODY => self.body = Some(field),
            LIFETIMES => self.lifetimes = Some(read_lifetimes(&field)?),
            TAG => self.tags.push(std::str::from_utf8(&field).ok()?.into()),
            LOG => {
                let [born, seen] = u64s(&field)?;
                self.log = Some(LogSpan { born, seen });
            }
            RULES_FINGERPRINT => [self.rules_fingerprint] = u64s(&field)?,
            STORED_AT => {
                let [at] = u64s(&field)?;
                self.stored_at = Some(UnixMillis(at.cast_signed()));
            }
            FETCH_MILLIS => self.fetch_millis = u32::from_le_bytes(field[..].try_into().ok()?),
            RECENCY => {
                let [date, requested_at] = u64s(&field)?.map(|at| UnixMillis(at.cast_signed()));
                self.recency = Some(Recency { date, requested_at });
            }
            PART => {
                let [first, last, complete_length] = u64s(&field)?;
                let range = ByteRange { first, last };
                let good = first <= last && last < complete_length;
                self.part = Some(good.then_some(Part { range, complete_length })?);
            }
            SELECTOR => {
                let (name, value) = named(&field)?;
                let (present, value) = value.split_first()?;
                self.selectors.push((name, (*present == 1).then(|| value.into())));
            }
            _ => {}
        }
        Some(())
    }

    fn finish(self) -> Option<Entry> {
        let key = self.key?;
        let uri_len = self.uri_len.filter(|length| *length <= key.len())?;
        let body = self.body?;
        // Content-Length and body must agree, or the response would be framed wrongly.
        let mut lengths = self.headers.get_all(CONTENT_LENGTH).iter();
        let announced = lengths.next();
        let framed = match (announced, &self.part) {
            (_, Some(part)) => part.range.count() == body.len() as u64,
            (Some(length), None) => *length == HeaderValue::from(body.len()),
            (None, None) => true,
        };
        if !framed || lengths.next().is_some() {
            return None;
        }
        // Earlier versions stored what nobody can select.
        if vary::is_unreadable(&self.headers) {
            return None;
        }
        let digest = outrigger_semantics::digest(&key);
        let uri_digest = if uri_len == key.len() {
            digest
        } else {
            outrigger_semantics::digest(&key[..uri_len])
        };
        let stored_at = self.stored_at?;
        // Earlier versions wrote no recency.
        let exchange = Exchange {
            requested_at: stored_at - i64::from(self.fetch_millis),
            responded_at: stored_at,
        };
        let recency = self.recency.unwrap_or_else(|| Recency::of(&self.headers, exchange));
        Some(Entry {
            key: key[..].into(),
            digest,
            uri_len,
            uri_digest,
            status: self.status?,
            headers: self.headers,
            body,
            part: self.part,
            variant: Variant::from_selectors(self.selectors),
            lifetimes: self.lifetimes?,
            tags: self.tags.into_boxed_slice(),
            born_seq: self.log?.born,
            seen_seq: self.log?.seen,
            rules_fingerprint: self.rules_fingerprint,
            recency,
            stored_at,
            fetch_millis: self.fetch_millis,
            checked: AtomicU64::new(0),
            hits: AtomicU8::new(0),
        })
    }
}

fn read_lifetimes(field: &Bytes) -> Option<Lifetimes> {
    let (points, flags) = field.split_at_checked(32)?;
    let [flags, source] = flags.try_into().ok()?;
    let [born, fresh, while_revalidate, if_error] =
        u64s(&Bytes::copy_from_slice(points))?.map(|point| UnixMillis(point.cast_signed()));
    let sane = |point: UnixMillis| (UnixMillis::MIN..=UnixMillis::MAX).contains(&point);
    if ![born, fresh, while_revalidate, if_error].into_iter().all(sane) {
        return None;
    }
    Some(Lifetimes {
        born,
        fresh_until: fresh,
        stale_while_revalidate_until: while_revalidate,
        stale_if_error_until: if_error,
        no_cache: flags & 1 != 0,
        invalid: flags & 8 != 0,
        forbids_stale: flags & 2 != 0,
        immutable: flags & 4 != 0,
        policy_alone: flags & 16 != 0,
        source: source_of(source)?,
    })
}

pub(super) fn read_descriptor(payload: &Bytes) -> Option<(Vec<u8>, Vec<HeaderName>)> {
    let mut reader = Reader { payload, at: 0 };
    let (mut key, mut names) = (None, Vec::new());
    while let Some((number, field)) = reader.next()? {
        match number {
            KEY => key = Some(field.to_vec()),
            SELECTOR => names.push(named(&field)?.0),
            _ => {}
        }
        if names.len() > MANY {
            return None;
        }
    }
    (!names.is_empty()).then_some((key?, names))
}
