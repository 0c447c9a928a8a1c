//! From a client's request to a request to the upstream.

use std::sync::Arc;
use std::time::Duration;

use http::Version;
use http::header::HeaderMap;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::body::request::RequestBody;
use crate::guard::Urgency;
use crate::headers::Client;
use crate::headers::{announces_surrogate, to_upstream};
use crate::pipeline::request::RequestContext;
use crate::upstream::{InterimSender, UpstreamRequest};

/// Interim responses that may wait for a client.
const INTERIM_QUEUE: usize = 8;

impl RequestContext {
    /// The fields of the upstream request.
    pub(crate) fn upstream_headers(&self) -> HeaderMap {
        let mut headers = self.parts.headers.clone();
        to_upstream(
            &mut headers,
            self.forwarded_for(),
            &self.shared().identity,
            self.routing.upgrade,
            announces_surrogate(&self.route().store.targets),
        );
        headers
    }

    /// The client, as the forwarding fields describe it.
    pub(crate) fn forwarded_for(&self) -> Client {
        self.client.client(self.parts.version)
    }

    /// A request without a body for the keyed target, with these fields. It is for the store, and
    /// so not bound by what one caller says about its time.
    pub(crate) fn keyed_request(&self, headers: HeaderMap) -> UpstreamRequest {
        UpstreamRequest {
            method: self.parts.method.clone(),
            target: self.keyed_target(),
            authority: self.routing.authority.clone(),
            to: self.routing.to,
            headers,
            body: RequestBody::Empty,
            body_sent: None,
            hash: self.key.digest(),
            guard: Arc::clone(&self.guard),
            urgency: Urgency::Storable,
            caller: None,
            interim: None,
        }
    }

    /// The request as the client sent it, body included; its host in the spelling of the key.
    pub(crate) fn plain_request(&self, body: Option<Incoming>) -> UpstreamRequest {
        let mut request = self.keyed_request(self.upstream_headers());
        request.target = self.target();
        request.urgency = Urgency::Client;
        request.caller = self.caller;
        if let Some(incoming) = body {
            // An HTTP/2 stream may well be silent for long, as gRPC streams are.
            let idle = (self.parts.version < Version::HTTP_2)
                .then(|| Duration::from_millis(self.shared().settings.limits.body_idle_timeout_ms));
            let unread = self.client.http1.as_ref().map(|http1| Arc::clone(&http1.unread));
            let (body, sent) = RequestBody::client(incoming, idle, unread);
            request.body = body;
            request.body_sent = Some(sent);
        }
        request
    }

    /// What tells its client apart from others, where misses are bounded for each client.
    pub(crate) fn client_of_misses(&self) -> Option<u64> {
        match &self.guard.rules.misses.client {
            None => self.client.address_hash(),
            // Requests without the field count together.
            Some(name) => {
                let value = self.parts.headers.get(name);
                let value = value.map_or(&b""[..], http::HeaderValue::as_bytes);
                Some(outrigger_policy::key::digest(value) as u64)
            }
        }
    }
}

/// Sends with `send`, and hands 1xx responses to the client as they come, if it can take them:
/// HTTP/1.1 only.
pub(crate) async fn with_interims<F: Future>(
    context: &RequestContext,
    send: impl FnOnce(Option<InterimSender>) -> F,
) -> F::Output {
    let queue = context.client.http1.as_ref().map(|http1| &http1.interim);
    // The future is large. In a box it is not copied with each future that waits for it.
    let Some(queue) = queue.filter(|_| context.parts.version == Version::HTTP_11) else {
        return Box::pin(send(None)).await;
    };
    let (sender, mut interims) = mpsc::channel(INTERIM_QUEUE);
    let mut work = Box::pin(send(Some(sender)));
    loop {
        tokio::select! {
            biased;
            Some(interim) = interims.recv() => queue.send(&interim).await,
            done = &mut work => return done,
        }
    }
}
