//! One place that holds keys, and how to reach it. Whether a connection is kept is not decided
//! here but by [`crate::Link`].

use std::sync::Arc;

use tokio::sync::watch;

use crate::conn::{Conn, Opened};
use crate::connect::{open_cluster, open_single, timed_out};
use crate::error::ConnectError;
use crate::location::{Server, Topology};
use crate::sentinel::MasterWatch;
use crate::settings::ConnectSettings;

/// Where the connections of a target go.
enum Place {
    Server(Server),
    Sentinel(MasterWatch),
    Cluster(Vec<Server>),
}

/// One place that holds keys: a server, a watched master, or a cluster.
pub struct Target {
    settings: Arc<ConnectSettings>,
    place: Place,
    name: String,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Target {
    /// The targets of a location, in the order of its servers: several only where keys are spread.
    /// Must be called within the runtime that is to watch the sentinels.
    pub fn all_of(settings: ConnectSettings) -> Vec<Arc<Target>> {
        let settings = Arc::new(settings);
        let target =
            |place, name| Arc::new(Target { settings: Arc::clone(&settings), place, name });
        match &settings.location.topology {
            Topology::Servers(servers) => servers
                .iter()
                .map(|server| target(Place::Server(server.clone()), server.to_string()))
                .collect(),
            Topology::Sentinel { sentinels, master } => {
                let watch =
                    MasterWatch::start(Arc::clone(&settings), sentinels.clone(), master.clone());
                vec![target(Place::Sentinel(watch), format!("master {master}"))]
            }
            Topology::Cluster(nodes) => {
                let names: Vec<String> = nodes.iter().map(Server::to_string).collect();
                let name = format!("cluster {}", names.join(","));
                vec![target(Place::Cluster(nodes.clone()), name)]
            }
        }
    }

    /// The name in logs and errors: the server's address, the master's name, or the nodes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The master as it changes, where Sentinel names one: connections follow it.
    pub(crate) fn moves(&self) -> Option<watch::Receiver<Option<Server>>> {
        match &self.place {
            Place::Sentinel(watch) => Some(watch.master()),
            _ => None,
        }
    }

    /// Has the sentinels asked again at once, since the master may have changed.
    pub(crate) fn doubt(&self) {
        if let Place::Sentinel(watch) = &self.place {
            watch.ask_now();
        }
    }

    /// Opens a connection to the server, to the present master, or to the cluster.
    pub(crate) async fn open(&self) -> Result<Opened, ConnectError> {
        match &self.place {
            Place::Server(server) => open_single(&self.settings, server).await,
            Place::Sentinel(watch) => {
                let master = watch.current()?;
                let mut opened = open_single(&self.settings, &master).await?;
                self.check_role(&mut opened.conn, &master).await?;
                Ok(opened)
            }
            Place::Cluster(nodes) => open_cluster(&self.settings, &self.name, nodes).await,
        }
    }

    /// A master that was just deposed may still be there under its old address.
    async fn check_role(&self, conn: &mut Conn, server: &Server) -> Result<(), ConnectError> {
        let mut cmd = redis::cmd("INFO");
        cmd.arg("replication");
        let asked = cmd.query_async::<String>(conn);
        let limit = self.settings.connect_timeout;
        match tokio::time::timeout(limit, asked).await {
            Ok(Ok(info)) if info.contains("role:master") => Ok(()),
            Ok(Ok(_)) => Err(ConnectError::NotMaster { server: server.to_string() }),
            // An ACL may forbid the question; then the answer of the sentinels counts.
            Ok(Err(error)) if error.code() == Some("NOPERM") => Ok(()),
            Ok(Err(error)) => Err(ConnectError::from_redis(&server.to_string(), &error)),
            Err(_) => Err(timed_out(server, limit)),
        }
    }
}
