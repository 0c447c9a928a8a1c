//! An Envoy by itself: no control plane, and ports that the system chose.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::pod::{Process, Version};
use crate::support::{PATIENCE, get};

/// A running Envoy.
pub struct Envoy {
    /// Where it listens.
    pub addr: SocketAddr,
    admin: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Envoy {
    /// Starts it with one listener and these clusters, which are resources as istiod sends them,
    /// and waits until it listens.
    pub async fn start(version: Version, mut listener: Value, mut clusters: Value) -> Self {
        let resources = clusters.as_array_mut().expect("clusters").iter_mut();
        for resource in resources.chain([&mut listener]) {
            // Outside of a response, the place tells the type.
            resource.as_object_mut().expect("a resource").remove("@type");
        }
        let bootstrap = json!({
            "admin": {"address": socket_address("127.0.0.1", 0)},
            "static_resources": {"listeners": [listener], "clusters": clusters},
        });
        let folder = TempDir::new().expect("a temporary folder");
        let file = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(file("envoy.json"), bootstrap.to_string()).expect("it is written");
        let admin = file("admin");
        let args = ["-c", &file("envoy.json"), "--admin-address-path", &admin, "-l", "warn"];
        let more = ["--concurrency", "2", "--disable-hot-restart"];
        let args: Vec<_> = args.into_iter().chain(more).map(str::to_owned).collect();
        let mut process = Process::start_here(folder.path(), "envoy", &version.program(), &args);
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(process.runs(), "Envoy ended:\n{}", process.log());
            assert!(Instant::now() < deadline, "Envoy does not listen:\n{}", process.log());
            if let Some((admin, addr)) = listens(&admin).await {
                return Self { addr, admin, _process: process, _folder: folder };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A counter or gauge.
    pub async fn stat(&self, name: &str) -> u64 {
        let text = get(self.admin, "/stats").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let value = line.and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    }
}

/// Its admin port and its listener, once it takes connections.
async fn listens(admin: &str) -> Option<(SocketAddr, SocketAddr)> {
    let admin: SocketAddr = std::fs::read_to_string(admin).ok()?.trim().parse().ok()?;
    if get(admin, "/ready").await.status != 200 {
        return None;
    }
    let listeners = get(admin, "/listeners?format=json").await;
    let listeners: Value = serde_json::from_slice(&listeners.body).ok()?;
    let address = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
    let ip = address["address"].as_str()?.parse().ok()?;
    let port = u16::try_from(address["port_value"].as_u64()?).ok()?;
    Some((admin, SocketAddr::new(ip, port)))
}

/// An address as Envoy writes it.
pub fn socket_address(address: &str, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

/// A resource with this name among those of a captured file.
pub fn named(resources: &Value, name: &str) -> Value {
    let mut found = resources.as_array().expect("resources").iter();
    let found = found.find(|resource| resource["name"] == name);
    found.unwrap_or_else(|| panic!("nothing captured is named {name}")).clone()
}
