//! Which of two responses stays, and what an answer of the upstream does to the stored one: the cells
//! of the table in `src/semantics/supersede.rs`, against the real binary.

use crate::support::{
    Gate, Origin, Proxy, Reply, Request, Response, Script, chunk, eventually, head, last_chunk,
};

const WINDOW: &str = "max-age=0, stale-while-revalidate=31536000";
const ON_ERROR: &str = "max-age=0, stale-if-error=31536000";

/// First a response that may be used as `control` says, then whatever the closure says.
async fn first_then<S: Into<Script>>(
    control: &'static str,
    then: impl Fn(&Request) -> S + Send + Sync + 'static,
) -> (Origin, Proxy) {
    let origin = Origin::start().await;
    origin.on("/s", move |r| match r.nth {
        1 => Reply::cached(control, "old").header("ETag", "\"v1\"").into(),
        _ => then(r).into(),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/s").await.assert_is(200, "old");
    (origin, proxy)
}

/// Asks until the answer is not the old one, which has to be served behind a refresh at most.
async fn until_not_old(proxy: &Proxy) -> Response {
    eventually("the old response is no longer served", || async {
        let response = proxy.get("/s").await;
        (response.text() != "old").then_some(response)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_answer_to_a_refresh_ends_the_stale_window() {
    for status in [404, 410, 451, 401, 403, 429, 301, 200] {
        for control in ["", "no-store", "private"] {
            let (_origin, proxy) = first_then(WINDOW, move |_| {
                let reply = Reply::new(status).body("now").header("Location", "/x");
                if control.is_empty() { reply } else { reply.header("Cache-Control", control) }
            })
            .await;
            until_not_old(&proxy).await.assert_is(status, "now");
            for _ in 0..3 {
                proxy.get("/s").await.assert_is(status, "now");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_gone_is_not_revived_by_a_later_error() {
    for gone in [404, 410, 403, 301] {
        let (_origin, proxy) = first_then(ON_ERROR, move |r| match r.nth {
            2 => Reply::new(gone).body("gone"),
            _ => Reply::new(503).body("broken"),
        })
        .await;
        proxy.get("/s").await.assert_is(gone, "gone");
        for _ in 0..3 {
            proxy.get("/s").await.assert_is(503, "broken");
        }
        let head = proxy.fetch("HEAD", "/s", &[]).await;
        head.assert_status(503);
        let asked = [("Cache-Control", "max-stale=100000, stale-if-error=100000")];
        proxy.fetch("GET", "/s", &asked).await.assert_status(503);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_after_an_error_is_still_covered_by_the_stored_response() {
    let (_origin, proxy) = first_then(ON_ERROR, |_| Reply::new(503).body("broken")).await;
    for _ in 0..3 {
        proxy.get("/s").await.assert_is(200, "old");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_for_one_client_ends_the_stale_window_for_all() {
    for headers in [("Cookie", "a=1"), ("Authorization", "Bearer x")] {
        let (_origin, proxy) = first_then(WINDOW, move |r| {
            let own = r.header(headers.0).is_some();
            let control = if own { "private" } else { "max-age=0, must-revalidate" };
            Reply::cached(control, if own { "own" } else { "new" })
        })
        .await;
        eventually("the refresh with credentials is over", || async {
            let response = proxy.fetch("GET", "/s", &[headers]).await;
            (response.text() == "own").then_some(())
        })
        .await;
        proxy.get("/s").await.assert_is(200, "new");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_for_one_client_leaves_a_fresh_response_to_the_others() {
    let (origin, proxy) = first_then("max-age=600, stale-if-error=600", |r| match r.nth {
        2 => Reply::cached("private", "own"),
        _ => Reply::new(403).body("no"),
    })
    .await;
    let reload = [("Cookie", "a=1"), ("Cache-Control", "no-cache")];
    proxy.fetch("GET", "/s", &reload).await.assert_is(200, "own");
    proxy.get("/s").await.assert_is(200, "old").assert_hit();
    proxy.fetch("GET", "/s", &[("Cache-Control", "no-cache")]).await.assert_is(403, "no");
    proxy.get("/s").await.assert_is(200, "old").assert_hit();
    assert_eq!(origin.hits("/s"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_finds_the_page_gone_ends_a_fresh_response() {
    for status in [404, 410] {
        let (origin, proxy) =
            first_then("max-age=600", move |_| Reply::new(status).body("gone")).await;
        let reload = [("Cache-Control", "no-cache")];
        proxy.fetch("GET", "/s", &reload).await.assert_is(status, "gone");
        proxy.get("/s").await.assert_is(status, "gone");
        assert_eq!(origin.hits("/s"), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validation_brings_an_outdated_response_back_into_use() {
    let (origin, proxy) = first_then("max-age=0, stale-if-error=600", |r| match r.nth {
        2 => Reply::new(403).body("no"),
        _ => Reply::new(304).header("Cache-Control", "max-age=600").header("ETag", "\"v1\""),
    })
    .await;
    proxy.get("/s").await.assert_is(403, "no");
    proxy.get("/s").await.assert_is(200, "old");
    assert_eq!(origin.last("/s").header("if-none-match"), Some("\"v1\""));
    proxy.get("/s").await.assert_is(200, "old").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_304_under_which_nothing_may_be_stored_ends_the_stale_window() {
    let (_origin, proxy) = first_then(ON_ERROR, |r| match r.nth {
        2 => Reply::new(304).header("Cache-Control", "private").header("ETag", "\"v1\""),
        _ => Reply::new(503).body("broken"),
    })
    .await;
    proxy.get("/s").await.assert_is(200, "old");
    proxy.get("/s").await.assert_is(503, "broken");
}

/// A response whose end the gate holds back; the head and the first byte are sent.
fn slow(gate: &Gate, body: &str) -> Script {
    Script::new()
        .send(head(
            200,
            &[("Cache-Control", "max-age=600, public"), ("Transfer-Encoding", "chunked")],
        ))
        .send(chunk(&body[..1]))
        .gate(gate)
        .send(chunk(&body[1..]))
        .send(last_chunk(&[]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_older_response_does_not_replace_a_newer_one() {
    for newer in [("Cache-Control", "no-cache"), ("Authorization", "Bearer x"), ("Cookie", "a=1")] {
        let gate = Gate::new();
        let (origin, held) = (Origin::start().await, gate.clone());
        origin.on("/s", move |r| match r.nth {
            1 => slow(&held, "older"),
            _ => Reply::cached("max-age=600, public", "newer").into(),
        });
        let proxy = Proxy::start(&origin).await;
        let mut first = proxy.connect().await;
        first.send("GET /s HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        origin.arrived("/s", 1).await;
        let host = ("Host", "a.test");
        eventually("the newer one is stored", || async {
            let response = proxy.fetch("GET", "/s", &[host, newer]).await;
            (response.text() == "newer").then_some(())
        })
        .await;
        gate.open();
        first.response("GET").await.assert_is(200, "older");
        for _ in 0..3 {
            let response = proxy.fetch("GET", "/s", &[host]).await;
            response.assert_is(200, "newer").assert_hit();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_304_does_not_replace_a_newer_response() {
    let gate = Gate::new();
    let held = gate.clone();
    let (origin, proxy) = first_then("max-age=0, must-revalidate", move |r| match r.nth {
        2 => {
            let confirmed = Reply::new(304).header("ETag", "\"v1\"");
            let confirmed = confirmed.header("Cache-Control", "max-age=600");
            Script::new().gate(&held).reply(confirmed)
        }
        _ => Reply::cached("max-age=600", "new").header("ETag", "\"v2\"").into(),
    })
    .await;
    let slow = proxy.fetch("GET", "/s", &[("Cookie", "a=1")]);
    let meanwhile = async {
        origin.arrived("/s", 2).await;
        let reload = [("Cache-Control", "no-cache"), ("Cookie", "a=2")];
        proxy.fetch("GET", "/s", &reload).await.assert_is(200, "new");
        gate.open();
    };
    let (slow, ()) = tokio::join!(slow, meanwhile);
    slow.assert_is(200, "old");
    proxy.get("/s").await.assert_is(200, "new").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_that_may_not_be_stored_leaves_a_newer_response() {
    let gate = Gate::new();
    let (origin, held) = (Origin::start().await, gate.clone());
    origin.on("/s", move |r| match r.nth {
        1 => Reply::cached("max-age=0, stale-if-error=600", "old").into(),
        2 => Script::new().gate(&held).reply(Reply::new(404).body("gone")),
        _ => Reply::cached("max-age=600", "new").into(),
    });
    let proxy = Proxy::start(&origin).await;
    let host = ("Host", "a.test");
    proxy.fetch("GET", "/s", &[host]).await.assert_is(200, "old");
    let mut first = proxy.connect().await;
    first.send("GET /s HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    origin.arrived("/s", 2).await;
    proxy.fetch("GET", "/s", &[host, ("Cookie", "a=1")]).await.assert_is(200, "new");
    gate.open();
    first.response("GET").await.assert_is(404, "gone");
    proxy.fetch("GET", "/s", &[host]).await.assert_is(200, "new").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_empty_response_replaces_the_old_one() {
    let empty: [fn() -> Script; 3] = [
        || Reply::cached("max-age=600", "").into(),
        || {
            let chunked = [("Cache-Control", "max-age=600"), ("Transfer-Encoding", "chunked")];
            Script::new().send(head(200, &chunked)).send(last_chunk(&[]))
        },
        || Reply::new(204).header("Cache-Control", "max-age=600").into(),
    ];
    for script in empty {
        for control in [WINDOW, ON_ERROR, "max-age=0, must-revalidate"] {
            let (origin, proxy) = first_then(control, move |_| script()).await;
            assert_eq!(until_not_old(&proxy).await.text(), "");
            let hits = origin.hits("/s");
            let again = proxy.get("/s").await;
            assert_eq!(again.text(), "");
            again.assert_hit();
            assert_eq!(origin.hits("/s"), hits);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_response_that_may_have_broken_off_replaces_nothing() {
    let (_origin, proxy) = first_then("max-age=0, stale-if-error=600", |r| match r.nth {
        2 => Script::new().send(head(200, &[("Cache-Control", "max-age=600")])).close(),
        _ => Reply::new(503).into(),
    })
    .await;
    assert_eq!(proxy.get("/s").await.text(), "");
    proxy.get("/s").await.assert_is(200, "old");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_status_below_500_is_served_in_place_of_an_error() {
    for status in [200, 204, 301, 404, 410] {
        for body in ["", "old"].into_iter().filter(|body| status != 204 || body.is_empty()) {
            let origin = Origin::start().await;
            origin.on("/s", move |r| match r.nth {
                1 => Reply::new(status).header("Cache-Control", ON_ERROR).body(body),
                _ => Reply::new(503).body("broken"),
            });
            let proxy = Proxy::start(&origin).await;
            proxy.get("/s").await.assert_status(status);
            for _ in 0..2 {
                let stale = proxy.get("/s").await;
                stale.assert_is(status, body);
                assert!(stale.age().is_some(), "{stale:#?}");
            }
            proxy.fetch("HEAD", "/s", &[]).await.assert_status(status);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_server_error_is_not_served_in_place_of_an_error() {
    let origin = Origin::start().await;
    origin.on("/s", |r| match r.nth {
        1 => Reply::new(500).header("Cache-Control", ON_ERROR).body("first"),
        _ => Reply::new(503).body("second"),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/s").await.assert_is(500, "first");
    proxy.get("/s").await.assert_is(503, "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_disagrees_ends_the_use_of_the_stored_response() {
    for (status, etag) in [(200, "\"v2\""), (404, ""), (410, "")] {
        let origin = Origin::start().await;
        origin.on("/s", move |r| match (r.method(), r.nth) {
            ("HEAD", _) if etag.is_empty() => Reply::new(status),
            ("HEAD", _) => Reply::new(status).header("ETag", etag),
            (_, 1) => Reply::cached(ON_ERROR, "old").header("ETag", "\"v1\""),
            _ => Reply::new(503).body("broken"),
        });
        let proxy = Proxy::start(&origin).await;
        proxy.get("/s").await.assert_is(200, "old");
        proxy.fetch("HEAD", "/s", &[]).await.assert_status(status);
        proxy.get("/s").await.assert_is(503, "broken");
    }
}
