//! Purging through the admin port: what goes, what stays, and that a fill that
//! is on its way cannot bring it back.

use serde_json::{Value, json};

use crate::support::{Gate, Origin, Proxy, Reply, Script, Setup, head};

/// Answers everything with a cacheable body that tells how often it was asked,
/// tagged by the path.
async fn tagged() -> (Origin, Proxy) {
    let origin = Origin::start().await;
    origin.on("*", |r| {
        let reply = Reply::cached("max-age=600", format!("{} {}", r.path(), r.nth));
        match r.path() {
            "/t/surrogate" => reply.header("Surrogate-Key", "other red blue"),
            "/t/cache-tag" => reply.header("Cache-Tag", "other,red, blue"),
            "/t/groups" => reply.header("Cache-Groups", "\"other\", \"red\""),
            "/t/green" => reply.header("Surrogate-Key", "green redder"),
            _ => reply,
        }
    });
    let proxy = Proxy::start(&origin).await;
    (origin, proxy)
}

/// Fetches each path once: all are stored afterwards.
async fn store(proxy: &Proxy, paths: &[&str]) {
    for path in paths {
        proxy.get(path).await.assert_status(200);
        proxy.get(path).await.assert_is(200, format!("{path} 1")).assert_hit();
    }
}

async fn assert_gone(proxy: &Proxy, path: &str) {
    proxy.get(path).await.assert_is(200, format!("{path} 2"));
}

async fn assert_kept(proxy: &Proxy, path: &str) {
    proxy.get(path).await.assert_is(200, format!("{path} 1")).assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_is_purged_and_nothing_else() {
    let (_origin, proxy) = tagged().await;
    store(&proxy, &["/a", "/a/1", "/ab", "/b"]).await;
    let answer = proxy.purge(json!({"url": "http://shop.test/a"})).await;
    assert!(answer["seq"].as_u64().is_some_and(|seq| seq > 0), "{answer}");
    assert!(answer["applied"].is_u64(), "{answer}");
    assert_gone(&proxy, "/a").await;
    for path in ["/a/1", "/ab", "/b"] {
        assert_kept(&proxy, path).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sequence_rises_with_every_purge() {
    let (_origin, proxy) = tagged().await;
    let mut last = 0;
    for what in [json!({"all": true}), json!({"tag": "x"}), json!({"url": "http://shop.test/"})] {
        let answer = proxy.purge(what).await;
        let seq = answer["seq"].as_u64().expect("a sequence");
        assert!(seq > last, "{answer} after {last}");
        last = seq;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_purges_whatever_field_named_it() {
    let (_origin, proxy) = tagged().await;
    let red = ["/t/surrogate", "/t/cache-tag", "/t/groups"];
    let other = ["/t/green", "/t/none"];
    store(&proxy, &red).await;
    store(&proxy, &other).await;
    proxy.purge(json!({"tag": "red"})).await;
    for path in red {
        assert_gone(&proxy, path).await;
    }
    for path in other {
        assert_kept(&proxy, path).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_purges_what_begins_with_it() {
    let (_origin, proxy) = tagged().await;
    store(&proxy, &["/p/1", "/p/2/3", "/p", "/q/1"]).await;
    proxy.purge(json!({"prefix": "http://shop.test/p/"})).await;
    assert_gone(&proxy, "/p/1").await;
    assert_gone(&proxy, "/p/2/3").await;
    assert_kept(&proxy, "/p").await;
    assert_kept(&proxy, "/q/1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_purges_everything() {
    let (_origin, proxy) = tagged().await;
    store(&proxy, &["/a", "/p/1", "/t/green"]).await;
    proxy.purge(json!({"all": true})).await;
    for path in ["/a", "/p/1", "/t/green"] {
        assert_gone(&proxy, path).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_is_about_the_past_only() {
    let (_origin, proxy) = tagged().await;
    store(&proxy, &["/a"]).await;
    proxy.purge(json!({"all": true})).await;
    proxy.purge(json!({"url": "http://shop.test/a"})).await;
    assert_gone(&proxy, "/a").await;
    proxy.get("/a").await.assert_is(200, "/a 2").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_takes_every_variant() {
    let origin = Origin::start().await;
    origin.on("/v", |r| {
        let language = r.header("accept-language").unwrap_or("none");
        Reply::cached("max-age=600", format!("{language} {}", r.nth))
            .header("Vary", "Accept-Language")
    });
    let proxy = Proxy::start(&origin).await;
    for language in ["en", "de", "fr"] {
        proxy.fetch("GET", "/v", &[("Accept-Language", language)]).await;
        proxy.fetch("GET", "/v", &[("Accept-Language", language)]).await.assert_hit();
    }
    proxy.purge(json!({"url": "http://shop.test/v"})).await;
    for (language, body) in [("fr", "fr 4"), ("en", "en 5"), ("de", "de 6")] {
        proxy.fetch("GET", "/v", &[("Accept-Language", language)]).await.assert_is(200, body);
    }
}

/// An entry with a validator, purged in this mode: the origin's next request.
async fn purge_and_ask(mode: Option<&str>) -> (Origin, Proxy) {
    let origin = Origin::start().await;
    origin.on("/m", |r| match r.header("if-none-match") {
        Some("\"v1\"") => {
            Reply::new(304).header("ETag", "\"v1\"").header("Cache-Control", "max-age=600")
        }
        _ => Reply::cached("max-age=600", format!("full {}", r.nth)).header("ETag", "\"v1\""),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/m").await.assert_is(200, "full 1");
    proxy.get("/m").await.assert_hit();
    let mut what = json!({"url": "http://shop.test/m"});
    if let Some(mode) = mode {
        what["mode"] = Value::from(mode);
    }
    proxy.purge(what).await;
    (origin, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_purge_forgets_the_entry() {
    for mode in [Some("hard"), None] {
        let (origin, proxy) = purge_and_ask(mode).await;
        proxy.get("/m").await.assert_is(200, "full 2");
        assert_eq!(origin.last("/m").header("if-none-match"), None, "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_purge_makes_the_entry_stale() {
    let (origin, proxy) = purge_and_ask(Some("soft")).await;
    // Stale, so it is validated; still there, so the body need not come again.
    proxy.get("/m").await.assert_is(200, "full 1");
    assert_eq!(origin.hits("/m"), 2);
    assert_eq!(origin.last("/m").header("if-none-match"), Some("\"v1\""));
    proxy.get("/m").await.assert_is(200, "full 1").assert_hit();
    assert_eq!(origin.hits("/m"), 2, "validated, yet not fresh again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_purge_alone_does_not_permit_stale_answers() {
    for control in ["max-age=600", "max-age=600, must-revalidate", "s-maxage=600"] {
        let origin = Origin::start().await;
        origin.on("/m", move |r| Reply::cached(control, r.nth.to_string()));
        let proxy = Proxy::start(&origin).await;
        proxy.get("/m").await.assert_is(200, "1");
        proxy.get("/m").await.assert_is(200, "1").assert_hit();
        proxy.purge(json!({"url": "http://shop.test/m", "mode": "soft"})).await;
        // Nothing said that stale may be served: the next answer is the new one.
        let next = proxy.get("/m").await;
        assert_eq!(next.text(), "2", "{control}: {next:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_purge_lets_stale_while_revalidate_serve_at_once() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/s", move |r| {
        let control = "max-age=600, stale-while-revalidate=600";
        let reply = Reply::cached(control, r.nth.to_string());
        if r.nth == 1 { reply.into() } else { Script::new().gate(&held).reply(reply) }
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/s").await.assert_is(200, "1");
    proxy.purge(json!({"url": "http://shop.test/s", "mode": "soft"})).await;
    proxy.get("/s").await.assert_is(200, "1");
    origin.arrived("/s", 2).await;
    gate.open();
    crate::support::eventually("the refreshed entry", || async {
        (proxy.get("/s").await.text() == "2").then_some(())
    })
    .await;
}

/// A fill is held at the origin, before its head or in its body, while a purge
/// runs: what it brings must not be served afterwards.
async fn assert_purge_beats_fill(what: Value, in_body: bool) {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/r", move |r| {
        let body = format!("body {}", r.nth);
        let length = body.len().to_string();
        let lines = [
            ("Cache-Control", "max-age=600"),
            ("Surrogate-Key", "red"),
            ("Content-Length", length.as_str()),
        ];
        let head = head(200, &lines);
        match (r.nth, in_body) {
            (1, true) => Script::new().send(head).send(&body[..2]).gate(&held).send(&body[2..]),
            (1, false) => Script::new().gate(&held).send(head).send(body),
            _ => Script::new().send(head).send(body),
        }
    });
    // No request may be saved by a time-out of its waiting.
    let proxy = Setup::of(&origin).config("coalesce: {waitMsMax: 60000}").start().await;
    let mut early = proxy.connect().await;
    early.request("GET", "/r", &[]).await;
    origin.arrived("/r", 1).await;
    if in_body {
        early.final_head().await;
    }
    proxy.purge(what.clone()).await;
    // Who asks after the purge gets nothing that was fetched before it. Only whether a tag
    // concerns the held fetch cannot be told before its head; then waiting for it is right.
    let mut after = proxy.connect().await;
    after.request("GET", "/r", &[]).await;
    if what.get("tag").is_some() && !in_body {
        gate.open();
    }
    after.response("GET").await.assert_is(200, "body 2");
    gate.open();
    early.until("body 1").await;
    // And when the old fetch ends last, it does not replace the new entry.
    for _ in 0..3 {
        proxy.get("/r").await.assert_is(200, "body 2");
    }
    assert!(origin.hits("/r") <= 5, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_beats_a_fill_that_waits_for_its_head() {
    assert_purge_beats_fill(json!({"url": "http://shop.test/r"}), false).await;
    assert_purge_beats_fill(json!({"tag": "red"}), false).await;
    assert_purge_beats_fill(json!({"prefix": "http://shop.test/"}), false).await;
    assert_purge_beats_fill(json!({"all": true}), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_beats_a_fill_in_the_middle_of_its_body() {
    assert_purge_beats_fill(json!({"url": "http://shop.test/r"}), true).await;
    assert_purge_beats_fill(json!({"tag": "red"}), true).await;
    assert_purge_beats_fill(json!({"prefix": "http://shop.test/"}), true).await;
    assert_purge_beats_fill(json!({"all": true}), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_from_before_a_purge_is_not_stored_even_when_nobody_asked_since() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/r", move |r| {
        let reply = Reply::cached("max-age=600", format!("body {}", r.nth));
        if r.nth == 1 { Script::new().gate(&held).reply(reply) } else { reply.into() }
    });
    let proxy = Proxy::start(&origin).await;
    let mut early = proxy.connect().await;
    early.request("GET", "/r", &[]).await;
    origin.arrived("/r", 1).await;
    proxy.purge(json!({"url": "http://shop.test/r"})).await;
    gate.open();
    early.response("GET").await.assert_status(200);
    proxy.get("/r").await.assert_is(200, "body 2");
    proxy.get("/r").await.assert_is(200, "body 2").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_makes_no_sense_is_refused() {
    let (_origin, proxy) = tagged().await;
    store(&proxy, &["/a"]).await;
    for body in [
        "",
        "not json",
        "{}",
        "[]",
        r#"{"url": 5}"#,
        r#"{"all": false}"#,
        r#"{"url": "http://shop.test/a", "tag": "x"}"#,
        r#"{"url": "http://shop.test/a", "mode": "odd"}"#,
        r#"{"url": "http://shop.test/a", "unknown": 1}"#,
        r#"{"url": "not a url"}"#,
    ] {
        let refused = proxy.try_purge(body).await;
        assert_eq!(refused.status, 400, "{body}: {refused:#?}");
    }
    proxy.admin("/purge").await.assert_status(405);
    assert_kept(&proxy, "/a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_by_a_web_page_is_refused() {
    let (_origin, proxy) = tagged().await;
    store(&proxy, &["/a"]).await;
    // A form can send text/plain across origins without asking; JSON it cannot.
    let mut client = crate::support::Client::connect(proxy.admin).await;
    let body = r#"{"all":true}"#;
    client
        .send(format!(
            "POST /purge HTTP/1.1\r\nHost: admin\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    client.response("POST").await.assert_status(415);
    assert_kept(&proxy, "/a").await;
}
