//! As much of an API server as `helm install --dry-run=server` asks: which kinds there are, and whether the
//! objects exist. It has the Secrets that a test gives it, and nothing else.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::helm::{NAMESPACE, RELEASE, Said, chart, helm};

/// A kind, its plural, and whether it is in a namespace.
type Kind = (&'static str, &'static str, bool);

/// Group and version, and the kinds in it.
const KINDS: [(&str, &[Kind]); 7] = [
    (
        "v1",
        &[
            ("ConfigMap", "configmaps", true),
            ("Secret", "secrets", true),
            ("Service", "services", true),
            ("ServiceAccount", "serviceaccounts", true),
        ],
    ),
    ("apps/v1", &[("Deployment", "deployments", true)]),
    ("policy/v1", &[("PodDisruptionBudget", "poddisruptionbudgets", true)]),
    ("networking.k8s.io/v1", &[("NetworkPolicy", "networkpolicies", true)]),
    (
        "rbac.authorization.k8s.io/v1",
        &[
            ("Role", "roles", true),
            ("RoleBinding", "rolebindings", true),
            ("ClusterRole", "clusterroles", false),
            ("ClusterRoleBinding", "clusterrolebindings", false),
        ],
    ),
    (
        "admissionregistration.k8s.io/v1",
        &[("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", false)],
    ),
    ("monitoring.coreos.com/v1", &[("PodMonitor", "podmonitors", true)]),
];

/// A server on loopback. It ends with the value.
pub struct ApiServer {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Starts one that has these Secrets.
    pub fn start(secrets: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if seen.load(Ordering::SeqCst) {
                    return;
                }
                // A client that is gone has its answer already.
                let _ = connection.and_then(|stream| serve(stream, &secrets));
            }
        });
        ApiServer { address, ended, thread: Some(thread) }
    }

    /// Installs the chart here, without changing anything: the manifest and the notes.
    pub fn install(&self, values: &Value) -> (String, String) {
        let server = format!("http://{}", self.address);
        let chart = chart();
        let args = [
            "install",
            RELEASE,
            &chart,
            "--namespace",
            NAMESPACE,
            "-f",
            "-",
            "--kube-apiserver",
            &server,
        ];
        let options = ["--dry-run=server", "--disable-openapi-validation", "--output", "json"];
        let Said { ok, out, err } = helm(&[&args[..], &options[..]].concat(), values);
        assert!(ok, "{values}: {err}");
        let release: Value = serde_json::from_str(&out).unwrap();
        // What is empty is left out.
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&release["manifest"]), text(&release["info"]["notes"]))
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, secrets: &[Value]) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let target = request.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match answer(path, secrets) {
        Some(body) => ("200 OK", body),
        None => (
            "404 Not Found",
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
                   "code": 404}),
        ),
    };
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn answer(path: &str, secrets: &[Value]) -> Option<Value> {
    match path {
        "/version" => return Some(json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0"})),
        "/api" => return Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => {
            let group = |name: &str| {
                let version = json!({"groupVersion": name, "version": "v1"});
                let name = name.strip_suffix("/v1").unwrap();
                json!({"name": name, "versions": [version], "preferredVersion": version})
            };
            let groups: Vec<Value> = KINDS[1..].iter().map(|(name, _)| group(name)).collect();
            return Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}));
        }
        _ => {}
    }
    let rest = path.strip_prefix("/apis/").or_else(|| path.strip_prefix("/api/"))?;
    if let Some((group, kinds)) = KINDS.iter().find(|(group, _)| *group == rest) {
        let resource = |(kind, plural, namespaced): &Kind| {
            json!({"kind": kind, "name": plural, "namespaced": namespaced, "singularName": "",
                   "verbs": ["create", "get", "list", "patch", "update"]})
        };
        let resources: Vec<Value> = kinds.iter().map(resource).collect();
        return Some(
            json!({"kind": "APIResourceList", "groupVersion": group, "resources": resources}),
        );
    }
    let (namespace, name) = rest.strip_prefix("v1/namespaces/")?.split_once("/secrets")?;
    if name.is_empty() {
        return Some(
            json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": []}),
        );
    }
    let wanted = (namespace, name.strip_prefix('/')?);
    let is = |s: &&Value| {
        let metadata = &s["metadata"];
        (metadata["namespace"].as_str(), metadata["name"].as_str())
            == (Some(wanted.0), Some(wanted.1))
    };
    secrets.iter().find(is).cloned()
}
