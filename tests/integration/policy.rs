//! Policy as it acts on traffic.

use crate::support::{Origin, Proxy, Reply, Setup};

/// Answers with the target and the count, without any freshness of its own.
async fn silent() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::ok(format!("{} {}", r.target(), r.nth)));
    origin
}

async fn with(origin: &Origin, policy: &str) -> Proxy {
    Setup::of(origin).policy(policy).start().await
}

async fn assert_cached(proxy: &Proxy, host: &str, path: &str, cached: bool) {
    let host = [("Host", host)];
    proxy.fetch("GET", path, &host).await.assert_status(200);
    let second = proxy.fetch("GET", path, &host).await;
    assert_eq!(second.cache().has("hit"), cached, "{host:?} {path}: {second:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_policy_nothing_is_cached_that_does_not_say_so() {
    let origin = silent().await;
    let proxy = Proxy::start(&origin).await;
    assert_cached(&proxy, "shop.test", "/a", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_match_by_host_and_path() {
    let origin = silent().await;
    let policy = r#"
routes:
  - name: exact
    match: {hosts: [one.test], path: {exact: /exact}}
    cache: {ttl: {default: 60s}}
  - name: prefix
    match: {hosts: [one.test], path: {prefix: /products}}
    cache: {ttl: {default: 60s}}
  - name: template
    match: {hosts: [one.test], path: {template: "/users/{id}/photo"}}
    cache: {ttl: {default: 60s}}
"#;
    let proxy = with(&origin, policy).await;
    for (path, cached) in [
        ("/exact", true),
        ("/exact/more", false),
        ("/products", true),
        ("/products/1", true),
        ("/productsx", false),
        ("/users/7/photo", true),
        ("/users/7/8/photo", false),
        ("/users/7", false),
        ("/else", false),
    ] {
        assert_cached(&proxy, "one.test", path, cached).await;
        assert_cached(&proxy, "two.test", path, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_match_by_header() {
    let origin = silent().await;
    let policy = "
routes:
  - name: beta
    match: {path: {prefix: /}, headers: {x-beta: \"1\"}}
    cache: {ttl: {default: 60s}}
";
    let proxy = with(&origin, policy).await;
    for _ in 0..2 {
        let plain = proxy.get("/plain").await;
        assert!(!plain.cache().has("hit"), "{plain:#?}");
    }
    let beta = [("X-Beta", "1")];
    proxy.fetch("GET", "/beta", &beta).await;
    proxy.fetch("GET", "/beta", &beta).await.assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn time_to_live_by_default_status_cap_and_override() {
    let origin = Origin::start().await;
    origin.always("/default", Reply::ok("x"));
    origin.always("/explicit", Reply::cached("max-age=40", "x"));
    origin.always("/long", Reply::cached("max-age=86400", "x"));
    origin.always("/missing", Reply::new(404));
    origin.always("/error", Reply::new(500));
    origin.always("/forced", Reply::cached("max-age=0", "x"));
    let policy = "
routes:
  - name: forced
    match: {path: {prefix: /forced}}
    cache: {ttl: {override: 77s}}
  - name: rest
    match: {path: {prefix: /}}
    cache: {ttl: {default: 20s, max: 50s, status: {404: 10s}}}
";
    let proxy = with(&origin, policy).await;
    for (path, at_most) in
        [("/default", 20), ("/explicit", 40), ("/long", 50), ("/missing", 10), ("/forced", 77)]
    {
        proxy.get(path).await;
        let hit = proxy.get(path).await;
        hit.assert_hit();
        let ttl: i64 = hit.cache().get("ttl").and_then(|t| t.parse().ok()).expect("a ttl");
        assert!((at_most - 9..=at_most).contains(&ttl), "{path}: {hit:#?}");
    }
    proxy.get("/error").await;
    assert!(!proxy.get("/error").await.cache().has("hit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_switch_caching_off() {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::cached("max-age=60", r.nth.to_string()));
    let policy = "
routes:
  - name: off
    match: {path: {prefix: /off}}
    cache: {enabled: false}
";
    let proxy = with(&origin, policy).await;
    for n in 1..=3 {
        let passed = proxy.get("/off").await;
        passed.assert_is(200, n.to_string()).assert_fwd("bypass");
    }
    proxy.get("/on").await;
    proxy.get("/on").await.assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn query_parameters_that_are_ignored_or_reordered_share_an_entry() {
    let origin = Origin::start().await;
    origin.on("/q", |r| Reply::cached("max-age=60", r.nth.to_string()));
    let policy = "
routes:
  - name: q
    match: {path: {prefix: /q}}
    cache: {key: {query: {ignore: [\"utm_*\", session], sort: true}}}
";
    let proxy = with(&origin, policy).await;
    proxy.get("/q?a=1&b=2").await.assert_is(200, "1");
    for same in ["/q?b=2&a=1", "/q?a=1&utm_source=x&b=2", "/q?session=9&a=1&b=2&utm_id=1"] {
        proxy.get(same).await.assert_is(200, "1").assert_hit();
    }
    for other in ["/q?a=1", "/q?a=1&b=3", "/q?a=2&b=1", "/q"] {
        assert!(!proxy.get(other).await.cache().has("hit"), "{other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_the_key_is_not_sent_to_the_origin() {
    let origin = Origin::start().await;
    origin.on("/q", |r| Reply::cached("max-age=60", r.target()));
    let policy = "
routes:
  - name: q
    match: {path: {prefix: /q}}
    cache: {key: {query: {allow: [id]}}}
";
    let proxy = with(&origin, policy).await;
    proxy.get("/q?id=1&poison=evil").await.assert_status(200);
    let victim = proxy.get("/q?id=1").await;
    victim.assert_hit();
    assert!(!victim.text().contains("evil"), "an unkeyed parameter is in the entry: {victim:#?}");
    assert!(!proxy.get("/q?id=2").await.cache().has("hit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_cookies_can_be_part_of_the_key() {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::cached("max-age=60", r.nth.to_string()));
    let policy = "
routes:
  - name: language
    match: {path: {prefix: /h}}
    cache: {key: {headers: [accept-language]}}
  - name: cookie
    match: {path: {prefix: /c}}
    cache: {key: {cookies: [theme]}}
";
    let proxy = with(&origin, policy).await;
    let language = async |l| proxy.fetch("GET", "/h", &[("Accept-Language", l)]).await;
    language("en").await.assert_is(200, "1");
    language("de").await.assert_is(200, "2");
    language("en").await.assert_is(200, "1").assert_hit();
    let cookie = async |c| proxy.fetch("GET", "/c", &[("Cookie", c)]).await;
    cookie("theme=dark").await.assert_is(200, "1");
    cookie("theme=light").await.assert_is(200, "2");
    cookie("other=1; theme=dark").await.assert_is(200, "1").assert_hit();
    cookie("theme=light; theme2=dark").await.assert_is(200, "2").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_have_a_smaller_object_cap() {
    let origin = Origin::start().await;
    origin.always("/small/x", Reply::cached("max-age=60", vec![b'x'; 4096]));
    origin.always("/x", Reply::cached("max-age=60", vec![b'x'; 4096]));
    let policy = "
routes:
  - name: small
    match: {path: {prefix: /small}}
    cache: {maxObjectSize: 1KiB}
";
    let proxy = with(&origin, policy).await;
    assert_cached(&proxy, "shop.test", "/small/x", false).await;
    assert_cached(&proxy, "shop.test", "/x", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_for_get_leaves_other_methods_alone() {
    let origin = silent().await;
    let policy = "
routes:
  - name: reads
    match: {path: {prefix: /}, methods: [GET, HEAD]}
    cache: {ttl: {default: 60s}}
";
    let proxy = with(&origin, policy).await;
    proxy.fetch("POST", "/a", &[("Content-Length", "0")]).await.assert_is(200, "/a 1");
    proxy.fetch("POST", "/a", &[("Content-Length", "0")]).await.assert_is(200, "/a 2");
    proxy.get("/a").await.assert_is(200, "/a 3");
    proxy.get("/a").await.assert_is(200, "/a 3").assert_hit();
    proxy.fetch("HEAD", "/a", &[]).await.assert_hit();
}
