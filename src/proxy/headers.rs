//! Header fields that a proxy adds, replaces and removes.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, DATE, FORWARDED, HeaderMap, HeaderName, TE, UPGRADE, VIA,
};
use http::{HeaderValue, Version};
use outrigger_semantics::UnixMillis;
use outrigger_semantics::fields::{list, strip_hop_by_hop};
use outrigger_semantics::targeted::{SURROGATE_CONTROL, SURROGATE_DEVICE};

use crate::mesh::{self, Mode};

/// `CDN-Loop` (RFC 8586).
static CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static SURROGATE_CAPABILITY: HeaderName = HeaderName::from_static("surrogate-capability");

/// The name under which this proxy appears in `Via` and `CDN-Loop`.
const PROXY_NAME: &str = "outrigger";
/// A request that has passed this many instances is taken as looping.
const PASSES_MAX: usize = 16;

/// What this instance writes into the requests that it forwards.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// By mode: an application that passes on the fields of its requests goes through both sides
    /// of one pod, which is no loop.
    sides: [(String, HeaderValue); 3],
    via_http1: HeaderValue,
    via_http2: HeaderValue,
}

impl Identity {
    /// The identity of an instance; `id` is a token.
    pub(crate) fn new(id: String) -> Self {
        let value = |text: String| {
            HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(PROXY_NAME))
        };
        let side = |suffix: &str| {
            let id = format!("{id}{suffix}");
            let cdn_loop = value(format!("{PROXY_NAME}; id={id}"));
            (id, cdn_loop)
        };
        Identity {
            sides: [side(""), side("-in"), side("-out")],
            via_http1: value(format!("1.1 {PROXY_NAME}")),
            via_http2: value(format!("2 {PROXY_NAME}")),
        }
    }

    fn via(&self, version: Version) -> &HeaderValue {
        if version == Version::HTTP_2 { &self.via_http2 } else { &self.via_http1 }
    }

    fn side(&self, mode: Mode) -> &(String, HeaderValue) {
        &self.sides[mode as usize]
    }

    /// Whether a request has been on this side before, or went round through others (RFC 8586 §2).
    pub(crate) fn is_looping(&self, headers: &HeaderMap, mode: Mode) -> bool {
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
            let id = self.side(mode).0.as_bytes();
            let same = |part: &[u8]| part.strip_prefix(b"id=") == Some(id);
            if parts.any(same) {
                return true;
            }
        }
        passes > PASSES_MAX
    }
}

/// What is known about a client's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) ip: Option<IpAddr>,
    pub(crate) version: Version,
    /// Who sends requests on its connection.
    pub(crate) mode: Mode,
}

/// Turns the fields of a client's request into those of the upstream request.
///
/// Hop-by-hop fields go, `TE: trailers` and a wanted upgrade are said anew, `Via`, `CDN-Loop` and
/// the forwarding fields are added.
pub(crate) fn to_upstream(
    headers: &mut HeaderMap,
    client: Client,
    identity: &Identity,
    upgrade: bool,
    surrogate: bool,
) {
    join_cookies(headers);
    let trailers = list(headers, &TE).any(|member| member.eq_ignore_ascii_case(b"trailers"));
    let protocol = if upgrade { headers.get(UPGRADE).cloned() } else { None };
    let trailer = headers.get(http::header::TRAILER).cloned();
    strip_hop_by_hop(headers);
    // The expectation is met here: the body is asked for when the upstream takes it.
    headers.remove(http::header::EXPECT);
    if let Some(trailer) = trailer {
        headers.insert(http::header::TRAILER, trailer);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    headers.append(VIA, identity.via(client.version).clone());
    headers.append(&CDN_LOOP, identity.side(client.mode).1.clone());
    if surrogate {
        let text = format!("{SURROGATE_DEVICE}=\"Surrogate/1.0\"");
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.append(&SURROGATE_CAPABILITY, value);
        }
    }
    mesh::strip(headers, client.mode);
    // Envoy has said what there is to say about the client.
    if client.mode == Mode::Direct {
        forwarded(headers, client);
    }
}

/// HTTP/2 may split `Cookie` into several lines; outside it they are one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() < 2 {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// `X-Forwarded-For` and its kin. Behind a sidecar the peer is loopback and the field already
/// tells the truth: then it is left alone.
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
    identity: &Identity,
    now: UnixMillis,
) {
    let trailer = headers.get(http::header::TRAILER).cloned();
    if headers.contains_key(http::header::TRANSFER_ENCODING) {
        // It was not what framed the message (RFC 9112 §6.3).
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
    if let Some(trailer) = trailer {
        headers.insert(http::header::TRAILER, trailer);
    }
    headers.append(VIA, identity.via(version).clone());
    if !headers.contains_key(DATE) {
        headers.insert(DATE, now.to_http_date());
    }
}

/// Whether a request asks to change the protocol of its connection.
pub(crate) fn wants_upgrade(headers: &HeaderMap, version: Version) -> bool {
    version == Version::HTTP_11
        && headers.contains_key(UPGRADE)
        && list(headers, &CONNECTION).any(|member| member.eq_ignore_ascii_case(b"upgrade"))
}

/// Whether policy lists `Surrogate-Control`, which is then announced to the origin.
pub(crate) fn announces_surrogate(targets: &[HeaderName]) -> bool {
    targets.contains(&SURROGATE_CONTROL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(ip: &str) -> Client {
        Client { ip: Some(ip.parse().unwrap()), version: Version::HTTP_11, mode: Mode::Direct }
    }

    #[test]
    fn a_request_that_comes_back_is_seen() {
        let identity = Identity::new("a1".to_owned());
        let mut headers = HeaderMap::new();
        assert!(!identity.is_looping(&headers, Mode::Direct));
        to_upstream(&mut headers, client("10.0.0.1"), &identity, false, false);
        assert!(identity.is_looping(&headers, Mode::Direct));
        assert!(!Identity::new("b2".to_owned()).is_looping(&headers, Mode::Direct));
        for _ in 0..PASSES_MAX {
            headers.append(&CDN_LOOP, HeaderValue::from_static("outrigger; id=x"));
        }
        assert!(Identity::new("b2".to_owned()).is_looping(&headers, Mode::Direct));
    }

    #[test]
    fn what_a_sidecar_told_about_the_client_stays() {
        let identity = Identity::new("a".to_owned());
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
        for (name, value) in
            [("te", "trailers"), ("upgrade", "websocket"), ("connection", "upgrade, x"), ("x", "1")]
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let mut plain = headers.clone();
        let identity = Identity::new("a".to_owned());
        to_upstream(&mut headers, client("10.0.0.1"), &identity, true, false);
        assert_eq!(headers[CONNECTION], "upgrade");
        assert_eq!(headers[UPGRADE], "websocket");
        assert_eq!(headers[TE], "trailers");
        assert!(!headers.contains_key("x"));
        to_upstream(&mut plain, client("10.0.0.1"), &identity, false, false);
        assert!(!plain.contains_key(UPGRADE) && !plain.contains_key(CONNECTION));
    }
}
