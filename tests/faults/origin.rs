//! An origin made for faults: two endpoints whose behaviour is switched while
//! they run, and a log of what reached them.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::answer::converse;
use crate::load::Class;
use crate::rows::EndpointState;
use crate::support::Wire;

/// Connections that may wait to be accepted while an endpoint is well.
const BACKLOG: i32 = 1024;

/// What reached the endpoints.
#[derive(Debug, Default)]
pub struct Log {
    requests: Mutex<Vec<(Instant, Class)>>,
    connections: Mutex<Vec<Instant>>,
}

impl Log {
    /// Notes a request whose head was read to its end.
    pub fn arrived(&self, class: Class) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.push((Instant::now(), class));
    }

    fn connected(&self) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.push(Instant::now());
    }

    /// How many requests of a class came from one moment until the other.
    pub fn requests(&self, from: Instant, until: Instant, class: Class) -> usize {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = |(at, of): &&(Instant, Class)| (from..until).contains(at) && *of == class;
        requests.iter().filter(counts).count()
    }

    /// How many connections were accepted from one moment until the other.
    pub fn connections(&self, from: Instant, until: Instant) -> usize {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.iter().filter(|at| (from..until).contains(&**at)).count()
    }
}

/// Two endpoints and what reached them; they stop when dropped.
#[derive(Debug)]
pub struct Origin {
    endpoints: [Endpoint; 2],
    /// What reached them.
    pub log: Arc<Log>,
}

impl Origin {
    /// Starts both endpoints, in good health.
    pub fn start() -> Self {
        let log = Arc::new(Log::default());
        let endpoints = [(); 2].map(|()| Endpoint::start(&log).expect("an endpoint starts"));
        Self { endpoints, log }
    }

    /// Where the endpoints listen, when they do.
    pub fn addrs(&self) -> [SocketAddr; 2] {
        [self.endpoints[0].addr, self.endpoints[1].addr]
    }

    /// Switches both endpoints.
    pub fn switch(&self, modes: [EndpointState; 2]) {
        for (endpoint, mode) in self.endpoints.iter().zip(modes) {
            endpoint.mode.send_replace(mode);
        }
    }
}

#[derive(Debug)]
struct Endpoint {
    addr: SocketAddr,
    mode: watch::Sender<EndpointState>,
    task: JoinHandle<()>,
}

impl Endpoint {
    fn start(log: &Arc<Log>) -> io::Result<Self> {
        let port = Port::reserve()?;
        let addr = port.addr;
        let (mode, modes) = watch::channel(EndpointState::Healthy);
        // Here, so that it can be connected to as soon as its address is known.
        let first = port.listen(BACKLOG)?;
        let task = tokio::spawn(run(port, first, modes, Arc::clone(log)));
        Ok(Self { addr, mode, task })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A port that is ours although nobody may be listening: a bound socket keeps the system from
/// giving it to an outgoing connection while the endpoint is down.
struct Port {
    addr: SocketAddr,
    _bound: Socket,
}

impl Port {
    fn reserve() -> io::Result<Self> {
        let bound = bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let addr = bound.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { addr, _bound: bound })
    }

    fn listen(&self, backlog: i32) -> io::Result<Socket> {
        let socket = bind(self.addr)?;
        socket.listen(backlog)?;
        Ok(socket)
    }
}

fn bind(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// What a connect meets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Acceptance {
    Open,
    Shut,
    Jammed,
}

fn acceptance(mode: EndpointState) -> Acceptance {
    match mode {
        EndpointState::Refuse => Acceptance::Shut,
        EndpointState::Jam => Acceptance::Jammed,
        _ => Acceptance::Open,
    }
}

async fn run(port: Port, first: Socket, mut modes: watch::Receiver<EndpointState>, log: Arc<Log>) {
    let mut ready = Some(first);
    // The waits end in an error when the origin is gone, and so does this.
    loop {
        let now = acceptance(*modes.borrow_and_update());
        // Dropped where it has no use: its queue would still take connections.
        let first = ready.take().filter(|_| now == Acceptance::Open);
        let ended = match now {
            Acceptance::Open => {
                let socket = first.map_or_else(|| port.listen(BACKLOG), Ok);
                serve(socket.expect("its own port is free"), &mut modes, &log).await
            }
            Acceptance::Shut => modes.wait_for(|mode| acceptance(*mode) != now).await.is_err(),
            Acceptance::Jammed => {
                let _jam = Jam::set(&port).await.expect("a full backlog");
                modes.wait_for(|mode| acceptance(*mode) != now).await.is_err()
            }
        };
        if ended {
            return;
        }
    }
}

/// Accepts until connections are no longer accepted any more; then the listener and all connections are gone.
async fn serve(socket: Socket, modes: &mut watch::Receiver<EndpointState>, log: &Arc<Log>) -> bool {
    let listener = TcpListener::from_std(socket.into()).expect("a listener");
    let mode = modes.clone();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    log.connected();
                    connections.spawn(converse(Wire::tcp(stream), mode.clone(), Arc::clone(log)));
                }
            }
            changed = modes.wait_for(|mode| acceptance(*mode) != Acceptance::Open) => return changed.is_err(),
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A listener whose queue is full, so that the system drops whatever wants to connect.
struct Jam {
    _listener: Socket,
    _queue: Vec<TcpStream>,
}

impl Jam {
    async fn set(port: &Port) -> io::Result<Self> {
        // A backlog of nothing still holds one connection.
        let listener = port.listen(0)?;
        let mut queue = Vec::new();
        let connect = || TcpStream::connect(port.addr);
        while let Ok(stream) = tokio::time::timeout(Duration::from_millis(50), connect()).await {
            queue.push(stream?);
        }
        Ok(Self { _listener: listener, _queue: queue })
    }
}
