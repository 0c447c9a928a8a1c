//! A cache that fails under a steady load, and comes back.

use std::time::Duration;

use crate::pod::{Load, Pod, Process, State, Version, World};
use crate::support::{Reply, Script, chunk, eventually, head, last_chunk};

/// Both pods with policy, and no cache yet.
pub async fn uncached(policy: &str) -> World {
    let world = World::start(Version::Older).await;
    world.plane.apply(policy).unwrap();
    world.app.always("/item", Reply::cached("max-age=600", "item"));
    world
}

/// Both pods with policy, Outrigger in the one that is meant and in the way of its requests, and
/// `/item`, which may be cached.
pub async fn cached(
    version: Version,
    policy: &str,
    of: impl Fn(&World) -> &Pod,
) -> (World, Process) {
    let world = World::start(version).await;
    world.plane.apply(policy).unwrap();
    world.app.on("/item", |request| match request.method() {
        "POST" => Reply::new(204),
        _ => Reply::cached("max-age=600", "item"),
    });
    let outrigger = world.start_outrigger(of(&world)).await;
    world.becomes(of(&world).place, State::Cache).await;
    world.app.always("/settled", Reply::cached("max-age=600", "settled"));
    world.cache_answers("/settled").await;
    (world, outrigger)
}

/// How the cache fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its process is gone at once.
    Killed,
    /// It takes connections and says nothing.
    Stopped,
    /// It is told to end and takes its time.
    Terminated,
}

/// Lets Outrigger fail under 100 requests a second: not one of them may, and
/// once it is back it is used again.
pub async fn fails_open(world: &World, pod: &Pod, mut outrigger: Process, failure: Failure) {
    let load = Load::start(&world.frontend.net, "/item", 100);
    load.more_hits(50).await;
    match failure {
        Failure::Killed => outrigger.kill(),
        Failure::Stopped => outrigger.signal("STOP"),
        Failure::Terminated => outrigger.signal("TERM"),
    }
    // For longer than the health check needs to notice, and than a client would wait.
    let reached = world.app.hits("/item");
    let what = format!("the app answers by itself ({failure:?})");
    eventually(&what, || async move { (world.app.hits("/item") >= reached + 400).then_some(()) })
        .await;
    let _back = match failure {
        Failure::Stopped => {
            outrigger.signal("CONT");
            outrigger
        }
        Failure::Killed => world.start_outrigger(pod).await,
        Failure::Terminated => {
            let status = outrigger.ended(Duration::from_secs(20)).await;
            assert!(status.success(), "it ended with {status}:\n{}", outrigger.log());
            world.start_outrigger(pod).await
        }
    };
    load.more_hits(50).await;
    let report = load.stop().await;
    eprintln!(
        "{failure:?}: {} sent, {} hits, slowest {:?}",
        report.sent, report.hits, report.slowest
    );
    report.without_failure();
}

/// Switches the cache of a pod on and off again under 100 requests a second, of
/// which none may fail: clusters before routes, and routes away before clusters.
pub async fn switches(world: &World, pod: &Pod, cluster: &str) {
    let load = Load::start(&world.frontend.net, "/item", 100);
    world.becomes(pod.place, State::Clusters).await;
    world.warmed(pod).await;
    world.becomes(pod.place, State::Cache).await;
    load.more_hits(50).await;
    world.becomes(pod.place, State::Clusters).await;
    world.bypassed(pod, cluster, Duration::from_secs(1)).await;
    world.becomes(pod.place, State::Plain).await;
    let before = world.app.hits("/item");
    world.app.arrived("/item", before + 50).await;
    load.stop().await.without_failure();
}

/// Switches it on in one push, under the same load.
pub async fn switches_on_at_once(world: &World, pod: &Pod) {
    let load = Load::start(&world.frontend.net, "/item", 100);
    let before = world.app.hits("/item");
    world.app.arrived("/item", before + 20).await;
    world.becomes(pod.place, State::Cache).await;
    load.more_hits(50).await;
    load.stop().await.without_failure();
}

/// What is taken for a hang must not be a slow app, nor a stream that is quiet.
pub async fn waits_for_a_slow_app(world: &World) {
    let pause = Duration::from_secs(5);
    let slow = Script::new().sleep(pause).reply(Reply::cached("max-age=600", "slow"));
    world.app.always("/slow", slow);
    let chunked = [("Transfer-Encoding", "chunked"), ("Content-Type", "text/event-stream")];
    let quiet = Script::new()
        .send(head(200, &chunked))
        .send(chunk("one"))
        .sleep(pause)
        .send(chunk("two"))
        .send(last_chunk(&[]));
    world.app.always("/quiet", quiet);
    let (slow, quiet) = tokio::join!(world.get("/slow"), world.get("/quiet"));
    slow.assert_is(200, "slow");
    quiet.assert_is(200, "onetwo");
    assert_eq!(world.app.hits("/quiet"), 1);
    eprintln!("the slow one was asked for {} times", world.app.hits("/slow"));
}
