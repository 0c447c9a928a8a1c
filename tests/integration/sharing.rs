//! What is shared between clients, and what never: regressions found by reading the code.

use serde_json::json;

use crate::support::{Client, Gate, Origin, Proxy, Reply, Script, Setup, waiting};

async fn ask(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> Client {
    let mut client = proxy.connect().await;
    client.request("GET", path, headers).await;
    client
}

/// A leader whose fetch is held, and a waiter that has joined it.
async fn two(
    origin: &Origin,
    proxy: &Proxy,
    path: &str,
    asked: usize,
    [first, second]: [&[(&str, &str)]; 2],
) -> (Client, Client) {
    let leader = ask(proxy, path, first).await;
    origin.arrived(path, asked).await;
    let waiter = ask(proxy, path, second).await;
    waiting(&[proxy], 1).await;
    (leader, waiter)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_does_not_see_the_leaders_cookie() {
    for (policy, control) in [
        ("routes: [{name: all, cache: {setCookie: strip}}]", "max-age=60"),
        ("routes: []", "max-age=60, private=\"set-cookie\""),
    ] {
        let origin = Origin::start().await;
        let gate = Gate::new();
        let reply = Reply::cached(control, "body").header("Set-Cookie", "sid=leader");
        origin.always("/c", Script::new().gate(&gate).reply(reply));
        let proxy = Setup::of(&origin).policy(policy).start().await;
        let (mut leader, mut waiter) = two(&origin, &proxy, "/c", 1, [&[], &[]]).await;
        gate.open();
        assert_eq!(leader.response("GET").await.header("set-cookie"), Some("sid=leader"));
        let shared = waiter.response("GET").await;
        shared.assert_is(200, "body");
        assert_eq!(shared.header("set-cookie"), None, "{control}");
        assert_eq!(origin.hits("/c"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_304_that_may_not_be_stored_answers_its_own_request_only() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/v", move |r| match r.header("if-none-match") {
        Some(_) => {
            let reply = Reply::new(304).header("ETag", "\"1\"").header("Set-Cookie", "sid=leader");
            Script::new().gate(&held).reply(reply)
        }
        None => Reply::cached("no-cache", format!("full {}", r.nth)).header("ETag", "\"1\"").into(),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/v").await.assert_is(200, "full 1");
    let (mut leader, mut waiter) = two(&origin, &proxy, "/v", 2, [&[], &[]]).await;
    gate.open();
    let own = leader.response("GET").await;
    own.assert_is(200, "full 1");
    assert_eq!(own.header("set-cookie"), Some("sid=leader"));
    assert_eq!(waiter.response("GET").await.header("set-cookie"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_variant_is_not_given_to_who_asked_for_another() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    // That it varies is not said before the validation: until then both want the same.
    origin.on("/l", move |r| {
        let language = r.header("accept-language").unwrap_or("").to_owned();
        let control = "max-age=0, must-revalidate";
        let vary = |reply: Reply| reply.header("Vary", "Accept-Language").header("ETag", "\"1\"");
        if r.nth == 1 {
            return Reply::cached(control, language).header("ETag", "\"1\"").into();
        }
        match &*language {
            "en" => Script::new()
                .gate(&held)
                .reply(vary(Reply::new(304).header("Cache-Control", control))),
            _ => vary(Reply::cached(control, language)).into(),
        }
    });
    let proxy = Proxy::start(&origin).await;
    let english = [("Accept-Language", "en")];
    proxy.fetch("GET", "/l", &english).await.assert_is(200, "en");
    let german = [("Accept-Language", "de")];
    let (mut leader, mut waiter) = two(&origin, &proxy, "/l", 2, [&english, &german]).await;
    gate.open();
    leader.response("GET").await.assert_is(200, "en");
    waiter.response("GET").await.assert_is(200, "de");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_clients_refusal_does_not_end_caching_for_all() {
    let origin = Origin::start().await;
    origin.on("/p", |r| match r.header("authorization") {
        Some(_) => Reply::new(401).body("no"),
        None => Reply::cached("max-age=600", "good"),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/p").await.assert_is(200, "good");
    let junk = [("Authorization", "junk"), ("Cache-Control", "no-cache")];
    proxy.fetch("GET", "/p", &junk).await.assert_status(401);
    proxy.get("/p").await.assert_is(200, "good").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impossible_range_does_not_end_caching_for_all() {
    let origin = Origin::start().await;
    origin.on("/f", |r| match r.header("range") {
        Some(_) => Reply::new(416).header("Content-Range", "bytes */4"),
        None => Reply::cached("max-age=600", "file"),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.fetch("GET", "/f", &[("Range", "bytes=9999-")]).await.assert_status(416);
    proxy.get("/f").await.assert_is(200, "file");
    proxy.get("/f").await.assert_is(200, "file").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_the_origin_does_not_see_chooses_no_variant() {
    let origin = Origin::start().await;
    origin.on("/n", |r| {
        let language = r.header("accept-language").unwrap_or("none").to_owned();
        Reply::cached("max-age=600", language).header("Vary", "Accept-Language")
    });
    let proxy = Proxy::start(&origin).await;
    let nominated = [("Accept-Language", "de"), ("Connection", "accept-language")];
    proxy.fetch("GET", "/n", &nominated).await.assert_is(200, "none");
    proxy.fetch("GET", "/n", &[("Accept-Language", "de")]).await.assert_is(200, "de");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_can_make_a_response_vary() {
    let origin = Origin::start().await;
    origin.on("/w", |r| match r.header("if-none-match") {
        Some(_) => Reply::new(304)
            .header("ETag", "\"1\"")
            .header("Vary", "Accept-Language")
            .header("Cache-Control", "max-age=600"),
        None => {
            let language = r.header("accept-language").unwrap_or("none").to_owned();
            Reply::cached("max-age=600", language).header("ETag", "\"1\"")
        }
    });
    let proxy = Proxy::start(&origin).await;
    let english = [("Accept-Language", "en")];
    proxy.fetch("GET", "/w", &english).await.assert_is(200, "en");
    proxy.purge(json!({"url": "http://shop.test/w", "mode": "soft"})).await;
    proxy.fetch("GET", "/w", &english).await.assert_is(200, "en");
    proxy.fetch("GET", "/w", &[("Accept-Language", "de")]).await.assert_is(200, "de");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_chosen_by_a_header_keeps_its_responses_to_itself() {
    let origin = Origin::start().await;
    origin.on("/r", |r| Reply::cached("max-age=600", r.nth.to_string()));
    let policy = "routes:
  - {name: debug, match: {headers: {x-debug: '*'}}, cache: {ttl: {override: 1h}}}
  - {name: plain}
";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    proxy.fetch("GET", "/r", &[("X-Debug", "1")]).await.assert_is(200, "1");
    proxy.get("/r").await.assert_is(200, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_becomes_cacheable_is_cached_again() {
    let origin = Origin::start().await;
    origin.on("/k", |r| {
        let control = if r.nth == 1 { "no-store" } else { "max-age=600" };
        Reply::cached(control, r.nth.to_string())
    });
    let proxy = Proxy::start(&origin).await;
    // Remembered as not cacheable, then seen to be cacheable, then fetched for the store.
    for n in ["1", "2", "3"] {
        proxy.get("/k").await.assert_is(200, n);
    }
    proxy.get("/k").await.assert_is(200, "3").assert_hit();
}
