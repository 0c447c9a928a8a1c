//! Which stored responses an unsafe request makes invalid (RFC 9111 §4.4).

use http::header::{CONTENT_LOCATION, HeaderMap, HeaderName, LOCATION};
use http::{Method, StatusCode, Uri};

/// Whether a method is safe (RFC 9110 §9.2.1). An unknown method is not.
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
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
        return is_own(other).then(|| path.to_owned());
    }
    if text.starts_with('/') {
        return Some(text.to_owned());
    }
    if text.contains("://") {
        let uri: Uri = text.parse().ok()?;
        return is_own(text)
            .then(|| uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string));
    }
    if text.is_empty() || text.contains("..") || text.contains(':') {
        return None;
    }
    let path = target_path.split('?').next().unwrap_or("/");
    if text.starts_with('?') {
        return Some(format!("{path}{text}"));
    }
    // A relative reference replaces the last segment (RFC 3986 §5.2.3).
    let base = path.rfind('/').map_or("/", |at| &path[..=at]);
    Some(format!("{base}{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_successful_unsafe_requests_invalidate() {
        assert!(invalidates(&Method::POST, StatusCode::OK));
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
        assert!(of("http://evil.example/c").is_empty());
        assert!(of("//evil.example/c").is_empty());
        assert!(of("http:opaque").is_empty());
    }
}
