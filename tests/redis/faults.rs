//! A Redis that dies, hangs, is slow, full, read-only, locked or emptied under
//! load costs no client anything but the deadline of a lookup.

use std::time::Duration;

use crate::load::{Load, origin};
use crate::pods::{FORGETFUL, assert_redis_hit, lines, pod, stored, until_up, writes};
use crate::support::redis::{RedisServer, SlowProxy};
use crate::support::{Origin, Proxy, Reply, Setup, eventually, free_addr, metric};

/// The deadline of a lookup in these tests: long enough that a busy machine does
/// not open the breaker by itself.
const READ_TIMEOUT: Duration = Duration::from_millis(100);
/// What a busy machine may add to any response.
const SLACK: Duration = Duration::from_millis(250);
/// How long each phase of a fault lasts.
const PHASE: Duration = Duration::from_secs(3);
/// How much the process may grow while Redis is gone.
const GROWTH: u64 = 64 << 20;

/// Two pods with little memory under load, and beside them one that knows no
/// Redis: what it takes at the same time is the machine's doing.
struct Scene {
    _origin: Origin,
    pods: [Proxy; 2],
    load: Load,
    _plain: Proxy,
    control: Load,
    quiet: Duration,
    resident: u64,
    /// What each pod had said of its tier when the fault began.
    begun: Vec<(usize, usize)>,
}

impl Scene {
    /// Starts the pods and the load, and waits until Redis takes part.
    async fn start(url: &str) -> Self {
        let origin = origin().await;
        let setup = pod(&origin, url)
            .set("readTimeoutMs", &READ_TIMEOUT.as_millis().to_string())
            .set("connectTimeoutMs", "250")
            .forgetful();
        let pods: [Proxy; 2] = setup.pair().await.into();
        let plain = Setup::of(&origin).config(FORGETFUL).start().await;
        let load = Load::start(&[&pods[0], &pods[1]]);
        let control = Load::start(&[&plain]);
        load.sees_redis_hits().await;
        let quiet = load.run(PHASE / 2).await;
        tokio::join!(until_up(&pods[0]), until_up(&pods[1]));
        let resident = pods.iter().map(Proxy::resident_bytes).max().unwrap_or_default();
        let begun = Vec::new();
        let mut scene =
            Self { _origin: origin, pods, load, _plain: plain, control, quiet, resident, begun };
        scene.begun = scene.lines();
        scene
    }

    /// Runs the load through a fault, and judges every response in it.
    async fn suffer(&self) {
        let (slowest, control) = tokio::join!(self.load.run(PHASE), self.control.run(PHASE));
        self.load.assert_flawless();
        let quiet = self.quiet.max(control);
        let limit = quiet + READ_TIMEOUT + SLACK;
        assert!(slowest <= limit, "{slowest:?}, without Redis {quiet:?}");
        for pod in &self.pods {
            let grown = pod.resident_bytes().saturating_sub(self.resident);
            assert!(grown < GROWTH, "grew by {} MiB", grown >> 20);
        }
    }

    /// How often each pod has said that its tier is up, and down.
    fn lines(&self) -> Vec<(usize, usize)> {
        let of = |pod| (lines(pod, "redis tier is up"), lines(pod, "redis tier is down"));
        self.pods.iter().map(of).collect()
    }

    /// The same, since the fault began.
    fn said(&self) -> Vec<(usize, usize)> {
        let since =
            |(now, begun): (&(usize, usize), &(usize, usize))| (now.0 - begun.0, now.1 - begun.1);
        self.lines().iter().zip(&self.begun).map(since).collect()
    }

    async fn until_down(&self) {
        for pod in &self.pods {
            eventually("the tier is down", || async {
                let up = metric(pod, "outrigger_tier_up", &[("tier", "redis")]).await;
                let told = self.said().iter().all(|(_, down)| *down >= 1);
                (up == 0.0 && told).then_some(())
            })
            .await;
        }
    }

    /// Waits until Redis takes part again, and ends the load.
    async fn recover(self) -> Vec<(usize, usize)> {
        self.load.sees_redis_hits().await;
        for pod in &self.pods {
            until_up(pod).await;
        }
        let said = self.said();
        tokio::join!(self.load.end(), self.control.end());
        said
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_and_comes_back() {
    let mut redis = RedisServer::start().await;
    let scene = Scene::start(&redis.url()).await;
    redis.kill();
    scene.suffer().await;
    scene.until_down().await;
    assert_eq!(scene.said(), [(0, 1), (0, 1)], "one line for each transition");
    redis.restart().await;
    assert_eq!(scene.recover().await, [(1, 1), (1, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_hangs_and_goes_on() {
    let redis = RedisServer::start().await;
    let scene = Scene::start(&redis.url()).await;
    redis.stop_process();
    scene.suffer().await;
    scene.until_down().await;
    assert_eq!(scene.said(), [(0, 1), (0, 1)], "one line for each transition");
    redis.continue_process();
    assert_eq!(scene.recover().await, [(1, 1), (1, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_a_closed_connection_is_noticed_and_heals() {
    let redis = RedisServer::start().await;
    let network = SlowProxy::start(redis.addr()).await;
    let scene = Scene::start(&network.url()).await;
    network.blackhole();
    scene.suffer().await;
    scene.until_down().await;
    network.heal();
    assert_eq!(scene.recover().await, [(1, 1), (1, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_slower_than_the_deadline() {
    let redis = RedisServer::start().await;
    let network = SlowProxy::start(redis.addr()).await;
    let scene = Scene::start(&network.url()).await;
    let half = Duration::from_millis(75);
    network.delay(half, half);
    scene.suffer().await;
    let missed = metric(
        &scene.pods[0],
        "outrigger_tier_lookups_total",
        &[("tier", "redis"), ("result", "deadline")],
    );
    assert!(missed.await >= 1.0);
    network.heal();
    for (up, down) in scene.recover().await {
        assert_eq!(up, down, "they take turns");
        assert!(down <= 3, "{down} times down in {PHASE:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_cut_again_and_again() {
    let redis = RedisServer::start().await;
    let network = SlowProxy::start(redis.addr()).await;
    let scene = Scene::start(&network.url()).await;
    for _ in 0..5 {
        network.cut();
        scene.load.run(PHASE / 6).await;
    }
    network.refuse();
    scene.suffer().await;
    scene.until_down().await;
    network.heal();
    scene.recover().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_full() {
    let redis = RedisServer::builder().maxmemory("64mb").start().await;
    let scene = Scene::start(&redis.url()).await;
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory", "1mb"]).await, "OK");
    scene.suffer().await;
    assert!(writes(&scene.pods[0], "out-of-memory").await >= 1);
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory", "64mb"]).await, "OK");
    scene.recover().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_becomes_a_read_only_replica() {
    let (redis, other) = tokio::join!(RedisServer::start(), RedisServer::start());
    let scene = Scene::start(&redis.url()).await;
    let port = other.addr().port().to_string();
    assert_eq!(redis.cli(&["REPLICAOF", "127.0.0.1", &port]).await, "OK");
    scene.suffer().await;
    assert!(writes(&scene.pods[0], "read-only").await >= 1);
    assert_eq!(redis.cli(&["REPLICAOF", "NO", "ONE"]).await, "OK");
    scene.recover().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_wants_another_password() {
    let redis = RedisServer::start().await;
    let scene = Scene::start(&redis.url()).await;
    // One connection does it: the next one would need the password.
    let mut admin = redis.connection().await.expect("a connection");
    let mut command = async |words: &[&str]| {
        let mut command = ::redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async::<::redis::Value>(&mut admin).await.expect("it is obeyed");
    };
    command(&["CONFIG", "SET", "requirepass", "changed"]).await;
    command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    scene.suffer().await;
    scene.until_down().await;
    for pod in &scene.pods {
        let log = pod.log().to_lowercase();
        assert!(log.contains("auth"), "the reason is in the log:\n{log}");
        assert!(!log.contains("changed"), "no password in the log");
    }
    command(&["CONFIG", "SET", "requirepass", ""]).await;
    assert_eq!(scene.recover().await, [(1, 1), (1, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_emptied() {
    let redis = RedisServer::start().await;
    let scene = Scene::start(&redis.url()).await;
    for _ in 0..3 {
        assert_eq!(redis.cli(&["FLUSHALL"]).await, "OK");
        scene.suffer().await;
    }
    assert_eq!(scene.recover().await, [(0, 0), (0, 0)], "the tier stays up");
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_are_flushed() {
    let redis = RedisServer::start().await;
    let scene = Scene::start(&redis.url()).await;
    let before = scene.load.redis_hits();
    assert_eq!(redis.cli(&["SCRIPT", "FLUSH"]).await, "OK");
    scene.suffer().await;
    assert!(scene.load.redis_hits() > before, "hits go on");
    let purge = serde_json::json!({"url": "http://shop.test/x"});
    assert!(scene.pods[0].purge(purge).await["seq"].is_u64());
    assert_eq!(scene.recover().await, [(0, 0), (0, 0)], "the tier stays up");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_killed() {
    let redis = RedisServer::start().await;
    let scene = Scene::start(&redis.url()).await;
    for _ in 0..5 {
        redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        scene.load.run(PHASE / 6).await;
    }
    scene.suffer().await;
    for (up, down) in scene.recover().await {
        assert_eq!(up, down, "they take turns");
        assert!(down <= 5, "{down} times down for five cuts");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_starts_without_redis_and_finds_it_later() {
    let (origin, mut redis) = (Origin::start().await, RedisServer::start().await);
    origin.on("*", |r| Reply::cached("max-age=600", r.path()));
    redis.kill();
    let setup = pod(&origin, redis.url());
    let (a, b) = tokio::join!(setup.start_anyhow(), setup.start_anyhow());
    a.get("/x").await.assert_status(200);
    a.get("/x").await.assert_status(200).assert_hit();
    redis.restart().await;
    tokio::join!(until_up(&a), until_up(&b));
    a.get("/y").await.assert_status(200);
    stored(&a, 1).await;
    assert_redis_hit(&b.get("/y").await);
    assert_eq!((lines(&a, "redis tier is up"), lines(&b, "redis tier is up")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn something_that_is_not_redis_does_no_harm() {
    let origin = origin().await;
    let babble = Origin::start().await;
    let nobody = free_addr();
    for addr in [babble.addr, nobody] {
        let a = pod(&origin, format!("redis://{addr}")).start_anyhow().await;
        for n in 0..20 {
            let path = format!("/load/{n}");
            a.get(&path).await.assert_status(200);
            a.get(&path).await.assert_status(200).assert_hit();
        }
        assert_eq!(metric(&a, "outrigger_tier_up", &[("tier", "redis")]).await, 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_of_writes_is_bounded() {
    const QUEUE: f64 = 256.0 * 1024.0;
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    origin.on("*", |_| Reply::cached("max-age=600", vec![b'q'; 8 * 1024]));
    let setup = pod(&origin, redis.url()).set("readTimeoutMs", "20");
    let a = setup.set("writeQueueBytesMax", "256KiB").start().await;
    redis.stop_process();
    for n in 0..200 {
        a.get(&format!("/{n}")).await.assert_status(200);
        if n % 10 == 0 {
            let queued = metric(&a, "outrigger_tier_queue_bytes", &[]).await;
            assert!(queued <= QUEUE, "{queued} bytes wait");
        }
    }
    redis.continue_process();
    until_up(&a).await;
    let lost = writes(&a, "dropped").await + writes(&a, "failed").await;
    assert!(lost >= 1, "two hundred times eight KiB do not fit");
    eventually("the queue is empty", || async {
        (metric(&a, "outrigger_tier_queue_bytes", &[]).await == 0.0).then_some(())
    })
    .await;
    // Nothing is stuck: the next write arrives.
    let before = writes(&a, "stored").await;
    a.get("/next").await.assert_status(200);
    stored(&a, before + 1).await;
}
