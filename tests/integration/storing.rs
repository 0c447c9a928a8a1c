//! What is stored and what is not.

use crate::support::{Gate, Origin, Proxy, Reply, Script, Setup};

/// Asks twice; the answers carry the count of requests at the origin.
async fn assert_stored(stored: bool, reply: impl Fn() -> Reply + Send + Sync + 'static) {
    let origin = Origin::start().await;
    origin.on("/x", move |r| reply().body(r.nth.to_string()));
    let proxy = Proxy::start(&origin).await;
    proxy.get("/x").await;
    let second = proxy.get("/x").await;
    assert_eq!(second.cache().has("hit"), stored, "{second:#?}");
    assert_eq!(origin.hits("/x"), if stored { 1 } else { 2 }, "{second:#?}");
}

fn with(status: u16, lines: &'static [(&'static str, &'static str)]) -> impl Fn() -> Reply {
    move || lines.iter().fold(Reply::new(status), |reply, (n, v)| reply.header(n, v))
}

#[tokio::test(flavor = "multi_thread")]
async fn explicit_freshness_is_stored() {
    assert_stored(true, with(200, &[("Cache-Control", "max-age=60")])).await;
    assert_stored(true, with(200, &[("Cache-Control", "s-maxage=60")])).await;
    assert_stored(true, with(200, &[("Cache-Control", "s-maxage=60, max-age=0")])).await;
    assert_stored(true, with(200, &[("Expires", "Thu, 18 Aug 2050 02:01:18 GMT")])).await;
    assert_stored(true, with(404, &[("Cache-Control", "max-age=60")])).await;
    assert_stored(true, with(301, &[("Cache-Control", "max-age=60"), ("Location", "/y")])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_reused_is_not_reused() {
    assert_stored(false, with(200, &[("Cache-Control", "no-store, max-age=60")])).await;
    assert_stored(false, with(200, &[("Cache-Control", "no-cache, max-age=60")])).await;
    assert_stored(false, with(200, &[("Cache-Control", "max-age=0")])).await;
    assert_stored(false, with(200, &[("Cache-Control", "s-maxage=0, max-age=60")])).await;
    assert_stored(false, with(200, &[("Expires", "0")])).await;
    assert_stored(false, with(200, &[("Expires", "Thu, 18 Aug 1994 02:01:18 GMT")])).await;
    assert_stored(false, with(200, &[("Cache-Control", "max-age=60"), ("Vary", "*")])).await;
    assert_stored(false, with(404, &[])).await;
    assert_stored(false, with(500, &[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targeted_control_wins_over_cache_control() {
    let cdn = &[("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=60")];
    assert_stored(true, with(200, cdn)).await;
    let cdn = &[("Cache-Control", "max-age=60"), ("CDN-Cache-Control", "no-store")];
    assert_stored(false, with(200, cdn)).await;
    let ours = &[("CDN-Cache-Control", "no-store"), ("Outrigger-Cache-Control", "max-age=60")];
    assert_stored(true, with(200, ours)).await;
    let ours = &[("CDN-Cache-Control", "max-age=60"), ("Outrigger-Cache-Control", "no-store")];
    assert_stored(false, with(200, ours)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_with_set_cookie_is_not_stored_by_default() {
    assert_stored(false, with(200, &[("Cache-Control", "max-age=60"), ("Set-Cookie", "id=1")]))
        .await;
    let public = &[("Cache-Control", "public, s-maxage=60"), ("Set-Cookie", "id=1")];
    assert_stored(false, with(200, public)).await;
}

async fn with_cookies(handling: &str) -> (Origin, Proxy) {
    let origin = Origin::start().await;
    origin.on("/c", |r| {
        Reply::cached("max-age=60", "page")
            .header("Set-Cookie", format!("id={}", r.nth))
            .header("Set-Cookie", "theme=dark")
    });
    let policy = format!(
        "routes:\n  - name: c\n    match: {{path: {{prefix: /}}}}\n    cache: {{setCookie: {handling}}}\n"
    );
    let proxy = Setup::of(&origin).policy(&policy).start().await;
    (origin, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn set_cookie_strip_stores_the_response_without_its_cookies() {
    let (origin, proxy) = with_cookies("strip").await;
    proxy.get("/c").await.assert_is(200, "page");
    let hit = proxy.get("/c").await;
    hit.assert_is(200, "page").assert_hit();
    assert_eq!(hit.header("set-cookie"), None, "{hit:#?}");
    assert_eq!(origin.hits("/c"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn set_cookie_store_stores_the_response_with_its_cookies() {
    let (origin, proxy) = with_cookies("store").await;
    proxy.get("/c").await.assert_is(200, "page");
    let hit = proxy.get("/c").await;
    hit.assert_is(200, "page").assert_hit();
    assert_eq!(hit.head.all("set-cookie"), ["id=1", "theme=dark"], "{hit:#?}");
    assert_eq!(origin.hits("/c"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn set_cookie_bypass_passes_the_cookies_on_every_time() {
    let (origin, proxy) = with_cookies("bypass").await;
    for id in ["id=1", "id=2"] {
        let response = proxy.get("/c").await;
        response.assert_is(200, "page");
        assert_eq!(response.head.all("set-cookie"), [id, "theme=dark"], "{response:#?}");
    }
    assert_eq!(origin.hits("/c"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_no_store_leaves_nothing_behind() {
    let origin = Origin::start().await;
    origin.on("/x", |r| Reply::cached("max-age=60", r.nth.to_string()));
    let proxy = Proxy::start(&origin).await;
    proxy.fetch("GET", "/x", &[("Cache-Control", "no-store")]).await.assert_is(200, "1");
    proxy.get("/x").await.assert_is(200, "2");
    proxy.get("/x").await.assert_is(200, "2").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_passed_and_never_stored() {
    let origin = Origin::start().await;
    origin.on("/x", |r| Reply::cached("max-age=60", format!("{} {}", r.method(), r.nth)));
    let proxy = Proxy::start(&origin).await;
    for (n, method) in ["POST", "POST", "OPTIONS", "OPTIONS", "FROB"].into_iter().enumerate() {
        let response = proxy.fetch(method, "/x", &[("Content-Length", "0")]).await;
        response.assert_is(200, format!("{method} {}", n + 1)).assert_fwd("method");
    }
    proxy.get("/x").await.assert_is(200, "GET 6");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_above_the_cap_is_delivered_and_not_stored() {
    let origin = Origin::start().await;
    let large = vec![b'x'; 200_000];
    let length = large.len().to_string();
    let lines = [("Cache-Control", "max-age=60"), ("Content-Length", length.as_str())];
    let counted = crate::support::Script::new();
    origin.always("/counted", counted.send(crate::support::head(200, &lines)).send(&large));
    let lines = [("Cache-Control", "max-age=60"), ("Transfer-Encoding", "chunked")];
    origin.always(
        "/chunked",
        crate::support::Script::new()
            .send(crate::support::head(200, &lines))
            .send(crate::support::chunk(&large))
            .send(crate::support::last_chunk(&[])),
    );
    origin.always("/small", Reply::cached("max-age=60", "small"));
    let proxy = Setup::of(&origin).config("memory: {bytesMax: 16MiB, objectBytesMax: 64KiB}");
    let proxy = proxy.start().await;
    for path in ["/counted", "/chunked"] {
        for n in 1..=2 {
            let response = proxy.get(path).await;
            assert_eq!(response.body.len(), large.len(), "{path} {:?}", response.end);
            assert_eq!(origin.hits(path), n, "{path} was stored");
        }
    }
    proxy.get("/small").await;
    proxy.get("/small").await.assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_with_a_digest_of_the_whole_url_survives_odd_paths() {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::cached("max-age=60", r.target()));
    let proxy = Proxy::start(&origin).await;
    let paths =
        ["/a%2Fb", "/a/b", "/a//b", "/a/./b", "/a/../b", "/%61", "/a;x", "/a?", "/a?b", "/*"];
    for path in paths {
        proxy.get(path).await;
    }
    // Whatever is treated as equal must have been sent to the origin as equal:
    // each answer names the target that the origin saw for this entry.
    for path in ["/a%2Fb", "/a/b", "/a//b", "/a;x", "/a?b"] {
        proxy.get(path).await.assert_is(200, path).assert_hit();
    }
}

#[tokio::test]
async fn a_response_to_post_is_stored_for_get_where_the_origin_says_so() {
    let origin = Origin::start().await;
    origin.on("/p", |request| {
        Reply::cached("max-age=60", request.method()).header("Content-Location", "/p")
    });
    let proxy = Proxy::start(&origin).await;
    proxy.fetch("POST", "/p", &[("Content-Length", "0")]).await.assert_is(200, "POST");
    proxy.get("/p").await.assert_is(200, "POST").assert_hit();
    proxy.purge(serde_json::json!({"url": "http://shop.test/p"})).await;
    proxy.get("/p").await.assert_is(200, "GET").assert_fwd("uri-miss");
}

/// A POST that the origin holds until the gate opens, in a task of its own.
fn held_post(proxy: &Proxy, id: &'static str) -> tokio::task::JoinHandle<String> {
    let addr = proxy.addr;
    tokio::spawn(async move {
        let fields = [("Content-Length", "0"), ("X-Id", id)];
        crate::support::fetch(addr, "POST", "/p", &fields).await.text()
    })
}

async fn origin_with_gates(first: &Gate, second: &Gate) -> Origin {
    let origin = Origin::start().await;
    let (first, second) = (first.clone(), second.clone());
    origin.on("/p", move |request| {
        let id = request.header("x-id").unwrap_or("get").to_owned();
        let reply = Reply::cached("max-age=60", &id).header("Content-Location", "/p");
        match id.as_str() {
            "first" => Script::new().gate(&first).reply(reply),
            "second" => Script::new().gate(&second).reply(reply),
            _ => Script::new().reply(reply),
        }
    });
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_while_a_post_is_under_way_is_not_undone_by_its_response() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&origin).await;
    for purge in [
        serde_json::json!({"url": "http://shop.test/p"}),
        serde_json::json!({"prefix": "http://shop.test/"}),
        serde_json::json!({"all": true}),
    ] {
        let gate = Gate::new();
        let held = gate.clone();
        origin.on("/p", move |request| {
            let reply =
                Reply::cached("max-age=60", request.method()).header("Content-Location", "/p");
            match request.method() {
                "POST" => Script::new().gate(&held).reply(reply),
                _ => Script::new().reply(reply),
            }
        });
        let posts = origin.hits("/p");
        let post = held_post(&proxy, "first");
        origin.arrived("/p", posts + 1).await;
        proxy.purge(purge).await;
        gate.open();
        assert_eq!(post.await.unwrap(), "POST");
        proxy.get("/p").await.assert_is(200, "GET").assert_fwd("uri-miss");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_posts_that_overtake_each_other_none_is_stored_out_of_order() {
    let (first, second) = (Gate::new(), Gate::new());
    let origin = origin_with_gates(&first, &second).await;
    let proxy = Proxy::start(&origin).await;
    let slow = held_post(&proxy, "first");
    origin.arrived("/p", 1).await;
    let quick = held_post(&proxy, "second");
    origin.arrived("/p", 2).await;
    second.open();
    assert_eq!(quick.await.unwrap(), "second");
    first.open();
    assert_eq!(slow.await.unwrap(), "first");
    proxy.get("/p").await.assert_is(200, "get").assert_fwd("uri-miss");
}
