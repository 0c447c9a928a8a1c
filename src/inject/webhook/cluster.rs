//! The operations of a cluster that the keeper of certificates needs, so that a test can replace it.

use std::collections::BTreeMap;

use serde_json::Value;

/// Why a question to the cluster failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClusterError {
    /// The object has changed since it was read; it has to be read again.
    #[error("somebody else wrote in between")]
    Conflict,
    /// No answer, or an error of the server.
    #[error("{0}")]
    Unreachable(String),
    /// An answer that trying again does not change.
    #[error("{0}")]
    Refused(String),
}

/// A Secret as it was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    /// The values of its `data`, decoded, as text.
    pub data: BTreeMap<String, String>,
    /// The whole object, with the version that a write must name.
    pub object: Value,
}

/// The certificates that a webhook configuration trusts, for each webhook of ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bundles {
    /// The version that a write must name.
    pub version: Value,
    /// The webhooks of ours, at least one.
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

/// The API server, or its replacement in a test.
pub(super) trait Cluster: Send + Sync {
    /// The Secret; `None` if there is none.
    fn secret(&self) -> impl Future<Output = Result<Option<Stored>, ClusterError>> + Send;

    /// Writes the Secret, if it still is what was read.
    fn write_secret(
        &self,
        old: Option<&Stored>,
        data: &BTreeMap<&'static str, String>,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// The authorities that the webhook configuration trusts.
    fn bundles(&self) -> impl Future<Output = Result<Bundles, ClusterError>> + Send;

    /// Writes what is trusted, if it still is what was read.
    fn write_bundle(
        &self,
        read: &Bundles,
        pem: &str,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;
}
