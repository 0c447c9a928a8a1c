//! Which cookies of a request may tell users apart (policy `harmlessCookies` and `key.cookies`).
//!
//! A cookie that is neither in the key nor called harmless may select the response of one user. A
//! lifetime that only policy gives, sharing a fetch, and what an answer says to other users depend on
//! that. What the origin itself says about its responses does not.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

use crate::values::NamePattern;

/// The cookies of a route that do not tell users apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CookieRules {
    /// Names of the cookies in the key.
    pub keyed: Vec<String>,
    /// Names of the cookies that do not change responses.
    pub harmless: Vec<NamePattern>,
}

impl CookieRules {
    /// Whether a request has a cookie that may tell its user apart. What is no `name=value` counts,
    /// since the upstream may read it as it likes.
    pub fn has_personal(&self, headers: &HeaderMap) -> bool {
        let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(is_end));
        pairs.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()).any(|pair| {
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or(pair);
            let named = pair.len() > name.len();
            let keyed = || named && self.keyed.iter().any(|keyed| keyed.as_bytes() == name);
            !keyed() && !self.harmless.iter().any(|pattern| pattern.matches(name))
        })
    }

    /// Whether a request carries credentials: `Authorization`, or such a cookie.
    pub fn has_credentials(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(AUTHORIZATION)
            || (headers.contains_key(COOKIE) && self.has_personal(headers))
    }
}

fn is_end(byte: &u8) -> bool {
    *byte == b';'
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn personal(lines: &[&'static str]) -> bool {
        let pattern = |text| NamePattern::parse(text).unwrap();
        let rules = CookieRules {
            keyed: vec!["tier".to_owned()],
            harmless: vec![pattern("_ga*"), pattern("theme")],
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_static(line));
        }
        rules.has_personal(&headers)
    }

    #[test]
    fn keyed_and_harmless_cookies_tell_nobody_apart() {
        for lines in [&[][..], &["_ga=1; theme=dark;_ga_x=2; tier=a"], &["tier=a", "theme="], &[""]]
        {
            assert!(!personal(lines), "{lines:?}");
        }
    }

    #[test]
    fn any_other_cookie_may_be_a_session() {
        for lines in [
            &["session=1"][..],
            &["_ga=1; session=1"],
            &["_ga=1", "session=1"],
            &["Theme=dark"],
            &["themes=1"],
            &["tier"],
            &["=1"],
            &["session"],
        ] {
            assert!(personal(lines), "{lines:?}");
        }
    }

    #[test]
    fn without_rules_every_cookie_may_be_one() {
        let mut headers = HeaderMap::new();
        assert!(!CookieRules::default().has_credentials(&headers));
        headers.insert(COOKIE, HeaderValue::from_static("a=1"));
        assert!(CookieRules::default().has_credentials(&headers));
        let all = CookieRules {
            harmless: vec![NamePattern::parse("*").unwrap()],
            ..CookieRules::default()
        };
        assert!(!all.has_credentials(&headers));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        assert!(all.has_credentials(&headers));
    }
}
