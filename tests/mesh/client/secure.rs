//! TLS with the service account's token, as pods have it.

use std::path::Path;

use super::{node, origin, setup};
use crate::control_plane::proto::ECDS;
use crate::control_plane::{Options, Tls, Token};
use crate::support::{Origin, Proxy, eventually};

async fn start(origin: &Origin, url: &str, dir: &Path, labels: &Path) -> Proxy {
    let (token, ca) = (dir.join("token"), dir.join("root-cert.pem"));
    let config = format!(
        "policy:\n  xds:\n    address: {url}\n    tokenFile: {}\n    caFile: {}\n",
        token.display(),
        ca.display()
    );
    // The address is in the file here, not in the flag.
    let mut setup = setup(origin, url, "reviews-1", labels);
    setup = setup.config(&config);
    setup.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_read_again_for_each_connection() {
    let origin = origin().await;
    let plane = Options::default().tls().token("first", "bookinfo", "reviews").start().await;
    let (dir, labels) = (tempfile::tempdir().unwrap(), super::labels());
    std::fs::write(dir.path().join("token"), "first\n").unwrap();
    std::fs::write(dir.path().join("root-cert.pem"), plane.ca_pem()).unwrap();
    let proxy = start(&origin, &plane.url(), dir.path(), labels.path()).await;
    let node = node("reviews-1");
    let before = plane.until("an acknowledgement", &node, |c| c.watch(ECDS).acks > 0).await.id;

    let token = |value: &str| {
        let [value, namespace, account] = [value, "bookinfo", "reviews"].map(str::to_owned);
        Some(Token { value, namespace, service_account: account })
    };
    plane.set_token(token("second"));
    plane.goaway();
    eventually("the old token is refused, and that is said", || async {
        proxy.log().contains("istiod refuses this identity").then_some(())
    })
    .await;
    assert!(!proxy.log().contains("first"), "a token is never shown: {}", proxy.log());
    std::fs::write(dir.path().join("token"), "second\n").unwrap();
    plane.until("another stream", &node, |c| c.id > before && c.watch(ECDS).acks > 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_somebody_else_is_not_believed() {
    let origin = origin().await;
    let plane = Options::default().tls().token("first", "bookinfo", "reviews").start().await;
    let (dir, labels) = (tempfile::tempdir().unwrap(), super::labels());
    std::fs::write(dir.path().join("token"), "first").unwrap();
    std::fs::write(dir.path().join("root-cert.pem"), Tls::new().ca_pem).unwrap();
    let proxy = start(&origin, &plane.url(), dir.path(), labels.path()).await;
    eventually("that is said", || async {
        proxy.log().contains("cannot connect to grpcs://").then_some(())
    })
    .await;
    proxy.get("/a").await.assert_status(200);
    assert!(plane.connections().is_empty(), "no token went to it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_missing_is_named() {
    let origin = origin().await;
    let plane = Options::default().tls().start().await;
    let (dir, labels) = (tempfile::tempdir().unwrap(), super::labels());
    std::fs::write(dir.path().join("root-cert.pem"), plane.ca_pem()).unwrap();
    let proxy = start(&origin, &plane.url(), dir.path(), labels.path()).await;
    eventually("that is said", || async {
        let log = proxy.log();
        (log.contains("audience istio-ca") && log.contains("/token")).then_some(())
    })
    .await;
    proxy.get("/a").await.assert_status(200);
}
