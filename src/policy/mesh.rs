//! What the mesh knows of a request beyond the message itself: on which side of the pod it came in,
//! for which port, and who the authenticated caller is.
//!
//! Nothing here reads a request: the data path does, on listeners where Envoy's route sets the header
//! fields, and passes the values in.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::VariantArray;

use crate::error::ValueError;
use crate::text::text_value;

/// The side of the pod on which a request came in. Where a request may also come in on a direct
/// listener, outside a mesh, `Option<Side>` is used and `None` means such a listener.
///
/// The names are stable: they are part of cache keys, of logs and of `explain`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Deserialize,
    Serialize,
    JsonSchema,
    strum::Display,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Side {
    /// For the application beside this process.
    Inbound,
    /// From the application beside this process, for another service.
    Outbound,
}

impl Side {
    /// The stable name, `inbound` or `outbound`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A text that does not name a side of the pod. The message says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a side: write inbound or outbound")]
pub struct SideError(String);

impl FromStr for Side {
    type Err = SideError;

    fn from_str(text: &str) -> Result<Self, SideError> {
        let named = |side: &&Side| side.as_str() == text;
        Self::VARIANTS.iter().find(named).copied().ok_or_else(|| SideError(text.to_owned()))
    }
}

/// What the mesh says about a request; nothing where there is no mesh.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival<'a> {
    /// Side and port. The port is part of the key: one listener serves several ports, and a client
    /// chooses `Host` freely.
    pub entry: Option<(Side, u16)>,
    /// The caller that the mesh has authenticated; `None` without one.
    pub peer: Option<Peer<'a>>,
    /// The identity that this pod calls with. Other workloads that share its tier may not be allowed to
    /// see the responses to it.
    pub own: Option<&'a str>,
}

/// The authenticated caller: a SPIFFE identity as Istio issues it,
/// `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer<'a> {
    uri: &'a str,
    namespace: Option<&'a str>,
}

const SCHEME: &str = "spiffe://";
/// SPIFFE IDs are no longer than this (SPIFFE-ID §2.3).
const SPIFFE_BYTES_MAX: usize = 2048;

impl<'a> Peer<'a> {
    /// Reads a SPIFFE URI; `None` if it is none.
    pub fn parse(uri: &'a str) -> Option<Self> {
        let principal = uri.strip_prefix(SCHEME)?;
        let visible = principal.bytes().all(|b| b.is_ascii_graphic() && b != b',');
        let (domain, path) = principal.split_once('/')?;
        if uri.len() > SPIFFE_BYTES_MAX || !visible || domain.is_empty() || path.is_empty() {
            return None;
        }
        let mut parts = path.split('/');
        let namespace = (parts.next() == Some("ns")).then(|| parts.next()).flatten();
        Some(Peer { uri, namespace: namespace.filter(|name| !name.is_empty()) })
    }

    /// The identity as a SPIFFE URI.
    pub fn uri(self) -> &'a str {
        self.uri
    }

    /// The identity without `spiffe://`, as Istio's `principals` are written.
    pub fn principal(self) -> &'a str {
        self.uri.strip_prefix(SCHEME).unwrap_or(self.uri)
    }

    /// The trust domain that has authenticated the caller.
    pub fn trust_domain(self) -> &'a str {
        self.principal().split('/').next().unwrap_or_default()
    }

    /// The namespace of the caller, where the identity has Istio's form.
    pub fn namespace(self) -> Option<&'a str> {
        self.namespace
    }
}

/// A text that is not the identity of a caller. The message says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an identity: write spiffe://cluster.local/ns/shop/sa/frontend")]
pub struct PeerError(String);

impl<'a> TryFrom<&'a str> for Peer<'a> {
    type Error = PeerError;

    /// Reads a SPIFFE URI that a person wrote. The data path uses [`Peer::parse`], which has no
    /// message to allocate.
    fn try_from(uri: &'a str) -> Result<Self, PeerError> {
        Peer::parse(uri).ok_or_else(|| PeerError(uri.to_owned()))
    }
}

/// A pattern for principals or namespaces, as Istio's AuthorizationPolicy has them: exact, a
/// beginning followed by `*`, an end preceded by `*`, or `*` for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityPattern {
    /// Any identity, as long as there is one.
    Any,
    /// This identity and no other.
    Exact(String),
    /// Identities that begin with this text.
    Prefix(String),
    /// Identities that end with this text.
    Suffix(String),
}

impl IdentityPattern {
    /// Reads a pattern as it is written in a policy.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let text = text.strip_prefix(SCHEME).unwrap_or(text);
        let (body, pattern): (&str, fn(String) -> Self) = match text {
            "*" => return Ok(Self::Any),
            _ => match (text.strip_suffix('*'), text.strip_prefix('*')) {
                (Some(body), _) => (body, Self::Prefix),
                (None, Some(body)) => (body, Self::Suffix),
                (None, None) => (text, Self::Exact),
            },
        };
        if body.is_empty() || body.contains('*') || !body.bytes().all(|b| b.is_ascii_graphic()) {
            let fix = "write cluster.local/ns/shop/sa/frontend, cluster.local/ns/shop/*, */sa/frontend or * (as Istio's principals and namespaces)";
            return Err(ValueError::form("identity", text, fix));
        }
        Ok(pattern(body.to_owned()))
    }

    /// Whether an identity matches the pattern.
    pub fn holds(&self, identity: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) => identity == text,
            Self::Prefix(text) => identity.starts_with(text.as_str()),
            Self::Suffix(text) => identity.ends_with(text.as_str()),
        }
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Suffix(text) => write!(f, "*{text}"),
        }
    }
}

text_value!(
    IdentityPattern,
    "Identity",
    "an identity or a pattern for some, as in Istio's AuthorizationPolicy",
    "^[!-~]+$"
);

/// What may pass through a listener that Envoy sends requests to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct SideDocument {
    /// Ports that requests are forwarded to. Absent: every port but those of Envoy, Istio and this
    /// process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<NonZeroU16>>,
}

impl SideDocument {
    /// This one, completed by a more general one.
    pub(crate) fn or(&self, general: &Self) -> Self {
        SideDocument { ports: self.ports.clone().or_else(|| general.ports.clone()) }
    }

    /// Whether requests may be forwarded to a port; `None` if the policy says nothing about it.
    pub fn allows(&self, port: u16) -> Option<bool> {
        let ports = self.ports.as_ref()?;
        Some(ports.iter().any(|allowed| allowed.get() == port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_as_istio_issues_them() {
        let peer = Peer::parse("spiffe://cluster.local/ns/shop/sa/frontend").unwrap();
        assert_eq!(peer.principal(), "cluster.local/ns/shop/sa/frontend");
        assert_eq!(peer.namespace(), Some("shop"));
        assert_eq!(Peer::parse("spiffe://example/other").unwrap().namespace(), None);
        let two = "spiffe://a/ns/x/sa/y,spiffe://b/ns/x/sa/y";
        for bad in ["", "spiffe://", "spiffe://a", "spiffe:///ns/x", "https://a/ns/x", two, "-"] {
            assert_eq!(Peer::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn sides_have_stable_names() {
        for (side, name) in [(Side::Inbound, "inbound"), (Side::Outbound, "outbound")] {
            assert_eq!((side.as_str(), &*side.to_string()), (name, name));
            assert_eq!(name.parse(), Ok(side));
            assert_eq!(serde_yaml::to_string(&side).unwrap().trim(), name);
            assert_eq!(serde_yaml::from_str::<Side>(name).unwrap(), side);
        }
        assert!("Inbound".parse::<Side>().is_err());
    }

    #[test]
    fn mistakes_in_sides_and_identities_are_named() {
        let error = "left".parse::<Side>().unwrap_err().to_string();
        assert_eq!(error, "\"left\" is not a side: write inbound or outbound");
        let error = Peer::try_from("frontend").unwrap_err().to_string();
        assert!(error.starts_with("\"frontend\" is not an identity: write spiffe://"), "{error}");
    }

    #[test]
    fn patterns_are_those_of_istio() {
        let frontend = "cluster.local/ns/shop/sa/frontend";
        for (pattern, holds) in [
            ("*", true),
            (frontend, true),
            ("spiffe://cluster.local/ns/shop/sa/frontend", true),
            ("cluster.local/ns/shop/*", true),
            ("*/sa/frontend", true),
            ("cluster.local/ns/shop", false),
            ("*/sa/front", false),
        ] {
            assert_eq!(
                IdentityPattern::parse(pattern).unwrap().holds(frontend),
                holds,
                "{pattern}"
            );
        }
        for bad in ["", "a*b*", "**", "a b"] {
            let error = IdentityPattern::parse(bad).unwrap_err().to_string();
            assert!(error.contains("principals"), "{bad}");
        }
    }

    #[test]
    fn ports_allow_nothing_but_what_they_list() {
        let some: SideDocument = serde_yaml::from_str("ports: [8080]").unwrap();
        assert_eq!((some.allows(8080), some.allows(22)), (Some(true), Some(false)));
        assert_eq!(SideDocument::default().allows(8080), None);
        assert!(serde_yaml::from_str::<SideDocument>("ports: [0]").is_err());
    }
}
