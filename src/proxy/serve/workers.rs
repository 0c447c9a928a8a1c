//! Worker threads, acceptors, and the shutdown of both.
//!
//! The shutdown has two phases, so that no request is lost. First every HTTP/1 response says
//! `Connection: close` while new connections are still accepted, for clients that have not yet
//! learned that this process ends. Then listeners close and idle connections end.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use outrigger_policy::Side;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};

use crate::client::OpenConnection;
use crate::serve::connection::{self, Phase};
use crate::serve::io::ClientStream;
use crate::serve::listen::Bound;
use crate::serve::time_limits::{Activity, Connections, SWEEP, Ticker};
use crate::state::{Shared, Worker};
use crate::upstream::Upstream;

/// Accepted connections that may wait for one worker.
const WORKER_QUEUE: usize = 1024;
/// At the shutdown: time limit for the next connection in the queue of a listener.
const LAST_ACCEPT: Duration = Duration::from_millis(50);
/// Time limit for emptying the queue of a listener.
const LAST_ACCEPTS: Duration = Duration::from_millis(500);
/// Pause after a failed accept, for instance when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A connection on its way to a worker. It counts as open from its accept on.
struct NewConnection {
    socket: Socket,
    side: Option<Side>,
    open: OpenConnection,
}

/// The socket of an accepted connection, not registered with a runtime: the worker does that.
enum Socket {
    Tcp(std::net::TcpStream, IpAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// The running data path: its workers and acceptors.
pub struct Running {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    acceptors: Vec<tokio::task::JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

/// Starts workers and accepts connections. Each listener comes with the side of the pod that it
/// serves; `None` makes it a direct listener, whose clients are not the pod's Envoy. Must be called
/// within a Tokio runtime, which carries the acceptors.
///
/// # Errors
/// When a thread or a listener cannot be set up.
pub fn run(
    shared: &Arc<Shared>,
    listeners: Vec<(Bound, Option<Side>)>,
) -> std::io::Result<Running> {
    let (phase, watching) = watch::channel(Phase::Serving);
    let mut workers = Vec::new();
    let mut queues = Vec::new();
    for number in 0..shared.settings.workers.max(1) {
        let (sender, receiver) = mpsc::channel(WORKER_QUEUE);
        queues.push(sender);
        let context = WorkerContext { shared: Arc::clone(shared), phase: watching.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread =
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                runtime.block_on(async move {
                    context.shared.tiers.iter().for_each(|tier| tier.attach(number));
                    context.work(receiver).await;
                });
            })?;
        workers.push(thread);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let mut acceptors = Vec::new();
    for (listener, side) in listeners {
        let (queues, next) = (queues.clone(), Arc::clone(&next));
        let dispatcher = Dispatcher { queues, next, side, shared: Arc::clone(shared) };
        acceptors.push(spawn_acceptor(listener, dispatcher, watching.clone())?);
    }
    Ok(Running { shared: Arc::clone(shared), phase, acceptors, workers })
}

impl Running {
    /// Shuts down: `quiet` is the time for clients to learn of it, `limit` that for everything.
    /// Returns the number of connections that were still open at the end.
    pub async fn drain(self, quiet: Duration, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        self.phase.send_replace(Phase::Closing);
        tokio::time::sleep(quiet.min(limit)).await;
        self.phase.send_replace(Phase::Ending);
        for acceptor in self.acceptors {
            // An error means that the acceptor panicked; its listener is closed all the same.
            let _ = acceptor.await;
        }
        while self.shared.open.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.shared.open.load(Ordering::Acquire)
    }
}

/// Dispatches the connections of one listener to the workers in turn.
struct Dispatcher {
    queues: Vec<mpsc::Sender<NewConnection>>,
    /// Number of connections so far, of all listeners.
    next: Arc<AtomicUsize>,
    side: Option<Side>,
    shared: Arc<Shared>,
}

impl Dispatcher {
    async fn dispatch(&self, socket: Socket) {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        self.shared.metrics.accepted.inc();
        let open = OpenConnection::count(&self.shared);
        // An error means that the worker has ended; the connection is closed by its drop.
        let _ = self.queues[at].send(NewConnection { socket, side: self.side, open }).await;
    }
}

fn spawn_acceptor(
    bound: Bound,
    dispatcher: Dispatcher,
    phase: watch::Receiver<Phase>,
) -> std::io::Result<tokio::task::JoinHandle<()>> {
    let listener = match &bound {
        Bound::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener.try_clone()?)?),
        Bound::Unix(listener, _) => Listener::Unix(UnixListener::from_std(listener.try_clone()?)?),
    };
    Ok(tokio::spawn(async move {
        accept_until_ending(&listener, &dispatcher, phase).await;
        // Closing a listener resets what waits in its queue, so the queue is emptied first.
        bound.refuse_new();
        let last = async {
            while let Ok(Ok(socket)) = tokio::time::timeout(LAST_ACCEPT, listener.accept()).await {
                dispatcher.dispatch(socket).await;
            }
        };
        // No connection can follow, unless the filter could not be set: hence a limit.
        let _ = tokio::time::timeout(LAST_ACCEPTS, last).await;
        drop(bound);
    }))
}

async fn accept_until_ending(
    listener: &Listener,
    dispatcher: &Dispatcher,
    mut phase: watch::Receiver<Phase>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase == Phase::Ending) => return,
        };
        match accepted {
            Ok(socket) => dispatcher.dispatch(socket).await,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A listener on the current runtime.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> std::io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream.into_std()?, peer.ip()))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Socket::Unix(stream.into_std()?))
            }
        }
    }
}

/// What the thread of a worker begins with.
struct WorkerContext {
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
}

impl WorkerContext {
    async fn work(self, mut queue: mpsc::Receiver<NewConnection>) {
        let shared = &self.shared;
        let upstream = Upstream::new(
            Arc::new(shared.settings.upstream.clone()),
            Arc::clone(&shared.endpoints),
            Arc::clone(&shared.connector),
            shared.settings.workers,
            Arc::clone(&shared.metrics),
            shared.clock.clone(),
        );
        let worker = Arc::new(Worker { shared: Arc::clone(shared), upstream });
        let ticker = Arc::new(Ticker::new());
        let connections = Connections::default();
        let mut sweeps = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                new = queue.recv() => match new {
                    Some(new) => begin(&worker, &self.phase, &ticker, &connections, new),
                    None => break,
                },
                _ = sweeps.tick() => {
                    connections.sweep(&ticker, &shared.settings.limits, &shared.metrics);
                    worker.upstream.sweep();
                }
            }
        }
        // All acceptors have ended. Connections that are still open are served to their end.
        while self.shared.open.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            connections.sweep(&ticker, &shared.settings.limits, &shared.metrics);
        }
    }
}

/// Serves a connection in a task of its own.
fn begin(
    worker: &Arc<Worker>,
    phase: &watch::Receiver<Phase>,
    ticker: &Arc<Ticker>,
    connections: &Connections,
    new: NewConnection,
) {
    let (stream, ip) = match new.socket {
        Socket::Tcp(stream, ip) => {
            (tokio::net::TcpStream::from_std(stream).map(ClientStream::Tcp), Some(ip))
        }
        Socket::Unix(stream) => {
            (tokio::net::UnixStream::from_std(stream).map(ClientStream::Unix), None)
        }
    };
    let Ok(stream) = stream else { return };
    let activity = Arc::new(Activity::new(ticker));
    connections.add(&activity);
    let client = connection::AcceptedConnection { stream, ip, side: new.side };
    let serving = connection::serve(Arc::clone(worker), client, activity, phase.clone());
    let open = new.open;
    tokio::spawn(async move {
        serving.await;
        drop(open);
    });
}
