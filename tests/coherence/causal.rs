//! `consistency: causal`: a client that sends its session back reads its own writes, and never
//! goes back in time, whichever pods it uses.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::cluster::{Addresses, Shape};
use crate::load::{Caller, Run, Seen, assert_busy, finish};
use crate::register::Register;
use crate::rng::again;
use crate::storm::{calm, redis_storm, storm};
use crate::support::{Origin, Reply, eventually};

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
    run.enough().await;
    finish(&run, clients).await;
    let seen = run.seen();
    assert_busy("causal", &seen, 10);
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
    assert_busy("causal in a storm", &seen, 2);
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
    assert_busy("causal without Redis", &seen, 2);
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

/// No token could tell other pods of a write that the log does not know: who sees it through any
/// pod, and then asks another one, would go back in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_cannot_be_announced_is_refused() {
    let origin = counting().await;
    let cluster = Shape::of(origin.url(), 2).link(1).start().await;
    for pod in &cluster.pods {
        assert_eq!(pod.store("/c/a").await, "0");
    }
    let away = &cluster.pods[1];
    away.cut().await;
    let before = origin.hits("/c/a");
    let refused = away.proxy.fetch("PUT", "/c/a", &[("Content-Length", "0")]).await;
    refused.assert_status(503);
    assert_eq!(refused.cache().get("detail"), Some("purge-log"), "{refused:#?}");
    assert_eq!(origin.hits("/c/a"), before, "refused, and sent all the same");
    away.heal();
    cluster.level().await;
    let token = eventually("writes through the pod that is back", || async {
        let put = away.proxy.fetch("PUT", "/c/a", &[("Content-Length", "0")]).await;
        (put.status == 200).then(|| put.header("outrigger-session").expect("a session").to_owned())
    })
    .await;
    for pod in &cluster.pods {
        let mine = [("Outrigger-Session", token.as_str())];
        pod.proxy.fetch("GET", "/c/a", &mine).await.assert_is(200, "1");
    }
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
