//! A response as a client saw it, and what its `Cache-Status` says.

use super::wire::Head;

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The response has no body by its nature (HEAD, 204, 304).
    Empty,
    /// `Content-Length` bytes came.
    Length,
    /// The last chunk came.
    Chunked,
    /// The connection closed, and that was the only framing.
    Close,
    /// The connection closed before the framing was satisfied.
    Truncated,
}

/// A response with all that came before and after it.
#[derive(Clone, Debug)]
pub struct Response {
    /// 1xx heads that came first.
    pub interim: Vec<Head>,
    /// The status code of the final response.
    pub status: u16,
    /// Status line and header lines.
    pub head: Head,
    /// The content, without chunk framing.
    pub body: Vec<u8>,
    /// Trailer fields of a chunked body, in order.
    pub trailers: Vec<(String, String)>,
    /// How the body ended.
    pub end: End,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    /// The age in seconds.
    pub fn age(&self) -> Option<u64> {
        self.header("age")?.parse().ok()
    }

    /// What Outrigger says it did.
    pub fn cache(&self) -> CacheStatus {
        CacheStatus::of(&self.head.all("cache-status"))
    }

    /// Panics unless the response is a hit in Outrigger.
    #[track_caller]
    pub fn assert_hit(&self) -> &Self {
        assert!(self.cache().has("hit"), "expected a hit: {self:#?}");
        self
    }

    /// Panics unless Outrigger went to the origin for this reason.
    #[track_caller]
    pub fn assert_fwd(&self, reason: &str) -> &Self {
        let status = self.cache();
        assert!(!status.has("hit"), "a hit where fwd={reason} was expected: {self:#?}");
        assert_eq!(status.get("fwd"), Some(reason), "{self:#?}");
        self
    }

    /// Panics unless the status and the body are these.
    #[track_caller]
    pub fn assert_is(&self, status: u16, body: impl AsRef<[u8]>) -> &Self {
        assert_eq!(self.status, status, "{self:#?}");
        let body = String::from_utf8_lossy(body.as_ref()).into_owned();
        assert_eq!(self.text(), body, "{:#?}", self.head);
        assert_ne!(self.end, End::Truncated, "{self:#?}");
        self
    }

    /// Panics unless the status is this one.
    #[track_caller]
    pub fn assert_status(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }
}

/// The member that Outrigger added to `Cache-Status` (RFC 9211).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    params: Vec<(String, String)>,
}

impl CacheStatus {
    /// The last member named `Outrigger` in these field lines.
    pub fn of(lines: &[&str]) -> Self {
        let line = lines.join(", ");
        let members = split(&line, ',');
        let ours =
            members.iter().rev().map(|m| split(m, ';')).find(|parts| parts[0] == "Outrigger");
        let params = ours.unwrap_or_default().into_iter().skip(1).map(|param| {
            let (key, value) = param.split_once('=').unwrap_or((&param, ""));
            (key.to_owned(), value.trim_matches('"').to_owned())
        });
        Self { params: params.collect() }
    }

    /// Whether a parameter is there.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The value of a parameter; empty for a bare one.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.params.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Whether there is no member of ours at all.
    pub fn is_absent(&self) -> bool {
        self.params.is_empty()
    }
}

/// Splits at a separator outside of quoted strings.
fn split(text: &str, at: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        quoted ^= c == '"';
        if c == at && !quoted {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts.iter().map(|part| part.trim().to_owned()).collect()
}
