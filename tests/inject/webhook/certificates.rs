//! Certificates of our own: made, shared, renewed, healed.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::api::Api;
use super::harness::{PATIENCE, Webhook, ask, connect, eventually, open, send};
use super::reviews::a_review;

/// The certificate that a replica serves.
async fn served(webhook: &Webhook, bundle: &str) -> Vec<u8> {
    let stream = connect(webhook.addr, bundle, b"http/1.1").await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn count(bundle: &str) -> usize {
    bundle.matches("BEGIN CERTIFICATE").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_makes_the_secret_and_tells_the_api_server() {
    let api = Api::start().await;
    assert_eq!(api.bundle(), "");
    let webhook = Webhook::own(&api, &[]).await;
    webhook.serving().await;
    let bundle = api.bundle();
    assert_eq!(count(&bundle), 1);
    assert_eq!(api.secret("ca.crt").unwrap(), bundle);
    assert!(api.secret("tls.key").unwrap().contains("PRIVATE KEY"));
    let (status, _) = ask(webhook.addr, &bundle, "POST", "/inject", a_review()).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    let stranger = rcgen::generate_simple_self_signed(["inject.mesh.svc".to_owned()]).unwrap();
    let error = open(webhook.addr, &stranger.cert.pem()).await.unwrap_err();
    assert!(error.contains("UnknownIssuer"), "the client does check: {error}");

    // Another process finds what there is.
    let later = Webhook::own(&api, &[]).await;
    later.serving().await;
    assert_eq!(served(&later, &bundle).await, served(&webhook, &bundle).await);
    assert_eq!(later.logged("was written") + later.logged("was told"), 0, "nothing to write");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_that_start_together_agree() {
    let api = Api::start().await;
    // Both see that there is no Secret before either makes one.
    api.hold_reads(2);
    let (one, other) = tokio::join!(Webhook::own(&api, &[]), Webhook::own(&api, &[]));
    one.serving().await;
    other.serving().await;
    assert!(api.conflicts.load(Ordering::SeqCst) > 0, "they raced");
    let bundle = api.bundle();
    assert_eq!(count(&bundle), 1);
    assert_eq!(served(&one, &bundle).await, served(&other, &bundle).await);
    assert_eq!(
        one.logged("Secret with the webhook's certificate was written")
            + other.logged("Secret with the webhook's certificate was written"),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_authorities_change_without_a_failed_request() {
    let api = Api::start().await;
    let lifetimes = ["--cert-lifetime", "9s", "--ca-lifetime", "18s"];
    let one = Webhook::own(&api, &lifetimes).await;
    let other = Webhook::own(&api, &lifetimes).await;
    one.serving().await;
    other.serving().await;
    let (mut certificates, mut authorities) = (Vec::new(), Vec::new());
    let (mut requests, mut most) = (0, 0);
    let mut kept = open(one.addr, &api.bundle()).await.unwrap();
    let end = Instant::now() + PATIENCE * 2;
    while certificates.len() < 5 || authorities.len() < 3 {
        assert!(Instant::now() < end, "{} and {}", certificates.len(), authorities.len());
        for webhook in [&one, &other] {
            let bundle = api.bundle();
            most = most.max(count(&bundle));
            let certificate = served(webhook, &bundle).await;
            let answer = ask(webhook.addr, &bundle, "POST", "/inject", a_review()).await;
            assert_eq!(answer.unwrap().0, StatusCode::OK, "after {requests} requests");
            if !certificates.contains(&certificate) {
                certificates.push(certificate);
            }
            requests += 2;
        }
        let answer = send(&mut kept, "POST", "/inject", a_review()).await;
        assert_eq!(answer.unwrap().0, StatusCode::OK, "on the connection that was always open");
        requests += 1;
        if let Some(newest) = api.secret("ca.crt").filter(|pem| !authorities.contains(pem)) {
            authorities.push(newest);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(most >= 2, "old and new authority were trusted at the same time");
    println!("{requests} requests, {} certificates, none failed", certificates.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_overwrite_or_delete_is_put_back() {
    let api = Api::start().await;
    let webhook = Webhook::own(&api, &[]).await;
    webhook.serving().await;
    let bundle = api.bundle();
    let before = served(&webhook, &bundle).await;
    for text in ["", "nonsense"] {
        api.overwrite_bundle(text);
        eventually("the bundle is back", || (api.bundle() == bundle).then_some(())).await;
    }
    api.delete_secret();
    eventually("the Secret is back", || api.secret("tls.crt")).await;
    assert_eq!(api.secret("ca.crt").unwrap(), bundle, "with what clients trust already");
    assert_eq!(served(&webhook, &bundle).await, before);
    api.renew_token();
    api.overwrite_bundle("");
    eventually("the new token is read", || (api.bundle() == bundle).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_on_without_the_api_server_and_says_so_once() {
    let api = Api::start().await;
    let webhook = Webhook::own(&api, &[]).await;
    webhook.serving().await;
    let bundle = api.bundle();
    api.down.store(true, Ordering::SeqCst);
    let trouble = "the Kubernetes API does not do what is needed";
    eventually("it notices", || (webhook.logged(trouble) > 0).then_some(())).await;
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let answer = ask(webhook.addr, &bundle, "POST", "/inject", a_review()).await;
        assert_eq!(answer.unwrap().0, StatusCode::OK);
    }
    assert_eq!(webhook.logged(trouble), 1, "ten passes later");
    assert!(webhook.log().contains("is served on, but not renewed"));
    api.down.store(false, Ordering::SeqCst);
    eventually("it goes on", || (webhook.logged("looked after again") == 1).then_some(())).await;

    // Another reason is worth another line.
    api.forbidden.store(true, Ordering::SeqCst);
    eventually("it notices", || (webhook.logged(trouble) == 2).then_some(())).await;
    let log = webhook.log();
    assert!(log.contains("let the service account of this pod get it"), "the fix is named");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_an_api_server_that_comes_later() {
    let api = Api::start().await;
    api.down.store(true, Ordering::SeqCst);
    let webhook = Webhook::own(&api, &[]).await;
    eventually("it notices", || {
        (webhook.logged("there is no certificate to serve yet") == 1).then_some(())
    })
    .await;
    api.down.store(false, Ordering::SeqCst);
    webhook.serving().await;
    assert!(ask(webhook.addr, &api.bundle(), "GET", "/healthz", "").await.is_ok());
}
