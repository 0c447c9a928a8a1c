//! `GET /explain`: what would happen to a request, and what is stored for it.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use outrigger_policy::{Arrival, Peer, RequestTarget, Side};
use outrigger_proxy::{Live, explain_live};
use serde_json::json;

use crate::admin::{Admin, Page, guard, json, text};
use crate::app::config::Config;

pub(super) async fn page(admin: &Admin, query: &str) -> Page {
    match explanation(admin, query).await {
        Ok(value) => json(StatusCode::OK, &value),
        Err(reason) => text(StatusCode::BAD_REQUEST, format!("{reason}\n")),
    }
}

/// The question, as it stands in a query.
#[derive(Debug, PartialEq)]
struct Asked {
    url: String,
    method: Method,
    headers: HeaderMap,
    side: Option<Side>,
    port: Option<u16>,
    peer: Option<String>,
}

impl Asked {
    fn parse(query: &str) -> Result<Self, String> {
        let mut asked = Asked {
            url: String::new(),
            method: Method::GET,
            headers: HeaderMap::new(),
            side: None,
            port: None,
            peer: None,
        };
        // The URL may come as it is, at the end: then all that follows is part of it.
        let (query, raw) = match query.find("url=http://").or_else(|| query.find("url=https://")) {
            Some(at) if at == 0 || query[..at].ends_with('&') => {
                (&query[..at], Some(&query[at + 4..]))
            }
            _ => (query, None),
        };
        asked.url = raw.unwrap_or_default().to_owned();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decoded(value).ok_or_else(|| format!("{name}: bad encoding"))?;
            asked.take(name, value)?;
        }
        if asked.url.is_empty() {
            return Err("say which: /explain?url=http://host/path".to_owned());
        }
        Ok(asked)
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "url" => self.url = value,
            "method" => {
                self.method = value.parse().map_err(|_| format!("\"{value}\" is not a method"))?;
            }
            "header" => {
                let (name, value) = value.split_once(':').ok_or("header wants Name:value")?;
                let name = HeaderName::from_bytes(name.trim().as_bytes());
                let value = HeaderValue::from_str(value.trim()).map_err(|e| e.to_string())?;
                self.headers.append(name.map_err(|e| e.to_string())?, value);
            }
            "side" => self.side = Some(parse_side(&value)?),
            "port" => {
                let port = value.parse().map_err(|_| format!("\"{value}\" is not a port"))?;
                self.port = Some(port);
            }
            "peer" => {
                Peer::parse(&value).ok_or_else(|| not_a_peer(&value))?;
                self.peer = Some(value);
            }
            other => {
                return Err(format!("\"{other}\" is not url, method, header, side, port or peer"));
            }
        }
        Ok(())
    }
}

/// Reads a side of the pod.
pub(crate) fn parse_side(text: &str) -> Result<Side, String> {
    match text {
        "inbound" => Ok(Side::Inbound),
        "outbound" => Ok(Side::Outbound),
        _ => Err(format!("\"{text}\" is not a side: write inbound or outbound")),
    }
}

/// What is said about a caller that is none.
pub(crate) fn not_a_peer(text: &str) -> String {
    format!("\"{text}\" is not an identity: write spiffe://cluster.local/ns/shop/sa/frontend")
}

/// The side that requests come in on where only one is listened for.
fn only_side(config: &Config) -> Option<Side> {
    let modes: Vec<Option<Side>> = config.listeners.iter().map(|listener| listener.mode).collect();
    if modes.contains(&None) {
        return None;
    }
    match (modes.contains(&Some(Side::Inbound)), modes.contains(&Some(Side::Outbound))) {
        (true, _) => Some(Side::Inbound),
        (false, true) => Some(Side::Outbound),
        (false, false) => None,
    }
}

async fn explanation(admin: &Admin, query: &str) -> Result<serde_json::Value, String> {
    let asked = Asked::parse(query)?;
    let uri: Uri = asked.url.parse().map_err(|_| format!("\"{}\" is not a URL", asked.url))?;
    let authority = uri.authority().ok_or("the URL has no host")?;
    let target = RequestTarget {
        scheme: "http",
        authority: authority.as_str(),
        path: if uri.path().is_empty() { "/" } else { uri.path() },
        query: uri.query(),
    };
    let active = admin.shared.active();
    let side = asked.side.or_else(|| only_side(&admin.config));
    let entry = side.map(|side| {
        let in_policy = active.snapshot.side(side).ports.as_deref().unwrap_or_default();
        let only = if let [port] = in_policy { Some(port.get()) } else { None };
        (side, asked.port.or(only).or_else(|| authority.port_u16()).unwrap_or(80))
    });
    let peer = asked.peer.as_deref().and_then(Peer::parse);
    let arrival = Arrival { entry, peer, own: None };
    let found = explain_live(&admin.shared, &asked.method, target, &asked.headers, arrival).await;
    let tiers: Vec<_> = found.tiers.iter().map(live_json).collect();
    Ok(json!({
        "policy": found.policy,
        "stored": tiers.first(),
        "tiers": tiers,
        "rememberedUncacheable": found.remembered_uncacheable,
        "upstream": guard::inspection(&found.guard),
    }))
}

fn live_json(live: &Live) -> serde_json::Value {
    json!({
        "tier": live.tier,
        "state": live.state,
        "status": live.status,
        "ageSeconds": live.age_seconds,
        "ttlSeconds": live.ttl_seconds,
        "bodyBytes": live.body_bytes,
        "bornSeq": live.born_seq,
        "tags": live.tags,
    })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (high, low) = (bytes.next()?, bytes.next()?);
                let digit = |b: u8| (b as char).to_digit(16);
                out.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
            }
            b'+' => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        assert_eq!(percent_decoded("a%20b+c").as_deref(), Some("a b c"));
        assert_eq!(percent_decoded("%zz"), None);
        assert_eq!(percent_decoded("%e"), None);
        assert_eq!(percent_decoded("%ff"), None);
    }

    #[test]
    fn questions_are_read_and_mistakes_named() {
        let asked = Asked::parse("url=http%3A%2F%2Fa%2Fb&side=inbound&port=8080").unwrap();
        assert_eq!((asked.side, asked.port), (Some(Side::Inbound), Some(8080)));
        assert_eq!(Asked::parse("url=http://a/b?c=d&port=1").unwrap().url, "http://a/b?c=d&port=1");
        let last = Asked::parse("port=8080&peer=spiffe://a/ns/b/sa/c&url=http://a/b?c=d").unwrap();
        assert_eq!((last.port, last.url.as_str()), (Some(8080), "http://a/b?c=d"));
        for (query, says) in [
            ("", "say which"),
            ("side=left&url=x", "write inbound or outbound"),
            ("url=x&port=99999", "not a port"),
            ("url=x&peer=frontend", "write spiffe://"),
            ("url=x&colour=red", "is not url, method"),
        ] {
            let error = Asked::parse(query).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
