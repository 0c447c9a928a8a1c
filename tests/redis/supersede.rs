//! Which of two responses stays in Redis, and what the other pods learn of an answer that ends the
//! use of a stored one (the table in `src/semantics/supersede.rs`).

use crate::pods::{assert_redis_hit, is_redis_hit, pod, stored};
use crate::support::redis::RedisServer;
use crate::support::{Gate, Origin, Reply, Script, chunk, eventually, head, last_chunk, metric};

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_older_response_does_not_replace_what_another_pod_stored() {
    let (origin, redis, gate) = (Origin::start().await, RedisServer::start().await, Gate::new());
    let held = gate.clone();
    let fields = [("Cache-Control", "max-age=600"), ("Transfer-Encoding", "chunked")];
    origin.on("/x", move |r| match r.nth {
        1 => Script::new()
            .send(head(200, &fields))
            .send(chunk("old"))
            .gate(&held)
            .send(chunk("er"))
            .send(last_chunk(&[])),
        _ => Reply::cached("max-age=600", "newer").into(),
    });
    let (a, b) = pod(&origin, redis.url()).pair().await;
    let meanwhile = async {
        origin.arrived("/x", 1).await;
        b.fetch("GET", "/x", &[("Cookie", "a=1")]).await.assert_is(200, "newer");
        stored(&b, 1).await;
        gate.open();
    };
    let (slow, ()) = tokio::join!(a.get("/x"), meanwhile);
    slow.assert_is(200, "older");
    // It learns that Redis has a more recent one.
    eventually("the older copy gives way", || async {
        (a.get("/x").await.text() == "newer").then_some(())
    })
    .await;
    let overtaken = [("tier", "redis"), ("result", "overtaken")];
    assert!(metric(&a, "outrigger_tier_writes_total", &overtaken).await >= 1.0);
    let c = pod(&origin, redis.url()).start().await;
    let response = c.get("/x").await;
    response.assert_is(200, "newer");
    assert_redis_hit(&response);
    assert_eq!(origin.hits("/x"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_gone_for_one_pod_is_not_revived_by_another() {
    for etag in [None, Some("\"v1\"")] {
        let (origin, redis) = (Origin::start().await, RedisServer::start().await);
        origin.on("/x", move |r| match r.nth {
            1 => {
                let old = Reply::cached("max-age=1, stale-if-error=600", "old");
                etag.into_iter().fold(old, |old, etag| old.header("ETag", etag))
            }
            2 => Reply::new(404).body("gone"),
            _ => Reply::new(503).body("broken"),
        });
        let (a, b) = pod(&origin, redis.url()).set("minTtlMs", "0").pair().await;
        a.get("/x").await.assert_is(200, "old");
        stored(&a, 1).await;
        let copy = b.get("/x").await;
        copy.assert_is(200, "old");
        assert!(is_redis_hit(&copy));
        eventually("the lifetime is over", || async {
            let response = a.get("/x").await;
            (response.status == 404).then_some(())
        })
        .await;
        stored(&a, 2).await;
        b.get("/x").await.assert_is(503, "broken");
        a.get("/x").await.assert_is(503, "broken");
        let c = pod(&origin, redis.url()).set("minTtlMs", "0").start().await;
        c.get("/x").await.assert_is(503, "broken");
    }
}
