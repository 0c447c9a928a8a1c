//! The real binary as a client of the control plane: policy arrives, is refused, goes away, and
//! stays while the control plane is gone. Traffic never notices.

mod follow;
mod kept;
mod outage;
mod secure;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::control_plane::proto::ECDS;
use crate::support::{Client, Origin, Proxy, Reply, Setup, eventually, outrigger};

/// Pods of the workload `reviews` in the namespace `bookinfo`.
struct Pod {
    proxy: Proxy,
    node: String,
    _labels: tempfile::NamedTempFile,
}

/// How a pod is set up that takes policy from a control plane.
fn setup(origin: &Origin, url: &str, name: &str, labels: &Path) -> Setup {
    Setup::of(origin)
        .flag("--xds", url)
        .env("POD_NAME", name)
        .env("POD_NAMESPACE", "bookinfo")
        .env("OUTRIGGER_POD_LABELS", &labels.display().to_string())
}

fn node(name: &str) -> String {
    format!("sidecar~127.0.0.6~{name}-outrigger.bookinfo~")
}

fn labels() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "app=\"reviews\"\npod-template-hash=\"545db77b95\"\n").unwrap();
    file
}

/// A pod that the control plane has heard of.
async fn pod(origin: &Origin, plane: &ControlPlane, name: &str) -> Pod {
    let labels = labels();
    let proxy = setup(origin, &plane.url(), name, labels.path()).start().await;
    let node = node(name);
    plane.until("the first answer is acknowledged", &node, |c| c.watch(ECDS).acks > 0).await;
    Pod { proxy, node, _labels: labels }
}

impl Pod {
    /// What `/config_dump` says about policy.
    async fn policy(&self) -> Value {
        let response = self.proxy.admin("/config_dump").await;
        response.assert_status(200);
        let dump: Value = serde_json::from_slice(&response.body).expect("JSON");
        dump["policy"].clone()
    }

    /// Waits until `/config_dump` says so.
    async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || async { Some(self.policy().await).filter(&holds) }).await
    }

    /// The value of a metric without labels, or with these.
    async fn metric(&self, name: &str) -> f64 {
        let text = self.proxy.admin("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
    }
}

/// An EnvoyFilter as `outrigger istio policy` prints it.
fn object(scope: &str, name: &str, document: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), document).unwrap();
    let mut command = outrigger();
    command.args(["istio", "policy", "--scope", scope, "--name", name, "-f"]).arg(file.path());
    if scope != "mesh" {
        command.args(["--namespace", "bookinfo"]);
    }
    if scope == "workload" {
        command.args(["--selector", "app=reviews"]);
    }
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// A document that caches for a time what the origin gives no lifetime.
fn lifetime(route: &str, ttl: &str) -> String {
    format!("routes:\n  - name: {route}\n    cache:\n      ttl: {{default: {ttl}}}\n")
}

/// An origin whose responses carry no lifetime.
async fn origin() -> Origin {
    let origin = Origin::start().await;
    origin.on("/a", |r| Reply::ok(r.nth.to_string()));
    origin.on("/load", |r| Reply::ok(r.nth.to_string()));
    origin
}

/// Requests without a pause on two connections, until it is stopped: every one must be answered.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn on(proxies: &[&Proxy]) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks = proxies.iter().map(|proxy| {
            let (addr, stop, answered) = (proxy.addr, Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut client = Client::connect(addr).await;
                while !stop.load(Ordering::Relaxed) {
                    client.get("/load", &[]).await.assert_status(200);
                    answered.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        });
        let tasks = tasks.collect();
        Load { stop, answered, tasks }
    }

    /// Waits until this many more have been answered.
    async fn goes_on(&self, more: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        eventually("the load goes on", || async {
            (self.answered.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await;
    }

    /// Ends it; how many requests there were. One that failed fails the test.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("every request was answered");
        }
        self.answered.load(Ordering::Relaxed)
    }
}
