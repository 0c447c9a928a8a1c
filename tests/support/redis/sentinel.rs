//! A master with two replicas, watched by three sentinels.

use std::net::SocketAddr;

use super::server::RedisServer;
use crate::gate::eventually;

/// The name of the master.
const MASTER: &str = "mymaster";

/// Three servers and three sentinels (quorum 2); a silent master is replaced
/// after about two seconds.
#[derive(Debug)]
pub struct RedisSentinel {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
    /// The master at the start, or at the last fail-over that was waited for.
    master: SocketAddr,
}

impl RedisSentinel {
    /// Starts everything and waits until all know each other.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same, with a password that clients need at the sentinels.
    pub async fn start_with(password: Option<&str>) -> Self {
        let first = RedisServer::start().await;
        let master = first.addr();
        let mut servers = vec![first];
        for _ in 0..2 {
            let of = format!("replicaof 127.0.0.1 {}", master.port());
            servers.push(RedisServer::builder().line(&of).start().await);
        }
        eventually("the replicas are online", || async {
            let info = servers[0].cli(&["INFO", "replication"]).await;
            (info.matches("state=online").count() == 2).then_some(())
        })
        .await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(sentinel(master, password).await);
        }
        for sentinel in &sentinels {
            eventually("a sentinel knows the others", || async {
                let info = sentinel.cli(&["INFO", "sentinel"]).await;
                info.contains("status=ok,address=").then_some(())?;
                info.contains("slaves=2,sentinels=3").then_some(())
            })
            .await;
        }
        Self { servers, sentinels, master }
    }

    /// The URL to configure.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|s| s.addr().to_string()).collect();
        format!("redis+sentinel://{}/{MASTER}", hosts.join(","))
    }

    /// The server that is the master as far as this harness knows.
    pub fn master(&self) -> &RedisServer {
        self.servers.iter().find(|s| s.addr() == self.master).expect("one of the servers")
    }

    /// The master that the sentinels name now, if it agrees: on a busy machine one fail-over may
    /// follow on another.
    pub async fn master_now(&self) -> Option<&RedisServer> {
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
        let answer = self.sentinels.first()?.cli(&words).await.replace('\n', ":");
        let named: SocketAddr = answer.parse().ok()?;
        let server = self.servers.iter().find(|server| server.addr() == named)?;
        server.cli(&["ROLE"]).await.starts_with("master").then_some(server)
    }

    /// Kills the master (SIGKILL).
    pub fn kill_master(&mut self) {
        let master = self.master;
        let server = self.servers.iter_mut().find(|s| s.addr() == master);
        server.expect("one of the servers").kill();
    }

    /// Stops the master where it stands (SIGSTOP): it is replaced all the same,
    /// and comes back believing that it is the master.
    pub fn stop_master(&self) -> usize {
        self.master().stop_process();
        self.servers.iter().position(|s| s.addr() == self.master).expect("one of the servers")
    }

    /// The servers, in the order in which they were started.
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// Starts a killed server again; sentinel makes it a replica.
    pub async fn restart(&mut self, index: usize) {
        self.servers[index].restart().await;
    }

    /// Waits until every sentinel names another master, and that one agrees.
    pub async fn wait_for_failover(&mut self) {
        let old = self.master;
        let servers = &self.servers;
        let mut new = old;
        for sentinel in &self.sentinels {
            new = eventually("the sentinels name another master", || async {
                let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
                let answer = sentinel.cli(&words).await.replace('\n', ":");
                let named: SocketAddr = answer.parse().ok()?;
                let server = servers.iter().find(|s| s.addr() == named && named != old)?;
                server.cli(&["ROLE"]).await.starts_with("master").then_some(named)
            })
            .await;
        }
        self.master = new;
    }
}

async fn sentinel(master: SocketAddr, password: Option<&str>) -> RedisServer {
    let port = master.port();
    let mut builder = RedisServer::builder().sentinel();
    if let Some(password) = password {
        builder = builder.password(password).line(&format!("sentinel sentinel-pass {password}"));
    }
    builder
        .line(&format!("sentinel monitor {MASTER} 127.0.0.1 {port} 2"))
        .line(&format!("sentinel down-after-milliseconds {MASTER} 1000"))
        .line(&format!("sentinel failover-timeout {MASTER} 5000"))
        .start()
        .await
}
