//! What requests with cookies are given, and what of their responses others are given.

use crate::support::{Gate, H2Client, Origin, Proxy, Reply, Request, Script, Setup, fetch};

/// Tells everybody who they are by their cookies, with what `reply` adds.
async fn personal(reply: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> Origin {
    let origin = Origin::start().await;
    origin.on("/me", move |r| {
        let who = r.header("cookie").unwrap_or("nobody");
        reply(Reply::ok(who).header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT"))
    });
    origin
}

async fn proxy(origin: &Origin, cache: &str) -> Proxy {
    let policy = format!("routes: [{{name: all, cache: {cache}}}]");
    Setup::of(origin).policy(&policy).start().await
}

async fn asks(proxy: &Proxy, cookie: &str) -> String {
    proxy.fetch("GET", "/me", &[("Cookie", cookie)]).await.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_that_only_policy_gives_is_not_for_requests_with_cookies() {
    for cache in [
        "{ttl: {default: 60s}}",
        "{ttl: {status: {200: 60s}}}",
        "{ttl: {override: 60s}}",
        "{ttl: {heuristic: 10%}}",
    ] {
        let origin = personal(|reply| reply).await;
        let proxy = proxy(&origin, cache).await;
        assert_eq!(asks(&proxy, "session=ann").await, "session=ann", "{cache}");
        assert_eq!(asks(&proxy, "session=bob").await, "session=bob", "{cache}");
        proxy.get("/me").await.assert_is(200, "nobody");
        proxy.get("/me").await.assert_is(200, "nobody").assert_hit();
        // What was made for nobody in particular is not the page of a user who is known.
        assert_eq!(asks(&proxy, "session=ann").await, "session=ann", "{cache}");
        let client = H2Client::connect(proxy.addr).await;
        let request = client.to("GET", "/me").header("cookie", "a=1").header("cookie", "b=2");
        let response = client
            .send(request.body(crate::support::ChannelBody::of("", &[])).unwrap())
            .await
            .unwrap();
        assert_eq!(crate::support::read(response).await.body, "a=1; b=2", "{cache}");
        proxy.get("/me").await.assert_is(200, "nobody").assert_hit();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_origin_says_about_sharing_counts_with_cookies_too() {
    for control in ["max-age=60", "s-maxage=60", "public"] {
        let origin = personal(move |reply| reply.header("Cache-Control", control)).await;
        let proxy = proxy(&origin, "{ttl: {default: 60s}}").await;
        assert_eq!(asks(&proxy, "session=ann").await, "session=ann");
        assert_eq!(asks(&proxy, "session=bob").await, "session=ann", "{control}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn harmless_cookies_neither_stop_sharing_nor_coalescing() {
    let (origin, gate) = (Origin::start().await, Gate::new());
    let held = gate.clone();
    origin.on("/me", move |_: &Request| Script::new().gate(&held).reply(Reply::ok("page")));
    let proxy = proxy(&origin, "{ttl: {default: 60s}, harmlessCookies: [_ga*, theme]}").await;
    let addr = proxy.addr;
    let first = tokio::spawn(fetch(addr, "GET", "/me", &[("Cookie", "_ga=1; theme=dark")]));
    origin.arrived("/me", 1).await;
    let second = tokio::spawn(fetch(addr, "GET", "/me", &[("Cookie", "_ga_x=2")]));
    crate::support::waiting(&[&proxy], 1).await;
    gate.open();
    for response in [first, second] {
        response.await.unwrap().assert_is(200, "page");
    }
    proxy.get("/me").await.assert_is(200, "page").assert_hit();
    assert_eq!(origin.hits("/me"), 1);
    // One more cookie, and it may be somebody's page.
    proxy.fetch("GET", "/me", &[("Cookie", "_ga=1; session=x")]).await.assert_fwd("request");
    assert_eq!(origin.hits("/me"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_in_the_key_may_select_the_response() {
    let origin = personal(|reply| reply).await;
    let proxy = proxy(&origin, "{ttl: {default: 60s}, key: {cookies: [session]}}").await;
    for _ in 0..2 {
        assert_eq!(asks(&proxy, "session=ann").await, "session=ann");
        assert_eq!(asks(&proxy, "session=bob").await, "session=bob");
    }
    assert_eq!(origin.hits("/me"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_of_a_request_with_credentials_is_answered_with_304() {
    for credentials in [("Cookie", "a=1"), ("Authorization", "Bearer x")] {
        let origin = Origin::start().await;
        origin.on("/me", |r| match r.header("if-none-match") {
            Some("\"v1\"") => Reply::new(304).header("ETag", "\"v1\""),
            _ => Reply::cached("private, no-cache", "page").header("ETag", "\"v1\""),
        });
        let proxy = Proxy::start(&origin).await;
        let condition = ("If-None-Match", "\"v1\"");
        // Nothing is known about the key: the whole is fetched, and the condition is judged here.
        let first = proxy.fetch("GET", "/me", &[credentials, condition]).await;
        first.assert_is(304, "");
        assert_eq!(first.header("etag"), Some("\"v1\""));
        // From then on the condition goes to the origin.
        proxy.fetch("GET", "/me", &[credentials, condition]).await.assert_is(304, "");
        assert_eq!(origin.last("/me").header("if-none-match"), Some("\"v1\""));
        proxy.fetch("GET", "/me", &[credentials]).await.assert_is(200, "page");
        let other = ("If-None-Match", "\"v0\"");
        proxy.fetch("GET", "/me", &[credentials, other]).await.assert_is(200, "page");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_varies_by_the_address_of_the_client_is_for_that_client() {
    let origin = Origin::start().await;
    for (path, vary) in [("/for", "X-Forwarded-For"), ("/forwarded", "accept, forwarded")] {
        origin.on(path, move |r| {
            let seen = r.header("x-forwarded-for").unwrap_or_default().to_owned();
            Reply::cached("max-age=60", seen).header("Vary", vary)
        });
    }
    let proxy = Proxy::start(&origin).await;
    // From loopback, what the client says is what the upstream gets.
    for who in ["10.0.0.1", "10.0.0.2", "10.0.0.1"] {
        let fields = [("X-Forwarded-For", who)];
        proxy.fetch("GET", "/for", &fields).await.assert_is(200, who);
    }
    assert_eq!(origin.hits("/for"), 2);
}
