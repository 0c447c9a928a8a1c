//! The mesh that a pod is in.

use serde::Deserialize;

/// How requests reach Outrigger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mesh {
    /// Istio: Envoy sends requests to it, and policy comes from istiod.
    #[default]
    Istio,
    /// No mesh: it listens itself, before one port of the pod.
    None,
}
