//! Single flight over pods: of many that miss the same key, one fetches.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::pods::{Pod, pod};
use crate::support::redis::RedisServer;
use crate::support::{
    Client, Gate, Origin, Proxy, Reply, Response, Script, eventually, get, waiting,
};

/// Longest wait of a pod for another one in these tests; half of it is more than any answer takes for
/// which nobody waits.
const WAIT: Duration = Duration::from_secs(8);
const SLACK: Duration = Duration::from_secs(4);

fn flying(origin: &Origin, url: &str) -> Pod {
    let wait = WAIT.as_millis();
    pod(origin, url).set("singleFlight", &format!("{{enabled: true, waitMsMax: {wait}}}"))
}

async fn three(setup: &Pod) -> [Proxy; 3] {
    tokio::join!(setup.start(), setup.start(), setup.start()).into()
}

/// Thirty requests over the pods, beside the test, with the time that each took.
fn ask_all(pods: &[Proxy], path: &'static str) -> JoinSet<(Response, Duration)> {
    let mut all = JoinSet::new();
    for n in 0..30 {
        let addr: SocketAddr = pods[n % pods.len()].addr;
        all.spawn(async move {
            let began = Instant::now();
            (get(addr, path).await, began.elapsed())
        });
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_requests_over_three_pods_are_one_for_the_origin() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    let gate = Gate::new();
    let slow = Script::new().gate(&gate).reply(Reply::cached("max-age=600", "slow"));
    origin.always("/slow", slow);
    let pods = three(&flying(&origin, &redis.url())).await;
    let all = ask_all(&pods, "/slow");
    origin.arrived("/slow", 1).await;
    // In each pod one has tried to take the lock, and the nine others have joined it.
    waiting(&pods.each_ref(), 27).await;
    eventually("each pod has tried to take the lock", || async {
        let stats = redis.cli(&["INFO", "commandstats"]).await;
        let calls = stats.split("cmdstat_set:calls=").nth(1)?.split(',').next()?.parse().ok();
        calls.filter(|calls: &u32| *calls >= 3).map(drop)
    })
    .await;
    assert_eq!(origin.hits("/slow"), 1);
    assert_eq!(redis.keys("or:shop:cart:f:*").await.len(), 1);
    gate.open();
    for (response, took) in all.join_all().await {
        response.assert_is(200, "slow");
        assert!(took < WAIT, "{took:?}");
    }
    assert_eq!(origin.hits("/slow"), 1);
    eventually("the lock is gone", || async {
        redis.keys("or:shop:cart:f:*").await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_single_flight_each_pod_fetches() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    let gate = Gate::new();
    let slow = Script::new().gate(&gate).reply(Reply::cached("max-age=600", "slow"));
    origin.always("/slow", slow);
    let pods = three(&pod(&origin, redis.url())).await;
    let all = ask_all(&pods, "/slow");
    origin.arrived("/slow", 3).await;
    gate.open();
    for (response, _) in all.join_all().await {
        response.assert_is(200, "slow");
    }
    assert_eq!(origin.hits("/slow"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_leaves_nobody_stuck() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    origin.on("/d", |r| {
        if r.nth == 1 { Script::new().hang() } else { Reply::cached("max-age=600", "fine").into() }
    });
    let [leader, b, c] = three(&flying(&origin, &redis.url())).await;
    let mut client = Client::connect(leader.addr).await;
    client.request("GET", "/d", &[]).await;
    origin.arrived("/d", 1).await;
    let others = [b, c];
    let all = ask_all(&others, "/d");
    leader.signal("KILL");
    for (response, took) in all.join_all().await {
        response.assert_is(200, "fine");
        assert!(took < WAIT + SLACK, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_takes_too_long_is_not_waited_for() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/l", move |r| {
        let reply = Reply::cached("max-age=600", "fine");
        if r.nth == 1 { Script::new().gate(&held).reply(reply) } else { reply.into() }
    });
    let [leader, b, _c] = three(&flying(&origin, &redis.url())).await;
    let mut client = Client::connect(leader.addr).await;
    client.request("GET", "/l", &[]).await;
    origin.arrived("/l", 1).await;
    let began = Instant::now();
    b.get("/l").await.assert_is(200, "fine");
    assert!(began.elapsed() < WAIT + SLACK, "{:?}", began.elapsed());
    gate.open();
    client.response("GET").await.assert_is(200, "fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncacheable_response_makes_nobody_wait() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    origin.always("/no", Reply::cached("no-store", "own"));
    origin.always("/broken", Reply::new(503).body("broken"));
    let pods = three(&flying(&origin, &redis.url())).await;
    for (path, status, body) in [("/no", 200, "own"), ("/broken", 503, "broken")] {
        for (response, took) in ask_all(&pods, path).join_all().await {
            response.assert_is(status, body);
            assert!(took < WAIT / 2, "{path}: {took:?}");
        }
    }
    // What is known to be for nobody else is remembered for a moment only.
    eventually("no lock is left", || async {
        redis.keys("or:shop:cart:f:*").await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_gone_makes_nobody_wait() {
    let (origin, mut redis) = (Origin::start().await, RedisServer::start().await);
    origin.always("/x", Reply::cached("max-age=600", "own"));
    let pods = three(&flying(&origin, &redis.url())).await;
    redis.kill();
    for (response, took) in ask_all(&pods, "/x").join_all().await {
        response.assert_is(200, "own");
        assert!(took < WAIT / 2, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_fetch_different_variants_do_not_wait_for_each_other() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/v", move |r| {
        let language = r.header("accept-language").unwrap_or("none").to_owned();
        let slow = language == "de";
        let reply = Reply::cached("max-age=600", language).header("Vary", "Accept-Language");
        if slow { Script::new().gate(&held).reply(reply) } else { reply.into() }
    });
    let wait = "{enabled: true, waitMsMax: 600000}";
    let setup = pod(&origin, redis.url()).set("singleFlight", wait);
    let (a, b) = tokio::join!(setup.start(), setup.start());
    let in_language = |language| [("Accept-Language", language)];
    a.fetch("GET", "/v", &in_language("en")).await.assert_is(200, "en");
    eventually("the other pod finds it", || async {
        let other = b.fetch("GET", "/v", &in_language("en")).await;
        other.cache().has("hit").then_some(())
    })
    .await;
    let fetched = origin.hits("/v");
    let mut german = Client::connect(a.addr).await;
    german.request("GET", "/v", &in_language("de")).await;
    origin.arrived("/v", fetched + 1).await;
    // In the same pod and in another one: the German claim concerns neither.
    for (pod, language) in [(&a, "fr"), (&b, "it")] {
        pod.fetch("GET", "/v", &in_language(language)).await.assert_is(200, language);
    }
    gate.open();
    german.response("GET").await.assert_is(200, "de");
}
