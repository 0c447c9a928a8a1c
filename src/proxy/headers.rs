//! Header fields that a proxy adds, replaces and removes.

use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, COOKIE, DATE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, MAX_FORWARDS,
    SET_COOKIE, TE, TRAILER, UPGRADE, VARY, VIA,
};
use http::{HeaderValue, Version};
use outrigger_policy::Side;
use outrigger_semantics::UnixMillis;
use outrigger_semantics::fields::{is_hop_by_hop, list, remove_all, strip_nominated};
use outrigger_semantics::targeted::{SURROGATE_CONTROL, SURROGATE_DEVICE};

use crate::mesh;

/// The field by which a proxy recognises its own requests (RFC 8586).
static CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static SURROGATE_CAPABILITY: HeaderName = HeaderName::from_static("surrogate-capability");

/// The name under which this proxy appears in `Via` and `CDN-Loop`.
const PROXY_NAME: &str = "outrigger";
/// A request that has passed more processes than this counts as looping.
const PASSES_MAX: usize = 16;

/// How this process names itself in `Via` (RFC 9110 §7.6.3) and `CDN-Loop` (RFC 8586).
///
/// Each side of the pod has a name of its own in `CDN-Loop`: an application that passes on the
/// fields of its requests goes through both sides of one pod, which is no loop.
#[derive(Clone, Debug)]
pub(crate) struct ProxyIdentity {
    direct: LoopMember,
    inbound: LoopMember,
    outbound: LoopMember,
    via_http1: HeaderValue,
    via_http2: HeaderValue,
}

/// A member of `CDN-Loop`: its `id` parameter, and the whole field value.
#[derive(Clone, Debug)]
struct LoopMember {
    id: String,
    value: HeaderValue,
}

impl ProxyIdentity {
    /// The identity of a process; `id` is a token (RFC 9110 §5.6.2) that no other process has.
    pub(crate) fn new(id: String) -> Self {
        let value = |text: String| {
            HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(PROXY_NAME))
        };
        let side = |suffix: &str| {
            let id = format!("{id}{suffix}");
            let value = value(format!("{PROXY_NAME}; id={id}"));
            LoopMember { id, value }
        };
        ProxyIdentity {
            direct: side(""),
            inbound: side("-in"),
            outbound: side("-out"),
            via_http1: value(format!("1.1 {PROXY_NAME}")),
            via_http2: value(format!("2 {PROXY_NAME}")),
        }
    }

    fn via(&self, version: Version) -> &HeaderValue {
        if version == Version::HTTP_2 { &self.via_http2 } else { &self.via_http1 }
    }

    fn loop_member(&self, side: Option<Side>) -> &LoopMember {
        match side {
            None => &self.direct,
            Some(Side::Inbound) => &self.inbound,
            Some(Side::Outbound) => &self.outbound,
        }
    }

    /// Whether a request has passed this side before, or too many other processes (RFC 8586 §2).
    pub(crate) fn is_looping(&self, headers: &HeaderMap, side: Option<Side>) -> bool {
        if !headers.contains_key(&CDN_LOOP) {
            return false;
        }
        let mut passes = 0;
        for member in list(headers, &CDN_LOOP) {
            let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
            if parts.next() != Some(PROXY_NAME.as_bytes()) {
                continue;
            }
            passes += 1;
            let id = self.loop_member(side).id.as_bytes();
            let same = |part: &[u8]| part.strip_prefix(b"id=") == Some(id);
            if parts.any(same) {
                return true;
            }
        }
        passes > PASSES_MAX
    }
}

/// The client of a request, as the forwarding fields describe it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    /// Address; `None` on a Unix socket.
    pub(crate) ip: Option<IpAddr>,
    /// HTTP version of the request, for `Via`.
    pub(crate) version: Version,
    /// Side of the pod that the request came in on; `None` for a direct listener.
    pub(crate) side: Option<Side>,
}

/// Turns the fields of a client's request into those of the upstream request.
///
/// Hop-by-hop fields are removed, `TE: trailers` and a wanted upgrade are set again, `Via`,
/// `CDN-Loop` and the forwarding fields are added (RFC 9110 §7.6).
pub(crate) fn to_upstream(
    headers: &mut HeaderMap,
    client: Client,
    identity: &ProxyIdentity,
    upgrade: bool,
    surrogate: bool,
) {
    join_cookies(headers);
    let trailers = list(headers, &TE).any(|member| member.eq_ignore_ascii_case(b"trailers"));
    let protocol = if upgrade { headers.get(UPGRADE).cloned() } else { None };
    strip_nominated(headers);
    // hyper answers `Expect: 100-continue` when the body is first read for the upstream.
    remove_all(headers, |name| ends_here(name) || *name == EXPECT);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    headers.append(VIA, identity.via(client.version).clone());
    headers.append(&CDN_LOOP, identity.loop_member(client.side).value.clone());
    if surrogate {
        let text = format!("{SURROGATE_DEVICE}=\"Surrogate/1.0\"");
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.append(&SURROGATE_CAPABILITY, value);
        }
    }
    mesh::mark(headers, client.side);
    // On a mesh listener Envoy has set these fields.
    if client.side.is_none() {
        forwarded(headers, client);
    }
}

/// Nominates the fields that concern one HTTP/1.1 connection alone, as RFC 9110 §7.6.1 and §10.1.4 want
/// it. HTTP/2 knows no such nomination.
pub(crate) fn nominate(headers: &mut HeaderMap) {
    if headers.contains_key(TE) {
        let upgrades = headers.contains_key(UPGRADE);
        let names = HeaderValue::from_static(if upgrades { "upgrade, te" } else { "te" });
        headers.insert(CONNECTION, names);
    }
}

/// Whether a response varies by a field to which [`to_upstream`] adds what is not in the client's
/// request: its address, or the version that it speaks. What the response was selected by then
/// cannot be seen in another request. Fields that are `ignored` by policy do not count.
pub(crate) fn varies_by_what_is_added(
    response: &HeaderMap,
    request: &HeaderMap,
    client: Client,
    ignored: &[HeaderName],
) -> bool {
    if !response.contains_key(VARY) {
        return false;
    }
    let address =
        client.side.is_none() && client.ip.is_some_and(|ip| !ip.to_canonical().is_loopback());
    list(response, &VARY).any(|name| {
        let is = |known: &HeaderName| {
            name.eq_ignore_ascii_case(known.as_str().as_bytes()) && !ignored.contains(known)
        };
        is(&VIA)
            || is(&CDN_LOOP)
            || (address && is(&X_FORWARDED_FOR))
            || (address && is(&FORWARDED) && request.contains_key(FORWARDED))
    })
}

/// Joins the lines of `Cookie` into one, as HTTP/1.1 wants it; HTTP/2 may split it (RFC 9113
/// §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() < 2 {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Adds the client to `X-Forwarded-For` and `Forwarded` (RFC 7239). Behind a sidecar the client is
/// loopback and `X-Forwarded-For` already names the real one: then nothing is added.
fn forwarded(headers: &mut HeaderMap, client: Client) {
    if !headers.contains_key(&X_FORWARDED_PROTO) {
        headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    let Some(ip) = client.ip else { return };
    let ip = ip.to_canonical();
    if ip.is_loopback() && headers.contains_key(&X_FORWARDED_FOR) {
        return;
    }
    let mut chain: Vec<u8> = Vec::new();
    for line in headers.get_all(&X_FORWARDED_FOR) {
        chain.extend_from_slice(line.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(ip.to_string().as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&chain) {
        headers.insert(&X_FORWARDED_FOR, value);
    }
    if headers.contains_key(FORWARDED) {
        let node = if ip.is_ipv6() { format!("for=\"[{ip}]\"") } else { format!("for={ip}") };
        if let Ok(value) = HeaderValue::from_str(&node) {
            headers.append(FORWARDED, value);
        }
    }
}

/// Cleans the fields of an upstream response and adds what a proxy must add: `Via`, and `Date`
/// where the origin sent none (RFC 9110 §6.6.1).
pub(crate) fn from_upstream(
    headers: &mut HeaderMap,
    version: Version,
    identity: &ProxyIdentity,
    now: UnixMillis,
) {
    strip_nominated(headers);
    remove_all(headers, ends_here);
    headers.append(VIA, identity.via(version).clone());
    if !headers.contains_key(DATE) {
        headers.insert(DATE, now.to_http_date());
    }
}

/// Removes what may not come in a trailer section, in either direction: fields that framing,
/// routing, credentials, caching or the reading of the content rest on (RFC 9110 §6.5.1), and those
/// of the mesh. hyper does so for HTTP/1.1 alone.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    const BARRED: [HeaderName; 10] = [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        COOKIE,
        HOST,
        MAX_FORWARDS,
        SET_COOKIE,
    ];
    let barred =
        |name: &HeaderName| mesh::is_ours(name) || is_hop_by_hop(name) || BARRED.contains(name);
    remove_all(trailers, barred);
}

/// Whether a field is for this proxy and no further: hop-by-hop, or of the mesh. `Trailer` is passed
/// on, as trailers are.
fn ends_here(name: &HeaderName) -> bool {
    mesh::is_ours(name) || (is_hop_by_hop(name) && *name != TRAILER)
}

/// Whether a request asks to change the protocol of its connection (RFC 9110 §7.8).
///
/// One that names HTTP/2 does not count: RFC 9113 §3.1 has taken that way to HTTP/2 back, and in the
/// tunnel requests would pass unseen, past policy and whatever stands in front.
pub(crate) fn wants_upgrade(headers: &HeaderMap, version: Version) -> bool {
    version == Version::HTTP_11
        && headers.contains_key(UPGRADE)
        && list(headers, &CONNECTION).any(|member| member.eq_ignore_ascii_case(b"upgrade"))
        && !list(headers, &UPGRADE).any(|protocol| {
            protocol.eq_ignore_ascii_case(b"h2c") || protocol.eq_ignore_ascii_case(b"h2")
        })
}

/// Whether policy lists `Surrogate-Control`, which is then announced to the origin.
pub(crate) fn announces_surrogate(targets: &[HeaderName]) -> bool {
    targets.contains(&SURROGATE_CONTROL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(ip: &str) -> Client {
        Client { ip: Some(ip.parse().unwrap()), version: Version::HTTP_11, side: None }
    }

    #[test]
    fn a_response_that_varies_by_what_is_added_is_told() {
        let client =
            |ip: &str, side| Client { ip: ip.parse().ok(), version: Version::HTTP_11, side };
        let varies = |vary: &'static str, request: &HeaderMap, client| {
            let mut response = HeaderMap::new();
            response.insert(VARY, HeaderValue::from_static(vary));
            varies_by_what_is_added(&response, request, client, &[])
        };
        let none = HeaderMap::new();
        let far = client("10.0.0.1", None);
        assert!(varies("Accept, X-Forwarded-For", &none, far));
        assert!(varies("via", &none, client("127.0.0.1", None)));
        // Behind a sidecar Envoy has set it, and it is what the client's request holds.
        assert!(!varies("x-forwarded-for", &none, client("127.0.0.1", None)));
        assert!(!varies("x-forwarded-for", &none, client("10.0.0.1", Some(Side::Inbound))));
        assert!(!varies("forwarded", &none, far));
        let mut forwarded = HeaderMap::new();
        forwarded.insert(FORWARDED, HeaderValue::from_static("for=a"));
        assert!(varies("forwarded", &forwarded, far));
        assert!(!varies("accept, x-forwarded-proto", &none, far));
    }

    #[test]
    fn a_response_without_a_date_gets_the_time_of_its_arrival() {
        let identity = ProxyIdentity::new("a1".to_owned());
        let now = UnixMillis(784_111_777_900);
        let mut headers = HeaderMap::new();
        from_upstream(&mut headers, Version::HTTP_11, &identity, now);
        assert_eq!(headers[DATE], "Sun, 06 Nov 1994 08:49:37 GMT");
        from_upstream(&mut headers, Version::HTTP_11, &identity, now + 60_000);
        assert_eq!(headers[DATE], "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn a_request_that_comes_back_is_seen() {
        let identity = ProxyIdentity::new("a1".to_owned());
        let mut headers = HeaderMap::new();
        assert!(!identity.is_looping(&headers, None));
        to_upstream(&mut headers, client("10.0.0.1"), &identity, false, false);
        assert!(identity.is_looping(&headers, None));
        assert!(!ProxyIdentity::new("b2".to_owned()).is_looping(&headers, None));
        for _ in 0..PASSES_MAX {
            headers.append(&CDN_LOOP, HeaderValue::from_static("outrigger; id=x"));
        }
        assert!(ProxyIdentity::new("b2".to_owned()).is_looping(&headers, None));
    }

    #[test]
    fn what_a_sidecar_told_about_the_client_stays() {
        let identity = ProxyIdentity::new("a".to_owned());
        let mut headers = HeaderMap::new();
        headers.insert(&X_FORWARDED_FOR, HeaderValue::from_static("10.9.9.9"));
        let mut plain = headers.clone();
        to_upstream(&mut headers, client("127.0.0.1"), &identity, false, false);
        assert_eq!(headers[&X_FORWARDED_FOR], "10.9.9.9");
        to_upstream(&mut plain, client("10.0.0.1"), &identity, false, false);
        assert_eq!(plain[&X_FORWARDED_FOR], "10.9.9.9, 10.0.0.1");
    }

    #[test]
    fn hop_by_hop_fields_are_said_anew() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("connection", "upgrade, x"),
            ("x", "1"),
            ("x-outrigger-peer", "spiffe://mesh/ns/a/sa/b"),
            ("expect", "100-continue"),
            ("trailer", "x-sum"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let mut plain = headers.clone();
        let identity = ProxyIdentity::new("a".to_owned());
        to_upstream(&mut headers, client("10.0.0.1"), &identity, true, false);
        assert_eq!(headers[CONNECTION], "upgrade");
        assert_eq!(headers[UPGRADE], "websocket");
        assert_eq!(headers[TE], "trailers");
        for gone in ["x", "x-outrigger-peer", "expect"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers[TRAILER], "x-sum");
        to_upstream(&mut plain, client("10.0.0.1"), &identity, false, false);
        assert!(!plain.contains_key(UPGRADE) && !plain.contains_key(CONNECTION));
    }
}
