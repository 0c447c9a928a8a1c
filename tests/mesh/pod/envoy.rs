//! Envoy as the sidecar of a pod, configured by the control plane alone.

use std::path::{Path, PathBuf};

use crate::support::{installed, test_cache};

use super::netns::Namespace;
use super::process::{Process, in_reach};
use super::{CONTROL_PLANE, ENVOY_USER, Place};

/// Which Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 1.38, the line of Istio 1.30.
    Older,
    /// 1.40.
    Newer,
}

impl Version {
    /// Where `tests/setup test` put it.
    pub fn program(self) -> PathBuf {
        match self {
            Self::Newer => installed("envoy-newer/envoy/_bin/envoy"),
            Self::Older => {
                let folder = packages(&test_cache());
                installed(&folder.join("envoy/_bin/envoy").display().to_string())
            }
        }
    }
}

/// The packages of the Python environment, whatever its Python is.
fn packages(cache: &Path) -> PathBuf {
    let lib = cache.join("venv/lib");
    let folders = std::fs::read_dir(&lib).into_iter().flatten().flatten();
    let mut folders = folders.map(|entry| entry.path().join("site-packages"));
    folders.find(|folder| folder.is_dir()).unwrap_or(lib)
}

/// Starts it.
pub fn start(namespace: &Namespace, place: &Place, version: Version, folder: &Path) -> Process {
    let name = format!("envoy-{}", place.app);
    let file = folder.join(format!("{name}.yaml"));
    std::fs::write(&file, bootstrap(place)).expect("the bootstrap is written");
    let program = in_reach(folder, "envoy", &version.program());
    let mut args = vec!["-c".to_owned(), file.display().to_string()];
    args.extend(["--concurrency", "2", "--disable-hot-restart", "-l", "warn"].map(str::to_owned));
    // As pilot-agent: a listener that is replaced asks its clients to go at once.
    args.extend(["--drain-time-s", "45", "--drain-strategy", "immediate"].map(str::to_owned));
    Process::start(namespace, ENVOY_USER, folder, &name, &program, &args, &[])
}

fn bootstrap(place: &Place) -> String {
    let Place { address, app, namespace, .. } = place;
    let (control_plane, port) = CONTROL_PLANE;
    let id = place.node_id();
    format!(
        "\
node:
  id: {id}
  cluster: {app}.{namespace}
  metadata: {{NAMESPACE: {namespace}, CLUSTER_ID: Kubernetes, INSTANCE_IPS: {address}, LABELS: {{app: {app}}}}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 15000}}}}}}
dynamic_resources:
  ads_config:
    api_type: GRPC
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services: [{{envoy_grpc: {{cluster_name: xds-grpc}}}}]
  cds_config: {{ads: {{}}, initial_fetch_timeout: 0s, resource_api_version: V3}}
  lds_config: {{ads: {{}}, initial_fetch_timeout: 0s, resource_api_version: V3}}
static_resources:
  clusters:
  - name: xds-grpc
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: xds-grpc
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {control_plane}, port_value: {port}}}}}}}}}]}}]
"
    )
}
