//! Wrong starts, and the end.

use outrigger_test_support::outrigger;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::api::Api;
use super::harness::{Webhook, ask, connect, eventually};
use super::reviews::a_review;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_is_finished() {
    let api = Api::start().await;
    let mut webhook = Webhook::own(&api, &[]).await;
    webhook.serving().await;
    let mut stream = connect(webhook.addr, &api.bundle(), b"http/1.1").await.unwrap();
    let body = a_review();
    let length = body.len();
    let head = format!(
        "POST /inject HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    // The answer tells that the body is waited for.
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    let (half, rest) = body.split_at(length / 2);
    stream.write_all(half.as_bytes()).await.unwrap();
    webhook.terminate();
    eventually("it is told", || (webhook.logged("ending") > 0).then_some(())).await;
    stream.write_all(rest.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("JSONPatch"));
    assert_eq!(webhook.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_taken_for_a_while_after_the_signal() {
    let api = Api::start().await;
    let mut webhook = Webhook::own(&api, &["--drain-quiet", "3s"]).await;
    webhook.serving().await;
    webhook.terminate();
    eventually("it is told", || (webhook.logged("ending") > 0).then_some(())).await;
    let (status, _) = ask(webhook.addr, &api.bundle(), "GET", "/readyz", "").await.unwrap();
    assert_eq!(status, 503);
    let (status, _) =
        ask(webhook.addr, &api.bundle(), "POST", "/inject", a_review()).await.unwrap();
    assert_eq!(status, 200, "pods made meanwhile are injected");
    assert_eq!(webhook.ended().await.code(), Some(0));
}

#[test]
fn wrong_starts_say_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("injection.yaml");
    std::fs::write(&config, "mesh: istio\n").unwrap();
    let bad = folder.path().join("bad.yaml");
    std::fs::write(&bad, "mesh: istoi\n").unwrap();
    let (config, bad) = (config.to_str().unwrap(), bad.to_str().unwrap());
    let own = ["--secret", "s", "--service", "s", "--webhook-configuration", "w"];
    let cases: [(Vec<&str>, i32, &str); 7] = [
        (vec!["--config", config], 64, "where does the certificate come from?"),
        (vec!["--config", bad, "--cert", "c", "--key", "k"], 64, "mesh: unknown variant `istoi`"),
        (vec!["--config", "missing.yaml", "--cert", "c", "--key", "k"], 64, "cannot read"),
        (vec!["--config", config, "--cert", "c"], 64, "--key <FILE>"),
        ([&["--config", config][..], &own].concat(), 64, "write --namespace"),
        (
            [&["--config", config, "--namespace", "mesh"][..], &own].concat(),
            64,
            "KUBERNETES_SERVICE_HOST is not set",
        ),
        (
            vec!["--config", config, "--listen", "127.0.0.1:0", "--cert", "/nowhere", "--key", "k"],
            1,
            "/nowhere: No such file",
        ),
    ];
    for (args, code, expected) in cases {
        let output = outrigger()
            .arg("inject-webhook")
            .args(&args)
            .env_remove("KUBERNETES_SERVICE_HOST")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}
