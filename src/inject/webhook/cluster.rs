//! What the keeper of certificates needs of a cluster.

use std::collections::BTreeMap;

use serde_json::Value;

/// Why a question to the cluster failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// Somebody else wrote in between: read again.
    Conflict,
    /// No answer, or none that counts.
    Unreachable(String),
    /// An answer that trying again does not change.
    Refused(String),
}

/// A Secret.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    /// Its data, as text.
    pub data: BTreeMap<String, String>,
    /// All of it, with the version that a write must name.
    pub object: Value,
}

/// The certificates that a webhook configuration trusts, for each webhook of ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bundles {
    /// The version that a write must name.
    pub version: Value,
    /// At least one.
    pub entries: Vec<Bundle>,
}

/// `caBundle` of one webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    /// Its place in the list.
    pub index: usize,
    /// As PEM; empty if there is none.
    pub pem: String,
}

/// The API server, or what stands in for it in a test.
pub(super) trait Cluster: Send + Sync {
    /// The Secret; `None` if there is none.
    fn secret(&self) -> impl Future<Output = Result<Option<Stored>, Problem>> + Send;

    /// Writes the Secret, if it still is what was read.
    fn write_secret(
        &self,
        old: Option<&Stored>,
        data: &BTreeMap<&'static str, String>,
    ) -> impl Future<Output = Result<(), Problem>> + Send;

    /// What is trusted.
    fn bundles(&self) -> impl Future<Output = Result<Bundles, Problem>> + Send;

    /// Writes what is trusted, if it still is what was read.
    fn write_bundle(
        &self,
        read: &Bundles,
        pem: &str,
    ) -> impl Future<Output = Result<(), Problem>> + Send;
}
