//! The instrument itself: each fault is the one that it claims to be, and
//! recovery is what the table says it is.

use std::time::{Duration, Instant};

use crate::figures::recovery;
use crate::load::{Asked, Class, Outcome, body_of};
use crate::origin::Origin;
use crate::rows::EndpointState;
use crate::support::{Client, End, eventually};

/// Longer than answers on loopback take, and shorter than what hangs. Where a busy machine makes it
/// too short, a check that expects an answer is made again.
const SHORT: Duration = Duration::from_millis(400);
const PATH: &str = "/hot/1";

/// What a client meets.
#[derive(Debug, PartialEq, Eq)]
enum Met {
    NoConnection,
    ConnectHangs,
    NoHead,
    Hangs,
    Answer(u16, End, bool),
}

async fn meet(origin: &Origin, endpoint: usize, patience: Duration) -> Met {
    let addr = origin.addrs()[endpoint];
    let Ok(connected) = tokio::time::timeout(patience, Client::try_connect(addr)).await else {
        return Met::ConnectHangs;
    };
    let Ok(mut client) = connected else {
        return Met::NoConnection;
    };
    client.request("GET", PATH, &[]).await;
    match tokio::time::timeout(patience, client.try_response("GET")).await {
        Err(_) => Met::Hangs,
        Ok(Err(_)) => Met::NoHead,
        Ok(Ok(r)) => Met::Answer(r.status, r.end, r.body == body_of(PATH).as_bytes()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mode_is_what_its_name_says() {
    let origin = Origin::start();
    let whole = || Met::Answer(200, End::Length, true);
    for (mode, expected) in [
        (EndpointState::Refuse, Met::NoConnection),
        (EndpointState::Jam, Met::ConnectHangs),
        (EndpointState::ResetBeforeHead, Met::NoHead),
        (EndpointState::ResetInHead, Met::NoHead),
        (EndpointState::ResetInBody, Met::Answer(200, End::Truncated, false)),
        (EndpointState::HangBeforeHead, Met::Hangs),
        (EndpointState::HangInHead, Met::Hangs),
        (EndpointState::HangInBody, Met::Hangs),
        (EndpointState::Slow, Met::Hangs),
        (EndpointState::Unavailable, Met::Answer(503, End::Length, false)),
        (EndpointState::Garbage, Met::NoHead),
    ] {
        origin.switch([mode, EndpointState::Healthy]);
        // The switch is a message to the endpoint, which is there soon.
        eventually(&format!("{mode:?}: {expected:?}"), || async {
            (meet(&origin, 0, SHORT).await == expected).then_some(())
        })
        .await;
        // Within the time in which the first one would hang: on a busy machine it may take a try.
        eventually(&format!("the other one beside {mode:?}"), || async {
            (meet(&origin, 1, SHORT).await == whole()).then_some(())
        })
        .await;
        origin.switch([EndpointState::Healthy; 2]);
        eventually(&format!("health after {mode:?}"), || async {
            (meet(&origin, 0, SHORT).await == whole()).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_open_is_closed_by_an_endpoint_that_refuses() {
    let origin = Origin::start();
    let begin = Instant::now();
    let mut client = Client::connect(origin.addrs()[0]).await;
    client.get(PATH, &[]).await.assert_is(200, body_of(PATH));
    origin.switch([EndpointState::Refuse, EndpointState::Healthy]);
    let (rest, _) = client.rest_until_close().await;
    assert!(rest.is_empty(), "{rest:?}");
    let until = Instant::now();
    assert_eq!(origin.log.requests(begin, until, Class::Hot), 1);
    assert_eq!(origin.log.connections(begin, until), 1);
}

#[test]
fn recovery_is_the_first_moment_of_half_a_second_without_failure() {
    let ms = Duration::from_millis;
    let served = Some((Outcome::Served { stale: false }, ms(1)));
    let failed = Some((Outcome::Status(503), ms(1)));
    let asked = |outcomes: &[Option<(Outcome, Duration)>]| -> Vec<Asked> {
        let at = (0..).map(|n| ms(100 * n));
        let one = |(done, at): (&_, _)| Asked { class: Class::Uncacheable, at, done: *done };
        outcomes.iter().zip(at).map(one).collect()
    };
    let all = asked(&[served; 10]);
    assert_eq!(recovery(&all, ms(200)), Some(ms(0)));
    assert_eq!(recovery(&all, ms(500)), None, "too short to tell");
    let mut late = asked(&[served; 12]);
    late[3].done = failed;
    assert_eq!(recovery(&late, ms(200)), Some(ms(200)));
    late[9].done = None;
    assert_eq!(recovery(&late, ms(200)), None, "an open request is no success yet");
}
