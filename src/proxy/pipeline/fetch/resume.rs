//! Going on with a body that broke off: the rest of it is asked for once, where a strong entity tag
//! tells that it is of the same representation (RFC 9110 §14.2, §13.1.5). The clients that read along
//! notice a pause; without a rest that fits their responses break off, as before.

use http::{HeaderMap, Method};
use outrigger_semantics::{conditional, partial};

use crate::guard::{Urgency, forget_caller_deadline};
use crate::pipeline::fetch::run::Fetch;
use crate::upstream::{UpstreamBody, UpstreamRequest};

impl Fetch {
    /// What comes after `had` bytes of a response with these fields and a body of `length` bytes.
    pub(super) async fn rest(
        &self,
        response: &HeaderMap,
        had: u64,
        length: u64,
    ) -> Option<UpstreamBody> {
        let mut headers = self.request.upstream_headers();
        forget_caller_deadline(&mut headers);
        conditional::strip_conditions(&mut headers);
        if had == 0 || had >= length || !partial::ask_for_rest(&mut headers, response, had) {
            return None;
        }
        let request = self.request.keyed_request(headers);
        let urgency = Urgency::Storable;
        let request = UpstreamRequest { method: Method::GET, urgency, ..request };
        let metrics = &self.shared().metrics;
        let Ok(rest) = self.request.worker.upstream.call(request).await else {
            metrics.count_resume("failed");
            return None;
        };
        let head = (rest.head.status, &rest.head.headers);
        let fits = partial::is_the_rest(head, response, had, length);
        metrics.count_resume(if fits { "resumed" } else { "changed" });
        fits.then_some(rest.body)
    }
}
