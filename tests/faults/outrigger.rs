//! Outrigger with the guard that the matrix is about.

use crate::origin::Origin;
use crate::scenario::Subject;
use crate::support::Setup;

/// Whether the binary has a guard beyond deadlines: without one the matrix only shows what is missing.
pub const GUARDED: bool = false;

const POLICY: &str = "\
routes:
  - name: all
    match: {path: {prefix: /}}
    guard:
      firstByteTimeout: 1s
      idleTimeout: 1s
";

const GUARD: &str = "      connectTimeout: 500ms
      retries: {budget: 20%, max: 1, on: [connect, reset, 502, 503, 504]}
      breaker: {failureRatio: 50%, minRequests: 20, window: 10s, openFor: 1s, openMax: 5s, probes: 2}
";

/// Outrigger before an origin of its own.
pub async fn outrigger() -> Subject {
    let origin = Origin::start();
    let [a, b] = origin.addrs();
    let mut setup = Setup::upstream("http://shop.test")
        .upstream_line(&format!("endpoints: [\"{a}\", \"{b}\"]"))
        .upstream_line("timeouts: {connectMs: 500, firstByteMs: 1000, betweenBytesMs: 1000}");
    let mut policy = POLICY.to_owned();
    if GUARDED {
        setup = setup.upstream_line("ejection: {consecutiveFailures: 5, ejectForMs: 2000}");
        policy.push_str(GUARD);
    }
    let proxy = setup.policy(&policy).start().await;
    Subject { name: "Outrigger", addr: proxy.addr, origin, _process: Box::new(proxy) }
}
