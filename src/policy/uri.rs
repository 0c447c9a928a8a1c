//! Which URL is this? The one place that reads authorities and URLs, so that a request, a write, a
//! purge and an explanation of the same URL arrive at the same key.
//!
//! Two authorities are the same if they differ only in letter case, in the dot at the end of a fully
//! qualified name, in an empty or default port, or in the spelling of an IPv6 address (RFC 3986
//! §3.2.2, §6.2.2.1, §6.2.3). Paths and queries are compared as they are written: percent escapes
//! are not decoded, since upstreams differ in what they make of them. What the query rules of a route
//! make of a query, and which aliases a host has, is not known here but in [`crate::Snapshot`].

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

use http::Uri;

/// The mesh ends TLS before this process, so that every key says `http`.
pub(crate) const KEY_SCHEME: &str = "http://";
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
/// Longest authority, bytes: DNS has names of up to 253, and routes are looked up by each of their
/// ends.
const AUTHORITY_BYTES_MAX: usize = 300;

/// Why a text is not an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// A user name or password stands before the host (RFC 9110 §4.2.4).
    #[error("user information is not allowed before the host")]
    UserInformation,
    /// The host or the port cannot be read.
    #[error("write a host with an optional port, for example shop.svc:8080 or [::1]:8080")]
    Host,
}

/// Host and port of a request or URL, borrowed from its text (RFC 3986 §3.2). Nothing is allocated
/// before the host is asked for, and only if its canonical form differs from the text.
#[derive(Clone, Copy, Debug)]
pub struct Authority<'a> {
    sent: &'a str,
    /// Without the dot at its end; an IPv6 address in its brackets.
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads `host` or `host:port`.
    ///
    /// # Errors
    /// When there is user information, no host, a port that is not a number below 65,536, a percent
    /// escape outside an IPv6 zone, or more than 300 bytes.
    pub fn parse(text: &'a str) -> Result<Self, AuthorityError> {
        if text.contains('@') {
            return Err(AuthorityError::UserInformation);
        }
        if text.len() > AUTHORITY_BYTES_MAX {
            return Err(AuthorityError::Host);
        }
        let (host, port) = split(text).ok_or(AuthorityError::Host)?;
        let port = match port {
            "" => None,
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_| AuthorityError::Host)?)
            }
            _ => return Err(AuthorityError::Host),
        };
        Ok(Authority { sent: text, host, port }.without_default(HTTP_PORT))
    }

    /// Reads a text that [`Authority::parse`] has accepted before. Any other text is taken as a host
    /// without a port.
    pub fn of_valid(text: &'a str) -> Self {
        Self::parse(text).unwrap_or(Authority { sent: text, host: text, port: None })
    }

    fn without_default(self, default: u16) -> Self {
        Authority { port: self.port.filter(|port| *port != default), ..self }
    }

    /// The text that this was read from.
    pub fn as_sent(&self) -> &'a str {
        self.sent
    }

    /// The host in canonical form: lower case, without a dot at its end, an IPv6 address in brackets
    /// and as RFC 5952 has it.
    pub fn host(&self) -> Cow<'a, str> {
        if let Some(address) = self.ipv6() {
            let text = Ipv6Text::of(address);
            let same = text.as_str() == self.host;
            return if same { self.host.into() } else { text.as_str().to_owned().into() };
        }
        if self.host.bytes().any(|b| b.is_ascii_uppercase()) {
            self.host.to_ascii_lowercase().into()
        } else {
            self.host.into()
        }
    }

    /// Host and port in canonical form; the text itself, if that is it.
    pub fn canonical(&self) -> Cow<'a, str> {
        if let Cow::Borrowed(host) = self.host() {
            // Only a dot at the end, a default port and zeros before a port make it longer.
            let port = self.port.map_or(0, |port| 1 + itoa::Buffer::new().format(port).len());
            if self.sent.len() == host.len() + port {
                return self.sent.into();
            }
        }
        self.to_string().into()
    }

    /// The port, unless it is the default one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    fn ipv6(&self) -> Option<Ipv6Addr> {
        self.host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
    }

    /// Appends the canonical form.
    pub(crate) fn write_to(&self, out: &mut impl Extend<u8>) {
        match self.ipv6() {
            Some(address) => out.extend(Ipv6Text::of(address).as_str().bytes()),
            None => out.extend(self.host.bytes().map(|b| b.to_ascii_lowercase())),
        }
        if let Some(port) = self.port {
            out.extend([b':']);
            out.extend(itoa::Buffer::new().format(port).bytes());
        }
    }
}

impl PartialEq for Authority<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.port == other.port && self.host() == other.host()
    }
}

impl Eq for Authority<'_> {}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host())?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The host without the dot at its end, and what stands behind its colon.
fn split(text: &str) -> Option<(&str, &str)> {
    if text.starts_with('[') {
        let (host, rest) = text.split_at(text.find(']')? + 1);
        if !is_address(&host[1..host.len() - 1]) {
            return None;
        }
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, port)),
            None => rest.is_empty().then_some((host, "")),
        };
    }
    let (host, port) = text.split_once(':').unwrap_or((text, ""));
    let host = host.strip_suffix('.').unwrap_or(host);
    // No URL can name a host with a percent escape, so that what is stored for it could not be purged.
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&b);
    // A second dot would be an empty label.
    let good_host = !host.is_empty() && !host.ends_with('.') && host.bytes().all(good);
    good_host.then_some((host, port))
}

/// Whether a text may stand in brackets: an IPv6 address, perhaps with a zone (RFC 6874), or one of a
/// version to come (RFC 3986 §3.2.2).
fn is_address(text: &str) -> bool {
    if let Some(future) = text.strip_prefix(['v', 'V']) {
        let Some((version, address)) = future.split_once('.') else { return false };
        let good = |b: u8| b.is_ascii_alphanumeric() || b":.-_~".contains(&b);
        let is_version = !version.is_empty() && version.bytes().all(|b| b.is_ascii_hexdigit());
        return is_version && !address.is_empty() && address.bytes().all(good);
    }
    let (address, zone) = text.split_once('%').map_or((text, None), |(a, zone)| (a, Some(zone)));
    let good = |b: u8| b.is_ascii_alphanumeric() || b".%-_~".contains(&b);
    let is_zone = |zone: &str| !zone.is_empty() && zone.bytes().all(good);
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_zone)
}

/// The canonical form of a host that stands in a policy, where it has no port.
pub(crate) fn canonical_host(host: &str) -> Cow<'_, str> {
    Authority::of_valid(host).host()
}

/// An IPv6 address in brackets, without an allocation.
struct Ipv6Text {
    bytes: [u8; Self::BYTES_MAX],
    len: usize,
}

impl Ipv6Text {
    /// Brackets around eight groups, the last two as an IPv4 address.
    const BYTES_MAX: usize = 48;

    fn of(address: Ipv6Addr) -> Self {
        let mut text = Ipv6Text { bytes: [0; Self::BYTES_MAX], len: 0 };
        // The longest address has 45 bytes, so that there is always room.
        let _ = fmt::Write::write_fmt(&mut text, format_args!("[{address}]"));
        text
    }

    fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default()
    }
}

impl fmt::Write for Ipv6Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTarget<'a> {
    /// Host and port.
    pub authority: Authority<'a>,
    /// The path, starting with `/`.
    pub path: &'a str,
    /// The query without `?`.
    pub query: Option<&'a str>,
}

impl<'a> RequestTarget<'a> {
    /// Takes path and query from `/path?query`; a fragment is dropped (RFC 9110 §7.1).
    pub fn new(authority: Authority<'a>, path_and_query: &'a str) -> Self {
        let text = path_and_query.split('#').next().unwrap_or_default();
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (text, None),
        };
        RequestTarget { authority, path: if path.is_empty() { "/" } else { path }, query }
    }
}

impl fmt::Display for RequestTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KEY_SCHEME}{}{}", self.authority, self.path)?;
        self.query.map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

/// Why a text is not a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It cannot be read as a URL with a host.
    #[error("write scheme, host and path, for example http://shop.svc/a?b=1")]
    Unreadable,
    /// Its authority cannot be read.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// A URL as a person or an event of the purge log writes it. Its `Display` has the authority in
/// canonical form and no fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    uri: Uri,
}

impl Url {
    /// Reads a URL. A host without a scheme is taken as an `http` URL.
    ///
    /// # Errors
    /// When there is no host, or it cannot be read.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let uri: Uri = text.parse().map_err(|_| UrlError::Unreadable)?;
        let authority = uri.authority().ok_or(UrlError::Unreadable)?;
        Authority::parse(authority.as_str())?;
        Ok(Url { uri })
    }

    /// Whether the URL says its scheme.
    pub fn has_scheme(&self) -> bool {
        self.uri.scheme().is_some()
    }

    /// The port as it is written, also if it is the default one.
    pub fn written_port(&self) -> Option<u16> {
        self.uri.port_u16()
    }

    fn is_https(&self) -> bool {
        self.uri.scheme() == Some(&http::uri::Scheme::HTTPS)
    }

    /// What a request for this URL asks for: no port where it is the scheme's default one.
    pub fn target(&self) -> RequestTarget<'_> {
        let text = self.uri.authority().map_or("", |authority| authority.as_str());
        let mut authority = Authority::of_valid(text);
        if self.is_https() {
            authority = authority.without_default(HTTPS_PORT);
        }
        let path = if self.uri.path().is_empty() { "/" } else { self.uri.path() };
        RequestTarget { authority, path, query: self.uri.query() }
    }

    /// All that a request for this URL may ask for. The scheme of a request is not known where
    /// Envoy has ended TLS: a client that writes `:443` into `Host` has it in its key.
    pub fn targets(&self) -> impl Iterator<Item = RequestTarget<'_>> {
        let target = self.target();
        let with_port = (self.is_https() && target.authority.port.is_none()).then(|| {
            let authority = Authority { port: Some(HTTPS_PORT), ..target.authority };
            RequestTarget { authority, ..target }
        });
        std::iter::once(target).chain(with_port)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RequestTarget { authority, path, query } = self.target();
        write!(f, "{}://{authority}{path}", if self.is_https() { "https" } else { "http" })?;
        query.map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Result<String, AuthorityError> {
        let authority = Authority::parse(text)?;
        let mut written = Vec::new();
        authority.write_to(&mut written);
        assert_eq!(written, authority.to_string().as_bytes(), "{text}");
        assert_eq!(authority.as_sent(), text);
        assert_eq!(authority.canonical(), authority.to_string(), "{text}");
        Ok(authority.to_string())
    }

    #[test]
    fn spellings_of_one_authority_have_one_form() {
        for (form, spellings) in [
            (
                "shop.svc",
                &["shop.svc", "Shop.SVC", "shop.svc.", "shop.svc:", "shop.svc:80", "SHOP.svc.:080"]
                    [..],
            ),
            ("shop.svc:8080", &["shop.svc:8080", "shop.svc.:8080", "shop.svc:08080"]),
            ("shop.svc:443", &["shop.svc:443"]),
            ("10.0.0.1", &["10.0.0.1", "10.0.0.1:80"]),
            ("[::1]", &["[::1]", "[::1]:", "[::1]:80", "[0:0:0:0:0:0:0:1]", "[0000::0001]"]),
            ("[2001:db8::a]:8080", &["[2001:DB8::A]:8080", "[2001:0db8:0::000a]:8080"]),
            ("[fe80::1%25eth0]", &["[fe80::1%25eth0]", "[FE80::1%25ETH0]:80"]),
            ("[v1f.a:b]", &["[v1f.a:b]", "[V1F.A:B]:80"]),
        ] {
            for spelling in spellings {
                assert_eq!(canonical(spelling).as_deref(), Ok(form), "{spelling}");
            }
        }
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let host = Err(AuthorityError::Host);
        for text in [
            "",
            ".",
            "a..",
            ":80",
            "a:80:80",
            "::1",
            "[::1",
            "::1]",
            "x[::1]:80",
            "[::1]x",
            "[]",
            "[[::1]]",
            "[zz]",
            "[1:2]",
            "[1.2.3.4]",
            "[::1%]",
            "[::1%a:b]",
            "[v.a]",
            "[v1]",
            "a:99999",
            "a:port",
            "a:+80",
            "a b",
            "a/b",
            "ä",
            "a%2fb",
            "a%",
        ] {
            assert_eq!(canonical(text), host, "{text}");
        }
        let long = |bytes: usize| "a.".repeat(bytes / 2);
        assert!(canonical(&long(AUTHORITY_BYTES_MAX)).is_ok());
        assert_eq!(canonical(&long(AUTHORITY_BYTES_MAX + 2)), host);
        assert_eq!(canonical("user@shop.svc"), Err(AuthorityError::UserInformation));
    }

    #[test]
    fn a_canonical_host_is_borrowed() {
        for text in ["shop.svc", "shop.svc.:80", "[::1]:8080"] {
            assert!(matches!(Authority::of_valid(text).host(), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn the_default_port_is_that_of_the_scheme() {
        for (url, targets) in [
            ("http://shop.svc/a", &["http://shop.svc/a"][..]),
            ("http://shop.svc:80/a#part", &["http://shop.svc/a"]),
            ("http://shop.svc:443/a", &["http://shop.svc:443/a"]),
            ("https://shop.svc:443/a", &["http://shop.svc/a", "http://shop.svc:443/a"]),
            ("https://shop.svc", &["http://shop.svc/", "http://shop.svc:443/"]),
            ("https://shop.svc:8443/a?b", &["http://shop.svc:8443/a?b"]),
            ("shop.svc:8080", &["http://shop.svc:8080/"]),
        ] {
            let url = Url::parse(url).unwrap();
            let found: Vec<_> = url.targets().map(|target| target.to_string()).collect();
            assert_eq!(found, targets);
            assert_eq!(Url::parse(&url.to_string()).unwrap().targets().count(), targets.len());
        }
        assert_eq!(
            Url::parse("https://Shop.svc.:443/A?b#c").unwrap().to_string(),
            "https://shop.svc/A?b"
        );
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in ["", "/a", "http://", "http:///a", "http://[::1/a", "not a url"] {
            assert_eq!(Url::parse(text), Err(UrlError::Unreadable), "{text}");
        }
        let user = Err(UrlError::Authority(AuthorityError::UserInformation));
        assert_eq!(Url::parse("http://user:secret@shop.svc/a"), user);
        assert_eq!(Url::parse("http://shop.svc:99999/"), Err(AuthorityError::Host.into()));
    }

    proptest::proptest! {
        #[test]
        fn every_authority_can_be_named_by_a_url(
            text in "[a-cA-F.:0-9%!$&'()*+,;=_~-]{1,12}|\\[(v1\\.)?[a-fA-F.:0-9%_~-]{1,12}\\](:[0-9]{0,5})?",
        ) {
            if let Ok(form) = canonical(&text) {
                let url = Url::parse(&format!("http://{form}/"));
                proptest::prop_assert!(url.is_ok(), "{}", form);
                proptest::prop_assert_eq!(url.unwrap().to_string(), format!("http://{form}/"));
            }
        }

        #[test]
        fn a_canonical_authority_stays_as_it_is(text in "[a-cA-C.:0-9\\[\\]%]{0,20}") {
            if let Ok(form) = canonical(&text) {
                proptest::prop_assert_eq!(canonical(&form), Ok(form));
            }
        }
    }
}
