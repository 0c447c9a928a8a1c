//! One connection that is kept alive. Whoever asks for it gets it, or learns at once that there is
//! none: no request ever waits for a connection to be opened.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::{PushInfo, PushKind, RedisError};
use tokio::sync::{Notify, mpsc, watch};

use crate::conn::Conn;
use crate::error::{ConnectError, is_read_only, wants_reconnect};
use crate::target::Target;

/// First pause before a connection is opened again.
const BACKOFF: Duration = Duration::from_millis(50);
/// Longest pause before a connection is opened again.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// After a connection that lived this long the pause begins at its shortest again.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// A connection that is kept alive by a task of the runtime on which it was started.
#[derive(Clone, Debug)]
pub struct Link {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    target: Arc<Target>,
    conn: ArcSwapOption<Connected>,
    broken: Notify,
    state: watch::Sender<LinkState>,
}

/// A connection with the moment at which it was opened.
#[derive(Debug)]
struct Connected {
    conn: Conn,
    since: std::time::Instant,
}

/// The state of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Opening the first connection.
    Starting,
    /// Connected; with the number of connections so far, so that each new one is a change.
    Up(u64),
    /// Not connected, and why.
    Down(Arc<ConnectError>),
}

impl Link {
    /// Starts a link on the current runtime. It ends when all clones of the link are gone.
    pub fn start(target: Arc<Target>) -> Self {
        let inner = Arc::new(Inner {
            target,
            conn: ArcSwapOption::empty(),
            broken: Notify::new(),
            state: watch::Sender::new(LinkState::Starting),
        });
        tokio::spawn(keep(Arc::downgrade(&inner)));
        Link { inner }
    }

    /// The connection, if there is one.
    pub fn conn(&self) -> Option<Conn> {
        self.inner.conn.load().as_ref().map(|connected| connected.conn.clone())
    }

    /// When the present connection was opened, if there is one.
    pub fn since(&self) -> Option<std::time::Instant> {
        self.inner.conn.load().as_ref().map(|connected| connected.since)
    }

    /// Takes note of an error of a command. Some mean that the connection is no longer of use, and
    /// then another is opened.
    pub fn note(&self, error: &RedisError) {
        let deposed = is_read_only(error) && self.inner.target.moves().is_some();
        if wants_reconnect(error) || deposed {
            self.reopen();
        }
    }

    /// Drops the connection and opens another.
    pub fn reopen(&self) {
        self.inner.target.doubt();
        self.inner.broken.notify_one();
    }

    /// The state as it changes.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.inner.state.subscribe()
    }

    /// The target that it connects to.
    pub fn target(&self) -> &Arc<Target> {
        &self.inner.target
    }
}

async fn keep(link: std::sync::Weak<Inner>) {
    let mut backoff = BACKOFF;
    let mut count = 0;
    loop {
        let Some(inner) = link.upgrade() else { return };
        let mut moves = inner.target.moves();
        // The present master is the one that is opened; only later changes count.
        moves.as_mut().map(watch::Receiver::mark_unchanged);
        match inner.target.open().await {
            Ok(opened) => {
                count += 1;
                let since = tokio::time::Instant::now();
                // Errors that were noted before belong to the connection before this one.
                tokio::select! {
                    biased;
                    () = inner.broken.notified() => {}
                    () = std::future::ready(()) => {}
                }
                let connected = Connected { conn: opened.conn, since: std::time::Instant::now() };
                inner.conn.store(Some(Arc::new(connected)));
                inner.state.send_replace(LinkState::Up(count));
                drop(inner);
                let alive = until_broken(&link, opened.pushes, moves).await;
                let Some(inner) = link.upgrade().filter(|_| alive) else { return };
                inner.conn.store(None);
                let detail = "the connection was lost".to_owned();
                let server = inner.target.name().to_owned();
                let error = Arc::new(ConnectError::Failed { server, detail });
                inner.state.send_replace(LinkState::Down(error));
                if since.elapsed() > GOOD_AFTER {
                    backoff = BACKOFF;
                }
            }
            Err(error) => {
                inner.target.doubt();
                inner.state.send_replace(LinkState::Down(Arc::new(error)));
            }
        }
        // Jittered, so that pods do not come back all at once.
        tokio::time::sleep(backoff.mul_f64(0.5 + fastrand::f64())).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Waits for the end of a connection; `false` if nobody holds the link any more.
async fn until_broken(
    link: &std::sync::Weak<Inner>,
    mut pushes: Option<mpsc::UnboundedReceiver<PushInfo>>,
    mut moves: Option<watch::Receiver<Option<crate::location::Server>>>,
) -> bool {
    loop {
        let Some(inner) = link.upgrade() else { return false };
        let dropped = async {
            match &mut pushes {
                Some(pushes) => loop {
                    match pushes.recv().await {
                        Some(push) if push.kind != PushKind::Disconnection => {}
                        _ => return,
                    }
                },
                None => std::future::pending().await,
            }
        };
        let moved = async {
            let changed = match &mut moves {
                Some(moves) => moves.changed().await.is_ok(),
                None => false,
            };
            if !changed {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = inner.broken.notified() => return true,
            () = dropped => return true,
            () = moved => return true,
            // Looks now and then whether anybody still holds the link.
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}
