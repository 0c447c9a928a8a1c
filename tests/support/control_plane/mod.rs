//! A control plane that behaves as istiod does towards a client of its
//! discovery service: in what it answers, and in how it refuses, repeats
//! itself and goes away.
//!
//! It serves EnvoyFilter objects over ECDS, and to an Envoy the resources that
//! a real istiod sent in the same situation (`tests/mesh/captured`).

mod delta;
mod filters;
mod json;
mod node;
pub mod proto;
mod resources;
mod server;
mod session;
mod state;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use filters::EnvoyFilter;
use server::ServerState;

use crate::gate::PATIENCE;

pub use node::Node;
pub use resources::{ResourceSet, read_json};
pub use state::{Connection, ResourceWatch, Token};
pub use tls::Tls;

/// Makes the listening socket, each time that the control plane starts.
type Bind = Arc<dyn Fn(SocketAddr) -> io::Result<std::net::TcpListener> + Send + Sync>;

/// How a control plane is set up.
#[derive(Clone)]
pub struct Options {
    addr: SocketAddr,
    bind: Bind,
    tls: Option<Tls>,
    token: Option<Token>,
    ready: bool,
    max_age: Option<Duration>,
    grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            bind: Arc::new(std::net::TcpListener::bind),
            tls: None,
            token: None,
            ready: true,
            max_age: None,
            grace: Duration::from_millis(300),
        }
    }
}

impl Options {
    /// With TLS, from an authority of its own.
    pub fn tls(mut self) -> Self {
        self.tls = Some(Tls::new());
        self
    }

    /// Asks for this token, of a service account in a namespace.
    pub fn token(mut self, value: &str, namespace: &str, service_account: &str) -> Self {
        self.token = Some(Token {
            value: value.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        });
        self
    }

    /// Refuses every stream until [`ControlPlane::ready`].
    pub fn not_ready(mut self) -> Self {
        self.ready = false;
        self
    }

    /// Says goodbye to connections of this age.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// How long a connection lives on after the goodbye (istiod: about 10 s).
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Listens at this address, on a socket that `bind` makes: for a network
    /// namespace, to which a socket belongs by where it was made.
    pub fn listen(
        mut self,
        addr: SocketAddr,
        bind: impl Fn(SocketAddr) -> io::Result<std::net::TcpListener> + Send + Sync + 'static,
    ) -> Self {
        self.addr = addr;
        self.bind = Arc::new(bind);
        self
    }

    /// Starts to listen and to answer.
    pub async fn start(self) -> ControlPlane {
        let mut state = state::State::new();
        state.ready = self.ready;
        state.token = self.token;
        state.grace = self.grace;
        let shared = Arc::new(ServerState::new(state, self.max_age));
        let mut plane =
            ControlPlane { shared, addr: self.addr, bind: self.bind, tls: self.tls, task: None };
        plane.start_again().await;
        plane
    }
}

/// The control plane; it stops when dropped.
pub struct ControlPlane {
    shared: Arc<ServerState>,
    addr: SocketAddr,
    bind: Bind,
    tls: Option<Tls>,
    task: Option<JoinHandle<()>>,
}

impl ControlPlane {
    /// Plaintext on a free port, without authentication.
    pub async fn start() -> Self {
        Options::default().start().await
    }

    /// Where it listens, also while it is stopped.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What `--xds` wants. With TLS by name, since certificates are for names.
    pub fn url(&self) -> String {
        match &self.tls {
            None => format!("grpc://{}", self.addr),
            Some(_) => format!("grpcs://localhost:{}", self.addr.port()),
        }
    }

    /// The authority behind its certificate.
    pub fn ca_pem(&self) -> String {
        self.tls.as_ref().map(|tls| tls.ca_pem.clone()).expect("a control plane with TLS")
    }

    /// Applies EnvoyFilter objects, several in one text as YAML documents. One
    /// that is not valid refuses them all.
    pub fn apply(&self, yaml: &str) -> Result<(), String> {
        let filters = EnvoyFilter::parse(yaml)?;
        self.shared.lock().apply(filters);
        Ok(())
    }

    /// Deletes an object: whether there was one.
    pub fn delete(&self, namespace: &str, name: &str) -> bool {
        self.shared.lock().delete(namespace, name)
    }

    /// Sends everything to everybody again, under a new version.
    pub fn push(&self) {
        self.shared.lock().push(|_, _| true);
    }

    /// From now on, nodes whose id starts with this get these resources; those
    /// that are connected get them at once, clusters first.
    pub fn serve(&self, node: &str, set: ResourceSet) {
        let mut state = self.shared.lock();
        state.sets.retain(|(id, _)| id != node);
        state.sets.push((node.to_owned(), set));
        state.push(|_, other| other.id.starts_with(node));
    }

    /// Refuses streams while not ready.
    pub fn ready(&self, ready: bool) {
        self.shared.lock().ready = ready;
    }

    /// Accepts connections and streams, and says nothing, until told otherwise.
    pub fn silence(&self, silent: bool) {
        self.shared.silent.send_replace(silent);
    }

    /// Asks for another token, or for none.
    pub fn set_token(&self, token: Option<Token>) {
        self.shared.lock().token = token;
    }

    /// GOAWAY on every connection; what is left after the grace is cut.
    pub fn goaway(&self) {
        self.shared.goaway.send_modify(|n| *n += 1);
    }

    /// Stops listening and cuts every connection.
    pub async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // Ends with a cancellation, which is what was asked for.
            let _ = task.await;
        }
    }

    /// Starts again at the same address, with all it knew.
    pub async fn start_again(&mut self) {
        let listener = (self.bind)(self.addr).expect("the control plane binds");
        listener.set_nonblocking(true).expect("a listener for tokio");
        self.addr = listener.local_addr().expect("a bound address");
        let listener = TcpListener::from_std(listener).expect("a listener for tokio");
        let serve = server::serve(listener, self.tls.clone(), Arc::clone(&self.shared));
        self.task = Some(tokio::spawn(serve));
    }

    /// Every stream since the start, the closed ones too.
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.lock().connections.clone()
    }

    /// The last stream of a node that is open.
    pub fn connection(&self, node: &str) -> Option<Connection> {
        let mut open = self.connections();
        open.retain(|connection| connection.open && connection.node.id.starts_with(node));
        open.pop()
    }

    /// How many responses of a type were refused.
    pub fn rejects(&self, type_url: &str) -> u64 {
        self.shared.lock().rejects.get(type_url).copied().unwrap_or_default()
    }

    /// How many streams were refused before they began: not ready, no token.
    pub fn streams_refused(&self) -> u64 {
        self.shared.lock().streams_refused
    }

    /// The version of the last push.
    pub fn version(&self) -> String {
        self.shared.lock().version()
    }

    /// Waits until the open stream of a node satisfies a condition.
    pub async fn until(
        &self,
        what: &str,
        node: &str,
        holds: impl Fn(&Connection) -> bool,
    ) -> Connection {
        let mut changes = self.shared.changes();
        let found = async {
            loop {
                if let Some(connection) = self.connection(node).filter(&holds) {
                    return connection;
                }
                // The sender lives in `self`, so waiting cannot fail.
                let _ = changes.changed().await;
            }
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(connection) => connection,
            Err(_) => panic!("{what}: not within {PATIENCE:?}: {:#?}", self.connections()),
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
