//! May this response be stored (RFC 9111 §3), and with which lifetimes.

use std::sync::LazyLock;

use http::header::{
    AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED, SET_COOKIE,
};
use http::{Method, StatusCode};
use strum::VariantArray;

use crate::directives::{DirectiveScope, RequestDirectives, ResponseDirectives};
use crate::freshness::{Exchange, FreshnessSource, Lifetimes, lifetimes};
use crate::rules::{SetCookie, StoreRules};
use crate::targeted::effective_directives;
use crate::{tags, vary};

/// Why a response was not stored. Closed; the names in kebab-case are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum NotStored {
    /// The method's responses are not stored.
    Method,
    /// The request said `no-store`.
    RequestNoStore,
    /// The response said `no-store`.
    NoStore,
    /// The response is `private`.
    Private,
    /// The request was authenticated and nothing permits sharing (RFC 9111 §3.5).
    Authorization,
    /// Only policy gives a lifetime, and the request has a cookie that may select one user's response.
    Cookie,
    /// The response sets a cookie.
    SetCookie,
    /// The response varies by `*`, so that it matches no other request (RFC 9111 §4.1).
    VaryStar,
    /// `Vary` cannot be read, and so counts like `*` (RFC 9110 §12.5.5).
    VaryUnreadable,
    /// More tags than can be kept, a longer one, or one that is no UTF-8: a purge could not meet it.
    Tags,
    /// The response varies by a field to which this proxy adds the client, so that it is for that
    /// client alone.
    VaryClient,
    /// The status is not one that can be stored.
    Status,
    /// `must-understand` with a status this cache does not know.
    NotUnderstood,
    /// No explicit lifetime, no policy, no heuristic.
    NoFreshness,
    /// Stale on arrival and nothing to validate it with.
    StaleOnArrival,
    /// Larger than the limit for one object.
    TooLarge,
    /// The body ended before its declared length.
    Truncated,
    /// An error or an empty body would have replaced a good stored response.
    KeptGood,
    /// A partial response that cannot be used safely.
    Partial,
    /// The route or the cache is switched off.
    Disabled,
    /// A purge or a newer response overtook it.
    Overtaken,
    /// The key has not been asked for often enough.
    FewUses,
}

impl NotStored {
    /// The stable name used in `Cache-Status`, metrics, logs and `explain`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The stable name of a request that is passed on since an earlier response to such a request was
    /// not stored for this reason: `pass-` and the name.
    pub fn as_pass(self) -> &'static str {
        static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
            NotStored::VARIANTS.iter().map(|why| format!("pass-{}", why.as_str())).collect()
        });
        NAMES.get(self as usize).map_or("pass", String::as_str)
    }

    /// Whether the reason lies in the response, so that it holds for every client.
    pub fn is_of_the_response(self) -> bool {
        matches!(
            self,
            Self::NoStore
                | Self::Private
                | Self::SetCookie
                | Self::VaryStar
                | Self::VaryUnreadable
                | Self::Tags
                | Self::VaryClient
                | Self::NotUnderstood
                | Self::NoFreshness
                | Self::StaleOnArrival
                | Self::TooLarge
        )
    }

    /// The reason as a part of a sentence, for an operator.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Method => "responses to this method are not stored",
            Self::RequestNoStore => "the request carries Cache-Control: no-store",
            Self::NoStore => "the response carries no-store",
            Self::Private => "the response is private and this cache is shared",
            Self::Authorization => {
                "the request is authenticated and the response does not say public, s-maxage or \
                 must-revalidate; to cache it, let the policy partition by identity"
            }
            Self::Cookie => {
                "only the policy gives a lifetime, and the request has a cookie that may select the \
                 response of one user; name the cookie in harmlessCookies or key.cookies, or let the \
                 origin say public or give a lifetime"
            }
            Self::SetCookie => {
                "the response sets a cookie; cache.setCookie: strip or store would keep it"
            }
            Self::VaryStar => "Vary: * matches no other request",
            Self::VaryUnreadable => {
                "Vary has a member that is no field name, so that nobody knows what selects the \
                 response"
            }
            Self::Tags => {
                "it has more than 2048 tags, one longer than 1024 bytes, or one that is no UTF-8: \
                 a purge by that tag could not meet it"
            }
            Self::VaryClient => {
                "it varies by a field to which this proxy adds the client (X-Forwarded-For, \
                 Forwarded, Via)"
            }
            Self::Status => "this status is never stored",
            Self::NotUnderstood => "must-understand with a status this cache does not know",
            Self::NoFreshness => {
                "the origin gives no lifetime (max-age, s-maxage, Expires) and the policy has \
                 neither ttl.default nor ttl.status for it"
            }
            Self::StaleOnArrival => "it is stale on arrival and carries no validator",
            Self::TooLarge => "it is larger than the limit for one object",
            Self::Truncated => "the body ended before its declared length",
            Self::KeptGood => "an error or an empty body does not replace a good stored response",
            Self::Partial => "the partial response cannot be combined or reused safely",
            Self::Disabled => "caching is switched off for this route",
            Self::Overtaken => "a purge or a newer response came first",
            Self::FewUses => "the key has not been asked for as often as cache.minUses says",
        }
    }
}

/// A response that may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// When it is fresh, and when it may be served stale.
    pub lifetimes: Lifetimes,
    /// Fields that must be left out of the stored copy (qualified `private` and `no-cache`,
    /// stripped cookies).
    pub omit: Vec<HeaderName>,
}

/// A request as the storing decision sees it.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The request method.
    pub method: &'a Method,
    /// The header fields of the request as the client sent them.
    pub headers: &'a HeaderMap,
    /// Its cache directives, read once.
    pub directives: RequestDirectives,
    /// Whether the key separates identities, so that what is stored serves the same identity only.
    pub identity_in_key: bool,
    /// Whether it has a cookie that may select the response of one user: neither in the key nor
    /// called harmless by policy.
    pub personal_cookies: bool,
}

/// Decides whether a response to `request` may be stored (RFC 9111 §3).
///
/// # Errors
/// The first reason that forbids it.
pub fn decide(
    request: RequestFacts<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    exchange: Exchange,
    rules: &StoreRules,
) -> Result<Stored, NotStored> {
    if request.method != Method::GET {
        return Err(NotStored::Method);
    }
    if request.directives.no_store {
        return Err(NotStored::RequestNoStore);
    }
    let (directives, targeted) = effective_directives(headers, &rules.targets);
    check_status(status, headers, &directives)?;
    if directives.no_store && !(directives.must_understand && is_understood(status)) {
        return Err(NotStored::NoStore);
    }
    if directives.private.is_whole() {
        return Err(NotStored::Private);
    }
    check_authorization(&request, &directives, rules)?;
    if vary::has_star(headers) {
        return Err(NotStored::VaryStar);
    }
    if vary::is_unreadable(headers) {
        return Err(NotStored::VaryUnreadable);
    }
    if !tags::are_within_limits(headers) {
        return Err(NotStored::Tags);
    }
    let mut omit = Vec::new();
    for scope in [&directives.private, &directives.no_cache] {
        if let DirectiveScope::Fields(names) = scope {
            omit.extend(names.iter().cloned());
        }
    }
    if headers.contains_key(SET_COOKIE) && !omit.contains(&SET_COOKIE) {
        match rules.set_cookie {
            SetCookie::Bypass => return Err(NotStored::SetCookie),
            SetCookie::Strip => omit.push(SET_COOKIE),
            SetCookie::Store => {}
        }
    }
    let lifetimes = lifetimes(status, headers, &directives, targeted, exchange, rules);
    if lifetimes.policy_alone && request.personal_cookies && !request.identity_in_key {
        return Err(NotStored::Cookie);
    }
    check_useful(&lifetimes, headers, &directives, exchange)?;
    Ok(Stored { lifetimes, omit })
}

fn check_status(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
) -> Result<(), NotStored> {
    // A 426 says in a hop-by-hop field which protocol it asks for.
    if status.is_informational() || matches!(status.as_u16(), 304 | 416 | 426) {
        return Err(NotStored::Status);
    }
    if directives.must_understand && !is_understood(status) {
        return Err(NotStored::NotUnderstood);
    }
    // On any other status the field means nothing (RFC 9110 §14.4).
    if status == StatusCode::PARTIAL_CONTENT && !headers.contains_key(CONTENT_RANGE) {
        return Err(NotStored::Partial);
    }
    Ok(())
}

/// RFC 9111 §3.5: an authenticated request's response is shared only by express permission.
fn check_authorization(
    request: &RequestFacts<'_>,
    directives: &ResponseDirectives,
    rules: &StoreRules,
) -> Result<(), NotStored> {
    let authenticated = rules.authenticated || request.headers.contains_key(AUTHORIZATION);
    let permitted =
        directives.public || directives.s_maxage.is_some() || directives.must_revalidate;
    if authenticated && !permitted && !request.identity_in_key {
        return Err(NotStored::Authorization);
    }
    Ok(())
}

fn check_useful(
    lifetimes: &Lifetimes,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    exchange: Exchange,
) -> Result<(), NotStored> {
    let stated = directives.no_cache.is_whole() || directives.public;
    let has_validator = has_validator(headers);
    if lifetimes.source == FreshnessSource::None && !(stated && has_validator) {
        return Err(NotStored::NoFreshness);
    }
    let reusable = !lifetimes.no_cache && exchange.responded_at < lifetimes.usable_until();
    if !reusable && !has_validator {
        return Err(NotStored::StaleOnArrival);
    }
    Ok(())
}

/// Whether a response can be validated later (RFC 9110 §8.8).
pub fn has_validator(headers: &HeaderMap) -> bool {
    headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED)
}

/// Statuses whose caching requirements this cache knows (for `must-understand`, RFC 9111 §5.2.2.3).
pub fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=206 | 300..=305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixMillis;
    use http::HeaderValue;

    const T0: UnixMillis = UnixMillis(1_790_000_000_000);

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    fn outcome(
        request: &[(&'static str, &'static str)],
        status: u16,
        response: &[(&'static str, &'static str)],
        rules: &StoreRules,
    ) -> Result<Stored, NotStored> {
        let request = map(request);
        let directives = RequestDirectives::parse(&request);
        decide(
            RequestFacts {
                method: &Method::GET,
                headers: &request,
                directives,
                identity_in_key: false,
                personal_cookies: request.contains_key(http::header::COOKIE),
            },
            StatusCode::from_u16(status).unwrap(),
            &map(response),
            Exchange { requested_at: T0, responded_at: T0 },
            rules,
        )
    }

    fn reason(
        request: &[(&'static str, &'static str)],
        status: u16,
        response: &[(&'static str, &'static str)],
    ) -> Option<NotStored> {
        outcome(request, status, response, &StoreRules::default()).err()
    }

    #[test]
    fn names_are_stable() {
        let names: Vec<_> = NotStored::VARIANTS.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(
            names,
            [
                "method",
                "request-no-store",
                "no-store",
                "private",
                "authorization",
                "cookie",
                "set-cookie",
                "vary-star",
                "vary-unreadable",
                "tags",
                "vary-client",
                "status",
                "not-understood",
                "no-freshness",
                "stale-on-arrival",
                "too-large",
                "truncated",
                "kept-good",
                "partial",
                "disabled",
                "overtaken",
                "few-uses",
            ]
        );
    }

    #[test]
    fn a_pass_names_its_reason() {
        for why in NotStored::VARIANTS {
            assert_eq!(why.as_pass().strip_prefix("pass-"), Some(why.as_str()));
        }
    }

    #[test]
    fn explicit_freshness_makes_any_final_status_storable() {
        for status in [200, 299, 302, 404, 499, 503, 599] {
            assert_eq!(reason(&[], status, &[("cache-control", "max-age=60")]), None, "{status}");
        }
        assert_eq!(reason(&[], 404, &[]), Some(NotStored::NoFreshness));
    }

    #[test]
    fn authenticated_responses_need_permission() {
        let auth = [("authorization", "Bearer x")];
        assert_eq!(
            reason(&auth, 200, &[("cache-control", "max-age=60")]),
            Some(NotStored::Authorization)
        );
        for allowed in ["max-age=60, public", "s-maxage=60", "max-age=60, must-revalidate"] {
            assert_eq!(reason(&auth, 200, &[("cache-control", allowed)]), None, "{allowed}");
        }
        let rules = StoreRules { authenticated: true, ..StoreRules::default() };
        let stripped = outcome(&[], 200, &[("cache-control", "max-age=60")], &rules);
        assert_eq!(stripped.err(), Some(NotStored::Authorization));
    }

    #[test]
    fn must_understand_beats_no_store_only_for_known_statuses() {
        let headers = [("cache-control", "max-age=60, no-store, must-understand")];
        assert_eq!(reason(&[], 200, &headers), None);
        assert_eq!(reason(&[], 599, &headers), Some(NotStored::NotUnderstood));
    }

    #[test]
    fn qualified_private_leaves_the_fields_out() {
        let stored = outcome(
            &[],
            200,
            &[("cache-control", "max-age=60, private=\"set-cookie\""), ("set-cookie", "a=1")],
            &StoreRules::default(),
        )
        .unwrap();
        assert_eq!(stored.omit, [SET_COOKIE]);
    }

    #[test]
    fn qualified_no_cache_leaves_the_fields_out() {
        let control = "max-age=60, no-cache=\"x-one, x-two\"";
        let fields = [("cache-control", control), ("x-one", "1"), ("x-two", "2")];
        let stored = outcome(&[], 200, &fields, &StoreRules::default()).unwrap();
        assert_eq!(stored.omit, ["x-one", "x-two"]);
        assert!(!stored.lifetimes.no_cache);
    }

    #[test]
    fn statuses_that_describe_no_representation_are_not_stored() {
        let fresh = [("cache-control", "max-age=60"), ("etag", "\"a\"")];
        for status in [100, 101, 103, 304, 416, 426] {
            assert_eq!(reason(&[], status, &fresh), Some(NotStored::Status), "{status}");
        }
        assert_eq!(reason(&[], 206, &fresh), Some(NotStored::Partial));
        let stray = [("cache-control", "max-age=60"), ("content-range", "bytes 0-1/2")];
        assert_eq!(reason(&[], 200, &stray), None);
    }

    #[test]
    fn cookies_and_no_store_keep_a_response_out() {
        let cookie = [("cache-control", "max-age=60"), ("set-cookie", "a=1")];
        assert_eq!(reason(&[], 200, &cookie), Some(NotStored::SetCookie));
        let fresh = [("cache-control", "max-age=60")];
        assert_eq!(
            reason(&[("cache-control", "no-store")], 200, &fresh),
            Some(NotStored::RequestNoStore)
        );
        assert_eq!(reason(&[], 200, &[("cache-control", "private")]), Some(NotStored::Private));
    }

    #[test]
    fn no_cache_is_stored_when_it_can_be_validated() {
        assert_eq!(reason(&[], 200, &[("cache-control", "no-cache"), ("etag", "\"a\"")]), None);
        assert_eq!(
            reason(&[], 200, &[("cache-control", "no-cache")]),
            Some(NotStored::NoFreshness)
        );
        assert_eq!(
            reason(&[], 200, &[("cache-control", "max-age=0")]),
            Some(NotStored::StaleOnArrival)
        );
    }
}
