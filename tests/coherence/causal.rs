//! `consistency: causal`: a client that sends its session back reads its own writes, and never
//! goes back in time, whichever pods it uses.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::cluster::{Addresses, Cluster, Shape};
use crate::load::{Caller, Run, Seen, assert_busy, finish};
use crate::register::Register;
use crate::rng::again;
use crate::storm::{calm, redis_storm, storm};
use crate::support::{Origin, Reply};

const LEASE: Duration = Duration::from_millis(800);
const KEYS: usize = 5;

/// Clients that keep their session, read and write.
fn sessions(run: &Arc<Run>, addresses: &Addresses, clients: usize, pods: usize) -> JoinSet<()> {
    let mut all = JoinSet::new();
    for id in 0..clients {
        let run = Arc::clone(run);
        let mut caller = Caller::with_session(id, addresses);
        all.spawn(async move {
            while !run.is_over() {
                let path = format!("/c/k{}", caller.rng.below(KEYS));
                let pod = caller.rng.below(pods);
                let written = caller.rng.percent(20).then(|| run.value());
                let seen = caller.call(&run, pod, &path, written).await;
                let token = caller.session.is_some();
                assert!(token || seen.held.is_none(), "no session after {seen}");
                caller.rest().await;
            }
        });
    }
    all
}

/// What a client has seen of a path it never sees undone. The record is in order of the calls, and
/// a client does one thing at a time.
fn assert_sessions_hold(seen: &[Seen]) {
    let mut newest: HashMap<(usize, &str), &Seen> = HashMap::new();
    let mut wrong = Vec::new();
    for now in seen.iter().filter(|seen| seen.held.is_some()) {
        let known = newest.entry((now.client, &now.path)).or_insert(now);
        let versions = (known.held.map(|h| h.version), now.held.map(|h| h.version));
        if versions.1 < versions.0 {
            let value = known.held.map(|held| held.value);
            let write = seen.iter().find(|seen| seen.written == value);
            let write = write.map(ToString::to_string).unwrap_or_default();
            wrong.push(format!("had  {known}\nthen {now}\n  by {write}"));
        } else {
            *known = now;
        }
    }
    let few = wrong[..wrong.len().min(8)].join("\n");
    assert!(wrong.is_empty(), "{} steps back in time ({}):\n{few}", wrong.len(), again());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_never_goes_back_in_time() {
    let register = Register::start().await;
    let cluster = Shape::of(register.url(), 3).lease(LEASE).start().await;
    let run = Run::new();
    let clients = sessions(&run, &cluster.addresses, 6, 3);
    calm(Duration::from_secs(3)).await;
    finish(&run, clients).await;
    let seen = run.seen();
    assert_busy("causal", &seen, 300, 10);
    assert_sessions_hold(&seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_never_goes_back_in_time_while_pods_stand_still_die_and_lose_redis() {
    let register = Register::start().await;
    let mut cluster = Shape::of(register.url(), 3).lease(LEASE).link(1).start().await;
    let run = Run::new();
    let clients = sessions(&run, &cluster.addresses, 6, 3);
    storm(&mut cluster, &run).await;
    finish(&run, clients).await;
    let seen = run.seen();
    assert_busy("causal in a storm", &seen, 300, 2);
    assert_sessions_hold(&seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_never_goes_back_in_time_while_redis_stands_still_and_comes_back_empty() {
    let register = Register::start().await;
    let mut cluster = Shape::of(register.url(), 3).lease(LEASE).start().await;
    let run = Run::new();
    let clients = sessions(&run, &cluster.addresses, 6, 3);
    redis_storm(&mut cluster, &run).await;
    finish(&run, clients).await;
    let seen = run.seen();
    assert_busy("causal without Redis", &seen, 300, 2);
    assert_sessions_hold(&seen);
}

/// An origin whose `/c/a` counts its writes.
async fn counting() -> Origin {
    let origin = Origin::start().await;
    let writes = std::sync::atomic::AtomicU64::new(0);
    origin.on("/c/a", move |r| {
        let order = std::sync::atomic::Ordering::SeqCst;
        match r.method() {
            "GET" => Reply::cached("max-age=60", writes.load(order).to_string()),
            _ => Reply::ok((writes.fetch_add(1, order) + 1).to_string()),
        }
    });
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_holds_at_a_pod_that_has_not_heard_of_the_write() {
    let origin = counting().await;
    let cluster = Shape::of(origin.url(), 2).link(1).start().await;
    for pod in &cluster.pods {
        assert_eq!(pod.store("/c/a").await, "0");
    }
    let away = &cluster.pods[1];
    away.cut().await;
    let put = cluster.pods[0].proxy.fetch("PUT", "/c/a", &[("Content-Length", "0")]).await;
    put.assert_is(200, "1");
    let token = put.header("outrigger-session").expect("a session").to_owned();
    let mine = [("Outrigger-Session", token.as_str())];
    away.proxy.fetch("GET", "/c/a", &mine).await.assert_is(200, "1");
    away.heal();
    away.caught_up(cluster.pods[0].applied().await).await;
    away.proxy.fetch("GET", "/c/a", &mine).await.assert_is(200, "1");
    away.get("/c/a").await.assert_is(200, "1");
}

/// Pods 0 and 1 have `/c/a` as it was; pod 1 has lost the log and is asked to change it. Answers the
/// session of who did, or nothing if that was refused and so nothing was promised.
async fn written_without_the_log() -> Option<(Origin, Cluster, String)> {
    let origin = counting().await;
    let cluster = Shape::of(origin.url(), 3).link(1).start().await;
    for pod in &cluster.pods[..2] {
        assert_eq!(pod.store("/c/a").await, "0");
    }
    cluster.pods[1].cut().await;
    let put = cluster.pods[1].proxy.fetch("PUT", "/c/a", &[("Content-Length", "0")]).await;
    if put.status == 503 {
        let written = origin.requests("/c/a").iter().filter(|r| r.method() == "PUT").count();
        assert_eq!(written, 0, "refused, and done all the same");
        return None;
    }
    put.assert_is(200, "1");
    let token = put.header("outrigger-session").expect("a session").to_owned();
    Some((origin, cluster, token))
}

/// Reads through all pods for a while, with this session. The first time that a pod is asked, much
/// may have happened in the log since the session was given out.
async fn assert_new_everywhere(cluster: &Cluster, token: &str) {
    calm(Duration::from_millis(300)).await;
    cluster.pods[0].purge(json!({"tag": "other"})).await;
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        for pod in &cluster.pods {
            let read = pod.proxy.fetch("GET", "/c/a", &[("Outrigger-Session", token)]).await;
            let (name, after) = (&pod.name, began.elapsed());
            assert_eq!(read.text(), "1", "{name} after {after:?}: {:#?}", read.head);
        }
        calm(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reads_what_it_wrote_through_a_pod_without_the_log() {
    let Some((_origin, cluster, token)) = written_without_the_log().await else { return };
    assert_new_everywhere(&cluster, &token).await;
    cluster.pods[1].heal();
    cluster.level().await;
    assert_new_everywhere(&cluster, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_does_not_lose_sight_of_what_another_wrote_through_a_pod_without_the_log() {
    let Some((_origin, cluster, _)) = written_without_the_log().await else { return };
    // Pod 2 has nothing stored, or what is in Redis; if it shows the new state, then that is it.
    let read = cluster.pods[2].get("/c/a").await;
    if read.text() == "1" {
        let token = read.header("outrigger-session").expect("a session").to_owned();
        assert_new_everywhere(&cluster, &token).await;
    }
    let read = cluster.pods[1].get("/c/a").await;
    read.assert_is(200, "1");
    let token = read.header("outrigger-session").expect("a session").to_owned();
    assert_new_everywhere(&cluster, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_for_a_session_is_harmless() {
    let origin = counting().await;
    let cluster = Shape::of(origin.url(), 1).start().await;
    cluster.pods[0].store("/c/a").await;
    for token in ["", "0", "nonsense", "-1", "99999999999999999999999", "ö", &"x".repeat(5000)] {
        let odd = [("Outrigger-Session", token)];
        cluster.pods[0].proxy.fetch("GET", "/c/a", &odd).await.assert_is(200, "0");
    }
    // Nobody else's sessions suffer.
    cluster.pods[0].get("/c/a").await.assert_hit();
}
