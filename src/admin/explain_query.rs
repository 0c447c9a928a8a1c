//! The query of `/explain`: which request is to be explained.

use std::borrow::Cow;

use http::header::{InvalidHeaderName, InvalidHeaderValue};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use outrigger_policy::uri::UrlError;
use outrigger_policy::{Peer, PeerError, Side, SideError};
use percent_encoding::percent_decode_str;

/// Why a query of `/explain` cannot be answered. The message says what to write.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueryError {
    /// An escape without two hexadecimal digits, or bytes that are not UTF-8.
    #[error("{0}: bad encoding")]
    Encoding(String),
    /// There is no URL.
    #[error("say which: /explain?url=http://host/path")]
    NoUrl,
    /// The URL cannot be read.
    #[error("\"{url}\" is not a URL: {reason}")]
    NotAUrl {
        /// The URL as it was asked for.
        url: String,
        /// What to write.
        reason: UrlError,
    },
    /// Not a method (RFC 9110, section 9.1).
    #[error("\"{0}\" is not a method")]
    Method(String),
    /// A header without a colon.
    #[error("header wants Name:value")]
    Header,
    /// A header whose name is not a token.
    #[error(transparent)]
    HeaderName(#[from] InvalidHeaderName),
    /// A header whose value has control characters.
    #[error(transparent)]
    HeaderValue(#[from] InvalidHeaderValue),
    /// Not a side of the pod.
    #[error(transparent)]
    Side(#[from] SideError),
    /// Not a number from 0 to 65535.
    #[error("\"{0}\" is not a port")]
    Port(String),
    /// Not the identity of a caller.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// A parameter that `/explain` does not have.
    #[error("\"{0}\" is not url, method, header, side, port or peer")]
    Unknown(String),
}

/// The request to explain, as the query describes it.
#[derive(Debug, PartialEq)]
pub(super) struct ExplainQuery {
    pub(super) url: String,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) side: Option<Side>,
    pub(super) port: Option<u16>,
    pub(super) peer: Option<String>,
}

impl ExplainQuery {
    /// Reads a query. The URL may come last and as it is: `url=http://a/b?c=d&e=f`.
    ///
    /// # Errors
    /// What is wrong with the query.
    pub(super) fn parse(query: &str) -> Result<Self, QueryError> {
        let mut asked = ExplainQuery {
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
            let value =
                percent_decoded(value).ok_or_else(|| QueryError::Encoding(name.to_owned()))?;
            asked.take(name, value)?;
        }
        if asked.url.is_empty() {
            return Err(QueryError::NoUrl);
        }
        Ok(asked)
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), QueryError> {
        match name {
            "url" => self.url = value,
            "method" => self.method = value.parse().map_err(|_| QueryError::Method(value))?,
            "header" => {
                let (name, value) = value.split_once(':').ok_or(QueryError::Header)?;
                let name = HeaderName::from_bytes(name.trim().as_bytes());
                let value = HeaderValue::from_str(value.trim())?;
                self.headers.append(name?, value);
            }
            "side" => self.side = Some(value.parse()?),
            "port" => self.port = Some(value.parse().map_err(|_| QueryError::Port(value))?),
            "peer" => {
                Peer::try_from(value.as_str())?;
                self.peer = Some(value);
            }
            other => return Err(QueryError::Unknown(other.to_owned())),
        }
        Ok(())
    }
}

/// Decodes a value of a query. `None` for a value that is not encoded properly; a decoder of forms
/// would take such a one as it stands, and explain another request than was meant.
fn percent_decoded(text: &str) -> Option<String> {
    let is_escape = |rest: &str| {
        rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(is_escape) {
        return None;
    }
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)
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
        assert_eq!(percent_decoded("%2B%C3%A4%25").as_deref(), Some("+ä%"));
        assert_eq!(percent_decoded("a%"), None);
        assert_eq!(percent_decoded("%+1"), None);
    }

    #[test]
    fn questions_are_read_and_mistakes_named() {
        let asked = ExplainQuery::parse("url=http%3A%2F%2Fa%2Fb&side=inbound&port=8080").unwrap();
        assert_eq!((asked.side, asked.port), (Some(Side::Inbound), Some(8080)));
        assert_eq!(
            ExplainQuery::parse("url=http://a/b?c=d&port=1").unwrap().url,
            "http://a/b?c=d&port=1"
        );
        let last =
            ExplainQuery::parse("port=8080&peer=spiffe://a/ns/b/sa/c&url=http://a/b?c=d").unwrap();
        assert_eq!((last.port, last.url.as_str()), (Some(8080), "http://a/b?c=d"));
        for (query, says) in [
            ("", "say which"),
            ("side=left&url=x", "write inbound or outbound"),
            ("url=x&port=99999", "not a port"),
            ("url=x&peer=frontend", "write spiffe://"),
            ("url=x&colour=red", "is not url, method"),
        ] {
            let error = ExplainQuery::parse(query).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
