//! Refreshing what is about to expire.

use std::time::Duration;

use crate::support::{Origin, Reply, Script, Setup, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_took_long_is_refreshed_before_it_expires() {
    let origin = Origin::start().await;
    origin.on("/e", |r| {
        let reply = Reply::cached("max-age=4", r.nth.to_string());
        // Asked for many times a second, one of the last five fetch times draws a refresh.
        Script::new().sleep(Duration::from_millis(400)).reply(reply)
    });
    let policy = "routes:\n  - name: e\n    cache: {earlyRefresh: true}\n    \
                  guard: {refreshes: {jitter: 0ms}}\n";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    proxy.get("/e").await.assert_is(200, "1");
    let refreshed = eventually("a refresh behind a hit", || async {
        let response = proxy.get("/e").await;
        assert!(response.cache().has("hit"), "nobody waits: {response:#?}");
        (response.text() == "2").then_some(response)
    });
    refreshed.await.assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_policy_nothing_is_refreshed_early() {
    let origin = Origin::start().await;
    let slow = Duration::from_millis(200);
    origin.always("/e", Script::new().sleep(slow).reply(Reply::cached("max-age=2", "1")));
    let proxy = crate::support::Proxy::start(&origin).await;
    for _ in 0..20 {
        proxy.get("/e").await.assert_status(200);
    }
    assert_eq!(origin.hits("/e"), 1);
}
