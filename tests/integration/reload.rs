//! Policy that changes while the proxy runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use crate::support::{Origin, Proxy, Reply, Setup, eventually};

const OFF: &str =
    "routes:\n  - name: all\n    match: {path: {prefix: /}}\n    cache: {enabled: false}\n";
const ON: &str =
    "routes:\n  - name: all\n    match: {path: {prefix: /}}\n    cache: {ttl: {default: 600s}}\n";
const BAD: &str = "routes:\n  - name: all\n    match: {path: {prefix: /}}\n    \
                   cache: {notAField: true}\n";

async fn silent() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::ok(r.nth.to_string()));
    origin
}

/// Waits until a fresh path is cached (or not) on the second request.
async fn until_caching(proxy: &Proxy, caching: bool) {
    let n = std::sync::atomic::AtomicUsize::new(0);
    eventually(&format!("caching is {caching}"), || async {
        let n = n.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = format!("/probe/{caching}/{n}");
        proxy.get(&path).await;
        (proxy.get(&path).await.cache().has("hit") == caching).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_file_is_read_again_when_it_is_written() {
    let origin = silent().await;
    let proxy = Setup::of(&origin).policy(OFF).start().await;
    until_caching(&proxy, false).await;
    fs::write(proxy.policy.as_ref().unwrap(), ON).unwrap();
    until_caching(&proxy, true).await;
    fs::write(proxy.policy.as_ref().unwrap(), OFF).unwrap();
    until_caching(&proxy, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_file_is_read_again_when_it_is_replaced() {
    let origin = silent().await;
    let dir = TempDir::new().unwrap();
    let (file, next) = (dir.path().join("policy.yaml"), dir.path().join("next"));
    fs::write(&file, OFF).unwrap();
    let proxy = Setup::of(&origin).policy_file(&file).start().await;
    until_caching(&proxy, false).await;
    for (text, caching) in [(ON, true), (OFF, false)] {
        fs::write(&next, text).unwrap();
        fs::rename(&next, &file).unwrap();
        until_caching(&proxy, caching).await;
    }
}

/// Puts a version in place the way the kubelet does: a new folder, and `..data`
/// moved over to it by one rename.
fn publish(volume: &Path, version: &str, policy: &str) {
    let folder = volume.join(format!("..{version}"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("policy.yaml"), policy).unwrap();
    let fresh = volume.join("..data_tmp");
    symlink(format!("..{version}"), &fresh).unwrap();
    fs::rename(&fresh, volume.join("..data")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_swap_is_noticed_again_and_again() {
    let origin = silent().await;
    let volume = TempDir::new().unwrap();
    publish(volume.path(), "2026_01", OFF);
    let file = volume.path().join("policy.yaml");
    symlink("..data/policy.yaml", &file).unwrap();
    let proxy = Setup::of(&origin).policy_file(&file).start().await;
    until_caching(&proxy, false).await;
    for (version, old, text, caching) in [
        ("2026_02", "2026_01", ON, true),
        ("2026_03", "2026_02", OFF, false),
        ("2026_04", "2026_03", ON, true),
    ] {
        publish(volume.path(), version, text);
        fs::remove_dir_all(volume.path().join(format!("..{old}"))).unwrap();
        until_caching(&proxy, caching).await;
    }
}

/// The sum of all samples of policy metrics that speak of refusal.
async fn refusals(proxy: &Proxy) -> f64 {
    let metrics = proxy.admin("/metrics").await;
    metrics.assert_status(200);
    let speaks = |line: &str| {
        let line = line.to_lowercase();
        line.contains("policy")
            && ["reject", "refus", "invalid", "error", "fail"]
                .iter()
                .any(|word| line.contains(word))
    };
    let text = metrics.text();
    let samples = text.lines().filter(|line| !line.starts_with('#') && speaks(line));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_policy_is_kept_out_and_the_last_good_one_stays() {
    let origin = silent().await;
    let proxy = Setup::of(&origin).policy(ON).start().await;
    until_caching(&proxy, true).await;
    let before = refusals(&proxy).await;
    assert!(!proxy.admin("/config_dump").await.text().contains("notAField"));

    let file = proxy.policy.clone().unwrap();
    fs::write(&file, BAD).unwrap();
    eventually("the metric counts a refused policy", || async {
        (refusals(&proxy).await > before).then_some(())
    })
    .await;
    let dump = proxy.admin("/config_dump").await.assert_status(200).text();
    assert!(dump.contains("notAField"), "the reason is not in the dump: {dump}");
    until_caching(&proxy, true).await;
    assert_eq!(proxy.is_ready().await, Some(true));

    for broken in ["routes: [", "\u{0}\u{1}", "routes: {}", "- 1\n"] {
        fs::write(&file, broken).unwrap();
        proxy.get("/still").await.assert_status(200);
    }
    fs::write(&file, BAD).unwrap();
    fs::remove_file(&file).unwrap();
    until_caching(&proxy, true).await;

    // And a good one is taken again afterwards.
    fs::write(&file, OFF).unwrap();
    until_caching(&proxy, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_disturbs_no_request_that_is_under_way() {
    let origin = silent().await;
    let gate = crate::support::Gate::new();
    let script = crate::support::Script::new()
        .send(crate::support::head(200, &[("Content-Length", "10")]))
        .send("first ")
        .gate(&gate)
        .send("rest");
    origin.always("/long", script);
    let proxy = Setup::of(&origin).policy(OFF).start().await;
    let mut client = proxy.connect().await;
    client.request("GET", "/long", &[]).await;
    client.until("first ").await;
    fs::write(proxy.policy.as_ref().unwrap(), ON).unwrap();
    until_caching(&proxy, true).await;
    gate.open();
    client.until("rest").await;
}
