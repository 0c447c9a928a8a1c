//! The few questions that the webhook has for the Kubernetes API: one Secret and one webhook
//! configuration. The client is written by hand: for four requests a minute, a client library with
//! its watches and caches would be most of the program.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::cluster::{Bundle, Bundles, Cluster, ClusterError, Stored};
use super::error::CertificateError;
use super::tls;

/// A request has to be answered within this time.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Why there is no answer to one request.
#[derive(Debug, thiserror::Error)]
enum CallError {
    /// A file of the service account cannot be read.
    #[error("{}: {error}", path.display())]
    Account { path: PathBuf, error: std::io::Error },
    /// The authorities of the service account cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The TCP connection or the TLS handshake failed.
    #[error(transparent)]
    Connect(#[from] std::io::Error),
    /// The host is no name that a certificate can be for.
    #[error(transparent)]
    Name(#[from] InvalidDnsNameError),
    /// The TLS library takes no configuration.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The connection broke, or the answer was not HTTP.
    #[error(transparent)]
    Exchange(#[from] hyper::Error),
    /// The request cannot be written.
    #[error(transparent)]
    Request(#[from] http::Error),
    /// The body broke off or was too large.
    #[error(transparent)]
    Body(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// The API server as a pod sees it.
#[derive(Clone, Debug)]
pub(super) struct Api {
    /// Address and port, as the kubelet tells them to each pod.
    pub host: String,
    pub port: u16,
    /// The folder of the service account: `token` and `ca.crt`, which change while we run.
    pub account: PathBuf,
    /// Names of the objects that the webhook keeps.
    pub namespace: String,
    pub service: String,
    pub secret: String,
    pub webhook_configuration: String,
}

impl Api {
    fn secrets(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", self.namespace)
    }

    fn configuration(&self) -> String {
        format!(
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{}",
            self.webhook_configuration
        )
    }

    /// One request on a connection of its own.
    async fn call(
        &self,
        method: Method,
        path: &str,
        content: Option<(&str, &Value)>,
    ) -> Result<(StatusCode, Value), ClusterError> {
        let what = format!("{method} {path}");
        match tokio::time::timeout(DEADLINE, self.exchange(method, path, content)).await {
            Ok(Ok((status, body))) if status.is_server_error() => {
                Err(ClusterError::Unreachable(format!("{what}: {status}{}", message(&body))))
            }
            Ok(answer) => {
                answer.map_err(|reason| ClusterError::Unreachable(format!("{what}: {reason}")))
            }
            Err(_) => Err(ClusterError::Unreachable(format!("{what}: no answer in time"))),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        content: Option<(&str, &Value)>,
    ) -> Result<(StatusCode, Value), CallError> {
        let token = self.read("token").await?;
        let tls = self.tls().await?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let name = ServerName::try_from(self.host.clone())?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let host = match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::ACCEPT, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()))
            .header(header::USER_AGENT, concat!("outrigger/", env!("CARGO_PKG_VERSION")));
        let mut body = Bytes::new();
        if let Some((kind, value)) = content {
            request = request.header(header::CONTENT_TYPE, kind);
            body = Bytes::from(value.to_string());
        }
        let request = request.body(Full::new(body))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?;
        connection.abort();
        Ok((status, serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null)))
    }

    async fn read(&self, name: &str) -> Result<String, CallError> {
        let path = self.account.join(name);
        let text = tokio::fs::read_to_string(&path).await;
        text.map_err(|error| CallError::Account { path, error })
    }

    async fn tls(&self) -> Result<ClientConfig, CallError> {
        let mut roots = RootCertStore::empty();
        for certificate in tls::certificates(self.read("ca.crt").await?.as_bytes())? {
            roots.add(certificate)?;
        }
        let builder = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }

    /// The error that an answer without success stands for.
    fn refused(&self, what: &str, verb: &str, status: StatusCode, body: &Value) -> ClusterError {
        match status {
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => ClusterError::Conflict,
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => ClusterError::Refused(format!(
                "{what}: {status}{}; let the service account of this pod {verb} it",
                message(body)
            )),
            StatusCode::NOT_FOUND => ClusterError::Refused(format!(
                "{what}: it does not exist; create it, or correct its name in the flags"
            )),
            _ => ClusterError::Refused(format!("{what}: {status}{}", message(body))),
        }
    }
}

impl Cluster for Api {
    async fn secret(&self) -> Result<Option<Stored>, ClusterError> {
        let path = format!("{}/{}", self.secrets(), self.secret);
        let (status, object) = self.call(Method::GET, &path, None).await?;
        match status {
            StatusCode::OK => Ok(Some(Stored { data: decoded(&object), object })),
            StatusCode::NOT_FOUND => Ok(None),
            _ => {
                let what = format!("Secret {}/{}", self.namespace, self.secret);
                Err(self.refused(&what, "get", status, &object))
            }
        }
    }

    async fn write_secret(
        &self,
        old: Option<&Stored>,
        data: &BTreeMap<&'static str, String>,
    ) -> Result<(), ClusterError> {
        let mut object = match old {
            Some(stored) => stored.object.clone(),
            None => json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "Opaque",
                "metadata": {
                    "name": self.secret,
                    "namespace": self.namespace,
                    "labels": {"app.kubernetes.io/managed-by": "outrigger"},
                },
            }),
        };
        for (key, value) in data {
            object["data"][key] = json!(STANDARD.encode(value));
        }
        let json = ("application/json", &object);
        // With the resourceVersion that was read, the API server refuses to undo what others wrote.
        let (status, answer) = match old {
            Some(_) => {
                let path = format!("{}/{}", self.secrets(), self.secret);
                self.call(Method::PUT, &path, Some(json)).await?
            }
            None => self.call(Method::POST, &self.secrets(), Some(json)).await?,
        };
        if status.is_success() {
            return Ok(());
        }
        let what = format!("Secret {}/{}", self.namespace, self.secret);
        let gone = old.is_some() && status == StatusCode::NOT_FOUND;
        Err(if gone {
            ClusterError::Conflict
        } else {
            self.refused(&what, "create and update", status, &answer)
        })
    }

    async fn bundles(&self) -> Result<Bundles, ClusterError> {
        let (status, object) = self.call(Method::GET, &self.configuration(), None).await?;
        let what = format!("MutatingWebhookConfiguration {}", self.webhook_configuration);
        if status != StatusCode::OK {
            return Err(self.refused(&what, "get", status, &object));
        }
        let webhooks = object.get("webhooks").and_then(Value::as_array);
        let ours = |webhook: &&Value| {
            let service = webhook.pointer("/clientConfig/service").unwrap_or(&Value::Null);
            service.get("name").and_then(Value::as_str) == Some(&self.service)
                && service.get("namespace").and_then(Value::as_str) == Some(&self.namespace)
        };
        let entries: Vec<Bundle> = webhooks
            .map_or(&[][..], Vec::as_slice)
            .iter()
            .enumerate()
            .filter(|(_, webhook)| ours(webhook))
            .map(|(index, webhook)| Bundle { index, pem: bundle_of(webhook) })
            .collect();
        if entries.is_empty() {
            return Err(ClusterError::Refused(format!(
                "{what}: no webhook of it has clientConfig.service {}/{}; correct it, or the flags",
                self.namespace, self.service
            )));
        }
        let version = object.pointer("/metadata/resourceVersion").cloned().unwrap_or(Value::Null);
        Ok(Bundles { version, entries })
    }

    async fn write_bundle(&self, read: &Bundles, pem: &str) -> Result<(), ClusterError> {
        let mut patch =
            vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": read.version})];
        for entry in &read.entries {
            let path = format!("/webhooks/{}/clientConfig/caBundle", entry.index);
            patch.push(json!({"op": "add", "path": path, "value": STANDARD.encode(pem)}));
        }
        let patch = Value::Array(patch);
        let content = Some(("application/json-patch+json", &patch));
        let (status, answer) = self.call(Method::PATCH, &self.configuration(), content).await?;
        if status.is_success() {
            return Ok(());
        }
        let what = format!("MutatingWebhookConfiguration {}", self.webhook_configuration);
        Err(self.refused(&what, "patch", status, &answer))
    }
}

/// What the API server says in a `Status`.
fn message(body: &Value) -> String {
    let text = body.get("message").and_then(Value::as_str);
    text.map(|text| format!(" ({text})")).unwrap_or_default()
}

fn decoded(secret: &Value) -> BTreeMap<String, String> {
    let data = secret.get("data").and_then(Value::as_object);
    data.into_iter()
        .flatten()
        .filter_map(|(key, value)| {
            let bytes = STANDARD.decode(value.as_str()?).ok()?;
            Some((key.clone(), String::from_utf8(bytes).ok()?))
        })
        .collect()
}

fn bundle_of(webhook: &Value) -> String {
    let text = webhook.pointer("/clientConfig/caBundle").and_then(Value::as_str).unwrap_or("");
    let bytes = STANDARD.decode(text).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
