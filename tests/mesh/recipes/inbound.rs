//! Envoy and Outrigger before an application.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::authority::{Authority, SERVER_NAME, chain_match};
use super::envoy::{Envoy, named, socket_address};
use crate::control_plane::read_json;
use crate::pod::{Version, apply, render};
use crate::replay::captured;
use crate::support::{Client, H2Client, Origin, Proxy, Reply, Response, Setup, eventually, within};

/// The port of the application in what was captured.
const CAPTURED_PORT: &str = "8080";

/// What stands before an application.
pub struct Inbound {
    /// The cache.
    pub proxy: Proxy,
    /// What clients speak to.
    pub envoy: Envoy,
    /// The application.
    pub app: SocketAddr,
    authority: Authority,
}

/// How it is set up.
pub struct Recipe {
    app: SocketAddr,
    policy: String,
    render: &'static str,
    rbac: Option<Value>,
    grpc: bool,
}

/// The recipe of `istio/inbound.yaml` before an application at this address.
pub fn before(app: SocketAddr) -> Recipe {
    Recipe { app, policy: "{}".to_owned(), render: "", rbac: None, grpc: false }
}

impl Recipe {
    /// With this policy, besides that the application's port is the only one.
    pub fn policy(mut self, policy: &str) -> Self {
        self.policy = policy.to_owned();
        self
    }

    /// By a Sidecar resource, as in `istio/inbound-sidecar.yaml`.
    pub fn by_sidecar(mut self) -> Self {
        self.render = "--variant sidecar";
        self
    }

    /// With a filter before all others, as istiod makes one of an AuthorizationPolicy.
    pub fn authorized(mut self, rbac: Value) -> Self {
        self.rbac = Some(rbac);
        self
    }

    /// For a port whose protocol is gRPC.
    pub fn grpc(mut self) -> Self {
        self.grpc = true;
        self
    }

    /// Starts it before this application, and waits until it answers from the cache.
    pub async fn start_before(self, app: &Origin, version: Version) -> Inbound {
        app.always("/settled", Reply::cached("max-age=600", "settled"));
        let inbound = self.start(version).await;
        inbound.answers().await;
        inbound
    }

    /// Starts it.
    pub async fn start(self, version: Version) -> Inbound {
        let port = self.app.port();
        let policy = match self.policy.as_str() {
            "{}" => format!("inbound: {{ports: [{port}]}}\n"),
            routes => format!("inbound: {{ports: [{port}]}}\n{routes}"),
        };
        let proxy = Setup::mesh("inbound", "10.77.0.3").policy(&policy).start().await;
        let listener_port = proxy.addr.port();
        let protocol = if self.grpc { "http2" } else { "http1" };
        let objects = render(&format!(
            "--mode inbound --name reviews --namespace bookinfo --selector app=reviews \
             --port {port} --listener-port {listener_port} --protocol {protocol} {}",
            self.render
        ));
        let authority = Authority::new();
        let (listener, mut cluster) = self.captured(&authority);
        if self.grpc {
            let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
            cluster["typed_extension_protocol_options"] = json!({name: {
                "@type": format!("type.googleapis.com/{name}"),
                "explicit_http_config": {"http2_protocol_options": {}},
            }});
        }
        let mut resources = json!({"lds": [listener], "cds": [cluster]});
        apply(&mut resources, &objects, |_| true);
        let (listener, clusters) = (resources["lds"][0].take(), resources["cds"].take());
        let envoy = Envoy::start(version, listener, clusters).await;
        Inbound { proxy, envoy, authority, app: self.app }
    }

    /// What istiod sent for the application's port, with PERMISSIVE mutual TLS.
    fn captured(&self, authority: &Authority) -> (Value, Value) {
        let captured = read_json(&captured("reviews-plain.json")).expect("a captured file");
        let text = captured.to_string().replace(CAPTURED_PORT, &self.app.port().to_string());
        let captured: Value = serde_json::from_str(&text).expect("JSON");
        let mut listener = named(&captured["lds"], "virtualInbound");
        let port = self.app.port();
        let mut plain = named(&listener["filter_chains"], &format!("0.0.0.0_{port}"));
        if let Some(rbac) = &self.rbac {
            let filters = &mut plain["filters"][0]["typed_config"]["http_filters"];
            filters.as_array_mut().expect("HTTP filters").insert(0, rbac.clone());
        }
        let mut mutual = plain.clone();
        mutual["name"] = format!("0.0.0.0_{port}-tls").into();
        mutual["filter_chain_match"] = chain_match(&plain["filter_chain_match"]);
        mutual["transport_socket"] = authority.transport_socket();
        listener["filter_chains"] = json!([mutual, plain]);
        listener["listener_filters"] =
            json!([listener_filter("proxy_protocol"), listener_filter("tls_inspector")]);
        listener["address"] = socket_address("127.0.0.1", 0);
        (listener, named(&captured["cds"], &format!("inbound|{port}||")))
    }
}

fn listener_filter(name: &str) -> Value {
    let message = if name == "proxy_protocol" { "ProxyProtocol" } else { "TlsInspector" };
    let type_url = format!("envoy.extensions.filters.listener.{name}.v3.{message}");
    json!({
        "name": format!("envoy.filters.listener.{name}"),
        "typed_config": {"@type": format!("type.googleapis.com/{type_url}")},
    })
}

impl Inbound {
    /// A connection that the kernel would have redirected.
    async fn redirected(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.envoy.addr).await.expect("Envoy listens");
        stream.set_nodelay(true).expect("no delay");
        let (ip, port) = (self.app.ip(), self.app.port());
        let line = format!("PROXY TCP4 127.0.0.1 {ip} 40000 {port}\r\n");
        stream.write_all(line.as_bytes()).await.expect("the address is sent");
        stream
    }

    async fn mutual(&self, identity: &str, alpn: &str) -> TlsStream<TcpStream> {
        let connector = self.authority.connector(identity, alpn);
        let name = ServerName::try_from(SERVER_NAME).expect("a name");
        let handshake = connector.connect(name, self.redirected().await);
        within("a TLS handshake", handshake).await.expect("mutual TLS")
    }

    /// A connection by mutual TLS of a workload with this identity, or in plain text.
    pub async fn connect(&self, identity: Option<&str>) -> Client {
        match identity {
            Some(identity) => Client::over_tls(self.mutual(identity, "http/1.1").await),
            None => Client::over(self.redirected().await),
        }
    }

    /// The same with HTTP/2.
    pub async fn connect_h2(&self, identity: Option<&str>) -> H2Client {
        match identity {
            Some(identity) => H2Client::over(self.mutual(identity, "h2").await).await,
            None => H2Client::over(self.redirected().await).await,
        }
    }

    /// A request by mutual TLS, or in plain text, on a connection of its own.
    pub async fn send(
        &self,
        identity: Option<&str>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        let mut client = self.connect(identity).await;
        client.request(method, path, headers).await;
        client.response(method).await
    }

    /// A GET of a workload.
    pub async fn get(&self, identity: &str, path: &str) -> Response {
        self.send(Some(identity), "GET", path, &[]).await
    }

    /// Ends Outrigger without a warning.
    pub async fn kill(&mut self) {
        self.proxy.signal("KILL");
        self.proxy.wait_exit().await;
    }

    /// Waits until requests go through the cache: ten in a row, since each worker of Envoy
    /// learns by itself that it is well.
    async fn answers(&self) {
        eventually("responses of the cache", || async {
            for _ in 0..10 {
                let response = self.send(None, "GET", "/settled", &[]).await;
                (!response.cache().is_absent()).then_some(())?;
            }
            Some(())
        })
        .await;
    }
}
