//! Connections: messages take time, arrive in order, wait while the network is stalled, and are
//! lost with their connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use outrigger_coherence::{Record, Seq};

use crate::exec::{Bell, MS, Micros};
use crate::pod::Pod;
use crate::redis::Redis;
use crate::world::Sim;

/// First pause after a failure; as in `outrigger_redis::link`.
const BACKOFF: Micros = 50 * MS;
/// Longest pause.
const BACKOFF_MAX: Micros = 2000 * MS;
/// How long opening may take.
const CONNECT_MAX: Micros = 250 * MS;

/// One connection.
pub struct Conn {
    pub process: usize,
    /// Whether it is the one that follows the log.
    is_reading: bool,
    server: u64,
    /// Nothing travels any more.
    pub dead: Cell<bool>,
    /// The client has noticed: what waits for an answer fails.
    pub failed: Cell<bool>,
    /// The link has left it for another.
    pub left: Cell<bool>,
    last: [Cell<Micros>; 2],
    pub bell: Bell,
}

impl Conn {
    /// Takes a message there (0) or back (1); `false` if it is lost.
    async fn travel(&self, sim: &Sim, direction: usize) -> bool {
        let last = &self.last[direction];
        let mut at = (sim.exec.now() + sim.latency()).max(last.get() + 1);
        last.set(at);
        loop {
            sim.exec.sleep(at - sim.exec.now()).await;
            if self.dead.get() {
                return false;
            }
            let stalled = sim.stalled_until(self.process, self.is_reading);
            if stalled <= sim.exec.now() {
                return true;
            }
            at = stalled.max(last.get()) + 1;
            last.set(at);
        }
    }

    fn reaches(&self, redis: &Redis) -> bool {
        !self.dead.get() && redis.is_up && redis.server == self.server
    }
}

/// A connection that is kept alive.
pub struct Link {
    is_reading: bool,
    pub conn: RefCell<Option<Rc<Conn>>>,
    /// Counts changes.
    pub version: Cell<u64>,
    /// When the connection was opened, by the pod's clock.
    pub since: Cell<Option<u64>>,
    /// Counts connections.
    pub connections: Cell<u64>,
    pub bell: Bell,
}

impl Link {
    /// A link whose changes ring a bell.
    pub fn new(bell: &Bell, is_reading: bool) -> Self {
        Link {
            is_reading,
            conn: RefCell::default(),
            version: Cell::new(0),
            since: Cell::new(None),
            connections: Cell::new(0),
            bell: bell.clone(),
        }
    }

    pub fn reopen(&self, sim: &Sim) {
        if let Some(conn) = &*self.conn.borrow() {
            conn.left.set(true);
            sim.exec.ring(&conn.bell);
        }
    }

    fn changed(&self, sim: &Sim, conn: Option<Rc<Conn>>) {
        *self.conn.borrow_mut() = conn;
        self.version.set(self.version.get() + 1);
        sim.exec.ring(&self.bell);
    }
}

/// Keeps a link, for ever.
pub async fn keep(pod: Rc<Pod>, link: fn(&Pod) -> &Link) {
    let (sim, link) = (Rc::clone(&pod.sim), link(&pod));
    let mut backoff = BACKOFF;
    loop {
        match open(&pod, &sim, link).await {
            Some(conn) => {
                let opened = sim.exec.now();
                link.connections.set(link.connections.get() + 1);
                link.since.set(Some(pod.now()));
                link.changed(&sim, Some(Rc::clone(&conn)));
                let is_over = || (conn.failed.get() || conn.left.get()).then_some(());
                sim.exec.wait(&conn.bell, Micros::MAX, is_over).await;
                link.since.set(None);
                link.changed(&sim, None);
                if sim.exec.now() - opened > 5000 * MS {
                    backoff = BACKOFF;
                }
            }
            None => link.changed(&sim, None),
        }
        let pause = backoff / 2 + sim.below(backoff);
        sim.exec.sleep(pause).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn open(pod: &Pod, sim: &Sim, link: &Link) -> Option<Rc<Conn>> {
    sim.exec.sleep(sim.latency() * 2).await;
    let stalled =
        sim.stalled_until(pod.life.process, link.is_reading).saturating_sub(sim.exec.now());
    sim.exec.sleep(stalled.min(CONNECT_MAX)).await;
    if stalled > CONNECT_MAX || !sim.redis.borrow().is_up {
        return None;
    }
    let conn = Rc::new(Conn {
        process: pod.life.process,
        is_reading: link.is_reading,
        server: sim.redis.borrow().server,
        dead: Cell::new(false),
        failed: Cell::new(false),
        left: Cell::new(false),
        last: Default::default(),
        bell: Bell::default(),
    });
    let mut conns = sim.conns.borrow_mut();
    conns.retain(|conn| !conn.dead.get());
    conns.push(Rc::clone(&conn));
    Some(conn)
}

/// What became of a command.
pub enum Reply<T> {
    Value(T),
    /// There is no connection, or it was lost.
    Failed,
    /// No answer came in time.
    Late,
}

/// Runs something in the server, at most for `limit`. It may have run although no answer came.
pub async fn call<T: 'static>(
    sim: &Sim,
    link: &Link,
    limit: Micros,
    run: impl FnOnce(&mut Redis, Micros) -> T + 'static,
) -> Reply<T> {
    let Some(conn) = link.conn.borrow().clone() else { return Reply::Failed };
    let answer: Rc<RefCell<Option<T>>> = Rc::default();
    let (there, wire, net) = (Rc::clone(&answer), Rc::clone(&conn), Rc::clone(sim));
    sim.exec.spawn(None, async move {
        if !wire.travel(&net, 0).await || !wire.reaches(&net.redis.borrow()) {
            return;
        }
        let value = run(&mut net.redis.borrow_mut(), net.exec.now());
        net.appended();
        if wire.travel(&net, 1).await {
            *there.borrow_mut() = Some(value);
            net.exec.ring(&wire.bell);
        }
    });
    await_answer(sim, &conn, limit, &answer).await
}

async fn await_answer<T>(
    sim: &Sim,
    conn: &Conn,
    limit: Micros,
    answer: &RefCell<Option<T>>,
) -> Reply<T> {
    let found = || match answer.borrow_mut().take() {
        Some(value) => Some(Reply::Value(value)),
        None => conn.failed.get().then_some(Reply::Failed),
    };
    sim.exec.wait(&conn.bell, sim.exec.now() + limit, found).await.unwrap_or(Reply::Late)
}

/// Waits in the server until the log has something after a position, at most for `block`.
pub async fn read(
    sim: &Sim,
    link: &Link,
    after: Seq,
    block: Micros,
    limit: Micros,
) -> Reply<Vec<Rc<Record>>> {
    let Some(conn) = link.conn.borrow().clone() else { return Reply::Failed };
    let answer: Rc<RefCell<Option<Vec<Rc<Record>>>>> = Rc::default();
    let (there, wire, net) = (Rc::clone(&answer), Rc::clone(&conn), Rc::clone(sim));
    sim.exec.spawn(None, async move {
        if !wire.travel(&net, 0).await {
            return;
        }
        let until = net.exec.now() + block;
        let found = || {
            if !wire.reaches(&net.redis.borrow()) {
                return Some(None);
            }
            let records = net.redis.borrow().read(after);
            (!records.is_empty()).then_some(Some(records))
        };
        let records = net.exec.wait(&net.log_bell, until, found).await;
        let records = match records {
            Some(Some(records)) => records,
            Some(None) => return,
            None if wire.reaches(&net.redis.borrow()) => Vec::new(),
            None => return,
        };
        if wire.travel(&net, 1).await {
            *there.borrow_mut() = Some(records);
            net.exec.ring(&wire.bell);
        }
    });
    await_answer(sim, &conn, limit, &answer).await
}
