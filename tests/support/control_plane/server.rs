//! The gRPC server: listening, authentication, and how connections end.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::codegen::BoxStream;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::tokio_stream::{self, StreamExt as _};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::node::Node;
use super::proto::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use super::state::{State, Token};
use super::tls::Tls;
use super::{delta, session};

const SERVICE: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService";

/// What streams and the test share.
pub(super) struct ServerState {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    pub silent: watch::Sender<bool>,
    pub goaway: watch::Sender<u64>,
    pub max_age: Option<Duration>,
}

impl ServerState {
    pub fn new(state: State, max_age: Option<Duration>) -> Self {
        Self {
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
            silent: watch::Sender::new(false),
            goaway: watch::Sender::new(0),
            max_age,
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the tests that wait for something to have happened.
    pub fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns once the control plane is not silent.
    pub async fn speaks(&self) {
        let mut silent = self.silent.subscribe();
        // The sender lives in `self`, so this cannot end early.
        let _ = silent.wait_for(|silent| !silent).await;
    }

    /// Who the caller is; `None` where nothing is asked of it.
    fn authenticate(&self, headers: &HeaderMap) -> Result<Option<ServiceAccount>, Status> {
        let mut state = self.lock();
        if !state.ready {
            state.streams_refused += 1;
            return Err(Status::unavailable("server is not ready to serve discovery information"));
        }
        let Some(token) = state.token.clone() else { return Ok(None) };
        let sent = headers.get("authorization").and_then(|value| value.to_str().ok());
        if sent.and_then(|value| value.strip_prefix("Bearer ")) != Some(token.value.as_str()) {
            state.streams_refused += 1;
            return Err(Status::unauthenticated("authentication failure"));
        }
        let Token { namespace, service_account, .. } = token;
        Ok(Some(ServiceAccount { namespace, service_account }))
    }
}

/// What a token proves.
#[derive(Clone, Debug)]
pub(super) struct ServiceAccount {
    namespace: String,
    service_account: String,
}

impl ServiceAccount {
    /// A client may claim only what its token says.
    pub fn may_be(&self, node: &Node) -> Result<(), Status> {
        let account = node.text("SERVICE_ACCOUNT").unwrap_or(&self.service_account);
        if node.namespace == self.namespace && account == self.service_account {
            return Ok(());
        }
        let Self { namespace, service_account } = self;
        Err(Status::permission_denied(format!(
            "authorization failed: no identities \
             ([spiffe://cluster.local/ns/{namespace}/sa/{service_account}]) matched {}/{account}",
            node.namespace
        )))
    }
}

/// Accepts connections until the task is aborted, which cuts them all.
pub(super) async fn serve(listener: TcpListener, tls: Option<Tls>, shared: Arc<ServerState>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        connections.spawn(async move {
            match tls {
                None => connection(stream, shared).await,
                Some(tls) => {
                    // A client that does not trust the certificate is its own concern.
                    if let Ok(stream) = tls.acceptor.accept(stream).await {
                        connection(stream, shared).await;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    shared: Arc<ServerState>,
) {
    let mut goaway = shared.goaway.subscribe();
    let for_requests = Arc::clone(&shared);
    let service = service_fn(move |request| dispatch(Arc::clone(&for_requests), request));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let age = async {
        match shared.max_age {
            Some(age) => tokio::time::sleep(age).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = connection.as_mut() => return,
        // Fails when the control plane is gone, and then this task is too.
        _ = goaway.changed() => {}
        () = age => {}
    }
    connection.as_mut().graceful_shutdown();
    // Streams that are still open afterwards are cut: an ADS stream has no end of its own.
    let grace = shared.lock().grace;
    let _ = tokio::time::timeout(grace, connection).await;
}

async fn dispatch(
    shared: Arc<ServerState>,
    request: http::Request<Incoming>,
) -> Result<http::Response<tonic::body::Body>, Infallible> {
    Ok(match request.uri().path().strip_prefix(SERVICE) {
        Some("/StreamAggregatedResources") => {
            Grpc::new(ProstCodec::default()).streaming(StateOfTheWorld(shared), request).await
        }
        Some("/DeltaAggregatedResources") => {
            Grpc::new(ProstCodec::default()).streaming(Delta(shared), request).await
        }
        _ => Status::unimplemented("unknown method").into_http(),
    })
}

type Answer<T> = Result<Response<BoxStream<T>>, Status>;
type Answering<T> = Pin<Box<dyn Future<Output = Answer<T>> + Send>>;

struct StateOfTheWorld(Arc<ServerState>);

impl StreamingService<DiscoveryRequest> for StateOfTheWorld {
    type Response = DiscoveryResponse;
    type ResponseStream = BoxStream<DiscoveryResponse>;
    type Future = Answering<DiscoveryResponse>;

    fn call(&mut self, request: Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(start(shared, request, session::run))
    }
}

struct Delta(Arc<ServerState>);

impl StreamingService<DeltaDiscoveryRequest> for Delta {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = BoxStream<DeltaDiscoveryResponse>;
    type Future = Answering<DeltaDiscoveryResponse>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(start(shared, request, delta::run))
    }
}

/// Lets a stream in. As with gRPC in Go, the response has no headers before
/// there is a first answer: a client that waits for them waits.
async fn start<I: Send + 'static, O: Send + 'static, F: Future<Output = ()> + Send + 'static>(
    shared: Arc<ServerState>,
    request: Request<Streaming<I>>,
    run: impl FnOnce(Arc<ServerState>, Option<ServiceAccount>, Streaming<I>, session::Answers<O>) -> F,
) -> Answer<O> {
    let identity = shared.authenticate(request.metadata().as_ref())?;
    let (answers, mut stream) = mpsc::channel(64);
    tokio::spawn(run(shared, identity, request.into_inner(), answers));
    let first = stream.recv().await.transpose()?.map(Ok);
    let rest = ReceiverStream::new(stream);
    Ok(Response::new(Box::pin(tokio_stream::iter(first).chain(rest))))
}
