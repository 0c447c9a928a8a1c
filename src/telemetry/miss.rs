//! Why a request that the store could have answered went to the upstream.

/// The cause of a miss. Closed; the names in kebab-case are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum MissCause {
    /// The key was not here, as far as is known.
    Cold,
    /// Its response was no longer fresh, and no stale window was open.
    Expired,
    /// Its response had made room for others.
    Evicted,
    /// A purge or an unsafe method had met it.
    Purged,
    /// Responses are stored for the URL, and none for these selecting fields.
    Variant,
    /// Stored responses were not to be used: this pod does not know which are still valid.
    Untrusted,
    /// The request does not take what is stored: by its directives, or by its cookies.
    Request,
    /// A part is stored that does not answer the request.
    Partial,
}

impl MissCause {
    /// The stable name used in metrics and `explain`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// What `Cache-Status` says besides `fwd=uri-miss` (RFC 9211 §2.2): that the URL was here.
    pub fn detail(self) -> Option<&'static str> {
        matches!(self, Self::Expired | Self::Evicted | Self::Purged).then(|| self.as_str())
    }
}
