//! What the mesh carries, through Envoy and Outrigger or past the latter.

use http::Response;

use super::inbound::{Inbound, before};
use super::{BATCH, FRONTEND, VERSIONS, ours};
use crate::support::{
    ChannelBody, Gate, H2Client, H2Origin, H2Response, H2Seen, Origin, Reply, Script, eventually,
    fields, head, read,
};

/// How many requests Envoy has sent to Outrigger, besides health checks.
async fn sent_to_outrigger(mesh: &Inbound) -> u64 {
    let port = mesh.app.port();
    mesh.envoy.stat(&format!("cluster.outrigger-in-{port}.upstream_rq_total")).await
}

#[tokio::test]
async fn a_write_by_anybody_voids_what_is_stored_for_all() {
    for version in VERSIONS {
        let app = Origin::start().await;
        app.on("/a", |r| Reply::cached("max-age=600", format!("{} {}", r.method(), r.nth)));
        let policy = "routes: [{name: all, cache: {partition: peer}}]";
        let mesh = before(app.addr).policy(policy).start_before(&app, version).await;
        mesh.get(FRONTEND, "/a").await.assert_is(200, "GET 1");
        mesh.get(BATCH, "/a").await.assert_is(200, "GET 2");
        mesh.get(FRONTEND, "/a").await.assert_is(200, "GET 1").assert_hit();
        let empty = [("content-length", "0")];
        mesh.send(Some(BATCH), "POST", "/a", &empty).await.assert_is(200, "POST 3");
        mesh.get(FRONTEND, "/a").await.assert_is(200, "GET 4").assert_fwd("uri-miss");
        mesh.get(BATCH, "/a").await.assert_is(200, "GET 5").assert_fwd("uri-miss");
        // Also one in plain text, whose own copies are others.
        mesh.send(None, "POST", "/a", &empty).await.assert_is(200, "POST 6");
        mesh.get(FRONTEND, "/a").await.assert_is(200, "GET 7").assert_fwd("uri-miss");
        for seen in app.all_requests() {
            assert!(ours(&seen).is_empty(), "{seen:#?}");
        }
    }
}

#[tokio::test]
async fn what_only_looks_like_an_upgrade_goes_through_the_cache() {
    for version in VERSIONS {
        let app = Origin::start().await;
        app.on("/a", |r| Reply::cached("max-age=600", r.nth.to_string()));
        let mesh = before(app.addr).start_before(&app, version).await;
        // Java's client offers HTTP/2 with each first request, whatever its method.
        let offer = [
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"),
        ];
        let stray = [("upgrade", "websocket")];
        for fields in [&offer[..], &stray] {
            let first = mesh.send(Some(FRONTEND), "GET", "/a", fields).await;
            first.assert_status(200).assert_fwd("uri-miss");
            mesh.send(Some(FRONTEND), "GET", "/a", fields).await.assert_hit();
            let post = [fields, &[("content-length", "0")]].concat();
            mesh.send(Some(FRONTEND), "POST", "/a", &post).await.assert_status(200);
            mesh.get(FRONTEND, "/a").await.assert_status(200).assert_fwd("uri-miss");
            let end = mesh.send(Some(FRONTEND), "DELETE", "/a", fields).await;
            end.assert_status(200);
        }
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_told_to_go_on() {
    for version in VERSIONS {
        let app = Origin::start().await;
        app.on_head("/a", |_| {
            Script::new().send(head(100, &[])).read_body().reply(Reply::ok("done"))
        });
        let mesh = before(app.addr).start_before(&app, version).await;
        let mut client = mesh.connect(Some(FRONTEND)).await;
        let fields = [("expect", "100-continue"), ("content-length", "4")];
        client.request("POST", "/a", &fields).await;
        assert_eq!(client.next_head().await.word(1), "100");
        client.send("body").await;
        client.response("POST").await.assert_is(200, "done");
    }
}

/// An application on HTTP/2, with one method and one page.
pub fn answer(request: &H2Seen) -> Response<ChannelBody> {
    let grpc = request.path == "/shop.Catalog/Get";
    let trailers = [("grpc-status", "0"), ("x-sum", "42")];
    let mut response = Response::new(ChannelBody::of("answer", if grpc { &trailers } else { &[] }));
    *response.headers_mut() = fields(if grpc {
        &[("content-type", "application/grpc")]
    } else {
        &[("cache-control", "max-age=600")]
    });
    response
}

/// Waits until the page comes from the cache.
pub async fn page_is_cached(client: &H2Client) {
    let page = eventually("a response of the cache", || async move {
        Some(client.get("/page").await).filter(|page| page.cache().has("hit"))
    });
    let page = page.await;
    assert_eq!((page.status(), &*page.body), (200, &b"answer"[..]));
}

/// Calls the method.
pub async fn call(client: &H2Client) -> H2Response {
    let request = client
        .to("POST", "/shop.Catalog/Get")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(ChannelBody::of("question", &[("x-end", "1")]))
        .unwrap();
    read(client.send(request).await.unwrap()).await
}

#[tokio::test]
async fn grpc_goes_past_the_cache_and_other_http2_through_it() {
    for version in VERSIONS {
        let app = H2Origin::start(answer).await;
        let mesh = before(app.addr).grpc().start(version).await;
        for identity in [None, Some(FRONTEND)] {
            let client = &mesh.connect_h2(identity).await;
            page_is_cached(client).await;
            let before = sent_to_outrigger(&mesh).await;
            for _ in 0..2 {
                let answer = call(client).await;
                assert_eq!((answer.status(), &*answer.body), (200, &b"answer"[..]));
                assert_eq!(answer.trailers, fields(&[("grpc-status", "0"), ("x-sum", "42")]));
                assert!(answer.cache().is_absent(), "{answer:#?}");
            }
            assert_eq!(sent_to_outrigger(&mesh).await, before);
            let seen = app.requests().pop().unwrap();
            assert_eq!((&*seen.body, &*seen.path), (&b"question"[..], "/shop.Catalog/Get"));
            assert_eq!(seen.trailers, fields(&[("x-end", "1")]));
        }
    }
}

/// Asks for a tunnel and sends something through it.
pub async fn tunnels(mesh: &Inbound, identity: Option<&str>) {
    let mut client = mesh.connect(identity).await;
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    client.request("GET", "/ws", &upgrade).await;
    assert_eq!(client.next_head().await.word(1), "101");
    client.send("ping").await;
    client.until("ping").await;
}

/// An application that becomes an echo on `/ws`.
pub fn echoes(app: &Origin) {
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    app.always("/ws", Script::new().send(head(101, &upgrade)).echo());
}

#[tokio::test]
async fn an_upgrade_goes_past_the_cache_and_becomes_a_tunnel() {
    for version in VERSIONS {
        let app = Origin::start().await;
        echoes(&app);
        let mesh = before(app.addr).start_before(&app, version).await;
        let before = sent_to_outrigger(&mesh).await;
        tunnels(&mesh, Some(FRONTEND)).await;
        tunnels(&mesh, None).await;
        assert_eq!(sent_to_outrigger(&mesh).await, before);
    }
}

/// The first event has to arrive while the second does not exist.
pub async fn streams(mesh: &Inbound, app: &Origin) {
    let gate = Gate::new();
    let lines = [("Content-Type", "text/event-stream"), ("Connection", "close")];
    let events = Script::new().send(head(200, &lines)).send("data: 1\n\n");
    app.always("/events", events.gate(&gate).send("data: 2\n\n").close());
    let mut client = mesh.connect(Some(FRONTEND)).await;
    client.request("GET", "/events", &[]).await;
    let head = client.next_head().await;
    assert_eq!(head.word(1), "200");
    assert!(head.get("cache-status").is_some(), "not through the cache: {head:#?}");
    client.until("data: 1\n\n").await;
    gate.open();
    client.until("data: 2\n\n").await;
}

#[tokio::test]
async fn an_event_of_a_stream_arrives_before_the_next_one_is_made() {
    for version in VERSIONS {
        let app = Origin::start().await;
        let mesh = before(app.addr).start_before(&app, version).await;
        streams(&mesh, &app).await;
    }
}

#[tokio::test]
async fn head_is_answered_from_what_get_has_stored() {
    for version in VERSIONS {
        let app = Origin::start().await;
        app.always("/a", Reply::cached("max-age=600", "hello"));
        let mesh = before(app.addr).start_before(&app, version).await;
        mesh.send(Some(FRONTEND), "HEAD", "/a", &[]).await.assert_is(200, "");
        mesh.get(FRONTEND, "/a").await.assert_is(200, "hello");
        let stored = mesh.send(Some(FRONTEND), "HEAD", "/a", &[]).await;
        stored.assert_is(200, "").assert_hit();
        assert_eq!(stored.header("content-length"), Some("5"));
        let methods: Vec<_> =
            app.requests("/a").iter().map(|seen| seen.method().to_owned()).collect();
        assert_eq!(methods, ["HEAD", "GET"]);
    }
}

#[tokio::test]
async fn a_probe_hears_what_the_application_says_each_time() {
    for version in VERSIONS {
        let app = Origin::start().await;
        app.on("/healthz", |r| Reply::new(if r.nth == 1 { 503 } else { 200 }));
        let mesh = before(app.addr).start_before(&app, version).await;
        for status in [503, 200, 200] {
            let agent = [("user-agent", "kube-probe/1.33")];
            mesh.send(None, "GET", "/healthz", &agent).await.assert_status(status);
        }
        assert_eq!(app.hits("/healthz"), 3);
    }
}

#[tokio::test]
async fn a_request_that_comes_back_is_refused() {
    for version in VERSIONS {
        let app = Origin::start().await;
        app.always("/a", Reply::ok("x"));
        let mesh = before(app.addr).start_before(&app, version).await;
        mesh.get(FRONTEND, "/a").await.assert_is(200, "x");
        let hops = app.last("/a").header("cdn-loop").expect("a CDN-Loop").to_owned();
        let again = [("cdn-loop", hops.as_str())];
        mesh.send(Some(FRONTEND), "GET", "/a", &again).await.assert_status(508);
        // Another instance may well be on the way, as between two services with caches.
        let other = format!("{hops}-other");
        let others = [("cdn-loop", other.as_str())];
        mesh.send(Some(FRONTEND), "GET", "/a", &others).await.assert_is(200, "x");
        assert_eq!(app.hits("/a"), 2);
    }
}
