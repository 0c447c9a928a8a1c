//! Which URL is this? Whatever its spelling, and however the route was chosen by which a response
//! was stored: a purge, a write, `cache get` and `explain` mean the same one.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Origin, Proxy, Reply, Response, Setup, eventually, outrigger};

const FRONTEND: &str = "spiffe://cluster.local/ns/shop/sa/frontend";
const TENANT: [(&str, &str); 1] = [("x-tenant", "t")];

/// GETs are answered by their number, and may be stored; writes get a 204.
async fn counting() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| match r.method() {
        "GET" => Reply::cached("max-age=600", r.nth.to_string()),
        _ => Reply::new(204),
    });
    origin
}

/// A route that a header field chooses, with query rules of its own.
const BY_HEADER: &str = "
routes:
  - name: tenant
    match: {headers: {x-tenant: '*'}}
    cache: {ttl: {default: 10m}, key: {query: {ignore: [utm_*], sort: true}}}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_by_url_meets_what_a_route_chosen_by_a_header_stored() {
    let origin = counting().await;
    let proxy = Setup::of(&origin).policy(BY_HEADER).start().await;
    let target = "/a?utm_x=1&b=2&a=1";
    proxy.fetch("GET", target, &TENANT).await.assert_is(200, "1");
    proxy.fetch("GET", target, &TENANT).await.assert_is(200, "1").assert_hit();
    let answer = proxy.purge(json!({"url": format!("http://shop.test{target}")})).await;
    assert_eq!((&answer["complete"], &answer["matchedHere"]), (&json!(true), &json!(1)));
    proxy.fetch("GET", target, &TENANT).await.assert_is(200, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_through_another_route_meets_what_a_route_chosen_by_a_header_stored() {
    let origin = counting().await;
    let proxy = Setup::of(&origin).policy(BY_HEADER).start().await;
    let target = "/a?utm_x=1&b=2&a=1";
    proxy.fetch("GET", target, &TENANT).await.assert_is(200, "1");
    proxy.fetch("GET", target, &TENANT).await.assert_is(200, "1").assert_hit();
    proxy.fetch("POST", target, &[("content-length", "0")]).await.assert_status(204);
    proxy.fetch("GET", target, &TENANT).await.assert_is(200, "3");
}

/// What means the host of `http://shop.test/`.
const ORIGINS: [&str; 9] = [
    "https://shop.test:443",
    "http://shop.test:",
    "http://shop.test.",
    "http://shop.test:80",
    "https://shop.test",
    "https://shop.test:",
    "HTTP://Shop.TEST.:80",
    "https://shop.test.:443",
    "http://shop.test",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_of_a_url_and_of_a_prefix_is_purged() {
    let origin = counting().await;
    let proxy = Proxy::start(&origin).await;
    let mut body = 1;
    for spelled in ORIGINS {
        for kind in ["url", "prefix"] {
            proxy.get("/c?d=1").await.assert_is(200, body.to_string());
            proxy.get("/c?d=1").await.assert_is(200, body.to_string()).assert_hit();
            let answer = proxy.purge(json!({kind: format!("{spelled}/c?d=1#part")})).await;
            let told = (&answer["complete"], &answer["matchedHere"]);
            assert_eq!(told, (&json!(true), &json!(1)), "{kind} {spelled}: {answer}");
            body += 1;
            proxy.get("/c?d=1").await.assert_is(200, body.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_of_a_host_in_a_request_is_one_key() {
    let origin = counting().await;
    let policy = "
routes:
  - {name: r, match: {hosts: [shop.test]}, cache: {key: {query: {sort: true}}}}
";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    let get = async |host| proxy.fetch("GET", "/c?b=1&a=2", &[("Host", host)]).await;
    get("shop.test").await.assert_is(200, "1");
    for host in ["Shop.TEST", "shop.test.", "shop.test:", "shop.test:80", "SHOP.test.:80"] {
        get(host).await.assert_is(200, "1").assert_hit();
    }
    // The upstream is told what the client has written.
    get("shop.test:8080").await.assert_is(200, "2");
    assert_eq!(origin.last("/c").header("host"), Some("shop.test:8080"));
    // A write under any spelling purges them all.
    let fields = [("Host", "SHOP.test.:"), ("content-length", "0")];
    proxy.fetch("PUT", "/c?a=2&b=1", &fields).await.assert_status(204);
    assert_eq!(origin.last("/c").header("host"), Some("SHOP.test.:"));
    get("shop.test").await.assert_is(200, "4");
    get("shop.test:8080").await.assert_is(200, "2").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spelling_of_the_host_that_is_not_in_the_key_is_not_reflected_to_others() {
    let origin = Origin::start().await;
    origin.on("*", |r| {
        let location = format!("http://{}/next", r.header("host").unwrap_or_default());
        Reply::new(302).header("Location", location).header("Cache-Control", "max-age=60")
    });
    let proxy = Proxy::start(&origin).await;
    for (n, host) in ["shop.test:80", "SHOP.Test", "shop.test.", "shop.test:"].iter().enumerate() {
        for (form, path) in [("", format!("/o{n}")), ("http", format!("/a{n}"))] {
            let line = if form.is_empty() { path.clone() } else { format!("http://{host}{path}") };
            let mut client = proxy.connect().await;
            client.send(format!("GET {line} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            client.response("GET").await.assert_status(302);
            let stored = proxy.get(&path).await;
            stored.assert_hit();
            assert_eq!(stored.header("location"), Some("http://shop.test/next"), "{host}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_https_meets_a_client_that_writes_its_default_port() {
    let origin = counting().await;
    let proxy = Proxy::start(&origin).await;
    let mut body = 0;
    for kind in ["url", "prefix"] {
        body += 1;
        let get = async || proxy.fetch("GET", "/c", &[("Host", "shop.test:443")]).await;
        get().await.assert_is(200, body.to_string());
        get().await.assert_hit();
        let answer = proxy.purge(json!({kind: "https://shop.test/c"})).await;
        assert_eq!(answer["matchedHere"], 1, "{kind}: {answer}");
        assert!(!get().await.cache().has("hit"), "{kind}");
        body += 1;
        proxy.purge(json!({"all": true})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_address_is_one_host_in_every_spelling() {
    let origin = counting().await;
    let proxy = Proxy::start(&origin).await;
    let get = async |host| proxy.fetch("GET", "/c", &[("Host", host)]).await;
    get("[2001:db8::a]:8080").await.assert_is(200, "1");
    get("[2001:0DB8:0:0:0:0:0:000A]:8080").await.assert_is(200, "1").assert_hit();
    let answer = proxy.purge(json!({"url": "http://[2001:db8:0::A]:8080/c"})).await;
    assert_eq!(answer["matchedHere"], 1, "{answer}");
    get("[2001:db8::a]:8080").await.assert_is(200, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn percent_escapes_and_the_order_of_a_query_count_as_they_are_written() {
    let origin = counting().await;
    let proxy = Proxy::start(&origin).await;
    for (stored, other) in
        [("/a%2Fb", "/a%2fb"), ("/%C3%A9?x=%20", "/%C3%A9?x=+"), ("/q?b&a", "/q?a&b")]
    {
        proxy.get(stored).await.assert_status(200);
        let miss = proxy.purge(json!({"url": format!("http://shop.test{other}")})).await;
        assert_eq!(miss["matchedHere"], 0, "{other}: {miss}");
        proxy.get(stored).await.assert_hit();
        let met = proxy.purge(json!({"url": format!("http://shop.test{stored}#part")})).await;
        assert_eq!(met["matchedHere"], 1, "{stored}: {met}");
        assert!(!proxy.get(stored).await.cache().has("hit"), "{stored}");
    }
}

/// A way in which a route is chosen: the path that it is for, and what the request carries.
struct RouteChoice {
    path: &'static str,
    fields: &'static [(&'static str, &'static str)],
}

const ROUTE_CHOICES: [RouteChoice; 8] = [
    RouteChoice { path: "/header", fields: &[("x-tenant", "t")] },
    RouteChoice { path: "/principal", fields: &[("x-outrigger-peer", FRONTEND)] },
    RouteChoice { path: "/namespace", fields: &[("x-outrigger-peer", FRONTEND)] },
    RouteChoice { path: "/method", fields: &[] },
    RouteChoice { path: "/host", fields: &[] },
    RouteChoice { path: "/template/1", fields: &[] },
    // The writer's own route does not cache.
    RouteChoice { path: "/off", fields: &[] },
    RouteChoice { path: "/none", fields: &[] },
];

fn policy_of_ways(port: u16) -> String {
    format!(
        "
inbound: {{ports: [{port}]}}
routes:
  - {{name: header, match: {{path: {{prefix: /header}}, headers: {{x-tenant: '*'}}}}, cache: {{key: {{query: {{ignore: [utm_*], sort: true}}}}}}}}
  - {{name: principal, match: {{path: {{prefix: /principal}}, principals: ['*/sa/frontend']}}, cache: {{partition: peer, key: {{query: {{sort: true}}}}}}}}
  - {{name: namespace, match: {{path: {{prefix: /namespace}}, namespaces: [shop]}}, cache: {{key: {{query: {{allow: [a, b]}}}}}}}}
  - {{name: method, match: {{path: {{prefix: /method}}, methods: [GET]}}, cache: {{key: {{query: {{sort: true}}}}}}}}
  - {{name: host, match: {{hosts: [shop.test], path: {{prefix: /host}}}}, cache: {{key: {{query: {{sort: true}}}}}}}}
  - {{name: template, match: {{path: {{template: '/template/{{id}}'}}}}, cache: {{key: {{query: {{sort: true}}}}}}}}
  - {{name: off, match: {{path: {{prefix: /off}}, headers: {{x-writer: '*'}}}}, cache: {{enabled: false, key: {{query: {{sort: true}}}}}}}}
"
    )
}

/// A proxy to which Envoy sends requests, so that callers have an identity.
struct Mesh {
    proxy: Proxy,
    upstream: String,
}

impl Mesh {
    async fn start(origin: &Origin) -> Self {
        let upstream = origin.url().strip_prefix("http://").unwrap().to_owned();
        let port = upstream.rsplit_once(':').unwrap().1.parse().unwrap();
        let setup = Setup::mesh("inbound", "127.0.0.1").policy(&policy_of_ways(port));
        Mesh { proxy: setup.start().await, upstream }
    }

    async fn send(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Response {
        let mut all = vec![("x-outrigger-upstream", self.upstream.as_str())];
        all.extend(fields);
        if method != "GET" {
            all.push(("content-length", "0"));
        }
        self.proxy.fetch(method, target, &all).await
    }

    async fn store(&self, way: &RouteChoice, target: &str) -> String {
        let first = self.send("GET", target, way.fields).await;
        first.assert_status(200);
        let second = self.send("GET", target, way.fields).await;
        second.assert_is(200, first.text()).assert_hit();
        first.text()
    }
}

/// A target of which each route makes something else.
fn target_of(way: &RouteChoice) -> String {
    format!("{}?utm_x=1&b=2&a=1", way.path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_by_url_meets_what_any_route_stored() {
    let origin = counting().await;
    let mesh = Mesh::start(&origin).await;
    for way in &ROUTE_CHOICES {
        for spelled in ["http://shop.test", "https://Shop.test.:443"] {
            let target = target_of(way);
            let old = mesh.store(way, &target).await;
            let answer = mesh.proxy.purge(json!({"url": format!("{spelled}{target}")})).await;
            assert_eq!(answer["matchedHere"], 1, "{}: {answer}", way.path);
            let new = mesh.send("GET", &target, way.fields).await;
            assert_ne!(new.text(), old, "{}: {new:#?}", way.path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_meets_what_any_route_stored() {
    let origin = counting().await;
    let mesh = Mesh::start(&origin).await;
    for way in &ROUTE_CHOICES {
        for host in ["shop.test", "Shop.test.:"] {
            let target = target_of(way);
            let old = mesh.store(way, &target).await;
            let writer = [("Host", host), ("x-writer", "w")];
            mesh.send("POST", &target, &writer).await.assert_status(204);
            let new = mesh.send("GET", &target, way.fields).await;
            assert_ne!(new.text(), old, "{} {host}: {new:#?}", way.path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_location_in_any_spelling_meets_what_any_route_stored() {
    let origin = Origin::start().await;
    origin.on("*", |r| match (r.method(), r.header("x-location")) {
        ("GET", _) => Reply::cached("max-age=600", r.nth.to_string()),
        (_, Some(location)) => Reply::new(201).header("Location", location),
        _ => Reply::new(204),
    });
    let mesh = Mesh::start(&origin).await;
    for way in &ROUTE_CHOICES {
        for spelled in ["", "//shop.test:80", "http://Shop.test.", "https://shop.test:443"] {
            let target = target_of(way);
            let old = mesh.store(way, &target).await;
            let location = format!("{spelled}{target}#part");
            let fields = [("x-location", location.as_str()), ("x-writer", "w")];
            mesh.send("POST", "/none/elsewhere", &fields).await.assert_status(201);
            let new = mesh.send("GET", &target, way.fields).await;
            assert_ne!(new.text(), old, "{location}: {new:#?}");
        }
    }
}

/// What a command of the binary prints; the origin must be able to work meanwhile.
async fn printed(words: Vec<String>) -> String {
    let mut command = outrigger();
    command.args(&words);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.expect("a task").expect("the binary runs");
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn words_of(way: &RouteChoice) -> Vec<String> {
    let mut words = Vec::new();
    for (name, value) in way.fields {
        let pair = match *name {
            "x-outrigger-peer" => ["--peer".to_owned(), (*value).to_owned()],
            name => ["-H".to_owned(), format!("{name}: {value}")],
        };
        words.extend(pair);
    }
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_get_finds_what_any_route_stored() {
    let origin = counting().await;
    let mesh = Mesh::start(&origin).await;
    let admin = mesh.proxy.admin.to_string();
    for way in &ROUTE_CHOICES {
        mesh.store(way, &target_of(way)).await;
        for spelled in ["http://shop.test", "https://Shop.test.:443", "http://shop.test:"] {
            let url = format!("{spelled}{}", target_of(way));
            let asked = ["cache", "get", "--admin", &admin, &url].map(str::to_owned).to_vec();
            let text = printed([asked.clone(), words_of(way)].concat()).await;
            assert!(text.contains("memory  hit"), "{url}: {text}");
            // Who does not know how the route was chosen is told that there is something.
            let text = printed(asked).await;
            assert!(text.contains("meets 1 stored responses"), "{url}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_names_every_uri_that_a_url_may_be_stored_under() {
    let origin = counting().await;
    let mesh = Mesh::start(&origin).await;
    let file = mesh.proxy.policy.clone().expect("a policy file").display().to_string();
    for way in &ROUTE_CHOICES {
        for spelled in ["http://shop.test", "https://Shop.test.:443", "http://shop.test:"] {
            let url = format!("{spelled}{}", target_of(way));
            let asked = ["explain", "--json", "--policy", &file, "GET", &url];
            let asked = asked.map(str::to_owned).to_vec();
            let offline: Value =
                serde_json::from_str(&printed([asked.clone(), words_of(way)].concat()).await)
                    .unwrap();
            let uri = offline["key"].as_str().unwrap().split(' ').next().unwrap().to_owned();
            let blind: Value = serde_json::from_str(&printed(asked).await).unwrap();
            let uris = blind["uris"].as_array().unwrap();
            assert!(uris.contains(&json!(uri)), "{url}: {uri} in {uris:?}");
            let page = mesh.proxy.admin(&format!("/explain?url={url}")).await;
            let running: Value = serde_json::from_slice(&page.body).unwrap();
            assert_eq!(running["policy"]["uris"], blind["uris"], "{url}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_to_what_no_route_caches_leaves_no_trace() {
    let origin = counting().await;
    let policy = "
routes:
  - {name: off, match: {path: {prefix: /off}}, cache: {enabled: false}}
  - {name: off-too, match: {path: {prefix: /off}, headers: {x-tenant: '*'}}, cache: {enabled: false}}
";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    let length = [("content-length", "0")];
    proxy.fetch("POST", "/off/a", &length).await.assert_status(204);
    assert!(!proxy.admin("/purges").await.text().contains("/off/a"));
    proxy.fetch("POST", "/on", &length).await.assert_status(204);
    assert!(proxy.admin("/purges").await.text().contains("http://shop.test/on"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_to_a_very_long_url_purges_that_url_alone() {
    let origin = counting().await;
    let proxy = Proxy::start(&origin).await;
    let long = format!("/long/{}?q={}", "p".repeat(100), "x".repeat(4000));
    proxy.get(&long).await.assert_is(200, "1");
    proxy.get(&long).await.assert_is(200, "1").assert_hit();
    let path = long.split('?').next().unwrap();
    let others = ["/", "/long/other", path, &format!("{path}?q"), &format!("{long}y")];
    for other in others {
        proxy.get(other).await.assert_status(200);
    }
    proxy.fetch("PUT", &long, &[("content-length", "0")]).await.assert_status(204);
    assert!(!proxy.get(&long).await.cache().has("hit"));
    let answer = proxy.purge(json!({"url": format!("https://shop.test{long}")})).await;
    assert_eq!(answer["matchedHere"], 1, "{answer}");
    assert!(!proxy.get(&long).await.cache().has("hit"));
    for other in others {
        proxy.get(other).await.assert_hit();
    }
    let events = proxy.admin("/purges").await.text();
    assert_eq!(events.matches("\"url\"").count(), 2, "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_to_many_very_long_urls_leave_the_rest_stored() {
    let origin = counting().await;
    let proxy = Setup::of(&origin).policy(SORTED).start().await;
    for kept in ["/", "/kept"] {
        proxy.get(kept).await.assert_status(200);
    }
    for n in 0..260 {
        let long = format!("/{n}?q={}", "x".repeat(2100));
        proxy.fetch("POST", &long, &[("content-length", "0")]).await.assert_status(204);
    }
    // As long as what is cut, and with the same end.
    for fill in [2026, 493, 1] {
        let raw = format!("/{}…", "x".repeat(fill));
        proxy.fetch("POST", &raw, &[("content-length", "0")]).await.assert_status(204);
    }
    for kept in ["/", "/kept"] {
        proxy.get(kept).await.assert_hit();
    }
    reload(&proxy, AS_WRITTEN, "http://shop.test/a?b=2&a=1\"").await;
    for kept in ["/", "/kept"] {
        proxy.get(kept).await.assert_hit();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_very_long_url_is_purged_under_the_next_policy() {
    let origin = counting().await;
    let proxy = Setup::of(&origin).policy(SORTED).start().await;
    let (long, other) = (format!("/a?z={}&b=1", "x".repeat(3000)), "/ab");
    let stored = proxy.get(&long).await.text();
    proxy.get(other).await.assert_status(200);
    reload(&proxy, AS_WRITTEN, "http://shop.test/a?b=2&a=1\"").await;
    proxy.fetch("PUT", &long, &[("content-length", "0")]).await.assert_status(204);
    reload(&proxy, SORTED, "http://shop.test/a?a=1&b=2\"").await;
    assert_ne!(proxy.get(&long).await.text(), stored);
    proxy.get(other).await.assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_counts_under_the_policy_before_and_after_it() {
    const ALIAS: &str =
        "{aliases: {shop.svc: [store]}, routes: [{name: r, cache: {key: {query: {sort: true}}}}]}";
    let origin = counting().await;
    let proxy = Setup::of(&origin).policy(ALIAS).start().await;
    let get = async || proxy.fetch("GET", "/a/1?b=2&a=1", &[("Host", "store")]).await;
    let stored = get().await.text();
    get().await.assert_hit();
    reload(&proxy, AS_WRITTEN, "http://shop.test/a?b=2&a=1\"").await;
    proxy.purge(json!({"prefix": "http://store/a/1?b"})).await;
    reload(&proxy, ALIAS, "http://shop.test/a?a=1&b=2\"").await;
    assert_ne!(get().await.text(), stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_tells_how_many_stored_responses_it_met() {
    let origin = Origin::start().await;
    origin.on("*", |r| {
        Reply::cached("max-age=600", r.nth.to_string())
            .header("Vary", "Accept-Language")
            .header("Cache-Tag", "red")
    });
    let proxy = Proxy::start(&origin).await;
    let fill = async || {
        for path in ["/p/1", "/p/2", "/q"] {
            for language in ["en", "de"] {
                let fields = [("Accept-Language", language)];
                proxy.fetch("GET", path, &fields).await.assert_status(200);
                proxy.fetch("GET", path, &fields).await.assert_hit();
            }
        }
    };
    for (what, met) in [
        (json!({"url": "http://shop.test/p/1"}), 2),
        (json!({"url": "http://shop.test/P/1"}), 0),
        (json!({"url": "http://shop.tset/p/1"}), 0),
        (json!({"prefix": "http://shop.test/p/"}), 4),
        (json!({"tag": "red", "mode": "soft"}), 6),
        (json!({"tag": "rde"}), 0),
        (json!({"all": true}), 6),
    ] {
        proxy.purge(json!({"all": true})).await;
        fill().await;
        let answer = proxy.purge(what.clone()).await;
        assert_eq!(answer["matchedHere"], met, "{what}: {answer}");
    }
    let again = proxy.purge(json!({"all": true})).await;
    assert_eq!(again["matchedHere"], 0, "what is purged is not met again: {again}");
    let admin = proxy.admin.to_string();
    let words = ["purge", "--admin", &admin, "--url", "http://shop.test/nothing"];
    let text = printed(words.map(str::to_owned).to_vec()).await;
    assert!(text.contains("met 0 stored responses"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_with_user_information_is_refused() {
    let origin = counting().await;
    let proxy = Proxy::start(&origin).await;
    for body in [
        json!({"url": "http://user:secret@shop.test/a"}),
        json!({"prefix": "http://user@shop.test/a"}),
        json!({"url": "http://shop.test:99999/a"}),
        json!({"url": "shop.test/a"}),
    ] {
        proxy.try_purge(&body.to_string()).await.assert_status(400);
    }
}

const SORTED: &str = "routes: [{name: r, cache: {key: {query: {sort: true}}}}]";
const AS_WRITTEN: &str = "routes: [{name: r, cache: {key: {query: {sort: false}}}}]";

/// Puts a policy in force, and waits until it is.
async fn reload(proxy: &Proxy, policy: &str, uri: &str) {
    fs::write(proxy.policy.as_ref().expect("a policy file"), policy).expect("it is written");
    eventually("the policy is in force", || async {
        let page = proxy.admin("/explain?url=http://shop.test/a?b=2&a=1").await;
        page.text().contains(uri).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_counts_under_the_policy_before_and_after_it() {
    let origin = counting().await;
    let proxy = Setup::of(&origin).policy(SORTED).start().await;
    for what in ["purge", "write"] {
        let target = "/a?b=2&a=1";
        let stored = proxy.get(target).await.text();
        proxy.get(target).await.assert_hit();
        reload(&proxy, AS_WRITTEN, "http://shop.test/a?b=2&a=1\"").await;
        if what == "purge" {
            let answer = proxy.purge(json!({"url": "http://shop.test/a?b=2&a=1"})).await;
            assert_eq!(answer["matchedHere"], 0, "nothing of this policy is stored: {answer}");
        } else {
            proxy.fetch("PUT", target, &[("content-length", "0")]).await.assert_status(204);
        }
        reload(&proxy, SORTED, "http://shop.test/a?a=1&b=2\"").await;
        let now = proxy.get(target).await;
        assert_ne!(now.text(), stored, "{what}: {now:#?}");
        // What was not purged is there still.
        proxy.get("/a?a=1&b=2").await.assert_is(200, now.text()).assert_hit();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_no_url_can_name_is_refused() {
    let origin = counting().await;
    let proxy = Proxy::start(&origin).await;
    let long = "a.".repeat(151);
    for host in ["shop%2ftest", "shop.test%", &long] {
        let response = proxy.fetch("GET", "/c", &[("Host", host)]).await;
        response.assert_status(400);
        assert_eq!(response.cache().get("detail"), Some("host"), "{host}");
    }
    assert_eq!(origin.hits("/c"), 0);
}
