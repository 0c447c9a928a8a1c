//! The stream to istiod: connect, subscribe, answer each response, connect again.
//!
//! State of the world and not delta: on a delta stream istiod never says that an extension
//! configuration was removed (Istio 1.29, `neverRemoveDelta`). The end of a stream is no error:
//! istiod closes connections after half an hour.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Streaming};
use tonic_prost::ProstCodec;

use crate::controller::Controller;
use crate::xds::apply::{Applier, told};
use crate::xds::backoff::Backoff;
use crate::xds::decode::RESOURCES;
use crate::xds::error::XdsError;
use crate::xds::proto::{
    DiscoveryRequest, DiscoveryResponse, EXTENSION_CONFIG, STREAM_AGGREGATED_RESOURCES, Status,
};
use crate::xds::settings::XdsSettings;
use crate::xds::state_file::StateFile;
use crate::xds::status::XdsStatus;

/// A connection must be made within this.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The first response must come within this: istiod answers a subscription at once, also when it has
/// no resources for it.
const FIRST_RESPONSE_MAX: Duration = Duration::from_secs(15);
/// A silent connection is probed this often: istiod refuses more than one probe in 15 s.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// An answer to a probe must come within this.
const KEEP_ALIVE_ANSWER_MAX: Duration = Duration::from_secs(10);
/// Bytes of one response at most.
const RESPONSE_BYTES_MAX: usize = 16 << 20;
/// Answers that may wait to be sent.
const REQUEST_QUEUE: usize = 4;

/// A client that follows istiod and puts its policy in force.
pub struct Client {
    settings: XdsSettings,
    applier: Applier,
    status: Arc<XdsStatus>,
    /// The kind of error that was logged last in the current outage.
    logged: Option<std::mem::Discriminant<XdsError>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Client {
    /// A client; what it kept of istiod's policy in an earlier run is in force when this returns.
    pub fn restored(
        settings: XdsSettings,
        controller: Arc<Controller>,
        status: Arc<XdsStatus>,
    ) -> Self {
        let state_file = settings.state_dir.clone().map(StateFile::new);
        let mut applier = Applier::new(controller, Arc::clone(&status), state_file);
        applier.restore();
        Client { settings, applier, status, logged: None }
    }

    /// Follows istiod until the future is dropped.
    pub async fn follow(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let ended = session(&self.settings, &mut self.applier, &self.status).await;
            let Err(error) = ended;
            if self.status.view().connected {
                backoff.reset();
                self.logged = None;
            }
            self.note(&error);
            tokio::time::sleep(backoff.next(fastrand::f64())).await;
        }
    }

    /// Logs one warning for each outage, and one for each further kind of reason in it. The end of a
    /// stream that had worked is no outage.
    fn note(&mut self, error: &XdsError) {
        let (address, reason) = (&self.settings.address, error.to_string());
        let had_worked = self.status.lost(&reason);
        let kind = Some(std::mem::discriminant(error));
        if had_worked || self.logged == kind {
            tracing::debug!(%address, reason, "disconnected from istiod");
        } else {
            self.logged = kind;
            tracing::warn!(%address, reason, "istiod cannot be reached; the policy stays as it is");
        }
    }
}

/// Runs one stream until it ends.
async fn session(
    settings: &XdsSettings,
    applier: &mut Applier,
    status: &XdsStatus,
) -> Result<std::convert::Infallible, XdsError> {
    let channel = connect(settings).await?;
    let (requests, mut responses) = subscribe(channel, settings).await?;
    let mut accepted = String::new();
    loop {
        let next = responses.message();
        let response = if status.view().connected {
            next.await
        } else {
            let first = tokio::time::timeout(FIRST_RESPONSE_MAX, next).await;
            first.map_err(|_| XdsError::Silent { seconds: FIRST_RESPONSE_MAX.as_secs() })?
        };
        let response = response.map_err(ended)?.ok_or(XdsError::Ended)?;
        if response.type_url != EXTENSION_CONFIG {
            tracing::debug!(type_url = response.type_url, "a response nobody asked for");
            continue;
        }
        if status.answered(response.control_plane.as_ref().map(|who| who.identifier.clone())) {
            tracing::info!(address = %settings.address, "connected to istiod");
        }
        // Compiling and writing to disk would delay the other tasks of the runtime.
        let answer = tokio::task::block_in_place(|| answer(applier, &response, &mut accepted));
        // istiod waits for an answer before it sends more: a full queue means that it reads none.
        requests.try_send(answer).map_err(|_| XdsError::Ended)?;
    }
}

/// The ACK or NACK for a response. A NACK repeats the version accepted last and gives the reason.
fn answer(
    applier: &mut Applier,
    response: &DiscoveryResponse,
    accepted: &mut String,
) -> DiscoveryRequest {
    let error_detail = match applier.apply(response) {
        Ok(result) => {
            tracing::debug!(version = response.version_info, result = result.as_str(), "policy");
            accepted.clone_from(&response.version_info);
            None
        }
        Err(found) => Some(Status { code: Code::InvalidArgument as i32, message: told(&found) }),
    };
    DiscoveryRequest {
        version_info: accepted.clone(),
        response_nonce: response.nonce.clone(),
        error_detail,
        ..subscription()
    }
}

fn subscription() -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: RESOURCES.iter().map(|(name, _)| (*name).to_owned()).collect(),
        type_url: EXTENSION_CONFIG.to_owned(),
        ..DiscoveryRequest::default()
    }
}

async fn connect(settings: &XdsSettings) -> Result<Channel, XdsError> {
    let address = &settings.address;
    let unusable = |error: tonic::transport::Error| XdsError::Connect {
        address: address.to_string(),
        reason: cause(&error),
    };
    let mut endpoint = Endpoint::from_shared(address.url())
        .map_err(unusable)?
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER_MAX);
    if address.tls {
        let path = &settings.ca_file;
        let pem = tokio::fs::read(path).await.map_err(|error| XdsError::Credential {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let name = settings.server_name.as_deref().unwrap_or(&address.host);
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(pem))
            .domain_name(name.trim_matches(['[', ']']));
        endpoint = endpoint.tls_config(tls).map_err(unusable)?;
    }
    // The time limit of the endpoint is for TCP; a TLS handshake can hang as well.
    let connected = tokio::time::timeout(CONNECT_MAX, endpoint.connect()).await;
    connected
        .map_err(|_| XdsError::Connect {
            address: address.to_string(),
            reason: format!("no connection within {} s", CONNECT_MAX.as_secs()),
        })?
        .map_err(unusable)
}

type Stream = (mpsc::Sender<DiscoveryRequest>, Streaming<DiscoveryResponse>);

async fn subscribe(channel: Channel, settings: &XdsSettings) -> Result<Stream, XdsError> {
    let labels = settings.identity.labels()?;
    let (requests, queue) = mpsc::channel(REQUEST_QUEUE);
    let node = Some(settings.identity.node(&labels));
    let first = DiscoveryRequest { node, ..subscription() };
    requests.send(first).await.map_err(|_| XdsError::Ended)?;
    let mut request = Request::new(ReceiverStream::new(queue));
    if settings.address.tls {
        authenticate(&mut request, settings).await?;
    }
    let mut client =
        tonic::client::Grpc::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX);
    client.ready().await.map_err(|error| XdsError::Connect {
        address: settings.address.to_string(),
        reason: cause(&error),
    })?;
    let path = PathAndQuery::from_static(STREAM_AGGREGATED_RESOURCES);
    let opening = client.streaming(request, path, ProstCodec::default());
    // istiod sends response headers with its first response only.
    let opened = tokio::time::timeout(FIRST_RESPONSE_MAX, opening).await;
    let opened = opened.map_err(|_| XdsError::Silent { seconds: FIRST_RESPONSE_MAX.as_secs() })?;
    Ok((requests, opened.map_err(ended)?.into_inner()))
}

/// The token lives for hours and is replaced on disk: it is read for each connection.
async fn authenticate<T>(request: &mut Request<T>, settings: &XdsSettings) -> Result<(), XdsError> {
    let path = &settings.token_file;
    let wrong = |reason: String| XdsError::Credential { path: path.clone(), reason };
    let token = tokio::fs::read_to_string(path).await.map_err(|error| wrong(error.to_string()))?;
    let bearer = format!("Bearer {}", token.trim());
    let mut bearer: MetadataValue<_> =
        bearer.parse().map_err(|_| wrong("is no token: not a line of text".to_owned()))?;
    bearer.set_sensitive(true);
    request.metadata_mut().insert("authorization", bearer);
    if let Ok(cluster) = settings.identity.cluster_id.parse() {
        request.metadata_mut().insert("clusterid", cluster);
    }
    Ok(())
}

/// The error that the status of an ended stream stands for.
fn ended(status: tonic::Status) -> XdsError {
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => {
            XdsError::Denied { reason: status.message().to_owned() }
        }
        _ => XdsError::Status { code: status.code(), reason: status.message().to_owned() },
    }
}

/// The innermost cause, which is the one that an operator can act on.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
