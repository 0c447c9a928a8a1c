//! A strong write that takes long: whatever happens meanwhile, no pod shows the old state after
//! another one has shown the new.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::{Cluster, Shape};
use crate::storm::calm;
use crate::support::{Client, Gate, Origin, Reply, Script};

const LEASE: Duration = Duration::from_millis(800);
const PUT: &str = "PUT /s/a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0\r\n\r\n";

/// A write of `/s/a` through pod 0 that has arrived at the origin.
struct Write {
    origin: Origin,
    cluster: Cluster,
    writer: Client,
    state: Arc<Mutex<&'static str>>,
    gate: Gate,
}

impl Write {
    /// Three pods with `old` in their stores; the write is on its way. Pod 0 has a link.
    async fn under_way() -> Self {
        let (origin, gate) = (Origin::start().await, Gate::new());
        let (held, state) = (gate.clone(), Arc::new(Mutex::new("old")));
        let read = Arc::clone(&state);
        origin.on("/s/a", move |r| match r.method() {
            "GET" => Reply::cached("max-age=60", *read.lock().expect("a healthy lock")).into(),
            _ => Script::new().gate(&held).reply(Reply::ok("done")),
        });
        let shape = Shape::of(origin.url(), 3).lease(LEASE).events_max(20).link(0);
        let cluster = shape.start().await;
        cluster.warm("/s/a").await;
        let mut writer = cluster.pods[0].proxy.connect().await;
        let before = origin.hits("/s/a");
        writer.send(PUT).await;
        origin.arrived("/s/a", before + 1).await;
        Self { origin, cluster, writer, state, gate }
    }

    /// Reads through every pod again and again: none of them may answer from its store.
    async fn read_for(&self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            for pod in &self.cluster.pods {
                let during = pod.get("/s/a").await;
                let (name, after) = (&pod.name, began.elapsed());
                assert!(!during.cache().has("hit"), "{name} after {after:?}: {during:#?}");
            }
            calm(Duration::from_millis(50)).await;
        }
    }

    /// Reads through every pod: who may store what it gets has it stored then.
    async fn read_twice(&self) {
        for pod in self.cluster.pods.iter().chain(&self.cluster.pods) {
            pod.get("/s/a").await.assert_is(200, "old");
        }
    }

    /// Now it takes place. Who reads sees the new state, and nobody the old one after that.
    async fn takes_place(&mut self) {
        *self.state.lock().expect("a healthy lock") = "new";
        for pod in &self.cluster.pods {
            let read = pod.get("/s/a").await;
            assert_eq!(read.text(), "new", "{}: {:#?}", pod.name, read.head);
        }
        self.gate.open();
        self.writer.response("PUT").await.assert_is(200, "done");
        for pod in &self.cluster.pods {
            let read = pod.get("/s/a").await;
            assert_eq!(read.text(), "new", "{} afterwards: {:#?}", pod.name, read.head);
        }
        assert!(self.origin.hits("/s/a") > 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_takes_longer_than_a_lease_is_held_to_its_end() {
    let mut write = Write::under_way().await;
    write.read_for(LEASE * 3).await;
    write.takes_place().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_starts_during_a_write_takes_part_in_the_hold() {
    let mut write = Write::under_way().await;
    let new = write.cluster.add().await;
    write.cluster.pods[new].caught_up(0).await;
    write.read_for(LEASE * 2).await;
    write.takes_place().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_starts_when_the_log_has_forgotten_the_hold_takes_part_in_it() {
    let mut write = Write::under_way().await;
    for n in 0..60 {
        write.cluster.pods[1].purge(json!({"tag": format!("t{n}")})).await;
    }
    let new = write.cluster.add().await;
    write.cluster.pods[new].caught_up(0).await;
    write.read_twice().await;
    write.takes_place().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_replaced_during_a_write_takes_part_in_the_hold() {
    let mut write = Write::under_way().await;
    write.cluster.replace(2).await;
    write.cluster.pods[2].caught_up(0).await;
    write.read_for(LEASE * 2).await;
    write.takes_place().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_outlives_the_log_that_it_was_announced_in() {
    for restart in [false, true] {
        let mut write = Write::under_way().await;
        if restart {
            write.cluster.redis.restart().await;
        } else {
            assert_eq!(write.cluster.redis.cli(&["FLUSHALL"]).await, "OK");
        }
        write.read_for(LEASE * 3).await;
        write.takes_place().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_starts_after_the_log_was_lost_takes_part_in_the_hold() {
    let mut write = Write::under_way().await;
    assert_eq!(write.cluster.redis.cli(&["FLUSHALL"]).await, "OK");
    let new = write.cluster.add().await;
    write.cluster.pods[new].caught_up(0).await;
    write.read_twice().await;
    write.takes_place().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_loses_the_log_in_the_middle_of_its_write_keeps_the_hold() {
    let mut write = Write::under_way().await;
    write.cluster.pods[0].cut().await;
    write.read_for(LEASE * 3).await;
    write.takes_place().await;
    write.cluster.pods[0].heal();
    write.cluster.level().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_stands_still_in_the_middle_of_its_write_keeps_the_hold() {
    let write = Write::under_way().await;
    write.cluster.pods[0].pause().await;
    let began = Instant::now();
    while began.elapsed() < LEASE * 3 {
        for pod in &write.cluster.pods[1..] {
            let during = pod.get("/s/a").await;
            assert!(!during.cache().has("hit"), "{}: {during:#?}", pod.name);
        }
        calm(Duration::from_millis(50)).await;
    }
    write.cluster.pods[0].go_on();
    let mut write = write;
    write.takes_place().await;
}
