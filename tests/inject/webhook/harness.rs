//! The webhook as a process, and the client that an API server is.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_test_support::{outrigger, send_signal};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::api::Api;

/// Everything here is over long before.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Webhook {
    child: Child,
    pub addr: SocketAddr,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Webhook {
    /// A replica with a certificate of its own.
    pub async fn own(api: &Api, more: &[&str]) -> Self {
        let account = api.account();
        let flags = [
            "--service",
            "inject",
            "--secret",
            "inject-tls",
            "--webhook-configuration",
            "inject",
            "--check-interval",
            "200ms",
            "--service-account",
            account.to_str().unwrap(),
        ];
        Self::start(&[&flags[..], more].concat(), Some(api.addr)).await
    }

    pub async fn start(flags: &[&str], api: Option<SocketAddr>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("injection.yaml");
        fs::write(&config, "mesh: istio\nimage: r.io/outrigger:1\n").unwrap();
        let log = folder.path().join("log");
        let mut command = outrigger();
        command
            .args(["inject-webhook", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .args(flags)
            .stderr(File::create(&log).unwrap());
        if !flags.contains(&"--drain-quiet") {
            command.args(["--drain-quiet", "0s"]);
        }
        if let Some(api) = api {
            command.env("KUBERNETES_SERVICE_HOST", api.ip().to_string());
            command.env("KUBERNETES_SERVICE_PORT", api.port().to_string());
        }
        let child = command.spawn().expect("the binary starts");
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut webhook = Webhook { child, addr, log, _folder: folder };
        let text = eventually("it listens", || {
            let text = webhook.log();
            text.lines().find(|line| line.contains("the webhook listens")).map(str::to_owned)
        })
        .await;
        let address = text.split("address=").nth(1).unwrap().split(' ').next().unwrap();
        webhook.addr = address.trim_matches('"').parse().unwrap();
        webhook
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// How many lines of the log hold a text.
    pub fn logged(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    pub async fn serving(&self) {
        eventually("a certificate is served", || {
            (self.logged("a new certificate is served") > 0).then_some(())
        })
        .await;
    }

    pub fn terminate(&self) {
        send_signal(self.child.id(), "TERM");
    }

    pub async fn ended(&mut self) -> ExitStatus {
        eventually("it ends", || self.child.try_wait().unwrap()).await
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of {}:\n{}", self.addr, self.log());
        }
    }
}

/// Looks again and again until there is something to see.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Connects as an API server does: by the service's name, with what it trusts.
pub async fn connect(
    addr: SocketAddr,
    bundle: &str,
    alpn: &[u8],
) -> Result<TlsStream<TcpStream>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from("inject.mesh.svc").unwrap();
    let stream = TcpStream::connect(addr).await.map_err(|error| error.to_string())?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    connected.map_err(|error| error.to_string())
}

pub type Sender = http1::SendRequest<Full<Bytes>>;

/// A connection that stays open.
pub async fn open(addr: SocketAddr, bundle: &str) -> Result<Sender, String> {
    let stream = TokioIo::new(connect(addr, bundle, b"http/1.1").await?);
    let (sender, connection) = http1::handshake(stream).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

pub async fn send(
    sender: &mut Sender,
    method: &str,
    path: &str,
    body: impl Into<Bytes>,
) -> Result<(StatusCode, String), String> {
    let request = Request::builder().method(method).uri(path).header("host", "inject.mesh.svc");
    let request = request.body(Full::new(body.into())).unwrap();
    sender.ready().await.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
    Ok((status, String::from_utf8(body.to_bytes().to_vec()).unwrap()))
}

/// One request on a connection of its own.
pub async fn ask(
    addr: SocketAddr,
    bundle: &str,
    method: &str,
    path: &str,
    body: impl Into<Bytes>,
) -> Result<(StatusCode, String), String> {
    send(&mut open(addr, bundle).await?, method, path, body).await
}

/// The same over HTTP/2.
pub async fn ask_h2(addr: SocketAddr, bundle: &str, body: String) -> (StatusCode, String) {
    let stream = connect(addr, bundle, b"h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let stream = TokioIo::new(stream);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request =
        Request::post("https://inject.mesh.svc/inject").body(Full::new(Bytes::from(body)));
    let response = sender.send_request(request.unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

pub fn write(path: &Path, content: &str) {
    super::api::replace(path, content.as_bytes());
}
