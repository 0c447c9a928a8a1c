//! Conditional requests: answered from the store, and asked of the origin.

use crate::support::{Origin, Proxy, Reply, eventually};

const DATE: &str = "Tue, 01 Sep 2026 10:00:00 GMT";

async fn stored() -> (Origin, Proxy) {
    let origin = Origin::start().await;
    origin.always(
        "/c",
        Reply::cached("max-age=600", "body")
            .header("ETag", "\"v1\"")
            .header("Last-Modified", DATE)
            .header("X-Mine", "kept"),
    );
    let proxy = Proxy::start(&origin).await;
    proxy.get("/c").await.assert_is(200, "body");
    (origin, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_holds_is_a_304_from_the_store() {
    let (origin, proxy) = stored().await;
    for (name, value) in [
        ("If-None-Match", "\"v1\""),
        ("If-None-Match", "W/\"v1\""),
        ("If-None-Match", "\"v0\", \"v1\""),
        ("If-None-Match", "*"),
        ("If-Modified-Since", DATE),
        ("If-Modified-Since", "Wed, 02 Sep 2026 10:00:00 GMT"),
    ] {
        let mut client = proxy.connect().await;
        let same = client.get("/c", &[(name, value)]).await;
        assert_eq!(same.status, 304, "{name}: {value}: {same:#?}");
        same.assert_hit();
        assert_eq!(same.header("etag"), Some("\"v1\""), "{same:#?}");
        assert!(same.age().is_some(), "{same:#?}");
        // No body came with it.
        client.get("/c", &[]).await.assert_is(200, "body");
    }
    assert_eq!(origin.hits("/c"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_fails_is_a_200_from_the_store() {
    let (origin, proxy) = stored().await;
    for (name, value) in [
        ("If-None-Match", "\"v2\""),
        ("If-None-Match", "v1"),
        ("If-Modified-Since", "Mon, 31 Aug 2026 10:00:00 GMT"),
        ("If-Modified-Since", "not a date"),
    ] {
        let whole = proxy.fetch("GET", "/c", &[(name, value)]).await;
        whole.assert_is(200, "body").assert_hit();
    }
    // The stronger validator decides (RFC 9110, 13.2.2).
    let both = [("If-None-Match", "\"v2\""), ("If-Modified-Since", DATE)];
    proxy.fetch("GET", "/c", &both).await.assert_is(200, "body");
    assert_eq!(origin.hits("/c"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_with_head_is_a_304_too() {
    let (_origin, proxy) = stored().await;
    proxy.fetch("HEAD", "/c", &[("If-None-Match", "\"v1\"")]).await.assert_status(304);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_for_the_origin_are_left_to_it() {
    let (origin, proxy) = stored().await;
    for (nth, (name, value)) in
        [("If-Match", "\"v1\""), ("If-Match", "\"v9\""), ("If-Unmodified-Since", DATE)]
            .into_iter()
            .enumerate()
    {
        proxy.fetch("GET", "/c", &[(name, value)]).await.assert_is(200, "body");
        assert_eq!(origin.hits("/c"), nth + 2, "{name}: {value}");
        assert_eq!(origin.last("/c").header(&name.to_lowercase()), Some(value));
    }
    proxy.get("/c").await.assert_is(200, "body").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_entry_is_freshened_by_a_304() {
    let origin = Origin::start().await;
    origin.on("/f", |r| match r.header("if-none-match") {
        Some("\"v1\"") => Reply::new(304)
            .header("ETag", "\"v1\"")
            .header("Cache-Control", "max-age=600")
            .header("X-Round", "two"),
        _ => Reply::cached("max-age=1", "body")
            .header("ETag", "\"v1\"")
            .header("X-Round", "one")
            .header("X-Mine", "kept"),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/f").await.assert_is(200, "body");
    let validated = eventually("the entry goes stale and is validated", || async {
        let response = proxy.get("/f").await;
        (origin.hits("/f") > 1).then_some(response)
    })
    .await;
    validated.assert_is(200, "body");
    assert_eq!(validated.header("x-round"), Some("two"), "{validated:#?}");

    let hit = proxy.get("/f").await;
    hit.assert_is(200, "body").assert_hit();
    assert_eq!(hit.header("x-round"), Some("two"), "{hit:#?}");
    assert_eq!(hit.header("x-mine"), Some("kept"), "{hit:#?}");
    assert_eq!(hit.header("cache-control"), Some("max-age=600"), "{hit:#?}");
    assert_eq!(hit.header("content-length"), Some("4"), "{hit:#?}");
    assert_eq!(origin.hits("/f"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_entry_is_replaced_by_a_200() {
    let origin = Origin::start().await;
    origin.on("/f", |r| {
        let control = if r.nth == 1 { "max-age=0" } else { "max-age=600" };
        Reply::cached(control, r.nth.to_string()).header("ETag", format!("\"v{}\"", r.nth))
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/f").await.assert_is(200, "1");
    proxy.get("/f").await.assert_is(200, "2").assert_fwd("stale");
    assert_eq!(origin.last("/f").header("if-none-match"), Some("\"v1\""));
    let hit = proxy.get("/f").await;
    hit.assert_is(200, "2").assert_hit();
    assert_eq!(hit.header("etag"), Some("\"v2\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_validators_are_sent_to_the_origin() {
    let origin = Origin::start().await;
    origin.on("/f", |r| {
        Reply::cached("no-cache", r.nth.to_string())
            .header("ETag", "\"v1\"")
            .header("Last-Modified", DATE)
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/f").await.assert_is(200, "1");
    proxy.get("/f").await.assert_is(200, "2");
    let seen = origin.last("/f");
    assert_eq!(seen.header("if-none-match"), Some("\"v1\""), "{seen:#?}");
    assert_eq!(seen.header("if-modified-since"), Some(DATE), "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_another_tag_gets_all_of_what_the_origin_confirmed() {
    let origin = Origin::start().await;
    origin.on("/f", |r| match r.header("if-none-match") {
        Some("\"v1\"") => Reply::new(304).header("ETag", "\"v1\""),
        _ => Reply::cached("no-cache", "body").header("ETag", "\"v1\""),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/f").await.assert_is(200, "body");
    let other = proxy.fetch("GET", "/f", &[("If-None-Match", "\"v0\"")]).await;
    other.assert_is(200, "body");
    let same = proxy.fetch("GET", "/f", &[("If-None-Match", "\"v0\", \"v1\"")]).await;
    same.assert_status(304);
    assert_eq!(origin.hits("/f"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_304_for_the_client_alone_is_no_entry() {
    let origin = Origin::start().await;
    origin.on("/n", |r| match r.header("if-none-match") {
        Some("\"mine\"") => {
            Reply::new(304).header("ETag", "\"mine\"").header("Cache-Control", "max-age=600")
        }
        _ => Reply::cached("max-age=600", "body").header("ETag", "\"mine\""),
    });
    let proxy = Proxy::start(&origin).await;
    // Nothing stored: the client's own condition may go to the origin.
    let first = proxy.fetch("GET", "/n", &[("If-None-Match", "\"mine\"")]).await;
    first.assert_status(304);
    proxy.get("/n").await.assert_is(200, "body");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_304_for_another_entity_does_not_freshen_this_one() {
    let origin = Origin::start().await;
    origin.on("/x", |r| match r.nth {
        1 => Reply::cached("max-age=0", "old").header("ETag", "\"v1\""),
        2 => Reply::new(304).header("ETag", "\"v2\"").header("Cache-Control", "max-age=600"),
        _ => Reply::cached("max-age=600", "new").header("ETag", "\"v2\""),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/x").await.assert_is(200, "old");
    // The client holds v2 and asks about it; the store has v1, which is stale.
    let client = proxy.fetch("GET", "/x", &[("If-None-Match", "\"v2\"")]).await;
    client.assert_status(304);
    let next = proxy.get("/x").await;
    assert!(
        !(next.cache().has("hit") && next.text() == "old"),
        "a 304 about v2 made v1 fresh: {next:#?}"
    );
}
