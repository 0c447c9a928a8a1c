//! Opening a connection to an endpoint and starting HTTP on it. Keeping connections is the pool's
//! work, choosing the endpoint that of `endpoints`.

use std::io;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use crate::body::request::RequestBody;
use crate::error::UpstreamError;
use crate::upstream::address::EndpointAddress;
use crate::upstream::request::Destination;
use crate::upstream::settings::{Protocol, Timeouts, UpstreamSettings};
use crate::upstream::tls::{TlsClient, chose_http2};

/// Bytes of one response that an HTTP/2 upstream may send before its client has taken them.
const H2_STREAM_WINDOW: u32 = 512 * 1024;
/// The same for all responses of a connection (RFC 9113 §6.9.1): as much as can be said, so that it
/// is the streams that are bounded. Otherwise a few clients that take nothing would use it up, and
/// stop all other requests on their connection.
const H2_CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// An idle HTTP/2 connection is probed this often, so that a dead one is noticed.
const H2_PING: Duration = Duration::from_secs(20);

/// A connection that requests can be sent on.
pub(crate) enum Connection {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

/// A transport stream. Boxed, so that HTTP is compiled for one type and not for each transport.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A transport stream with the protocol that is spoken on it.
pub(crate) struct Transport {
    stream: Box<dyn Stream>,
    http2: bool,
}

/// Opens connections. One serves all workers: it holds no connection, only settings.
pub(crate) struct Connector {
    tls: Option<TlsClient>,
    protocol: Protocol,
    header_count_max: usize,
    header_bytes_max: usize,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// # Errors
    /// The upstream is reached over TLS, and the certificates to trust cannot be read.
    pub(crate) fn new(settings: &UpstreamSettings) -> io::Result<Self> {
        let tls = settings.tls.as_ref();
        Ok(Connector {
            tls: tls.map(|tls| TlsClient::new(tls, settings.protocol)).transpose()?,
            protocol: settings.protocol,
            header_count_max: settings.header_count_max,
            header_bytes_max: settings.header_bytes_max,
        })
    }

    /// Connects to an endpoint and starts HTTP. A `destination` that Envoy has named is in the pod
    /// or behind Envoy, and is spoken to without TLS.
    pub(crate) async fn connect(
        &self,
        endpoint: &EndpointAddress,
        destination: Option<Destination>,
        timeouts: &Timeouts,
    ) -> Result<Connection, UpstreamError> {
        let transport = self.open(endpoint, destination, timeouts).await?;
        let connection = self.start(transport).await;
        connection.map_err(|error| failed(endpoint, &error))
    }

    /// Opens the transport alone: TCP or a Unix socket, and TLS where it is configured.
    pub(crate) async fn open(
        &self,
        endpoint: &EndpointAddress,
        destination: Option<Destination>,
        timeouts: &Timeouts,
    ) -> Result<Transport, UpstreamError> {
        let tls = self.tls.as_ref().filter(|_| destination.is_none());
        let protocol = destination.map_or(self.protocol, Destination::protocol);
        match endpoint {
            EndpointAddress::Tcp(address) => {
                let socket = async {
                    let socket = TcpStream::connect(address).await?;
                    socket.set_nodelay(true)?;
                    Ok(socket)
                };
                transport(endpoint, socket, tls, protocol, timeouts).await
            }
            EndpointAddress::Unix(path) => {
                transport(endpoint, UnixStream::connect(path), tls, protocol, timeouts).await
            }
        }
    }

    async fn start(&self, transport: Transport) -> hyper::Result<Connection> {
        let io = TokioIo::new(transport.stream);
        if transport.http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(H2_STREAM_WINDOW)
                .initial_connection_window_size(H2_CONNECTION_WINDOW)
                .keep_alive_interval(H2_PING)
                .max_header_list_size(u32::try_from(self.header_bytes_max).unwrap_or(u32::MAX))
                .handshake(io)
                .await?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "upstream HTTP/2 connection ended");
                }
            });
            return Ok(Connection::Http2(sender));
        }
        let (sender, connection) = http1::Builder::new()
            .max_headers(self.header_count_max)
            .max_buf_size(self.header_bytes_max.max(8192))
            .handshake(io)
            .await?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "upstream HTTP/1 connection ended");
            }
        });
        Ok(Connection::Http1(sender))
    }
}

/// Waits for the socket, at most `connect_ms`, then for the TLS handshake; both together take at most
/// `connect_ms + tls_ms`.
async fn transport<S: Stream + 'static>(
    endpoint: &EndpointAddress,
    socket: impl Future<Output = io::Result<S>>,
    tls: Option<&TlsClient>,
    protocol: Protocol,
    timeouts: &Timeouts,
) -> Result<Transport, UpstreamError> {
    let began = Instant::now();
    let socket = within(endpoint, began, timeouts.connect_ms, socket).await?;
    let Some(tls) = tls else {
        let http2 = protocol == Protocol::Http2;
        return Ok(Transport { stream: Box::new(socket), http2 });
    };
    let millis = timeouts.connect_ms.saturating_add(timeouts.tls_ms);
    let secured = within(endpoint, began, millis, tls.handshake(socket)).await?;
    let http2 = match protocol {
        Protocol::Http1 => false,
        Protocol::Http2 => true,
        Protocol::Auto => chose_http2(&secured),
    };
    Ok(Transport { stream: Box::new(secured), http2 })
}

async fn within<T>(
    endpoint: &EndpointAddress,
    began: Instant,
    millis: u64,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, UpstreamError> {
    match timeout_at(began + Duration::from_millis(millis), work).await {
        Ok(done) => done.map_err(|error| failed(endpoint, &error)),
        Err(_) => Err(UpstreamError::ConnectTimeout { endpoint: endpoint.to_string(), millis }),
    }
}

fn failed(endpoint: &EndpointAddress, error: &dyn std::error::Error) -> UpstreamError {
    UpstreamError::Connect { endpoint: endpoint.to_string(), reason: error.to_string() }
}
