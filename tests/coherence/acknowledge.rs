//! What a purge answers: who has it, who is missing, and how soon.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::Shape;
use crate::support::{Origin, Reply, eventually};

async fn origin() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::cached("max-age=600", format!("{} {}", r.path(), r.nth)));
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_acknowledge_soon() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 4).start().await;
    let mut times = Vec::new();
    for n in 0..20 {
        let began = Instant::now();
        let answer = cluster.pods[n % 4].purge_all(json!({"tag": format!("t{n}")}), "5s").await;
        times.push(began.elapsed());
        assert_eq!(answer["applied"], 4, "{answer}");
        assert_eq!(answer["live"], 4, "{answer}");
        assert_eq!(answer["missing"], json!([]), "{answer}");
        assert_eq!(answer["scope"], "namespace", "{answer}");
        assert!(answer["seq"].as_u64().is_some_and(|seq| seq > 0), "{answer}");
    }
    times.sort_unstable();
    println!("acknowledged by four pods: median {:?}, slowest {:?}", times[10], times[19]);
    assert!(times[19] < Duration::from_secs(1), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_have_acknowledged_is_in_effect_in_all() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 4).start().await;
    for n in 1..=5 {
        let old = cluster.warm("/e/a").await;
        cluster.pods[n % 4].purge_all(json!({"url": "http://shop.test/e/a"}), "5s").await;
        for pod in &cluster.pods {
            let now = pod.get("/e/a").await.text();
            assert!(!old.contains(&now), "{} in round {n}: {now}", pod.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_rise_whoever_is_asked() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 3).start().await;
    let mut last = 0;
    for n in 0..9 {
        let answer = cluster.pods[n % 3].purge(json!({"tag": "x"})).await;
        let seq = answer["seq"].as_u64().expect("a sequence");
        assert!(seq > last, "{answer} after {last}");
        last = seq;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_stands_still_is_missing_until_its_lease_has_run_out() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 4).start().await;
    cluster.pods[3].pause().await;
    let began = Instant::now();
    let answer = cluster.pods[0].purge_all(json!({"tag": "x"}), "300ms").await;
    let took = began.elapsed();
    assert_eq!(answer["missing"], json!(["pod-3"]), "{answer}");
    assert_eq!(answer["live"], 4, "{answer}");
    assert_eq!(answer["applied"], 3, "{answer}");
    assert!(took >= Duration::from_millis(300), "{took:?}: it did not wait");
    eventually("its lease has run out", || async {
        let answer = cluster.pods[0].purge_all(json!({"tag": "x"}), "300ms").await;
        let gone = answer["live"] == 3 && answer["missing"] == json!([]);
        gone.then(|| assert_eq!(answer["applied"], 3, "{answer}"))
    })
    .await;
    cluster.pods[3].go_on();
    cluster.live(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_waits_long_enough_waits_for_the_end_of_a_lease() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 3).start().await;
    cluster.pods[2].proxy.signal("KILL");
    let answer = cluster.pods[0].purge_all(json!({"tag": "x"}), "10s").await;
    assert_eq!(answer["missing"], json!([]), "{answer}");
    assert_eq!(answer["live"], 2, "{answer}");
    assert_eq!(answer["applied"], 2, "{answer}");
}

/// Just after the start pods may serve under leases that the list does not tell of: an answer that
/// comes before that is sorted out does not pretend to be about all.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_about_a_list_that_is_too_young_says_so() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 2).lease(Duration::from_secs(30)).start().await;
    let answer = cluster.pods[0].purge_all(json!({"tag": "x"}), "300ms").await;
    assert_eq!(answer["missing"], json!([]), "{answer}");
    assert_eq!(answer["complete"], json!(false), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ends_in_order_is_not_waited_for() {
    let origin = origin().await;
    let lease = Duration::from_secs(4);
    let mut cluster = Shape::of(origin.url(), 3).lease(lease).start().await;
    let leaver = &mut cluster.pods[2].proxy;
    leaver.signal("TERM");
    leaver.wait_exit().await;
    let began = Instant::now();
    let answer = cluster.pods[0].purge_all(json!({"tag": "x"}), "10s").await;
    assert_eq!(answer["missing"], json!([]), "{answer}");
    assert_eq!(answer["live"], 2, "{answer}");
    assert_eq!(answer["complete"], true, "{answer}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_waiting_the_answer_comes_although_a_pod_stands_still() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 2).start().await;
    cluster.pods[1].pause().await;
    let answer = cluster.pods[0].purge(json!({"tag": "x", "wait": "appended"})).await;
    assert_eq!(answer["scope"], "namespace", "{answer}");
    // Nobody has waited for its place in the log: accepted, and not done.
    let none = json!({"tag": "x", "wait": "none"}).to_string();
    cluster.pods[0].proxy.try_purge(&none).await.assert_status(202);
    cluster.pods[1].go_on();
}
