//! The values of a guard document: what counts as failure, what a route's priority is, and how
//! clients are told apart.

use std::fmt;

use http::HeaderName;

use crate::error::ValueError;
use crate::text::text_value;
use crate::values::FieldName;

/// The status names of gRPC, in the order of their codes.
const GRPC: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid-argument",
    "deadline-exceeded",
    "not-found",
    "already-exists",
    "permission-denied",
    "resource-exhausted",
    "failed-precondition",
    "aborted",
    "out-of-range",
    "unimplemented",
    "internal",
    "unavailable",
    "data-loss",
    "unauthenticated",
];

/// One way in which a request to the upstream can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection, or no TLS on it.
    Connect,
    /// The connection broke before the response was whole.
    Reset,
    /// No connection, no head or no further byte in time.
    Timeout,
    /// The response was not HTTP.
    Invalid,
    /// A status of the 500s.
    Status(u16),
    /// All statuses of the 500s.
    ServerErrors,
    /// A status of gRPC, by its code.
    Grpc(u8),
}

impl FailureKind {
    /// Reads a kind as a policy has it.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        match text {
            "connect" => return Ok(Self::Connect),
            "reset" => return Ok(Self::Reset),
            "timeout" => return Ok(Self::Timeout),
            "invalid" => return Ok(Self::Invalid),
            "5xx" => return Ok(Self::ServerErrors),
            _ => {}
        }
        if let Some(name) = text.strip_prefix("grpc-")
            && let Some(code) = GRPC.iter().skip(1).position(|known| *known == name)
        {
            return Ok(Self::Grpc(u8::try_from(code + 1).unwrap_or(2)));
        }
        match text.parse::<u16>() {
            Ok(status @ 500..=599) => Ok(Self::Status(status)),
            _ => {
                let fix = "write connect, reset, timeout, invalid, 5xx, a status from 500 to 599, or a gRPC status such as grpc-unavailable";
                Err(ValueError::form("failure", text, fix))
            }
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Reset => f.write_str("reset"),
            Self::Timeout => f.write_str("timeout"),
            Self::Invalid => f.write_str("invalid"),
            Self::Status(status) => write!(f, "{status}"),
            Self::ServerErrors => f.write_str("5xx"),
            Self::Grpc(code) => {
                write!(f, "grpc-{}", GRPC.get(usize::from(*code)).unwrap_or(&"unknown"))
            }
        }
    }
}

text_value!(
    FailureKind,
    "Failure",
    "connect, reset, timeout, invalid, 5xx, a status from 500 to 599, or a gRPC status such as grpc-unavailable",
    "^(connect|reset|timeout|invalid|5xx|5[0-9][0-9]|grpc-[a-z-]+)$"
);

/// A set of failures, for the data path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureSet {
    connect: bool,
    reset: bool,
    timeout: bool,
    invalid: bool,
    /// One bit for each status from 500 on.
    statuses: u128,
    /// One bit for each gRPC status.
    grpc: u32,
}

impl FailureSet {
    /// The set of these kinds.
    pub fn of(kinds: &[FailureKind]) -> Self {
        let mut set = FailureSet::default();
        for kind in kinds {
            match kind {
                FailureKind::Connect => set.connect = true,
                FailureKind::Reset => set.reset = true,
                FailureKind::Timeout => set.timeout = true,
                FailureKind::Invalid => set.invalid = true,
                FailureKind::Status(status) => set.statuses |= 1 << status.saturating_sub(500),
                FailureKind::ServerErrors => set.statuses |= (1 << 100) - 1,
                FailureKind::Grpc(code) => set.grpc |= 1 << code,
            }
        }
        set
    }

    /// Whether a kind is in it. `ServerErrors`, which stands for many, never is.
    pub fn contains(&self, kind: FailureKind) -> bool {
        match kind {
            FailureKind::Connect => self.connect,
            FailureKind::Reset => self.reset,
            FailureKind::Timeout => self.timeout,
            FailureKind::Invalid => self.invalid,
            FailureKind::Status(status @ 500..=599) => self.statuses >> (status - 500) & 1 == 1,
            FailureKind::Grpc(code @ 0..=31) => self.grpc >> code & 1 == 1,
            _ => false,
        }
    }

    /// Whether any gRPC status is in it: then responses have to be watched to their trailers.
    pub fn looks_at_grpc(&self) -> bool {
        self.grpc != 0
    }
}

/// How important the requests of a route are, when not all can be sent to the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum Priority {
    /// Requests that are given up before all others.
    Low,
    /// Requests of routes that say nothing.
    #[default]
    Normal,
    /// Requests that are given up last.
    High,
}

impl Priority {
    /// Reads a priority as a policy has it.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let fix = "write low, normal or high";
        text.parse().map_err(|_| ValueError::form("priority", text, fix))
    }

    /// The importance as a number, 0 for the least and 2 for the greatest.
    pub fn level(self) -> u8 {
        self as u8
    }
}

text_value!(Priority, "Priority", "low, normal or high", "^(low|normal|high)$");

/// What tells clients apart where each has a limit of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientBy {
    /// The address of the connection. Behind Envoy that is Envoy's own.
    #[default]
    Address,
    /// A header field that the mesh sets and protects. Without it, requests count together.
    Header(FieldName),
}

impl ClientBy {
    /// Reads what tells clients apart, as a policy has it.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        match text.strip_prefix("header:") {
            Some(name) => FieldName::parse(name).map(Self::Header),
            None if text == "address" => Ok(Self::Address),
            None => Err(ValueError::form("client", text, "write address or header:NAME")),
        }
    }

    /// The field, if it is one.
    pub fn header(&self) -> Option<HeaderName> {
        match self {
            Self::Address => None,
            Self::Header(name) => Some(name.header_name()),
        }
    }
}

impl fmt::Display for ClientBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("address"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

text_value!(ClientBy, "ClientBy", "address, or header:NAME", "^(address|header:.+)$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_read_and_print() {
        for text in ["connect", "reset", "timeout", "invalid", "5xx", "503", "grpc-unavailable"] {
            assert_eq!(FailureKind::parse(text).map(|kind| kind.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(FailureKind::parse("grpc-unavailable"), Ok(FailureKind::Grpc(14)));
        for bad in ["", "404", "600", "grpc-ok", "grpc-", "grpc-sad", "Reset"] {
            assert!(FailureKind::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn priorities_read_and_print_in_their_order() {
        for (level, name) in ["low", "normal", "high"].into_iter().enumerate() {
            let priority = Priority::parse(name).unwrap();
            assert_eq!(
                (usize::from(priority.level()), priority.to_string()),
                (level, name.to_owned())
            );
        }
        for bad in ["", "Low", "highest"] {
            assert!(Priority::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_set_holds_what_it_was_made_of() {
        let kinds = [FailureKind::Reset, FailureKind::Status(503), FailureKind::Grpc(14)];
        let set = FailureSet::of(&kinds);
        assert!(kinds.iter().all(|kind| set.contains(*kind)));
        for other in [FailureKind::Connect, FailureKind::Status(500), FailureKind::Grpc(4)] {
            assert!(!set.contains(other));
        }
        let all = FailureSet::of(&[FailureKind::ServerErrors]);
        assert!((500..=599).all(|status| all.contains(FailureKind::Status(status))));
        assert!(!all.looks_at_grpc() && set.looks_at_grpc());
    }
}
