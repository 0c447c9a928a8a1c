//! `consistency: strong`: reads and writes of a URL are linearizable, whichever pods they use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Shape;
use crate::linear::{Kind, Op, check};
use crate::load::{Keys, Run, Seen, assert_busy, finish, readers_and_writers};
use crate::register::Register;
use crate::rng::again;
use crate::storm::{calm, redis_storm, storm};
use crate::support::{Client, Gate, Origin, Reply, Script, within};

const LEASE: Duration = Duration::from_millis(800);

/// A read without a good answer says nothing; a write without one may or may not have happened.
fn op(seen: &Seen) -> Option<Op> {
    let kind = match (seen.written, seen.held) {
        (Some(value), _) => Kind::Write(value),
        (None, Some(held)) => Kind::Read(held.value),
        (None, None) => return None,
    };
    let ret = seen.held.is_some().then_some(seen.ret);
    let note = format!("client {} pod-{} [{}]", seen.client, seen.pod, seen.said);
    Some(Op { kind, call: seen.call, ret, note })
}

fn assert_linearizable(seen: &[Seen]) {
    let mut registers: BTreeMap<&str, Vec<Op>> = BTreeMap::new();
    for seen in seen {
        registers.entry(&seen.path).or_default().extend(op(seen));
    }
    let mut wrong = Vec::new();
    for (path, ops) in &registers {
        if let Err(violation) = check(0, ops) {
            wrong.push(format!("{path}: {violation}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} registers are not linearizable ({}):\n{}",
        wrong.len(),
        registers.len(),
        again(),
        wrong[..wrong.len().min(3)].join("\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_register_is_linearizable_through_any_pods() {
    let register = Register::start().await;
    let cluster = Shape::of(register.url(), 3).lease(LEASE).start().await;
    let (run, keys) = (Run::new(), Keys::new("/s", 4));
    let clients = readers_and_writers(&run, &keys, &cluster.addresses, 8, 3);
    calm(Duration::from_secs(3)).await;
    run.enough().await;
    finish(&run, clients).await;
    let seen = run.seen();
    assert_busy("strong", &seen, 10);
    let failed: Vec<_> = seen.iter().filter(|seen| seen.held.is_none()).collect();
    assert!(failed.len() * 50 < seen.len(), "failures in calm weather: {failed:#?}");
    assert_linearizable(&seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_register_is_linearizable_while_pods_stand_still_die_and_lose_redis() {
    let register = Register::start().await;
    let mut cluster = Shape::of(register.url(), 3).lease(LEASE).link(1).start().await;
    let (run, keys) = (Run::new(), Keys::new("/s", 4));
    let clients = readers_and_writers(&run, &keys, &cluster.addresses, 8, 3);
    storm(&mut cluster, &run).await;
    finish(&run, clients).await;
    let seen = run.seen();
    assert_busy("strong in a storm", &seen, 2);
    assert_linearizable(&seen);
    cluster.all_live().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_register_is_linearizable_while_redis_stands_still_and_comes_back_empty() {
    let register = Register::start().await;
    let mut cluster = Shape::of(register.url(), 3).lease(LEASE).start().await;
    let (run, keys) = (Run::new(), Keys::new("/s", 4));
    let clients = readers_and_writers(&run, &keys, &cluster.addresses, 8, 3);
    redis_storm(&mut cluster, &run).await;
    finish(&run, clients).await;
    let seen = run.seen();
    assert_busy("strong without Redis", &seen, 2);
    assert_linearizable(&seen);
}

/// An origin whose `/s/a` is `old` until a PUT, whose answer is held at the gate.
async fn writable() -> (Origin, Gate) {
    let (origin, gate) = (Origin::start().await, Gate::new());
    let held = gate.clone();
    let state = Arc::new(std::sync::Mutex::new("old"));
    origin.on("/s/a", move |r| {
        let mut state = state.lock().expect("a healthy lock");
        if r.method() == "GET" {
            return Reply::cached("max-age=60", *state).into();
        }
        *state = "new";
        Script::new().gate(&held).reply(Reply::ok("done"))
    });
    (origin, gate)
}

const PUT: &str = "PUT /s/a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0\r\n\r\n";
const GET: &str = "GET /s/a HTTP/1.1\r\nHost: shop.test\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn while_a_write_is_under_way_no_pod_answers_from_its_store() {
    let (origin, gate) = writable().await;
    let cluster = Shape::of(origin.url(), 3).start().await;
    cluster.warm("/s/a").await;
    let mut writer = cluster.pods[0].proxy.connect().await;
    let before = origin.hits("/s/a");
    writer.send(PUT).await;
    origin.arrived("/s/a", before + 1).await;
    for pod in &cluster.pods {
        let during = pod.get("/s/a").await;
        assert!(!during.cache().has("hit"), "{}: {during:#?}", pod.name);
    }
    gate.open();
    writer.response("PUT").await.assert_is(200, "done");
    for pod in &cluster.pods {
        pod.get("/s/a").await.assert_is(200, "new");
    }
    // And then the stores answer again.
    for pod in &cluster.pods {
        crate::support::eventually("hits again", || async {
            pod.get("/s/a").await.cache().has("hit").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_slept_through_a_write_does_not_wake_up_with_the_old_answer() {
    let (origin, gate) = writable().await;
    gate.open();
    let cluster = Shape::of(origin.url(), 3).lease(LEASE).start().await;
    cluster.warm("/s/a").await;
    let sleeper = &cluster.pods[2];
    let mut early = sleeper.proxy.connect().await;
    early.get("/s/a", &[]).await.assert_is(200, "old");
    sleeper.pause().await;
    // The write waits for the sleeper, but not for longer than its lease.
    let began = std::time::Instant::now();
    let mut writer = cluster.pods[0].proxy.connect().await;
    writer.send(PUT).await;
    writer.response("PUT").await.assert_is(200, "done");
    assert!(began.elapsed() < LEASE + Duration::from_secs(5), "{:?}", began.elapsed());
    // It finds this request before it can find anything out about the world.
    early.send(GET).await;
    sleeper.go_on();
    early.response("GET").await.assert_is(200, "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_log_a_strong_write_is_refused_and_a_strong_read_goes_to_the_upstream() {
    let (origin, gate) = writable().await;
    gate.open();
    let cluster = Shape::of(origin.url(), 2).lease(LEASE).link(1).start().await;
    cluster.warm("/s/a").await;
    let away = &cluster.pods[1];
    away.cut().await;
    within("its lease ends", async {
        while away.get("/s/a").await.cache().has("hit") {
            calm(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut writer = Client::connect(away.proxy.addr).await;
    let before = origin.hits("/s/a");
    writer.send(PUT).await;
    let refused = writer.response("PUT").await;
    refused.assert_status(503);
    assert_eq!(refused.cache().get("detail"), Some("purge-log"), "{refused:#?}");
    assert_eq!(origin.hits("/s/a"), before, "a refused write reached the origin");
    for _ in 0..3 {
        let read = away.get("/s/a").await;
        assert!(!read.cache().has("hit"), "{read:#?}");
    }
    // The others write on, and the pod that comes back has the new value.
    cluster.pods[0].proxy.fetch("PUT", "/s/a", &[("Content-Length", "0")]).await.assert_status(200);
    away.heal();
    cluster.level().await;
    away.get("/s/a").await.assert_is(200, "new");
    crate::support::eventually("writes through the pod that is back", || async {
        let put = away.proxy.fetch("PUT", "/s/a", &[("Content-Length", "0")]).await;
        (put.status == 200).then_some(())
    })
    .await;
}
