//! Sending a request once: on a connection kept from an earlier one, or on a new one.

use std::sync::Arc;

use http::header::HOST;
use http::uri::Scheme;
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;

use crate::body::request::RequestBody;
use crate::error::UpstreamError;
use crate::framing::declare_body;
use crate::guard::Report;
use crate::headers::nominate;
use crate::upstream::address::EndpointAddress;
use crate::upstream::call::Upstream;
use crate::upstream::connect::Connection;
use crate::upstream::deadlines::Deadlines;
use crate::upstream::endpoints::Chosen;
use crate::upstream::pool::Loan;
use crate::upstream::request::{Destination, Interim, UpstreamRequest};
use crate::upstream::settings::HostHeader;

/// Endpoints tried for one attempt, as long as none can be connected to.
const ENDPOINTS_TRIED_MAX: usize = 3;

type Answered = (Response<Incoming>, Option<Loan>);

/// A failed exchange. It holds the request if that was certainly not processed.
struct Failed {
    error: UpstreamError,
    request: Option<Request<RequestBody>>,
}

impl Upstream {
    /// Sends a request to an endpoint, if possible to one that is not among those `tried`.
    ///
    /// The upstream may close an idle connection at any moment. So a request that fails on a kept
    /// connection before any byte came back is sent once more on a new one, unless the upstream
    /// could then carry it out twice with another effect than once.
    pub(super) async fn exchange(
        &self,
        call: &mut UpstreamRequest,
        deadlines: &Deadlines,
        tried: &mut Vec<EndpointAddress>,
        report: &mut Report,
    ) -> Result<Answered, UpstreamError> {
        let Chosen { address: endpoint, pending } = self.choose(call, tried)?;
        report.goes_to(pending);
        tried.push(endpoint.clone());
        let repeatable = call.is_repeatable();
        let mut request = self.request(call, repeatable);
        if let Some(kept) = self.kept(&endpoint, call.to) {
            self.metrics.upstream_reused.inc();
            match self.send(&endpoint, kept, request).await {
                Ok(done) => return Ok(done),
                Err(Failed { request: Some(unsent), .. }) => request = unsent,
                Err(Failed { error: UpstreamError::Reset { .. }, .. }) if repeatable => {
                    request = self.request(call, repeatable);
                }
                Err(failed) => return Err(failed.error),
            }
        }
        // Boxed: its state is many times that of everything else here, and rarely needed.
        let connecting = self.connect(endpoint, call, deadlines, tried, report);
        let (endpoint, fresh) = Box::pin(connecting).await?;
        self.send(&endpoint, fresh, request).await.map_err(|failed| failed.error)
    }

    /// Opens a connection. If the endpoint cannot be reached, another one is tried: nothing has been
    /// sent yet, so that this is safe for every request.
    async fn connect(
        &self,
        first: EndpointAddress,
        call: &UpstreamRequest,
        deadlines: &Deadlines,
        tried: &mut Vec<EndpointAddress>,
        report: &mut Report,
    ) -> Result<(EndpointAddress, Connection), UpstreamError> {
        let mut endpoint = first;
        for nth in 1.. {
            self.metrics.upstream_connects.inc();
            let error = match self.connector.connect(&endpoint, call.to, &deadlines.timeouts).await
            {
                Ok(fresh) => {
                    if let Connection::Http2(sender) = &fresh {
                        self.pool.put_http2(&endpoint, sender.clone());
                    }
                    return Ok((endpoint, fresh));
                }
                Err(error) => error,
            };
            let another = || self.endpoints.choose(call.hash, tried);
            let others = call.to.is_none() && nth < ENDPOINTS_TRIED_MAX;
            let Some(next) = others.then(another).flatten() else {
                return Err(error);
            };
            tracing::debug!(%error, next = %next.address, "trying another endpoint");
            error.kind().into_iter().for_each(|kind| report.endpoint_failed(kind));
            report.goes_to(next.pending);
            tried.push(next.address.clone());
            endpoint = next.address;
        }
        Err(UpstreamError::NoEndpoint)
    }

    /// The endpoint for a request, if possible not one of those `tried`.
    fn choose(
        &self,
        call: &UpstreamRequest,
        tried: &[EndpointAddress],
    ) -> Result<Chosen, UpstreamError> {
        if let Some(destination) = call.to {
            return Ok(Chosen {
                address: EndpointAddress::Tcp(destination.address),
                pending: None,
            });
        }
        let chosen = self.endpoints.choose(call.hash, tried);
        let chosen = chosen.or_else(|| self.endpoints.choose(call.hash, &[]));
        chosen.ok_or(UpstreamError::NoEndpoint)
    }

    fn kept(
        &self,
        endpoint: &EndpointAddress,
        destination: Option<Destination>,
    ) -> Option<Connection> {
        // To a destination, connections of both protocols may be kept.
        if destination.is_none_or(|destination| destination.http2)
            && let Some(sender) = self.pool.http2(endpoint)
        {
            return Some(Connection::Http2(sender));
        }
        if destination.is_some_and(|destination| destination.http2) {
            return None;
        }
        self.pool.take_http1(endpoint).map(Connection::Http1)
    }

    async fn send(
        &self,
        endpoint: &EndpointAddress,
        connection: Connection,
        mut request: Request<RequestBody>,
    ) -> Result<Answered, Failed> {
        match connection {
            Connection::Http1(mut sender) => {
                if let Err(error) = sender.ready().await {
                    return Err(Failed { error: reset(endpoint, &error), request: Some(request) });
                }
                let sends_body = !request.body().is_empty();
                let uri = request.uri().path_and_query().cloned();
                *request.uri_mut() = uri.map_or_else(Uri::default, Uri::from);
                nominate(request.headers_mut());
                if sends_body {
                    let method = request.method().clone();
                    declare_body(&method, request.headers_mut());
                }
                match sender.try_send_request(request).await {
                    Ok(response) => {
                        let lease = Loan {
                            pool: Arc::clone(&self.pool),
                            endpoint: endpoint.clone(),
                            sender,
                            sends_body,
                        };
                        Ok((response, Some(lease)))
                    }
                    Err(mut failed) => Err(Failed {
                        request: failed.take_message(),
                        error: failure(endpoint, failed.error()),
                    }),
                }
            }
            Connection::Http2(mut sender) => {
                if let Err(error) = sender.ready().await {
                    return Err(Failed { error: reset(endpoint, &error), request: Some(request) });
                }
                *request.version_mut() = Version::HTTP_2;
                request.headers_mut().remove(HOST);
                match sender.try_send_request(request).await {
                    Ok(response) => Ok((response, None)),
                    Err(mut failed) => Err(Failed {
                        request: failed.take_message(),
                        error: failure(endpoint, failed.error()),
                    }),
                }
            }
        }
    }

    /// The HTTP request, with an absolute URI: HTTP/2 sends its scheme and authority, HTTP/1 only
    /// the path. Of a request that is `repeatable`, the header fields are copied, so that it can be
    /// made again.
    fn request(&self, call: &mut UpstreamRequest, repeatable: bool) -> Request<RequestBody> {
        let configured = call.to.is_none();
        let authority = match self.settings.host_header {
            HostHeader::Upstream if configured => self.settings.authority.clone(),
            HostHeader::Upstream | HostHeader::Preserve => call.authority.clone(),
        };
        let scheme =
            if configured && self.settings.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let mut request = Request::new(std::mem::replace(&mut call.body, RequestBody::Empty));
        *request.method_mut() = call.method.clone();
        *request.headers_mut() =
            if repeatable { call.headers.clone() } else { std::mem::take(&mut call.headers) };
        if let Ok(host) = http::HeaderValue::from_str(&authority) {
            request.headers_mut().insert(HOST, host);
        }
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query(call.target.clone())
            .build();
        *request.uri_mut() = uri.unwrap_or_else(|_| Uri::from(call.target.clone()));
        if let Some(sender) = call.interim.clone() {
            hyper::ext::on_informational(&mut request, move |response| {
                // A full queue drops the interim response; it is only a hint.
                let interim =
                    Interim { status: response.status(), headers: response.headers().clone() };
                let _ = sender.try_send(interim);
            });
        }
        request
    }
}

fn reset(endpoint: &EndpointAddress, error: &hyper::Error) -> UpstreamError {
    UpstreamError::Reset { endpoint: endpoint.to_string(), reason: cause(error) }
}

fn failure(endpoint: &EndpointAddress, error: &hyper::Error) -> UpstreamError {
    if error.is_user() {
        return UpstreamError::RequestBody { reason: cause(error) };
    }
    if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() {
        UpstreamError::Invalid { endpoint: endpoint.to_string(), reason: cause(error) }
    } else {
        reset(endpoint, error)
    }
}

fn cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
