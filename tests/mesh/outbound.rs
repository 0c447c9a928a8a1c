//! The cache of the caller, in its pod: requests of the app go to its Envoy, to
//! Outrigger, to Envoy again and then to the callee.

use crate::pod::{Version, possible};
use crate::sides::OUTBOUND;

#[tokio::test]
async fn a_post_goes_past_the_cache() {
    if !possible() {
        return;
    }
    let (world, _outrigger) = OUTBOUND.cached(Version::Older).await;
    let answer = world.request("POST", "/item", &[("content-length", "0")]).await;
    answer.assert_status(204);
    assert_eq!(answer.header("cache-status"), None);
    assert_eq!(world.app.hits("/item"), 1);
}
