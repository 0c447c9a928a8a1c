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
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::app::{Shared, Worker};
use crate::serve::connection::{self, Phase};
use crate::serve::io::ClientStream;
use crate::serve::listen::Bound;
use crate::serve::watch::{Activity, Connections, SWEEP, Ticker};
use crate::upstream::{Connector, Upstream};

/// Connections that may wait for a worker to take them.
const HANDOVER_QUEUE: usize = 1024;
/// Pause after a failed accept, such as one for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A connection on its way to a worker.
enum Accepted {
    Tcp(std::net::TcpStream, IpAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// The running data path.
pub struct Running {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    open: Arc<AtomicUsize>,
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
pub fn run(shared: &Arc<Shared>, listeners: Vec<Bound>) -> std::io::Result<Running> {
    let (phase, watching) = watch::channel(Phase::Serving);
    let open = Arc::new(AtomicUsize::new(0));
    let connector = Arc::new(Connector::new(&shared.settings.upstream));
    let mut workers = Vec::new();
    let mut queues = Vec::new();
    for number in 0..shared.settings.workers.max(1) {
        let (sender, receiver) = mpsc::channel(HANDOVER_QUEUE);
        queues.push(sender);
        let context = WorkerContext {
            shared: Arc::clone(shared),
            connector: Arc::clone(&connector),
            phase: watching.clone(),
            open: Arc::clone(&open),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || runtime.block_on(context.work(receiver)))?;
        workers.push(thread);
    }
    let turn = Arc::new(AtomicUsize::new(0));
    let mut acceptors = Vec::new();
    for listener in listeners {
        let hand = Hand { queues: queues.clone(), turn: Arc::clone(&turn) };
        acceptors.push(spawn_acceptor(listener, hand, watching.clone())?);
    }
    Ok(Running { shared: Arc::clone(shared), phase, open, acceptors, workers })
}

impl Running {
    /// Ends in an orderly way: at most `quiet` for clients to hear of it, at most `limit` in all.
    /// Answers the number of connections that were still open at the end.
    pub async fn drain(self, quiet: Duration, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        self.shared.draining.store(true, Ordering::Relaxed);
        self.phase.send_replace(Phase::Closing);
        tokio::time::sleep(quiet.min(limit)).await;
        self.phase.send_replace(Phase::Ending);
        for acceptor in self.acceptors {
            // An acceptor that panicked has nothing left to close.
            let _ = acceptor.await;
        }
        while self.open.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.open.load(Ordering::Acquire)
    }
}

/// Hands connections to workers in turn.
struct Hand {
    queues: Vec<mpsc::Sender<Accepted>>,
    turn: Arc<AtomicUsize>,
}

impl Hand {
    async fn over(&self, accepted: Accepted) {
        let at = self.turn.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        // A worker that is gone takes nothing any more; the connection is closed by dropping it.
        let _ = self.queues[at].send(accepted).await;
    }
}

fn spawn_acceptor(
    mut bound: Bound,
    hand: Hand,
    mut phase: watch::Receiver<Phase>,
) -> std::io::Result<tokio::task::JoinHandle<()>> {
    let _runtime = Handle::current().enter();
    Ok(match &mut bound {
        Bound::Tcp(listener) => {
            let listener = TcpListener::from_std(listener.try_clone()?)?;
            tokio::spawn(async move {
                loop {
                    let accepted = tokio::select! {
                        biased;
                        accepted = listener.accept() => accepted,
                        _ = phase.wait_for(|p| *p == Phase::Ending) => break,
                    };
                    let accepted = accepted.and_then(|(stream, peer)| {
                        stream.set_nodelay(true)?;
                        Ok(Accepted::Tcp(stream.into_std()?, peer.ip()))
                    });
                    pass_on(&hand, accepted).await;
                }
                drop(bound);
            })
        }
        Bound::Unix(listener, _) => {
            let listener = UnixListener::from_std(listener.try_clone()?)?;
            tokio::spawn(async move {
                loop {
                    let accepted = tokio::select! {
                        biased;
                        accepted = listener.accept() => accepted,
                        _ = phase.wait_for(|p| *p == Phase::Ending) => break,
                    };
                    let accepted =
                        accepted.and_then(|(stream, _)| Ok(Accepted::Unix(stream.into_std()?)));
                    pass_on(&hand, accepted).await;
                }
                drop(bound);
            })
        }
    })
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
    connector: Arc<Connector>,
    phase: watch::Receiver<Phase>,
    open: Arc<AtomicUsize>,
}

impl WorkerContext {
    async fn work(self, mut queue: mpsc::Receiver<Accepted>) {
        let shared = &self.shared;
        let upstream = Upstream::new(
            Arc::new(shared.settings.upstream.clone()),
            Arc::clone(&shared.endpoints),
            Arc::clone(&self.connector),
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
                accepted = queue.recv() => match accepted {
                    Some(accepted) => self.begin(&worker, &ticker, &connections, accepted),
                    None => break,
                },
                _ = sweeps.tick() => {
                    connections.sweep(&ticker, &shared.settings.limits, &shared.metrics);
                    worker.upstream.sweep();
                }
            }
        }
        // All acceptors are gone; what is open is served to its end.
        while self.open.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn begin(
        &self,
        worker: &Arc<Worker>,
        ticker: &Arc<Ticker>,
        connections: &Connections,
        accepted: Accepted,
    ) {
        let (stream, ip) = match accepted {
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
        let open = Open::count(&self.open, &self.shared);
        let serving =
            connection::serve(Arc::clone(worker), stream, ip, activity, self.phase.clone());
        tokio::spawn(async move {
            serving.await;
            drop(open);
        });
    }
}

/// Counts an open connection for as long as it lives.
struct Open {
    open: Arc<AtomicUsize>,
    shared: Arc<Shared>,
}

impl Open {
    fn count(open: &Arc<AtomicUsize>, shared: &Arc<Shared>) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        shared.metrics.connections.inc();
        shared.metrics.accepted.inc();
        Open { open: Arc::clone(open), shared: Arc::clone(shared) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        self.shared.metrics.connections.dec();
    }
}
