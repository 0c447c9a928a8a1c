//! What an operator's policy says about storing and reuse, as plain values.
//!
//! The policy document is not known here: its compiler fills these in. Whoever judges lifetimes or
//! storing takes them as an argument.

use http::header::HeaderName;

use crate::targeted::default_targets;

/// What happens to a response that sets a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SetCookie {
    /// It is passed on and not stored.
    #[default]
    Bypass,
    /// It is stored without the field; hits do not set the cookie.
    Strip,
    /// It is stored and replayed as it is.
    Store,
}

/// What an operator's policy says about storing; the default adds nothing to RFC 9111.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRules {
    /// Lifetime where the origin gives none and the status is a success, milliseconds.
    pub ttl_default_ms: Option<i64>,
    /// Upper bound of every lifetime, milliseconds.
    pub ttl_max_ms: Option<i64>,
    /// Lifetime that replaces the origin's, milliseconds. Never overrides `no-store` or `private`.
    pub ttl_override_ms: Option<i64>,
    /// Lifetime per status where the origin gives none, milliseconds.
    pub ttl_status_ms: Vec<(u16, i64)>,
    /// Percent of the time since `Last-Modified` that count as lifetime (RFC 9111 §4.2.2); 0 switches
    /// it off.
    pub heuristic_percent: u8,
    /// Upper bound of a heuristic lifetime, milliseconds.
    pub heuristic_max_ms: i64,
    /// Stale-while-revalidate window where the origin gives none, milliseconds.
    pub stale_while_revalidate_ms: Option<i64>,
    /// Stale-if-error window where the origin gives none, milliseconds.
    pub stale_if_error_ms: Option<i64>,
    /// What happens to `Set-Cookie`.
    pub set_cookie: SetCookie,
    /// The route is authenticated even if no `Authorization` arrives (a mesh may strip it).
    pub authenticated: bool,
    /// The targeted fields that this cache obeys, first match wins (RFC 9213 §2.2).
    pub targets: Vec<HeaderName>,
    /// An `Age` that cannot be read means "very old" instead of being ignored.
    pub invalid_age_is_stale: bool,
}

impl Default for StoreRules {
    fn default() -> Self {
        StoreRules {
            ttl_default_ms: None,
            ttl_max_ms: None,
            ttl_override_ms: None,
            ttl_status_ms: Vec::new(),
            heuristic_percent: 0,
            heuristic_max_ms: 86_400_000,
            stale_while_revalidate_ms: None,
            stale_if_error_ms: None,
            set_cookie: SetCookie::Bypass,
            authenticated: false,
            targets: default_targets(),
            invalid_age_is_stale: false,
        }
    }
}

impl StoreRules {
    /// The `ttl.status` entry for a status.
    pub fn ttl_for_status(&self, status: u16) -> Option<i64> {
        self.ttl_status_ms.iter().find(|(code, _)| *code == status).map(|(_, ms)| *ms)
    }
}
