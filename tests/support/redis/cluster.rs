//! A cluster: three masters with one replica each.

use std::process::Command;

use super::server::RedisServer;
use crate::gate::eventually;
use crate::machine::tool;

/// Six nodes; a silent master is replaced after one to two seconds.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts the nodes and joins them, and waits until every node agrees.
    pub async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            nodes.push(RedisServer::builder().cluster().start().await);
        }
        let mut command = Command::new(tool("redis-cli"));
        command.args(["--cluster", "create"]).args(nodes.iter().map(|n| n.addr().to_string()));
        command.args(["--cluster-replicas", "1", "--cluster-yes"]);
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        let output = output.expect("a task").expect("redis-cli runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let cluster = Self { nodes };
        for node in &cluster.nodes {
            eventually("a node knows the whole cluster", || async {
                let info = node.cli(&["CLUSTER", "INFO"]).await;
                info.contains("cluster_state:ok").then_some(())?;
                let nodes = node.cli(&["CLUSTER", "NODES"]).await;
                (nodes.matches("slave ").count() == 3).then_some(())
            })
            .await;
        }
        for n in 0..cluster.nodes.len() {
            eventually("the replicas follow", || async {
                let info = cluster.nodes[n].cli(&["INFO", "replication"]).await;
                let ready = info.contains("state=online") || info.contains("link_status:up");
                ready.then_some(())
            })
            .await;
        }
        cluster
    }

    /// The URL to configure.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|n| n.addr().to_string()).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The nodes, dead ones included; the first three begin as masters.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// Which nodes are masters now.
    pub async fn masters(&self) -> Vec<usize> {
        let mut masters = Vec::new();
        for (n, node) in self.nodes.iter().enumerate() {
            if node.cli(&["ROLE"]).await.starts_with("master") {
                masters.push(n);
            }
        }
        masters
    }

    /// The keys of all masters that match a pattern, sorted.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys = Vec::new();
        for n in self.masters().await {
            keys.extend(self.nodes[n].keys(pattern).await);
        }
        keys.sort();
        keys
    }

    /// Which master has the slot of a key.
    pub async fn master_of(&self, key: &str) -> usize {
        for n in self.masters().await {
            // Any other node answers with MOVED.
            if !self.nodes[n].cli(&["EXISTS", key]).await.starts_with("(error)") {
                return n;
            }
        }
        panic!("no master has the slot of {key}");
    }

    /// Kills a node (SIGKILL).
    pub fn kill(&mut self, n: usize) {
        self.nodes[n].kill();
    }

    /// Starts a killed node again; it comes back as a replica if it was replaced.
    pub async fn restart(&mut self, n: usize) {
        self.nodes[n].restart().await;
    }

    /// Waits until three nodes that answer are masters, and all slots are served.
    pub async fn wait_for_failover(&self) {
        eventually("a replica takes over", || async {
            let masters = self.masters().await;
            if masters.len() < 3 {
                return None;
            }
            for n in masters {
                let info = self.nodes[n].cli(&["CLUSTER", "INFO"]).await;
                info.contains("cluster_slots_ok:16384").then_some(())?;
            }
            Some(())
        })
        .await;
    }
}
