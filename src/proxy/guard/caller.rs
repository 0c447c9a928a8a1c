//! The deadline of a caller: Envoy gives it in `x-envoy-expected-rq-timeout-ms`, gRPC in
//! `grpc-timeout`.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use tokio::time::Instant;

static ENVOY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// When a caller stops waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallerDeadline {
    /// The moment.
    pub(crate) at: Instant,
    /// Time that was left when the request came, milliseconds.
    pub(crate) millis: u64,
}

impl CallerDeadline {
    /// Reads it from a request that came just now. With both fields the shorter time counts.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &HeaderName| headers.get(name)?.to_str().ok();
        let envoy = text(&ENVOY_TIMEOUT).and_then(envoy_timeout);
        let grpc = text(&GRPC_TIMEOUT).and_then(grpc_timeout);
        let left = [envoy, grpc].into_iter().flatten().min()?;
        let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        Some(CallerDeadline { at: Instant::now() + left, millis })
    }
}

/// Removes both fields from a fetch whose response others share: the upstream must not give it up
/// when one caller's time is over.
pub(crate) fn forget_caller_deadline(headers: &mut HeaderMap) {
    headers.remove(&ENVOY_TIMEOUT);
    headers.remove(&GRPC_TIMEOUT);
}

/// Reads milliseconds; zero and anything but a number mean no limit, as they do for Envoy.
fn envoy_timeout(text: &str) -> Option<Duration> {
    let millis: u32 = text.trim().parse().ok()?;
    (millis > 0).then(|| Duration::from_millis(u64::from(millis)))
}

/// Reads at most eight digits and a unit ("Timeout" in the gRPC protocol over HTTP/2).
fn grpc_timeout(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit = text.bytes().last()?;
    let digits = text.get(..text.len() - 1)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_their_protocols_say() {
        assert_eq!(envoy_timeout("250"), Some(Duration::from_millis(250)));
        for none in ["0", "", "x", "-1", "99999999999"] {
            assert_eq!(envoy_timeout(none), None, "{none}");
        }
        assert_eq!(grpc_timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(grpc_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(grpc_timeout("1500u"), Some(Duration::from_micros(1500)));
        for none in ["", "S", "1", "123456789S", "-1S", "1é"] {
            assert_eq!(grpc_timeout(none), None, "{none}");
        }
    }

    #[test]
    fn the_shorter_one_counts() {
        let mut headers = HeaderMap::new();
        headers.insert(ENVOY_TIMEOUT.clone(), "500".parse().unwrap());
        headers.insert(GRPC_TIMEOUT.clone(), "1S".parse().unwrap());
        assert_eq!(CallerDeadline::of(&headers).map(|found| found.millis), Some(500));
        assert!(CallerDeadline::of(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_fetch_for_others_carries_no_deadline() {
        let mut headers = HeaderMap::new();
        headers.insert(ENVOY_TIMEOUT.clone(), "500".parse().unwrap());
        headers.insert(GRPC_TIMEOUT.clone(), "1S".parse().unwrap());
        forget_caller_deadline(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }
}
