//! Unsafe methods invalidate what they changed, and only on success.

use crate::support::{Gate, Origin, Proxy, Reply, Script};

/// GETs are stored; anything else is answered with this reply.
async fn with_write(write: Reply) -> (Origin, Proxy) {
    let origin = Origin::start().await;
    origin.on("*", move |r| match r.method() {
        "GET" => Reply::cached("max-age=600", format!("{} {}", r.path(), gets(r))),
        _ => write.clone(),
    });
    let proxy = Proxy::start(&origin).await;
    for path in ["/a", "/other"] {
        proxy.get(path).await.assert_status(200);
        proxy.get(path).await.assert_hit();
    }
    (origin, proxy)
}

/// The nth request is the first GET, or the one after the write.
fn gets(request: &crate::support::Request) -> &'static str {
    if request.nth == 1 { "old" } else { "new" }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_method_that_succeeds_invalidates_its_target() {
    for method in ["POST", "PUT", "DELETE", "PATCH", "FROBNICATE"] {
        let (_origin, proxy) = with_write(Reply::ok("done")).await;
        let length = [("Content-Length", "0")];
        proxy.fetch(method, "/a", &length).await.assert_is(200, "done");
        proxy.get("/a").await.assert_is(200, "/a new");
        proxy.get("/other").await.assert_is(200, "/other old").assert_hit();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_after_a_write_counts_as_success() {
    let (_origin, proxy) = with_write(Reply::new(303).header("Location", "/elsewhere")).await;
    proxy.fetch("POST", "/a", &[("Content-Length", "0")]).await.assert_status(303);
    proxy.get("/a").await.assert_is(200, "/a new");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_method_that_fails_invalidates_nothing() {
    for status in [400, 404, 500, 503] {
        let (_origin, proxy) = with_write(Reply::new(status)).await;
        proxy.fetch("POST", "/a", &[("Content-Length", "0")]).await.assert_status(status);
        proxy.get("/a").await.assert_is(200, "/a old").assert_hit();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn safe_methods_invalidate_nothing() {
    let (_origin, proxy) = with_write(Reply::ok("fine")).await;
    for method in ["HEAD", "OPTIONS", "TRACE"] {
        proxy.fetch(method, "/a", &[]).await;
        proxy.get("/a").await.assert_is(200, "/a old").assert_hit();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn location_and_content_location_of_the_same_origin_are_invalidated() {
    for (name, value) in [
        ("Location", "/other"),
        ("Content-Location", "/other"),
        ("Location", "http://shop.test/other"),
        ("Content-Location", "http://shop.test/other"),
        ("Location", "other"),
    ] {
        let (_origin, proxy) = with_write(Reply::new(201).header(name, value)).await;
        proxy.fetch("POST", "/a", &[("Content-Length", "0")]).await.assert_status(201);
        let other = proxy.get("/other").await;
        assert_eq!(other.text(), "/other new", "{name}: {value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_location_of_another_origin_is_left_alone() {
    let write = Reply::new(201).header("Location", "http://victim.test/other");
    let (origin, proxy) = with_write(write).await;
    let victim = [("Host", "victim.test")];
    let before = proxy.fetch("GET", "/other", &victim).await.text();
    proxy.fetch("GET", "/other", &victim).await.assert_hit();
    let hits = origin.hits("/other");
    proxy.fetch("POST", "/a", &[("Content-Length", "0")]).await.assert_status(201);
    proxy.fetch("GET", "/other", &victim).await.assert_is(200, before).assert_hit();
    assert_eq!(origin.hits("/other"), hits);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_beats_a_fill_that_was_on_its_way() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/a", move |r| match (r.method(), r.nth) {
        ("GET", 1) => Script::new().gate(&held).reply(Reply::cached("max-age=600", "before")),
        ("GET", _) => Reply::cached("max-age=600", "after").into(),
        _ => Reply::ok("written").into(),
    });
    let proxy = Proxy::start(&origin).await;
    let mut early = proxy.connect().await;
    early.request("GET", "/a", &[]).await;
    origin.arrived("/a", 1).await;
    proxy.fetch("PUT", "/a", &[("Content-Length", "0")]).await.assert_is(200, "written");
    gate.open();
    early.response("GET").await.assert_status(200);
    proxy.get("/a").await.assert_is(200, "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_takes_every_variant() {
    let origin = Origin::start().await;
    origin.on("/v", |r| match r.method() {
        "GET" => {
            let language = r.header("accept-language").unwrap_or("none");
            let body = format!("{language} {}", r.nth);
            Reply::cached("max-age=600", body).header("Vary", "Accept-Language")
        }
        _ => Reply::new(204),
    });
    let proxy = Proxy::start(&origin).await;
    for language in ["en", "de"] {
        proxy.fetch("GET", "/v", &[("Accept-Language", language)]).await;
        proxy.fetch("GET", "/v", &[("Accept-Language", language)]).await.assert_hit();
    }
    proxy.fetch("DELETE", "/v", &[]).await.assert_status(204);
    for (language, body) in [("de", "de 4"), ("en", "en 5")] {
        proxy.fetch("GET", "/v", &[("Accept-Language", language)]).await.assert_is(200, body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_invalidates_the_groups_it_names_and_a_safe_method_does_not() {
    let origin = Origin::start().await;
    origin.on("*", |r| match r.method() {
        "GET" => Reply::cached("max-age=600", format!("{} {}", r.path(), gets(r)))
            .header("Cache-Groups", if r.path() == "/in" { "\"a\", \"shop\"" } else { "\"Shop\"" }),
        _ => Reply::ok("done").header("Cache-Group-Invalidation", "\"x\", \"shop\";y=1"),
    });
    let proxy = Proxy::start(&origin).await;
    for path in ["/in", "/out"] {
        proxy.get(path).await.assert_status(200);
        proxy.get(path).await.assert_hit();
    }
    proxy.fetch("OPTIONS", "/elsewhere", &[]).await.assert_is(200, "done");
    proxy.get("/in").await.assert_is(200, "/in old").assert_hit();
    proxy.fetch("POST", "/elsewhere", &[("Content-Length", "0")]).await.assert_is(200, "done");
    proxy.get("/in").await.assert_is(200, "/in new");
    // Names of groups are compared character by character (RFC 9875 §2.1).
    proxy.get("/out").await.assert_is(200, "/out old").assert_hit();
}
