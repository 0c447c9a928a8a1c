//! A TCP proxy on loopback that delays, holds or cuts what passes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How the proxy treats what passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// Bytes are held, in both directions, and new connections get nowhere.
    held: bool,
    /// New connections are closed at once.
    refused: bool,
    /// Counts the cuts: connections that began before the last one end.
    cuts: u64,
    towards_server: Duration,
    towards_client: Duration,
}

/// The proxy; it ends when dropped.
#[derive(Debug)]
pub struct SlowProxy {
    addr: SocketAddr,
    state: Arc<watch::Sender<State>>,
    task: JoinHandle<()>,
}

impl SlowProxy {
    /// Starts in front of a server; at first everything passes at once.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the proxy binds");
        let addr = listener.local_addr().expect("a bound address");
        let state = Arc::new(watch::Sender::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, server, shared.subscribe()));
            }
        });
        Self { addr, state, task }
    }

    /// The address to connect to in place of the server's.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens, as a Redis URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Delays each direction by so much; what is on its way keeps its delay.
    pub fn delay(&self, towards_server: Duration, towards_client: Duration) {
        self.state.send_modify(|state| {
            state.towards_server = towards_server;
            state.towards_client = towards_client;
        });
    }

    /// Closes the connections that are open; new ones pass.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Closes the connections that are open, and each new one at once.
    pub fn refuse(&self) {
        self.state.send_modify(|state| {
            state.cuts += 1;
            state.refused = true;
        });
    }

    /// Holds every byte in both directions, without closing anything: a
    /// partition. What is held goes on after [`heal`](Self::heal).
    pub fn blackhole(&self) {
        self.state.send_modify(|state| state.held = true);
    }

    /// Lets everything pass at once again.
    pub fn heal(&self) {
        self.state.send_modify(|state| *state = State { cuts: state.cuts, ..State::default() });
    }
}

impl Drop for SlowProxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn connection(client: TcpStream, server: SocketAddr, mut state: watch::Receiver<State>) {
    let began = *state.borrow();
    if began.refused {
        return;
    }
    let mut ends = state.clone();
    let passes = async {
        state.wait_for(|state| !state.held).await.ok()?;
        let server = TcpStream::connect(server).await.ok()?;
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let up = pump(from_client, to_server, state.clone(), |state| state.towards_server);
        let down = pump(from_server, to_client, state.clone(), |state| state.towards_client);
        // When one side closes, the other has nobody to talk to.
        tokio::select! { _ = up => {}, _ = down => {} }
        Some(())
    };
    tokio::select! {
        _ = passes => {}
        _ = ends.wait_for(|state| state.cuts != began.cuts) => {}
    }
}

/// Moves bytes one way. Reading and writing are apart, so that a delay does not
/// limit how much is on its way.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    delay: fn(&State) -> Duration,
) {
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let mut reading = state.clone();
    let read = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + delay(&reading.borrow_and_update());
            if send.send((due, buffer[..n].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = receive.recv().await {
            tokio::time::sleep_until(due).await;
            if state.wait_for(|state| !state.held).await.is_err() {
                break;
            }
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(read, write);
}
