//! Worker threads, the acceptor, and the end of both.
//!
//! The end has two phases, so that no request is lost: first every HTTP/1 response says
//! `Connection: close` while new connections are still taken, for those that have not yet heard
//! that this instance is going; then listeners close and idle connections end.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};

use crate::app::{Shared, Worker};
use crate::mesh::Mode;
use crate::serve::connection::{self, Phase};
use crate::serve::io::ClientStream;
use crate::serve::listen::Bound;
use crate::serve::watch::{Activity, Connections, SWEEP, Ticker};
use crate::upstream::Upstream;

/// Connections that may wait for a worker to take them.
const HANDOVER_QUEUE: usize = 1024;
/// How long the last connections in the queue of a listener are waited for.
const LAST_ACCEPT: Duration = Duration::from_millis(50);
/// How long that may take in all.
const LAST_ACCEPTS: Duration = Duration::from_millis(500);
/// Pause after a failed accept, such as one for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A connection on its way to a worker, counted from the moment it was taken.
struct Handed {
    accepted: Accepted,
    mode: Mode,
    open: Open,
}

enum Accepted {
    Tcp(std::net::TcpStream, IpAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// The running data path.
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

/// Starts workers and accepts connections. Must be called within a Tokio runtime, which carries
/// the acceptors.
///
/// # Errors
/// When a thread or a listener cannot be set up.
pub fn run(shared: &Arc<Shared>, listeners: Vec<(Bound, Mode)>) -> std::io::Result<Running> {
    let (phase, watching) = watch::channel(Phase::Serving);
    let mut workers = Vec::new();
    let mut queues = Vec::new();
    for number in 0..shared.settings.workers.max(1) {
        let (sender, receiver) = mpsc::channel(HANDOVER_QUEUE);
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
    let turn = Arc::new(AtomicUsize::new(0));
    let mut acceptors = Vec::new();
    for (listener, mode) in listeners {
        let (queues, turn) = (queues.clone(), Arc::clone(&turn));
        let hand = Hand { queues, turn, mode, shared: Arc::clone(shared) };
        acceptors.push(spawn_acceptor(listener, hand, watching.clone())?);
    }
    Ok(Running { shared: Arc::clone(shared), phase, acceptors, workers })
}

impl Running {
    /// Ends in an orderly way: at most `quiet` for clients to hear of it, at most `limit` in all.
    /// Answers the number of connections that were still open at the end.
    pub async fn drain(self, quiet: Duration, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        self.phase.send_replace(Phase::Closing);
        tokio::time::sleep(quiet.min(limit)).await;
        self.phase.send_replace(Phase::Ending);
        for acceptor in self.acceptors {
            // An acceptor that panicked has nothing left to close.
            let _ = acceptor.await;
        }
        while self.shared.open.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.shared.open.load(Ordering::Acquire)
    }
}

/// Hands connections to workers in turn.
struct Hand {
    queues: Vec<mpsc::Sender<Handed>>,
    turn: Arc<AtomicUsize>,
    mode: Mode,
    shared: Arc<Shared>,
}

impl Hand {
    async fn over(&self, accepted: Accepted) {
        let at = self.turn.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        // A worker that is gone takes nothing any more; the connection is closed by dropping it.
        self.shared.metrics.accepted.inc();
        let open = Open::count(&self.shared);
        let _ = self.queues[at].send(Handed { accepted, mode: self.mode, open }).await;
    }
}

fn spawn_acceptor(
    bound: Bound,
    hand: Hand,
    phase: watch::Receiver<Phase>,
) -> std::io::Result<tokio::task::JoinHandle<()>> {
    let listener = match &bound {
        Bound::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener.try_clone()?)?),
        Bound::Unix(listener, _) => Listener::Unix(UnixListener::from_std(listener.try_clone()?)?),
    };
    Ok(tokio::spawn(async move {
        accept_until_ending(&listener, &hand, phase).await;
        // Closing a listener resets what waits in its queue, so the queue is emptied first.
        bound.close_door();
        let last = async {
            while let Ok(Ok(accepted)) = tokio::time::timeout(LAST_ACCEPT, listener.accept()).await
            {
                hand.over(accepted).await;
            }
        };
        // Nobody else can come; a limit all the same, in case the door could not be closed.
        let _ = tokio::time::timeout(LAST_ACCEPTS, last).await;
        drop(bound);
    }))
}

async fn accept_until_ending(listener: &Listener, hand: &Hand, mut phase: watch::Receiver<Phase>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase == Phase::Ending) => return,
        };
        pass_on(hand, accepted).await;
    }
}

/// A listener on the current runtime.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> std::io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream.into_std()?, peer.ip()))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Accepted::Unix(stream.into_std()?))
            }
        }
    }
}

async fn pass_on(hand: &Hand, accepted: std::io::Result<Accepted>) {
    match accepted {
        Ok(accepted) => hand.over(accepted).await,
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

struct WorkerContext {
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
}

impl WorkerContext {
    async fn work(self, mut queue: mpsc::Receiver<Handed>) {
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
                handed = queue.recv() => match handed {
                    Some(handed) => begin(&worker, &self.phase, &ticker, &connections, handed),
                    None => break,
                },
                _ = sweeps.tick() => {
                    connections.sweep(&ticker, &shared.settings.limits, &shared.metrics);
                    worker.upstream.sweep();
                }
            }
        }
        // All acceptors are gone; what is open is served to its end.
        while self.shared.open.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            connections.sweep(&ticker, &shared.settings.limits, &shared.metrics);
        }
    }
}

fn begin(
    worker: &Arc<Worker>,
    phase: &watch::Receiver<Phase>,
    ticker: &Arc<Ticker>,
    connections: &Connections,
    handed: Handed,
) {
    let (stream, ip) = match handed.accepted {
        Accepted::Tcp(stream, ip) => {
            (tokio::net::TcpStream::from_std(stream).map(ClientStream::Tcp), Some(ip))
        }
        Accepted::Unix(stream) => {
            (tokio::net::UnixStream::from_std(stream).map(ClientStream::Unix), None)
        }
    };
    let Ok(stream) = stream else { return };
    let activity = Arc::new(Activity::new(ticker));
    connections.add(&activity);
    let client = connection::ClientSide { stream, ip, mode: handed.mode };
    let serving = connection::serve(Arc::clone(worker), client, activity, phase.clone());
    let open = handed.open;
    tokio::spawn(async move {
        serving.await;
        drop(open);
    });
}

/// Counts an open connection for as long as it lives.
pub(crate) struct Open(Arc<Shared>);

impl Open {
    pub(crate) fn count(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::AcqRel);
        shared.metrics.connections.inc();
        Open(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.connections.dec();
    }
}
