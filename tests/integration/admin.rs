//! The admin port.

use serde_json::Value;

use crate::support::{Client, Origin, Proxy, Reply, Response, Setup, fetch};

async fn busy() -> (Origin, Proxy) {
    let origin = Origin::start().await;
    origin.always("/a", Reply::cached("max-age=600", "hello"));
    origin.always("/no", Reply::cached("no-store", "x"));
    let policy = "routes:\n  - name: the-route\n    match: {path: {prefix: /}}\n";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    for path in ["/a", "/a", "/a", "/no"] {
        proxy.get(path).await.assert_status(200);
    }
    (origin, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness_are_200_while_serving() {
    let (_origin, proxy) = busy().await;
    proxy.admin("/healthz").await.assert_status(200);
    proxy.admin("/readyz").await.assert_status(200);
    proxy.admin("/no/such/page").await.assert_status(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_well_formed_and_count_hits_by_route() {
    let (_origin, proxy) = busy().await;
    let total = async || {
        let metrics = proxy.admin("/metrics").await;
        metrics.assert_status(200);
        let text = metrics.text();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let value = line.rsplit(' ').next().unwrap_or_default();
            assert!(value.parse::<f64>().is_ok(), "not a sample: {line}");
        }
        let hits = text.lines().filter(|l| {
            l.starts_with("outrigger")
                && l.contains("the-route")
                && l.contains("hit")
                && !l.contains("_bucket")
        });
        hits.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    let before = total().await;
    assert!(before >= 2.0, "{before}");
    for _ in 0..10 {
        proxy.get("/a").await.assert_hit();
    }
    let after = total().await;
    assert!(after >= before + 10.0, "{before} and then {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_and_config_dump_are_json() {
    let (_origin, proxy) = busy().await;
    for path in ["/stats", "/config_dump"] {
        let response = proxy.admin(path).await;
        response.assert_status(200);
        let json: Value = serde_json::from_slice(&response.body).expect("JSON");
        assert!(json.as_object().is_some_and(|o| !o.is_empty()), "{path}: {json}");
    }
    assert!(proxy.admin("/config_dump").await.text().contains("the-route"));
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_names_the_route() {
    let (_origin, proxy) = busy().await;
    let explained = proxy.admin("/explain?url=http%3A%2F%2Fshop.test%2Fa").await;
    explained.assert_status(200);
    assert!(explained.text().contains("the-route"), "{}", explained.text());
    proxy.admin("/explain").await.assert_status(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_traffic_port_does_not_answer_admin_requests() {
    let (origin, proxy) = busy().await;
    origin.always("/metrics", Reply::ok("the application's own"));
    proxy.get("/metrics").await.assert_is(200, "the application's own");
    proxy.fetch("POST", "/purge", &[("Content-Length", "0")]).await;
    assert_eq!(origin.hits("/purge"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_answered_are_told_why() {
    let (_origin, proxy) = busy().await;
    for (method, path, status, allow, body) in [
        ("GET", "/no/such/page", 404, None, "nothing here; GET / lists the pages\n"),
        ("POST", "/no/such/page", 404, None, "nothing here; GET / lists the pages\n"),
        ("GET", "/healthz/", 404, None, "nothing here; GET / lists the pages\n"),
        ("PUT", "/", 405, Some("GET, HEAD"), "use GET, HEAD\n"),
        ("DELETE", "/stats", 405, Some("GET, HEAD"), "use GET, HEAD\n"),
        ("GET", "/purge", 405, Some("POST"), "use POST\n"),
        ("HEAD", "/breaker", 405, Some("POST"), ""),
        ("GET", "/explain", 400, None, "say which: /explain?url=http://host/path\n"),
        ("GET", "/explain?url=%zz", 400, None, "url: bad encoding\n"),
    ] {
        let response = fetch(proxy.admin, method, path, &[]).await;
        response.assert_is(status, body);
        assert_eq!(response.header("allow"), allow, "{method} {path}");
        assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_declared_as_json_and_bounded() {
    let (_origin, proxy) = busy().await;
    let send = async |headers: &str, body: &str| {
        let mut client = Client::connect(proxy.admin).await;
        let length = body.len();
        let head = format!("POST /purge HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {length}");
        client.send(format!("{head}\r\n\r\n{body}")).await;
        client.response("POST").await
    };
    let error = |response: &Response| {
        assert_eq!(response.header("content-type"), Some("application/json"));
        serde_json::from_slice::<Value>(&response.body).expect("JSON")["error"].clone()
    };
    let refused = send("", "{\"all\": true}").await;
    refused.assert_status(415);
    assert_eq!(error(&refused), "send JSON with content-type: application/json");
    let json = "Content-Type: application/JSON; charset=utf-8\r\n";
    let padded = |bytes: usize| format!("{{\"tag\": \"a\"{}}}", " ".repeat(bytes - 12));
    send(json, &padded(64 * 1024)).await.assert_status(200);
    let refused = send(json, &padded(64 * 1024 + 1)).await;
    refused.assert_status(413);
    assert_eq!(error(&refused), "the body is too large or broke off");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_lists_pages_and_head_is_answered_without_a_body() {
    let (_origin, proxy) = busy().await;
    let index = proxy.admin("/").await;
    index.assert_status(200);
    let text = index.text();
    for line in [
        "GET  /healthz      whether the process lives",
        "GET  /explain?[method=GET&][header=Name:value&][side=inbound|outbound&]",
        "                    [port=8080&][peer=spiffe://…&]url=http://host/path (encoded, or last)",
        "POST /breaker      {\"name\": \"upstream\", \"state\": \"open\"|\"closed\"|\"auto\"}; without a name, all",
        "                    \"wait\": \"none\"|\"appended\"|\"all\", \"timeout\": \"2s\", \"reason\": \"…\"",
    ] {
        assert!(text.lines().any(|listed| listed == line), "{line}\nis not in\n{text}");
    }
    let head = fetch(proxy.admin, "HEAD", "/", &[]).await;
    head.assert_is(200, "");
    assert_eq!(head.header("content-length"), Some(text.len().to_string().as_str()));
}
