//! Labels of the metrics. Values come from closed sets or from names that an operator chose, never
//! from a client, so that the number of series is bounded.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// A label value from a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Word(pub &'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

/// Labels of the requests of clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// Name of the route in the policy.
    pub route: String,
    /// The name of an [`Outcome`](crate::Outcome).
    pub outcome: Word,
}

/// The label of what is counted for each route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabel {
    /// Name of the route in the policy.
    pub route: String,
}

/// The label of what is counted by how it turned out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// The stable name of the decision, error or reason.
    pub result: Word,
}

/// The label of what is counted by its cause.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CauseLabel {
    /// The stable name of the cause.
    pub cause: Word,
}

/// Labels of applied purges.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PurgeLabels {
    /// What the purge names: a URL, a tag, a prefix or everything.
    pub matcher: Word,
    /// `hard` or `soft`.
    pub mode: Word,
}

/// Labels of a change of state of a circuit breaker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TransitionLabels {
    /// `upstream`, `route:NAME`, or `endpoint` for all endpoints together.
    pub breaker: String,
    /// The name of the new state.
    pub to: Word,
    /// The name of the reason for the change.
    pub reason: Word,
}
