//! Starting in a pod: what has to be known, and what is offered to whom.

use crate::support::{Origin, Setup, fetch, free_addr, outrigger};

fn refused(args: &[&str], envs: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = outrigger();
    for name in ["INSTANCE_IP", "INSTANCE_IPS", "POD_NAME", "POD_NAMESPACE"] {
        command.env_remove(name);
    }
    let out = command.arg("run").args(args).envs(envs.iter().copied()).output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[test]
fn what_a_pod_must_know_is_asked_for() {
    let ip = ("INSTANCE_IP", "10.77.0.3");
    for (args, envs, says) in [
        (&["--mode", "inbound"][..], &[][..], "INSTANCE_IP"),
        (&["--mode", "inbound"], &[("INSTANCE_IP", "reviews-1")], "\"reviews-1\" is no IP address"),
        (&["--mode", "inbound", "--xds", "grpc://127.0.0.1:1"], &[ip], "POD_NAME"),
        (
            &["--mode", "inbound", "--xds", "istiod:15012"],
            &[ip, ("POD_NAME", "a-1")],
            "write grpcs://",
        ),
        (&["--mode", "sideways"], &[], "[possible values: inbound, outbound]"),
    ] {
        let (code, error) = refused(args, envs);
        assert_eq!(code, Some(64), "{error}");
        assert!(error.contains(says), "{args:?}: {error}");
    }
}

#[test]
fn a_side_of_the_pod_is_not_offered_to_other_machines() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("outrigger.yaml");
    std::fs::write(&file, "listeners:\n  - address: 0.0.0.0:15480\n    mode: inbound\n").unwrap();
    let path = file.display().to_string();
    let (code, error) = refused(&["--config", &path], &[("INSTANCE_IP", "10.77.0.3")]);
    assert_eq!(code, Some(64), "{error}");
    assert!(
        error.contains("outrigger.yaml:2:") && error.contains("listeners[0].address"),
        "{error}"
    );
    assert!(error.contains("write 127.0.0.1:15480"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_asks_through_the_binary() {
    let origin = Origin::start().await;
    let proxy = Setup::of(&origin).start().await;
    let ask = |args: &[&str], admin: String| {
        let out = outrigger().arg("health").args(args).args(["--admin", &admin]).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    assert_eq!(ask(&[], proxy.admin.to_string()).0, Some(0));
    assert_eq!(ask(&["--ready"], proxy.admin.to_string()).0, Some(0));
    proxy.signal("TERM");
    let draining = crate::support::eventually("it says that it is draining", || async {
        let (code, error) = ask(&["--ready"], proxy.admin.to_string());
        (code == Some(1)).then_some(error)
    });
    assert!(draining.await.contains("draining"));
    assert_eq!(ask(&[], free_addr().to_string()).0, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_port_tells_and_does_nothing() {
    let origin = Origin::start().await;
    let metrics = free_addr();
    let proxy = Setup::of(&origin).flag("--metrics", &metrics.to_string()).start().await;
    for path in ["/metrics", "/healthz", "/readyz"] {
        fetch(metrics, "GET", path, &[]).await.assert_status(200);
    }
    for (method, path) in [
        ("POST", "/purge"),
        ("POST", "/breaker"),
        ("GET", "/config_dump"),
        ("GET", "/explain?url=http://a/"),
        ("GET", "/"),
    ] {
        let response = fetch(metrics, method, path, &[]).await;
        response.assert_status(404);
        assert!(response.text().contains(&proxy.admin.to_string()), "{response:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_hears_at_the_listener_itself_whether_it_wants_requests() {
    let origin = Origin::start().await;
    origin.always("/readyz", crate::support::Reply::ok("the application's own"));
    let config = "lifecycle: {drainQuietMs: 5000}";
    let proxy = Setup::mesh("inbound", "127.0.0.1").config(config).start().await;
    let check = [("host", "outrigger.internal")];
    proxy.fetch("GET", "/readyz", &check).await.assert_is(200, "ready\n");
    // What Envoy forwards is for the application, whatever its host.
    let to = origin.url().replace("http://", "");
    let forwarded = [("host", "outrigger.internal"), ("x-outrigger-upstream", to.as_str())];
    proxy.fetch("GET", "/readyz", &forwarded).await.assert_is(200, "the application's own");
    proxy.signal("TERM");
    crate::support::eventually("it says that it is draining", || async {
        let response = proxy.fetch("GET", "/readyz", &check).await;
        (response.status == 503).then_some(())
    })
    .await;
    // It still serves those who have not heard.
    proxy.fetch("GET", "/readyz", &forwarded).await.assert_is(200, "the application's own");
}
