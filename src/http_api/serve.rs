//! Taking a port and serving an API on it.
//!
//! hyper's own server is used and not `axum::serve`, which has no limit for the time in which a
//! client sends a request's head, and none for connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Time for a request's head to arrive, from when the connection is ready for it.
const HEADER_READ_MAX: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which mostly means that no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that the system keeps waiting until they are accepted.
const BACKLOG: i32 = 128;
/// What the clients of an API may hold.
#[derive(Clone, Copy)]
struct Bounds {
    /// Connections open at a time. Further ones wait in the backlog, so that clients of an API
    /// cannot take the file descriptors that the data path needs.
    connections: usize,
    /// A connection that is older gets no further request.
    age: Duration,
    /// Time for its last response to be read; then the connection is closed.
    last_response: Duration,
}

const BOUNDS: Bounds = Bounds {
    connections: 512,
    age: Duration::from_secs(300),
    last_response: Duration::from_secs(70),
};

/// Binds the port of an API.
///
/// # Errors
/// The system's reason.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves an API over HTTP/1.1 on the current runtime until that ends.
///
/// # Errors
/// When the listener cannot be used.
pub fn spawn(listener: std::net::TcpListener, router: Router) -> io::Result<()> {
    spawn_bounded(listener, router, BOUNDS)
}

fn spawn_bounded(
    listener: std::net::TcpListener,
    router: Router,
    bounds: Bounds,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let connections = Arc::new(Semaphore::new(bounds.connections));
    tokio::spawn(async move {
        // The semaphore is never closed.
        while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let router = router.clone();
            tokio::spawn(async move {
                serve(stream, router, bounds).await;
                drop(permit);
            });
        }
    });
    Ok(())
}

async fn serve(stream: TcpStream, router: Router, bounds: Bounds) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = tokio::time::sleep(bounds.age) => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(bounds.last_response, connection).await {
                Ok(served) => served,
                Err(_) => return tracing::debug!("connection closed: its response was not taken"),
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 512];
        let count = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..count]).into_owned()
    }

    #[tokio::test]
    async fn a_connection_over_the_limit_waits_for_another_to_end() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "served" }));
        spawn_bounded(listener, router, Bounds { connections: 1, ..BOUNDS }).unwrap();
        let mut first = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut first).await.ends_with("served"));
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut waiting = std::pin::pin!(ask(&mut second));
        // The first connection is still served, the second one is not.
        tokio::select! {
            biased;
            answer = &mut waiting => panic!("served beyond the limit: {answer}"),
            answer = ask(&mut first) => assert!(answer.ends_with("served")),
        }
        drop(first);
        assert!(waiting.await.ends_with("served"));
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_gives_its_place_up() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(|| async { "served" }))
            .route("/large", get(|| async { vec![b'a'; 64 << 20] }));
        let short = Duration::from_millis(20);
        let bounds = Bounds { connections: 1, age: short, last_response: short };
        spawn_bounded(listener, router, bounds).unwrap();
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut second).await.ends_with("served"));
        drop(first);
    }
}
