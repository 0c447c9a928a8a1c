//! Two pods and a control plane in network namespaces of their own, with
//! Istio's redirection: what a request of one service to another passes by.
//!
//! Addresses are those of the captured answers. Each world has its own, since
//! none of them can see another.

mod envoy;
mod load;
mod netns;
mod outrigger;
mod patches;
mod process;
mod states;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::control_plane::proto::{CDS, LDS, RDS};
use crate::control_plane::{ControlPlane, Options};
use crate::support::{Client, Origin, PATIENCE, Response, eventually, within};

pub use envoy::Version;
pub use load::Load;
pub use netns::Namespace;
pub use patches::apply;
pub use process::Process;
pub use states::{State, render};

use netns::{run, sweep};

/// Istio's user: what it sends is not redirected.
const ENVOY_USER: u32 = 1337;
/// Outrigger's.
const OUTRIGGER_USER: u32 = 15480;

const CONTROL_PLANE: (&str, u16) = ("10.77.0.1", 15010);
/// The service of the callee, as callers address it.
const SERVICE: &str = "10.78.0.10:9080";
const HOST: &str = "reviews.bookinfo.svc.cluster.local:9080";

/// Where a pod is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    address: &'static str,
    app: &'static str,
    namespace: &'static str,
}

/// The caller.
pub const FRONTEND: Place = Place { address: "10.77.0.2", app: "frontend", namespace: "shop" };
/// The callee.
pub const REVIEWS: Place = Place { address: "10.77.0.3", app: "reviews", namespace: "bookinfo" };

impl Place {
    /// The id of its Envoy.
    pub fn node_id(&self) -> String {
        let Self { address, app, namespace } = self;
        format!("sidecar~{address}~{app}-1.{namespace}~{namespace}.svc.cluster.local")
    }

    /// The id of Outrigger in it.
    pub fn outrigger_id(&self) -> String {
        let Self { app, namespace, .. } = self;
        format!("sidecar~127.0.0.6~{app}-1-outrigger.{namespace}~{namespace}.svc.cluster.local")
    }
}

/// Whether these tests can run. Where they cannot, they fail, unless somebody
/// has said that this is known.
pub fn possible() -> bool {
    static MADE: OnceLock<bool> = OnceLock::new();
    if *MADE.get_or_init(|| is_root() && can_be_made()) {
        return true;
    }
    assert!(
        std::env::var_os("OUTRIGGER_TESTS_WITHOUT_NETNS").is_some_and(|value| value == "1"),
        "these tests need network namespaces: run them as root with iproute2 and iptables \
         (`tests/setup test`), or set OUTRIGGER_TESTS_WITHOUT_NETNS=1 to go without them"
    );
    eprintln!("skipped: no network namespaces here, and OUTRIGGER_TESTS_WITHOUT_NETNS=1");
    false
}

/// Tries it, and clears away what killed runs have left.
fn can_be_made() -> bool {
    let name = format!("outrigger-{}-try", std::process::id());
    let made = Command::new("ip").args(["netns", "add", &name]).output();
    let made = made.is_ok_and(|output| output.status.success());
    if made {
        run("ip", &["netns", "del", &name]);
        sweep();
    }
    made
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("Uid:")).unwrap_or_default();
    line.split_whitespace().nth(2) == Some("0")
}

/// A pod: its namespace, its Envoy, and what else runs in it.
pub struct Pod {
    /// Where it is.
    pub place: Place,
    envoy: Option<Process>,
    /// Ends after what runs in it.
    pub net: Namespace,
}

/// The whole of it; gone when dropped, also by a panic.
pub struct World {
    /// The caller's pod.
    pub frontend: Pod,
    /// The callee's pod.
    pub reviews: Pod,
    /// The app in the callee's pod.
    pub app: Origin,
    /// What both Envoys are configured by.
    pub plane: ControlPlane,
    _wire: Namespace,
    folder: TempDir,
}

impl World {
    /// Both pods without a cache, once a request gets through.
    pub async fn start(version: Version) -> Self {
        let folder = process::open_folder();
        let wire = Namespace::new("wire");
        wire.ip(&["link", "add", "bridge", "type", "bridge"]);
        wire.ip(&["addr", "add", &format!("{}/24", CONTROL_PLANE.0), "dev", "bridge"]);
        wire.ip(&["link", "set", "bridge", "up"]);
        let frontend = pod_network(FRONTEND, &wire);
        let reviews = pod_network(REVIEWS, &wire);
        let addr = SocketAddr::new(CONTROL_PLANE.0.parse().expect("an address"), CONTROL_PLANE.1);
        let plane = Options::default().listen(addr, wire.binder()).start().await;
        let app = Origin::serve_on(reviews.listen("0.0.0.0:8080")).await;
        let mut world = Self {
            frontend: Pod { place: FRONTEND, envoy: None, net: frontend },
            reviews: Pod { place: REVIEWS, envoy: None, net: reviews },
            app,
            plane,
            _wire: wire,
            folder,
        };
        world.configure(FRONTEND, State::Plain);
        world.configure(REVIEWS, State::Plain);
        for pod in [&mut world.frontend, &mut world.reviews] {
            pod.envoy = Some(envoy::start(&pod.net, &pod.place, version, world.folder.path()));
        }
        for place in [FRONTEND, REVIEWS] {
            world.configured(place).await;
        }
        world.app.always("/ready", crate::support::Reply::ok("ready"));
        let world_ref = &world;
        eventually("a request gets through both Envoys", || async move {
            (world_ref.try_request("GET", "/ready", &[]).await?.status == 200).then_some(())
        })
        .await;
        world
    }

    /// Puts a pod's Envoy in a state.
    pub fn configure(&self, place: Place, state: State) {
        self.plane.serve(&place.node_id(), states::resources(place.app, state));
    }

    /// The same, and waits until it has taken it.
    pub async fn becomes(&self, place: Place, state: State) {
        self.configure(place, state);
        self.configured(place).await;
    }

    /// Waits until a pod's Envoy has taken all that was sent to it.
    pub async fn configured(&self, place: Place) {
        let version = self.plane.version();
        self.plane
            .until("Envoy takes its configuration", &place.node_id(), |connection| {
                [CDS, LDS, RDS].iter().all(|type_url| {
                    let watch = connection.watch(type_url);
                    assert_eq!(watch.last_error, "", "Envoy refused {type_url}");
                    watch.version_acked == version
                })
            })
            .await;
    }

    /// Waits until a pod's Envoy can use every cluster it has: one with health checks
    /// is not there before the first of them has ended.
    pub async fn warmed(&self, pod: &Pod) {
        eventually("Envoy's clusters are warm", || async move {
            let warming = self.envoy_stat(pod, "cluster_manager.warming_clusters").await;
            (warming == 0).then_some(())
        })
        .await;
    }

    /// Waits until a cluster of a pod's Envoy has had no request for this long.
    pub async fn bypassed(&self, pod: &Pod, cluster: &str, quiet: Duration) {
        let name = format!("cluster.{cluster}.upstream_rq_total");
        let deadline = Instant::now() + PATIENCE;
        let (mut last, mut since) = (None, Instant::now());
        while last.is_none() || since.elapsed() < quiet {
            assert!(Instant::now() < deadline, "{cluster} still gets requests");
            let now = self.envoy_stat(pod, &name).await;
            if last != Some(now) {
                (last, since) = (Some(now), Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A counter of a pod's Envoy.
    pub async fn envoy_stat(&self, pod: &Pod, name: &str) -> u64 {
        let addr = "127.0.0.1:15000".parse().expect("an address");
        let stream = pod.net.connect(addr).await.expect("Envoy's admin port");
        let mut client = Client::over(stream);
        client.request("GET", "/stats", &[]).await;
        let text = client.response("GET").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    /// A connection of the caller's app to the callee's service.
    pub async fn connect(&self) -> std::io::Result<Client> {
        let addr = SERVICE.parse().expect("an address");
        Ok(Client::over(self.frontend.net.connect(addr).await?))
    }

    /// A request of the caller's app, on a connection of its own.
    pub async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let what = format!("{method} {path}");
        let response = within(&what, self.try_request(method, path, headers)).await;
        response.unwrap_or_else(|| panic!("{what}: no response"))
    }

    /// The same; `None` when there is no response.
    pub async fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Option<Response> {
        let mut client = self.connect().await.ok()?;
        let headers: Vec<_> = [("host", HOST)].into_iter().chain(headers.iter().copied()).collect();
        client.request(method, path, &headers).await;
        client.try_response(method).await.ok()
    }

    /// A GET of the caller's app.
    pub async fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[]).await
    }
}

/// A pod's namespace: its end of a wire to the bridge, and the redirection.
fn pod_network(place: Place, wire: &Namespace) -> Namespace {
    let net = Namespace::new(place.app);
    let end = place.app;
    let peer = ["link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", net.name()];
    wire.ip(&peer);
    wire.ip(&["link", "set", end, "master", "bridge", "up"]);
    net.ip(&["addr", "add", &format!("{}/24", place.address), "dev", "eth0"]);
    net.ip(&["link", "set", "eth0", "up"]);
    net.ip(&["route", "add", "default", "via", CONTROL_PLANE.0]);
    net.iptables(REDIRECTION);
    net
}

/// What Istio's init container sets up, with ports 15010 and 15012 excluded by
/// the pod's annotation.
const REDIRECTION: &str = "\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:ISTIO_INBOUND - [0:0]
:ISTIO_IN_REDIRECT - [0:0]
:ISTIO_OUTPUT - [0:0]
:ISTIO_REDIRECT - [0:0]
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A OUTPUT -p tcp -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -p tcp --dport 15010 -j RETURN
-A ISTIO_OUTPUT -p tcp --dport 15012 -j RETURN
-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
COMMIT
";
