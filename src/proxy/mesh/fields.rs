//! The header fields in which Envoy's route describes a request.

use std::net::SocketAddr;

use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};
use outrigger_policy::Side;

use crate::refusal::Refusal;

/// Address and port that the caller's request was for: the pod's own.
pub(super) static UPSTREAM: HeaderName = HeaderName::from_static("x-outrigger-upstream");
/// The caller's SPIFFE URI, from its client certificate.
pub(super) static PEER: HeaderName = HeaderName::from_static("x-outrigger-peer");
/// Address and port that the application's request was for.
pub(super) static ORIGINAL_DESTINATION: HeaderName =
    HeaderName::from_static("x-outrigger-orig-dst");
/// Set on requests of the outbound side, which Envoy sees again and must not send back.
pub(super) static HOP: HeaderName = HeaderName::from_static("x-outrigger-hop");
/// Common prefix of the fields above; no field with it is sent to an upstream.
const PREFIX: &[u8; 12] = b"x-outrigger-";

/// The address in a field, if the field is there.
///
/// # Errors
/// The field is set twice, or is not `ADDRESS:PORT`.
pub(super) fn address(
    headers: &HeaderMap,
    name: &HeaderName,
) -> Result<Option<SocketAddr>, Refusal> {
    let Some(text) = only(headers, name)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Refusal::bad_request("unreadable-address"))
}

/// The single value of a field, if the field is there.
///
/// # Errors
/// The field is set twice, which means that somebody besides Envoy has set it, or is not text.
pub(super) fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Refusal::bad_request("field-set-twice"));
    }
    let text = first.map(HeaderValue::to_str).transpose();
    text.map_err(|_| Refusal::bad_request("unreadable-field"))
}

/// Marks a request to an upstream on the outbound side with [`HOP`], for the Envoy that sees it
/// again.
pub(crate) fn mark(headers: &mut HeaderMap, side: Option<Side>) {
    if side == Some(Side::Outbound) {
        headers.insert(&HOP, HeaderValue::from_static("1"));
    }
}

/// Whether a field is one of the mesh.
pub(crate) fn is_ours(name: &HeaderName) -> bool {
    // Asked of every field of every response: as a comparison of numbers, without a call.
    matches!(name.as_str().as_bytes().first_chunk(), Some(first) if first == PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_fields_are_told_by_their_prefix() {
        for (name, ours) in [
            ("x-outrigger-peer", true),
            ("x-outrigger-new", true),
            ("x-outrigger-", true),
            ("x-outrigger", false),
            ("x-other", false),
            ("host", false),
        ] {
            assert_eq!(is_ours(&HeaderName::from_static(name)), ours, "{name}");
        }
    }

    #[test]
    fn outbound_requests_are_marked_once() {
        let mut headers = HeaderMap::new();
        mark(&mut headers, Some(Side::Inbound));
        assert!(headers.is_empty());
        headers.append(&HOP, HeaderValue::from_static("7"));
        mark(&mut headers, Some(Side::Outbound));
        assert_eq!(headers.get_all(&HOP).iter().collect::<Vec<_>>(), ["1"]);
    }
}
