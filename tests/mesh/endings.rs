//! How the control plane goes away.

use std::time::{Duration, Instant};

use crate::ads::{Ads, NAMES, channel, first, node, node_id};
use crate::control_plane::proto::ECDS;
use crate::control_plane::{ControlPlane, Options};

#[tokio::test]
async fn after_a_goodbye_the_stream_lives_on_for_a_while() {
    let plane = Options::default().grace(Duration::from_secs(1)).start().await;
    let mut ads = Ads::open(&plane, "bookinfo").await;
    ads.take().await;
    plane.goaway();
    plane.push();
    ads.take().await;
    let end = ads.try_next().await;
    assert!(matches!(&end, Err(_) | Ok(None)), "{end:?}");
    let mut ads = Ads::open(&plane, "bookinfo").await;
    ads.take().await;
}

#[tokio::test]
async fn a_connection_has_a_maximum_age() {
    let age = Duration::from_secs(1);
    let plane = Options::default().max_age(age).grace(age).start().await;
    let started = Instant::now();
    let mut ads = Ads::open(&plane, "bookinfo").await;
    ads.take().await;
    let end = ads.try_next().await;
    assert!(matches!(&end, Err(_) | Ok(None)), "{end:?}");
    assert!(started.elapsed() >= 2 * age, "ended after {:?}", started.elapsed());
}

#[tokio::test]
async fn it_comes_back_on_the_same_port_with_what_it_knew() {
    let mut plane = ControlPlane::start().await;
    let mut ads = Ads::open(&plane, "bookinfo").await;
    ads.take().await;
    let addr = plane.addr();
    plane.stop().await;
    let end = ads.try_next().await;
    assert!(matches!(&end, Err(_) | Ok(None)), "{end:?}");
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "nobody listens");
    plane.start_again().await;
    assert_eq!(plane.addr(), addr);
    Ads::open(&plane, "bookinfo").await.take().await;
}

#[tokio::test]
async fn silent_it_takes_the_stream_and_says_nothing() {
    let plane = ControlPlane::start().await;
    plane.silence(true);
    let channel = channel(plane.addr()).await;
    let opening = tokio::spawn(Ads::on(channel, first(node("bookinfo"), &NAMES), None));
    let node = node_id("bookinfo");
    plane.until("the stream is there", &node, |c| c.watches.is_empty()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!opening.is_finished(), "not even the headers of a response");
    plane.silence(false);
    let mut ads = opening.await.unwrap().unwrap();
    ads.take().await;
    plane.until("the first is taken", &node, |c| c.watch(ECDS).acks == 1).await;
    plane.silence(true);
    plane.push();
    let quiet = tokio::time::timeout(Duration::from_millis(100), ads.try_next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    plane.silence(false);
    ads.take().await;
    plane.until("both are taken", &node, |c| c.watch(ECDS).acks == 2).await;
}
