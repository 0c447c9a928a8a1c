//! Why a request was passed on, why a miss was one, and what would become of the stored response.

use serde_json::Value;

use crate::support::{
    Origin, Proxy, Reply, Script, Setup, chunk, eventually, head, last_chunk, metric,
};

async fn explain(proxy: &Proxy, path: &str) -> Value {
    let page = proxy.admin(&format!("/explain?url=http://shop.test{path}")).await;
    page.assert_status(200);
    serde_json::from_slice(&page.body).unwrap()
}

async fn misses(proxy: &Proxy, cause: &str) -> f64 {
    metric(proxy, "outrigger_misses_total", &[("cause", cause)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_keeps_the_first_reason() {
    for (name, value, reason) in [
        ("Cache-Control", "no-store", "no-store"),
        ("Cache-Control", "private", "private"),
        ("Set-Cookie", "a=1", "set-cookie"),
        ("Vary", "*", "vary-star"),
        ("Vary", "X-User;", "vary-unreadable"),
        ("X-Other", "1", "no-freshness"),
    ] {
        let origin = Origin::start().await;
        origin.on("/p", move |_| {
            let reply = Reply::ok("page").header(name, value);
            if name == "Vary" || name == "Set-Cookie" {
                reply.header("Cache-Control", "max-age=60")
            } else {
                reply
            }
        });
        let proxy = Proxy::start(&origin).await;
        assert_eq!(proxy.get("/p").await.cache().get("detail"), Some(reason));
        for _ in 0..2 {
            let passed = proxy.get("/p").await;
            assert_eq!(passed.cache().get("detail"), Some(&*format!("pass-{reason}")));
        }
        let found = explain(&proxy, "/p").await;
        assert_eq!(found["rememberedUncacheable"], true, "{found}");
        assert_eq!(found["uncacheableSince"]["reason"], reason, "{found}");
        assert!(found["uncacheableSince"]["because"].as_str().is_some_and(|why| why.len() > 10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_storable_response_ends_the_passing_also_a_chunked_one() {
    let origin = Origin::start().await;
    origin.on("/p", |r| match r.nth {
        1 => Reply::cached("no-store", "1").into(),
        _ => {
            let fields = [("Cache-Control", "max-age=60"), ("Transfer-Encoding", "chunked")];
            Script::new().send(head(200, &fields)).send(chunk("2")).send(last_chunk(&[]))
        }
    });
    let proxy = Proxy::start(&origin).await;
    for _ in 0..3 {
        proxy.get("/p").await.assert_status(200);
    }
    proxy.get("/p").await.assert_is(200, "2").assert_hit();
    assert_eq!(origin.hits("/p"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_says_why_it_is_one() {
    let origin = Origin::start().await;
    origin.on("/v", |_| Reply::cached("max-age=60", "v").header("Vary", "X-V"));
    origin.on("/old", |_| {
        Reply::cached("max-age=1", "old").header("Age", "1").header("ETag", "\"1\"")
    });
    origin.on("*", |_| Reply::cached("max-age=60", "x".repeat(4000)));
    let memory = "memory: {bytesMax: 64KiB, objectBytesMax: 32KiB}";
    let proxy = Setup::of(&origin).config(memory).start().await;
    proxy.fetch("GET", "/v", &[("X-V", "1")]).await.assert_fwd("uri-miss");
    assert_eq!(misses(&proxy, "cold").await, 1.0);
    proxy.fetch("GET", "/v", &[("X-V", "2")]).await.assert_fwd("vary-miss");
    assert_eq!(misses(&proxy, "variant").await, 1.0);
    proxy.get("/old").await;
    proxy.get("/old").await.assert_fwd("stale");
    assert_eq!(misses(&proxy, "expired").await, 1.0);
    proxy.fetch("GET", "/v", &[("X-V", "1"), ("Cache-Control", "no-cache")]).await;
    assert_eq!(misses(&proxy, "request").await, 1.0);
    proxy.purge(serde_json::json!({"url": "http://shop.test/v"})).await;
    let purged = proxy.fetch("GET", "/v", &[("X-V", "1")]).await;
    purged.assert_fwd("uri-miss");
    assert_eq!(purged.cache().get("detail"), Some("purged"));
    assert_eq!(misses(&proxy, "purged").await, 1.0);
    // Far more than memory holds: what made room is told from what was never here.
    for n in 0..60 {
        proxy.get(&format!("/{n}")).await.assert_status(200);
    }
    eventually("a miss of what was evicted", || async {
        for n in 0..60 {
            proxy.get(&format!("/{n}")).await.assert_status(200);
        }
        (misses(&proxy, "evicted").await > 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_by_what_a_response_varies_and_what_the_next_answer_would_do() {
    let origin = Origin::start().await;
    origin.on("/v", |r| match r.header("cache-control") {
        Some(_) => Reply::new(404).body("gone"),
        None => {
            Reply::cached("max-age=60", "v").header("Vary", "X-V, Accept").header("ETag", "\"1\"")
        }
    });
    let proxy = Proxy::start(&origin).await;
    let nothing = explain(&proxy, "/v").await;
    assert_eq!(nothing["stored"]["state"], "miss", "{nothing}");
    let next = |found: &Value, answer: &str| {
        let rows = found["next"].as_array().unwrap();
        let row = rows.iter().find(|row| row["answer"] == answer);
        row.map(|row| row["effect"].as_str().unwrap().to_owned())
    };
    assert_eq!(next(&nothing, "confirms"), None);
    assert_eq!(next(&nothing, "storable").as_deref(), Some("store"));
    for value in ["1", "2"] {
        proxy.fetch("GET", "/v", &[("X-V", value)]).await.assert_status(200);
    }
    proxy.get("/v").await.assert_status(200);
    let found = explain(&proxy, "/v").await;
    assert_eq!(found["stored"]["vary"], serde_json::json!(["accept", "x-v"]), "{found}");
    assert_eq!(found["stored"]["variants"], 3, "{found}");
    for (answer, effect) in [
        ("confirms", "freshen"),
        ("storable", "replace"),
        ("unstorable", "invalidate"),
        ("server-error", "stand-in"),
        ("incomplete", "keep"),
        ("failed", "stand-in"),
    ] {
        assert_eq!(next(&found, answer).as_deref(), Some(effect), "{answer}: {found}");
    }
    assert!(found["next"][0]["rfc"].as_str().unwrap().starts_with("RFC "));
    let for_one = |row: &&Value| row["answer"] == "unstorable" && row["for"] == "client";
    let row = found["next"].as_array().unwrap().iter().find(for_one).unwrap();
    assert_eq!(row["effect"], "end-stale", "{found}");
    proxy.fetch("GET", "/v", &[("Cache-Control", "no-cache")]).await.assert_status(404);
    assert_eq!(explain(&proxy, "/v").await["stored"]["state"], "invalid");
}
