//! Variants.

use crate::support::{Origin, Proxy, Reply, Setup};

async fn by_language() -> Origin {
    let origin = Origin::start().await;
    origin.on("/v", |r| {
        let language = r.header("accept-language").unwrap_or("none");
        Reply::cached("max-age=600", language).header("Vary", "Accept-Language")
    });
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_are_kept_apart_and_each_hits() {
    let origin = by_language().await;
    let proxy = Proxy::start(&origin).await;
    proxy.fetch("GET", "/v", &[("Accept-Language", "en")]).await.assert_fwd("uri-miss");
    proxy.fetch("GET", "/v", &[("Accept-Language", "de")]).await.assert_fwd("vary-miss");
    for language in ["en", "de", "en"] {
        let hit = proxy.fetch("GET", "/v", &[("Accept-Language", language)]).await;
        hit.assert_is(200, language).assert_hit();
    }
    // No field at all is a variant of its own.
    proxy.get("/v").await.assert_is(200, "none").assert_fwd("vary-miss");
    proxy.get("/v").await.assert_is(200, "none").assert_hit();
    assert_eq!(origin.hits("/v"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_vary_does_not_name_do_not_matter() {
    let origin = by_language().await;
    let proxy = Proxy::start(&origin).await;
    let en = ("Accept-Language", "en");
    proxy.fetch("GET", "/v", &[en, ("User-Agent", "one")]).await;
    proxy.fetch("GET", "/v", &[en, ("User-Agent", "two")]).await.assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_variants_stay_right_whatever_is_kept() {
    let origin = by_language().await;
    let memory = "memory: {bytesMax: 16MiB, variantsMax: 4}";
    let proxy = Setup::of(&origin).config(memory).start().await;
    let languages: Vec<_> = (0..40).map(|n| format!("l{n}")).collect();
    for _ in 0..2 {
        for language in &languages {
            let response = proxy.fetch("GET", "/v", &[("Accept-Language", language)]).await;
            response.assert_is(200, language);
        }
    }
    // Bounded: forty in turn cannot all have been kept in four places.
    assert!(origin.hits("/v") > 44, "only {} fetches", origin.hits("/v"));
    // And what was stored last is still there.
    let last = [("Accept-Language", "l39")];
    proxy.fetch("GET", "/v", &last).await.assert_is(200, "l39").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_changes_what_it_varies_on_is_followed() {
    let origin = Origin::start().await;
    origin.on("/v", |r| {
        let get = |name| r.header(name).unwrap_or("none").to_owned();
        let body = format!("{} {}", get("x-one"), get("x-two"));
        let vary = if r.nth == 1 { "X-One" } else { "X-One, X-Two" };
        Reply::cached("max-age=600", body).header("Vary", vary)
    });
    let proxy = Proxy::start(&origin).await;
    let ask = async |one, two| proxy.fetch("GET", "/v", &[("X-One", one), ("X-Two", two)]).await;
    ask("a", "a").await.assert_is(200, "a a");
    ask("b", "b").await.assert_is(200, "b b");
    ask("b", "c").await.assert_is(200, "b c");
    ask("b", "b").await.assert_is(200, "b b").assert_hit();
    ask("b", "c").await.assert_is(200, "b c").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoded_body_never_reaches_a_client_that_cannot_read_it() {
    let origin = Origin::start().await;
    origin.on("/e", |r| {
        let gzip = r.header("accept-encoding").is_some_and(|e| e.contains("gzip"));
        let reply = Reply::cached("max-age=600", if gzip { "GZIP" } else { "plain" });
        let reply = reply.header("Vary", "Accept-Encoding");
        if gzip { reply.header("Content-Encoding", "gzip") } else { reply }
    });
    let proxy = Proxy::start(&origin).await;
    proxy.fetch("GET", "/e", &[("Accept-Encoding", "gzip")]).await.assert_is(200, "GZIP");
    proxy.get("/e").await.assert_is(200, "plain");
    proxy.fetch("GET", "/e", &[("Accept-Encoding", "identity")]).await.assert_is(200, "plain");
    let again = proxy.fetch("GET", "/e", &[("Accept-Encoding", "gzip")]).await;
    again.assert_is(200, "GZIP").assert_hit();
    assert_eq!(again.header("content-encoding"), Some("gzip"));
}
