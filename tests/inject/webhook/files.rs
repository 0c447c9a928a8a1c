//! A certificate from files, as cert-manager keeps them.

use super::harness::{Webhook, ask, eventually, open, write};
use super::reviews::a_review;

fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["inject.mesh.svc".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_again_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let (first, second) = (certificate(), certificate());
    write(&cert, &first.0);
    write(&key, &first.1);
    let flags = [
        "--cert",
        cert.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
        "--check-interval",
        "50ms",
    ];
    let webhook = Webhook::start(&flags, None).await;
    let answer = ask(webhook.addr, &first.0, "POST", "/inject", a_review()).await.unwrap();
    assert_eq!(answer.0, 200);
    let mut kept = open(webhook.addr, &first.0).await.unwrap();

    // One after the other: with half of it written, the old one is served.
    write(&cert, &second.0);
    eventually("it says so", || (webhook.logged("do not belong together") > 0).then_some(())).await;
    assert!(open(webhook.addr, &first.0).await.is_ok());
    write(&key, &second.1);
    eventually("it is read", || (webhook.logged("a new certificate is served") == 1).then_some(()))
        .await;
    assert!(open(webhook.addr, &second.0).await.is_ok());
    assert!(open(webhook.addr, &first.0).await.is_err());
    let answer = super::harness::send(&mut kept, "GET", "/healthz", "").await.unwrap();
    assert_eq!(answer.0, 200, "open connections stay");
    assert_eq!(webhook.logged("do not belong together"), 1);
}
