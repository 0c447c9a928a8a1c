//! Which stored responses an unsafe request makes invalid (RFC 9111 §4.4).

use http::header::{CONTENT_LOCATION, HeaderMap, HeaderName, LOCATION};
use http::{Method, StatusCode, Uri};

use crate::fields::single;

/// Whether a method is safe (RFC 9110 §9.2.1): by IANA's registry of methods. An unknown method is
/// not.
pub fn is_safe(method: &Method) -> bool {
    matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PRI" | "PROPFIND" | "QUERY" | "REPORT" | "SEARCH"
    )
}

/// Whether the response to an unsafe request invalidates: success and redirection only.
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    !is_safe(method) && (status.is_success() || status.is_redirection())
}

/// The further URIs to invalidate besides the target: `Location` and `Content-Location`, where
/// they have the same origin as the target; `is_own` tells that of a URL, or of an authority alone.
/// Answers path and query of each.
pub fn further_targets(
    is_own: impl Fn(&str) -> bool,
    target_path: &str,
    response: &HeaderMap,
) -> Vec<String> {
    [LOCATION, CONTENT_LOCATION]
        .iter()
        .filter_map(|name| same_origin_path(&is_own, target_path, response, name))
        .collect()
}

/// What `Content-Location` names, where that has the same origin as the target: path and query.
pub fn content_location(
    is_own: impl Fn(&str) -> bool,
    target_path: &str,
    response: &HeaderMap,
) -> Option<String> {
    single(response, &CONTENT_LOCATION)?;
    same_origin_path(&is_own, target_path, response, &CONTENT_LOCATION)
}

fn same_origin_path(
    is_own: impl Fn(&str) -> bool,
    target_path: &str,
    response: &HeaderMap,
    name: &HeaderName,
) -> Option<String> {
    let text = response.get(name)?.to_str().ok()?.trim();
    let text = text.split('#').next().unwrap_or(text);
    if let Some(rest) = text.strip_prefix("//") {
        let (other, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        return is_own(other).then(|| without_dots(path));
    }
    if text.starts_with('/') {
        return Some(without_dots(text));
    }
    if text.contains("://") {
        let uri: Uri = text.parse().ok()?;
        return is_own(text).then(|| {
            uri.path_and_query().map_or_else(|| "/".to_owned(), |path| without_dots(path.as_str()))
        });
    }
    if text.is_empty() || has_scheme(text) {
        return None;
    }
    let path = target_path.split('?').next().unwrap_or("/");
    if text.starts_with('?') {
        return Some(format!("{path}{text}"));
    }
    // A relative reference replaces the last segment (RFC 3986 §5.2.3).
    let base = path.rfind('/').map_or("/", |at| &path[..=at]);
    Some(without_dots(&format!("{base}{text}")))
}

/// Whether a reference begins with a scheme (RFC 3986 §3.1). A colon behind a slash is none.
fn has_scheme(reference: &str) -> bool {
    let first = reference.split(['/', '?']).next().unwrap_or(reference);
    first.contains(':')
}

/// Removes dot segments from the path (RFC 3986 §5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = target.find('?').map_or((target, ""), |at| target.split_at(at));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_successful_unsafe_requests_invalidate() {
        assert!(invalidates(&Method::POST, StatusCode::OK));
        for safe in ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PROPFIND", "REPORT", "SEARCH"] {
            let method = Method::from_bytes(safe.as_bytes()).unwrap();
            assert!(!invalidates(&method, StatusCode::OK), "{safe}");
        }
        assert!(invalidates(&Method::from_bytes(b"query").unwrap(), StatusCode::OK));
        assert!(invalidates(&Method::from_bytes(b"M-SEARCH").unwrap(), StatusCode::SEE_OTHER));
        assert!(!invalidates(&Method::PUT, StatusCode::INTERNAL_SERVER_ERROR));
        assert!(!invalidates(&Method::DELETE, StatusCode::NOT_FOUND));
        assert!(!invalidates(&Method::GET, StatusCode::OK));
    }

    #[test]
    fn another_origin_is_left_alone() {
        let is_shop = |url: &str| {
            let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
            rest.split('/').next().is_some_and(|host| host.eq_ignore_ascii_case("shop.svc"))
        };
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, HeaderValue::from_static(value));
            further_targets(is_shop, "/a/b?x", &headers)
        };
        assert_eq!(of("/c"), ["/c"]);
        assert_eq!(of("http://SHOP.svc/c?d"), ["/c?d"]);
        assert_eq!(of("c"), ["/a/c"]);
        assert_eq!(of("?y=1"), ["/a/b?y=1"]);
        for (reference, path) in [
            ("./x", "/a/x"),
            ("../x", "/x"),
            ("../../x?y=../z", "/x?y=../z"),
            ("x/../y", "/a/y"),
            (".", "/a/"),
            ("..", "/"),
            ("/c/./d/../e", "/c/e"),
            ("/c/..", "/"),
            ("http://shop.svc/c/../d", "/d"),
            ("//shop.svc/./d", "/d"),
            ("x:1/y", ""),
            ("./x:1", "/a/x:1"),
            ("/x:1", "/x:1"),
            ("x?y=1:2", "/a/x?y=1:2"),
        ] {
            let expected: Vec<&str> =
                Some(path).filter(|path| !path.is_empty()).into_iter().collect();
            assert_eq!(of(reference), expected, "{reference}");
        }
        assert!(of("http://evil.example/c").is_empty());
        assert!(of("//evil.example/c").is_empty());
        assert!(of("http:opaque").is_empty());
    }
}
