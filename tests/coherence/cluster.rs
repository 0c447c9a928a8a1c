//! Several pods on one Redis. What is under `/e` is eventual, under `/c` causal, under `/s` strong.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::redis::{RedisServer, SlowProxy};
use crate::support::{Proxy, Response, Setup, eventually, has_stopped};

const POLICY: &str = "
routes:
  - {name: eventual, match: {path: {prefix: /e}}, cache: {consistency: eventual}}
  - {name: causal, match: {path: {prefix: /c}}, cache: {consistency: causal}}
  - {name: strong, match: {path: {prefix: /s}}, cache: {consistency: strong}}
";

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Shape {
    upstream: String,
    pods: usize,
    lease: Duration,
    events_max: Option<usize>,
    links: Vec<usize>,
    policies: Vec<(usize, &'static str)>,
}

impl Shape {
    /// This many pods in front of an upstream.
    pub fn of(upstream: impl Into<String>, pods: usize) -> Self {
        let lease = Duration::from_secs(2);
        Self {
            upstream: upstream.into(),
            pods,
            lease,
            events_max: None,
            links: Vec::new(),
            policies: Vec::new(),
        }
    }

    /// With another lease.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// With a log that keeps so many events.
    pub fn events_max(mut self, n: usize) -> Self {
        self.events_max = Some(n);
        self
    }

    /// This pod reaches Redis through a link that can be cut.
    pub fn link(mut self, pod: usize) -> Self {
        self.links.push(pod);
        self
    }

    /// This pod has a policy of its own.
    pub fn policy(mut self, pod: usize, policy: &'static str) -> Self {
        self.policies.push((pod, policy));
        self
    }

    /// Starts Redis and the pods, and waits until all of them are live.
    pub async fn start(self) -> Cluster {
        let redis = RedisServer::start().await;
        let addresses = Addresses::default();
        let mut cluster = Cluster { redis, pods: Vec::new(), addresses, shape: self };
        for _ in 0..cluster.shape.pods {
            cluster.add().await;
        }
        cluster.all_live().await;
        // With a very long lease nobody wants to wait for that.
        if cluster.shape.lease < Duration::from_secs(5) {
            for pod in &cluster.pods {
                pod.hears_of_writes().await;
            }
        }
        cluster
    }

    fn section(&self, redis: &str, pod: &str) -> String {
        let lease = self.lease.as_millis();
        let events = self.events_max.map(|n| format!(", eventsMax: {n}")).unwrap_or_default();
        format!(
            "redis:\n  url: \"{redis}\"\n  namespace: shop\n  workload: cart\n  pod: {pod}\n  \
             readTimeoutMs: 100\n  log: {{leaseMs: {lease}{events}}}\n"
        )
    }
}

/// One pod; it keeps its name and its link when its process is replaced.
#[derive(Debug)]
pub struct Pod {
    /// The name in acknowledgements.
    pub name: String,
    /// The process.
    pub proxy: Proxy,
    /// The way to Redis, if it can be cut.
    pub link: Option<SlowProxy>,
    setup: Setup,
}

impl Pod {
    /// A section of `/stats`.
    pub async fn stats(&self, section: &str) -> Value {
        let page = self.proxy.admin("/stats").await;
        page.assert_status(200);
        let stats: Value = serde_json::from_slice(&page.body).expect("JSON from /stats");
        stats[section].clone()
    }

    /// Whether it hears the shared log.
    pub async fn connected(&self) -> bool {
        let log = self.stats("purgeLog").await;
        log["scope"] == "namespace" && log["connected"] == true
    }

    /// The last event that is in effect here.
    pub async fn applied(&self) -> u64 {
        self.stats("purgeLog").await["applied"].as_u64().expect("a position")
    }

    /// Waits until it hears the log and has this event.
    pub async fn caught_up(&self, seq: u64) {
        eventually(&format!("{} has event {seq}", self.name), || async {
            (self.connected().await && self.applied().await >= seq).then_some(())
        })
        .await;
    }

    /// Waits until it is sure to have heard of all writes that are under way: only then may it store
    /// what has to be coherent.
    pub async fn hears_of_writes(&self) {
        eventually(&format!("{} hears of all writes", self.name), || async {
            (self.stats("purgeLog").await["mayMissHolds"] == false).then_some(())
        })
        .await;
    }

    /// Waits until it has noticed that the log is gone.
    pub async fn disconnected(&self) {
        eventually(&format!("{} misses the log", self.name), || async {
            (!self.connected().await).then_some(())
        })
        .await;
    }

    /// A GET.
    pub async fn get(&self, path: &str) -> Response {
        self.proxy.get(path).await
    }

    /// A GET that is answered by the origin, and by the memory of this pod the second time.
    pub async fn store(&self, path: &str) -> String {
        self.hears_of_writes().await;
        let first = self.get(path).await;
        first.assert_status(200);
        let second = self.get(path).await;
        second.assert_hit();
        second.text()
    }

    /// A purge that is in effect here and in the log when it is answered.
    pub async fn purge(&self, what: Value) -> Value {
        self.proxy.purge(what).await
    }

    /// A purge that waits for everybody.
    pub async fn purge_all(&self, mut what: Value, timeout: &str) -> Value {
        what["wait"] = json!("all");
        what["timeout"] = json!(timeout);
        self.proxy.purge(what).await
    }

    /// Stops the process where it stands. The signal takes a moment to reach all of its threads.
    pub async fn pause(&self) {
        self.proxy.signal("STOP");
        eventually(&format!("{} stands still", self.name), || async {
            has_stopped(self.proxy.pid()).then_some(())
        })
        .await;
    }

    /// Lets the process go on.
    pub fn go_on(&self) {
        self.proxy.signal("CONT");
    }

    /// Cuts it off from Redis and waits until it has noticed.
    pub async fn cut(&self) {
        self.link.as_ref().expect("a pod with a link").refuse();
        self.disconnected().await;
    }

    /// Joins it with Redis again.
    pub fn heal(&self) {
        self.link.as_ref().expect("a pod with a link").heal();
    }
}

/// Where the pods are now; a pod that is started again is somewhere else.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<Mutex<Vec<(SocketAddr, SocketAddr)>>>);

impl Addresses {
    /// The traffic port of a pod.
    pub fn traffic(&self, pod: usize) -> SocketAddr {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[pod].0
    }

    /// The admin port of a pod.
    pub fn admin(&self, pod: usize) -> SocketAddr {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[pod].1
    }

    fn set(&self, pod: usize, proxy: &Proxy) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let length = all.len().max(pod + 1);
        all.resize(length, (proxy.addr, proxy.admin));
        all[pod] = (proxy.addr, proxy.admin);
    }
}

/// The pods and their Redis.
#[derive(Debug)]
pub struct Cluster {
    /// The server.
    pub redis: RedisServer,
    /// The pods.
    pub pods: Vec<Pod>,
    /// Where they are, for clients.
    pub addresses: Addresses,
    shape: Shape,
}

impl Cluster {
    /// The lease of every pod.
    pub fn lease(&self) -> Duration {
        self.shape.lease
    }

    /// Starts one more pod: its index. It is ready, but need not be live yet.
    pub async fn add(&mut self) -> usize {
        let index = self.pods.len();
        let name = format!("pod-{index}");
        let link = match self.shape.links.contains(&index) {
            true => Some(SlowProxy::start(self.redis.addr()).await),
            false => None,
        };
        let url = link.as_ref().map_or_else(|| self.redis.url(), SlowProxy::url);
        let own = self.shape.policies.iter().find(|(pod, _)| *pod == index);
        let setup = Setup::upstream(&self.shape.upstream)
            .policy(own.map_or(POLICY, |(_, policy)| policy))
            .config(&self.shape.section(&url, &name));
        let proxy = setup.start().await;
        self.addresses.set(index, &proxy);
        self.pods.push(Pod { name, proxy, link, setup });
        index
    }

    /// Kills a pod without notice and starts it again under the same name.
    pub async fn replace(&mut self, index: usize) {
        let pod = &mut self.pods[index];
        pod.proxy.signal("KILL");
        pod.proxy.wait_exit().await;
        pod.proxy = pod.setup.start().await;
        self.addresses.set(index, &pod.proxy);
    }

    /// Waits until all pods hear the log and the first one knows them all as live.
    pub async fn all_live(&self) {
        for pod in &self.pods {
            eventually(&format!("{} hears the log", pod.name), || async {
                pod.connected().await.then_some(())
            })
            .await;
        }
        self.live(self.pods.len()).await;
    }

    /// Waits until so many pods are live and acknowledge.
    pub async fn live(&self, n: usize) {
        eventually(&format!("{n} live pods"), || async {
            let nothing = json!({"tag": "nobody-has-this", "wait": "all", "timeout": "1s"});
            let answer = self.pods[0].proxy.try_purge(&nothing.to_string()).await;
            // A log that has just come back may not take it yet.
            let answer: Value = serde_json::from_slice(&answer.body).ok()?;
            (answer["live"] == n && answer["missing"] == json!([])).then_some(())
        })
        .await;
    }

    /// All pods have this path in memory: what they have. What one has stored, the next one may
    /// have from Redis or from the origin.
    pub async fn warm(&self, path: &str) -> Vec<String> {
        let mut old = Vec::new();
        for pod in &self.pods {
            old.push(pod.store(path).await);
        }
        old
    }

    /// Waits until so many entries are in Redis.
    pub async fn in_redis(&self, n: usize) {
        eventually(&format!("{n} entries in Redis"), || async {
            (self.redis.keys("or:shop:cart:e:*").await.len() >= n).then_some(())
        })
        .await;
    }

    /// Waits until every pod is connected and has what the first one has.
    pub async fn level(&self) {
        let seq = self.pods[0].applied().await;
        for pod in &self.pods {
            pod.caught_up(seq).await;
        }
    }
}
