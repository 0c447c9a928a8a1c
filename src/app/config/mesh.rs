//! The identity of this pod, and where istiod is. What is not written here comes from the
//! environment, under the names that Istio's own sidecar uses, or from the downward API's files.

use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Identity of this pod, in a mesh.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// Addresses of the pod. Absent: `INSTANCE_IPS`, else `INSTANCE_IP`, with commas.
    pub pod_addresses: Option<Vec<IpAddr>>,
    /// Name of the pod. Absent: `POD_NAME`.
    pub pod_name: Option<String>,
    /// Namespace of the pod. Absent: `POD_NAMESPACE`, else `default`.
    pub namespace: Option<String>,
    /// Service account of the pod: what it gets from others is stored for this identity alone.
    /// Absent: `SERVICE_ACCOUNT`.
    pub service_account: Option<String>,
    /// Trust domain of the mesh. Absent: `TRUST_DOMAIN`, else `cluster.local`.
    pub trust_domain: Option<String>,
    /// Name of the cluster as istiod knows it. Absent: `CLUSTER_ID`, else `Kubernetes`.
    pub cluster_id: Option<String>,
    /// Version of Istio, for EnvoyFilters that match on `proxyVersion`. Absent: `ISTIO_VERSION`,
    /// else none is told.
    pub istio_version: Option<String>,
    /// Labels of the pod, as the downward API writes them. Absent: `OUTRIGGER_POD_LABELS`, else
    /// `/etc/istio/pod/labels`.
    pub labels_file: Option<PathBuf>,
}

/// Where istiod is and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct XdsConfig {
    /// `grpcs://host:port`, or `grpc://host:port` without TLS, for tests.
    pub address: String,
    /// The service account's token for istiod, read again for each connection.
    pub token_file: PathBuf,
    /// Trust these certificates (PEM), read again for each connection.
    pub ca_file: PathBuf,
    /// The name that istiod's certificate must carry. Absent: the host of `address`.
    pub server_name: Option<String>,
}

impl Default for XdsConfig {
    fn default() -> Self {
        XdsConfig {
            address: "grpcs://istiod.istio-system.svc:15012".to_owned(),
            token_file: "/var/run/secrets/tokens/istio-token".into(),
            ca_file: "/var/run/secrets/istio/root-cert.pem".into(),
            server_name: None,
        }
    }
}
