//! From a job to a call of the upstream, and from an upstream's response to the client's.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderMap;
use http::{Response, Version};
use outrigger_semantics::cache_status::CacheStatus;
use tokio::sync::mpsc;

use crate::body::request::RequestBody;
use crate::body::response::{ResponseBody, StreamedBody};
use crate::client::ClientConnection;
use crate::guard::Urgency;
use crate::headers::{announces_surrogate, from_upstream, to_upstream};
use crate::pipeline::job::Job;
use crate::upstream::{Call, Interim, UpstreamResponse};

/// Interim responses that may wait for a client.
const INTERIM_QUEUE: usize = 8;

impl Job {
    /// The fields of the upstream request.
    pub(crate) fn upstream_headers(&self) -> HeaderMap {
        let mut headers = self.parts.headers.clone();
        to_upstream(
            &mut headers,
            self.peer.client(self.parts.version),
            &self.worker.shared.identity,
            self.upgrade,
            announces_surrogate(&self.route.store.targets),
        );
        headers
    }

    /// A call without a body for the keyed target, with these fields. It is for the cache, and so
    /// not bound by what one caller says about its time.
    pub(crate) fn keyed_call(&self, headers: HeaderMap) -> Call {
        Call {
            method: self.parts.method.clone(),
            target: self.keyed_target(),
            authority: self.authority.clone(),
            to: self.to,
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

    /// A call with the request as the client sent it, body included.
    pub(crate) fn plain_call(&mut self) -> Call {
        let headers = self.upstream_headers();
        let mut call = self.keyed_call(headers);
        call.target = self.target();
        call.urgency = Urgency::Client;
        call.caller = self.caller;
        if let Some(incoming) = self.body.take() {
            // An HTTP/2 stream may well be silent for long, as gRPC streams are.
            let idle = (self.parts.version < Version::HTTP_2).then(|| {
                Duration::from_millis(self.worker.shared.settings.limits.body_idle_timeout_ms)
            });
            let (body, sent) = RequestBody::client(incoming, idle);
            call.body = body;
            call.body_sent = Some(sent);
        }
        call
    }

    /// The client's response: the upstream's, cleaned, with our `Cache-Status`.
    pub(crate) fn streamed(
        &self,
        upstream: UpstreamResponse,
        status: CacheStatus<'_>,
    ) -> Response<ResponseBody> {
        let UpstreamResponse { mut head, body, exchange } = upstream;
        from_upstream(
            &mut head.headers,
            head.version,
            &self.worker.shared.identity,
            exchange.responded_at,
        );
        let body = ResponseBody::Upstream(Box::new(StreamedBody(body)));
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        if let Some(reason) = head.extensions.remove::<hyper::ext::ReasonPhrase>() {
            response.extensions_mut().insert(reason);
        }
        self.tell(&mut response, status);
        response
    }

    /// A channel for 1xx responses, if the client can take them: HTTP/1.1 only.
    pub(crate) fn interims(&self) -> Option<(mpsc::Sender<Interim>, mpsc::Receiver<Interim>)> {
        (self.peer.interim.is_some() && self.parts.version == Version::HTTP_11)
            .then(|| mpsc::channel(INTERIM_QUEUE))
    }
}

/// Waits for `work`, handing 1xx responses to the client as they come.
pub(crate) async fn with_interims<T>(
    peer: &ClientConnection,
    interims: Option<mpsc::Receiver<Interim>>,
    work: impl Future<Output = T>,
) -> T {
    let (Some(mut interims), Some(queue)) = (interims, &peer.interim) else { return work.await };
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            Some(interim) = interims.recv() => queue.send(&interim).await,
            done = &mut work => return done,
        }
    }
}
