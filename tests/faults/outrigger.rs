//! Outrigger with the guard that the matrix is about.

use crate::origin::Origin;
use crate::scenario::Subject;
use crate::support::Setup;

const POLICY: &str = "\
guard:
  connectTimeout: 500ms
  firstByteTimeout: 1s
  idleTimeout: 1s
  retries: {budget: 20%, max: 1, on: [connect, reset, 502, 503, 504]}
  breaker: {failureRatio: 50%, minRequests: 20, window: 10s, openFor: 1s, openMax: 5s, probes: 2}
";

/// Outrigger before an origin of its own.
pub async fn outrigger() -> Subject {
    let origin = Origin::start();
    let [a, b] = origin.addrs();
    let setup = Setup::upstream("http://shop.test")
        .upstream_line(&format!("endpoints: [\"{a}\", \"{b}\"]"))
        .upstream_line("ejection: {consecutiveFailures: 5, ejectForMs: 2000}");
    let proxy = setup.policy(POLICY).start().await;
    Subject {
        name: "Outrigger",
        addr: proxy.addr,
        origin,
        fault: |mode| mode,
        _process: Box::new(proxy),
    }
}
