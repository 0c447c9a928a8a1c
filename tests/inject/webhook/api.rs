//! A stand-in for the Kubernetes API: one namespace's Secrets and the webhook configurations, over TLS,
//! with tokens and resource versions.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio_rustls::TlsAcceptor;

const SECRETS: &str = "/api/v1/namespaces/mesh/secrets";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

#[derive(Default)]
struct Objects {
    version: u64,
    objects: BTreeMap<String, Value>,
}

pub struct Api {
    pub addr: SocketAddr,
    folder: tempfile::TempDir,
    objects: Mutex<Objects>,
    /// Connections are closed at once.
    pub down: AtomicBool,
    /// Nobody may do anything.
    pub forbidden: AtomicBool,
    pub conflicts: AtomicUsize,
    pub requests: AtomicUsize,
    /// The first reads of a Secret wait for each other.
    together: Mutex<Option<Arc<Barrier>>>,
}

impl Api {
    pub async fn start() -> Arc<Self> {
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), key.cert.pem()).unwrap();
        std::fs::write(folder.path().join("token"), "first\n").unwrap();
        std::fs::write(folder.path().join("namespace"), "mesh").unwrap();
        let chain = vec![key.cert.der().clone()];
        let key =
            rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Arc::new(Api {
            addr: listener.local_addr().unwrap(),
            folder,
            objects: Mutex::default(),
            down: AtomicBool::new(false),
            forbidden: AtomicBool::new(false),
            conflicts: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            together: Mutex::new(None),
        });
        api.put(&format!("{CONFIGURATIONS}/inject"), configuration());
        tokio::spawn(Arc::clone(&api).accept(listener, TlsAcceptor::from(Arc::new(tls))));
        api
    }

    /// The folder of a service account.
    pub fn account(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// A new token: the old one no longer counts.
    pub fn renew_token(&self) {
        replace(&self.folder.path().join("token"), b"second\n");
    }

    /// Makes this many first reads of a Secret answer at the same time.
    pub fn hold_reads(&self, count: usize) {
        *self.together.lock().unwrap() = Some(Arc::new(Barrier::new(count)));
    }

    /// The Secret's value, decoded.
    pub fn secret(&self, key: &str) -> Option<String> {
        let objects = self.objects.lock().unwrap();
        let value = objects.objects.get(&format!("{SECRETS}/inject-tls"))?["data"][key].as_str()?;
        Some(String::from_utf8(STANDARD.decode(value).unwrap()).unwrap())
    }

    pub fn delete_secret(&self) {
        self.objects.lock().unwrap().objects.remove(&format!("{SECRETS}/inject-tls"));
    }

    /// What the API server trusts at this moment: the first webhook is ours, the second is not.
    pub fn bundle(&self) -> String {
        let objects = self.objects.lock().unwrap();
        let object = &objects.objects[&format!("{CONFIGURATIONS}/inject")];
        assert_eq!(object["webhooks"][1]["clientConfig"]["caBundle"], "b3RoZXI=", "left alone");
        let bundle = object["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or("");
        String::from_utf8(STANDARD.decode(bundle).unwrap()).unwrap()
    }

    pub fn overwrite_bundle(&self, text: &str) {
        let path = format!("{CONFIGURATIONS}/inject");
        let mut object = self.objects.lock().unwrap().objects[&path].clone();
        object["webhooks"][0]["clientConfig"]["caBundle"] = json!(STANDARD.encode(text));
        self.put(&path, object);
    }

    fn put(&self, path: &str, mut object: Value) -> Value {
        let mut objects = self.objects.lock().unwrap();
        objects.version += 1;
        object["metadata"]["resourceVersion"] = json!(objects.version.to_string());
        objects.objects.insert(path.to_owned(), object.clone());
        object
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, tls: TlsAcceptor) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if !self.down.load(Ordering::SeqCst) {
                tokio::spawn(Arc::clone(&self).connection(stream, tls.clone()));
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, tls: TlsAcceptor) {
        let Ok(stream) = tls.accept(stream).await else { return };
        let service = service_fn(move |request| {
            let api = Arc::clone(&self);
            async move {
                let (status, body) = api.answer(request).await;
                let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }
        });
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> (StatusCode, Value) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let token = std::fs::read_to_string(self.folder.path().join("token")).unwrap();
        let wanted = format!("Bearer {}", token.trim());
        if request.headers()["authorization"] != wanted.as_str() {
            return (StatusCode::UNAUTHORIZED, json!({"message": "Unauthorized"}));
        }
        if self.forbidden.load(Ordering::SeqCst) {
            return (StatusCode::FORBIDDEN, json!({"message": "not for you"}));
        }
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let kind = parts.headers.get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        match (parts.method, kind.as_deref()) {
            (Method::GET, None) => self.get(&path).await,
            (Method::POST, Some("application/json")) if path == SECRETS => self.create(body),
            (Method::PUT, Some("application/json")) => self.replace(&path, body),
            (Method::PATCH, Some("application/json-patch+json")) => self.patch(&path, &body),
            other => panic!("{other:?} {path}"),
        }
    }

    fn find(&self, path: &str) -> (StatusCode, Value) {
        match self.objects.lock().unwrap().objects.get(path) {
            Some(object) => (StatusCode::OK, object.clone()),
            None => (StatusCode::NOT_FOUND, json!({"message": "not found"})),
        }
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let answer = self.find(path);
        let barrier = self.together.lock().unwrap().clone();
        if let (Some(barrier), true) = (barrier, path.starts_with(SECRETS)) {
            barrier.wait().await;
            *self.together.lock().unwrap() = None;
        }
        answer
    }

    fn conflict(&self, status: StatusCode) -> (StatusCode, Value) {
        self.conflicts.fetch_add(1, Ordering::SeqCst);
        (status, json!({"message": "conflict"}))
    }

    fn create(&self, object: Value) -> (StatusCode, Value) {
        let path = format!("{SECRETS}/{}", object["metadata"]["name"].as_str().unwrap());
        if self.find(&path).0 == StatusCode::OK {
            return self.conflict(StatusCode::CONFLICT);
        }
        (StatusCode::CREATED, self.put(&path, object))
    }

    fn replace(&self, path: &str, object: Value) -> (StatusCode, Value) {
        let (status, there) = self.find(path);
        if status != StatusCode::OK {
            return (status, there);
        }
        let version = &object["metadata"]["resourceVersion"];
        assert!(version.is_string(), "a write without a version");
        if *version != there["metadata"]["resourceVersion"] {
            return self.conflict(StatusCode::CONFLICT);
        }
        (StatusCode::OK, self.put(path, object))
    }

    fn patch(&self, path: &str, operations: &Value) -> (StatusCode, Value) {
        let (status, mut object) = self.find(path);
        if status != StatusCode::OK {
            return (status, object);
        }
        let read = object["metadata"]["resourceVersion"].clone();
        for operation in operations.as_array().unwrap() {
            let path = operation["path"].as_str().unwrap();
            match operation["op"].as_str().unwrap() {
                "test" if object.pointer(path) == Some(&operation["value"]) => {}
                "test" => return self.conflict(StatusCode::UNPROCESSABLE_ENTITY),
                "add" => {
                    let (parent, key) = path.rsplit_once('/').unwrap();
                    object.pointer_mut(parent).unwrap()[key] = operation["value"].clone();
                }
                other => panic!("{other}"),
            }
        }
        if self.find(path).1["metadata"]["resourceVersion"] != read {
            return self.conflict(StatusCode::CONFLICT);
        }
        (StatusCode::OK, self.put(path, object))
    }
}

fn configuration() -> Value {
    let webhook = |name: &str, service: &str| {
        json!({
            "name": name,
            "clientConfig": {"service": {"name": service, "namespace": "mesh", "path": "/inject"}},
        })
    };
    let mut other = webhook("other.example.com", "other");
    other["clientConfig"]["caBundle"] = json!("b3RoZXI=");
    json!({
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "inject"},
        "webhooks": [webhook("inject.outrigger.io", "inject"), other],
    })
}

/// Replaces a file in one step, as a kubelet does.
pub fn replace(path: &Path, content: &[u8]) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).unwrap();
    std::fs::rename(beside, path).unwrap();
}
