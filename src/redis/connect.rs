//! Opening a connection, whatever the topology.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo,
    IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisFuture,
    TlsCertificates, TlsMode, Value,
};
use tokio::sync::{mpsc, watch};

use crate::error::ConnectError;
use crate::location::{Location, Server, Topology};
use crate::sentinel::MasterWatch;

/// A connection whose data nobody has acknowledged for this long is dead.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Files for TLS, all PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Trusted certificates in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

/// Deadlines for connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Opening a connection, TLS and greeting included.
    pub connect: Duration,
}

/// Everything needed to open connections.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectSettings {
    /// Where Redis is.
    pub location: Location,
    /// User name; wins over the URL's.
    pub username: Option<String>,
    /// File with the password, read for each connection; wins over the URL's.
    pub password_file: Option<PathBuf>,
    /// User name for the sentinels themselves.
    pub sentinel_username: Option<String>,
    /// File with the sentinels' password.
    pub sentinel_password_file: Option<PathBuf>,
    /// Files for TLS.
    pub tls: TlsFiles,
    /// Deadlines.
    pub timeouts: Timeouts,
}

impl std::fmt::Debug for ConnectSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectSettings").field("location", &self.location).finish_non_exhaustive()
    }
}

/// One connection, which may be cloned and used by many at once.
#[derive(Clone)]
pub enum Conn {
    /// To one server.
    Single(MultiplexedConnection),
    /// To the nodes of a cluster.
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Single(_) => "Conn::Single",
            Self::Cluster(_) => "Conn::Cluster",
        })
    }
}

impl ConnectionLike for Conn {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(conn) => conn.req_packed_command(cmd),
            Self::Cluster(conn) => conn.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(conn) => conn.req_packed_commands(cmd, offset, count),
            Self::Cluster(conn) => conn.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(conn) => conn.get_db(),
            Self::Cluster(conn) => conn.get_db(),
        }
    }
}

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

/// An opened connection with what tells its end.
pub(crate) struct Opened {
    pub(crate) conn: Conn,
    /// Tells when the connection breaks.
    pub(crate) pushes: Option<mpsc::UnboundedReceiver<PushInfo>>,
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

    /// The name in logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells when connections should be opened anew, since the master has changed.
    pub(crate) fn moves(&self) -> Option<watch::Receiver<Option<Server>>> {
        match &self.place {
            Place::Sentinel(watch) => Some(watch.master()),
            _ => None,
        }
    }

    /// Asks the sentinels again, now.
    pub(crate) fn doubt(&self) {
        if let Place::Sentinel(watch) = &self.place {
            watch.ask_now();
        }
    }

    /// Opens a connection.
    pub(crate) async fn open(&self) -> Result<Opened, ConnectError> {
        match &self.place {
            Place::Server(server) => open_single(&self.settings, server).await,
            Place::Sentinel(watch) => {
                let master = watch.current()?;
                let mut opened = open_single(&self.settings, &master).await?;
                self.check_role(&mut opened.conn, &master).await?;
                Ok(opened)
            }
            Place::Cluster(nodes) => self.open_cluster(nodes).await,
        }
    }

    /// A master that was just deposed may still be there under its old address.
    async fn check_role(&self, conn: &mut Conn, server: &Server) -> Result<(), ConnectError> {
        let mut cmd = redis::cmd("INFO");
        cmd.arg("replication");
        let asked = cmd.query_async::<String>(conn);
        let limit = self.settings.timeouts.connect;
        match tokio::time::timeout(limit, asked).await {
            Ok(Ok(info)) if info.contains("role:master") => Ok(()),
            Ok(Ok(_)) => Err(ConnectError::NotMaster { server: server.to_string() }),
            // An ACL may forbid the question; then the sentinels' word counts.
            Ok(Err(error)) if error.code() == Some("NOPERM") => Ok(()),
            Ok(Err(error)) => Err(ConnectError::from_redis(&server.to_string(), &error)),
            Err(_) => Err(timed_out(server, limit)),
        }
    }

    async fn open_cluster(&self, nodes: &[Server]) -> Result<Opened, ConnectError> {
        let settings = &self.settings;
        let infos = nodes
            .iter()
            .map(|node| connection_info(settings, node, redis_info(settings)?))
            .collect::<Result<Vec<_>, _>>()?;
        let (username, password) = credentials(settings)?;
        let mut builder = ClusterClientBuilder::new(infos)
            .connection_timeout(settings.timeouts.connect)
            .response_timeout(Duration::from_secs(2))
            .retries(1)
            .min_retry_wait(5)
            .max_retry_wait(50)
            .tcp_settings(tcp_settings())
            .use_protocol(ProtocolVersion::RESP3);
        if let Some(username) = username {
            builder = builder.username(username);
        }
        if let Some(password) = password {
            builder = builder.password(password);
        }
        if settings.location.tls {
            builder = builder.tls(TlsMode::Secure).certs(certificates(&settings.tls)?);
        }
        let failed = |error: redis::RedisError| ConnectError::from_redis(&self.name, &error);
        let client = builder.build().map_err(failed)?;
        // All nodes have to be visited.
        let limit = settings.timeouts.connect * 4;
        let conn = tokio::time::timeout(limit, client.get_async_connection())
            .await
            .map_err(|_| ConnectError::Timeout {
                server: self.name.clone(),
                millis: limit.as_millis(),
            })?
            .map_err(failed)?;
        Ok(Opened { conn: Conn::Cluster(conn), pushes: None })
    }
}

async fn open_single(settings: &ConnectSettings, server: &Server) -> Result<Opened, ConnectError> {
    let info = connection_info(settings, server, redis_info(settings)?)?;
    open_with(settings, server, info).await
}

/// Opens a connection with the credentials of the sentinels.
pub(crate) async fn open_sentinel(
    settings: &ConnectSettings,
    server: &Server,
) -> Result<Opened, ConnectError> {
    let mut redis = RedisConnectionInfo::default();
    if let Some(username) = &settings.sentinel_username {
        redis = redis.set_username(username);
    }
    if let Some(file) = &settings.sentinel_password_file {
        redis = redis.set_password(read_secret(file)?);
    }
    open_with(settings, server, connection_info(settings, server, redis)?).await
}

async fn open_with(
    settings: &ConnectSettings,
    server: &Server,
    info: ConnectionInfo,
) -> Result<Opened, ConnectError> {
    let failed = |error: redis::RedisError| ConnectError::from_redis(&server.to_string(), &error);
    let client = if settings.location.tls {
        Client::build_with_tls(info, certificates(&settings.tls)?).map_err(failed)?
    } else {
        Client::open(info).map_err(failed)?
    };
    let (push, pushes) = mpsc::unbounded_channel();
    let limit = settings.timeouts.connect;
    // Deadlines of commands are their callers' affair: one timer for each is enough.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limit))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(256)
        .set_push_sender(push);
    let opened = client.get_multiplexed_async_connection_with_config(&config);
    let conn =
        tokio::time::timeout(limit, opened).await.map_err(|_| timed_out(server, limit))?.map_err(
            |error| {
                if error.is_timeout() { timed_out(server, limit) } else { failed(error) }
            },
        )?;
    Ok(Opened { conn: Conn::Single(conn), pushes: Some(pushes) })
}

fn timed_out(server: &Server, limit: Duration) -> ConnectError {
    ConnectError::Timeout { server: server.to_string(), millis: limit.as_millis() }
}

fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true).set_user_timeout(USER_TIMEOUT)
}

fn connection_info(
    settings: &ConnectSettings,
    server: &Server,
    redis: RedisConnectionInfo,
) -> Result<ConnectionInfo, ConnectError> {
    let addr = match server {
        Server::Unix(path) => ConnectionAddr::Unix(path.clone()),
        Server::Tcp { host, port } if settings.location.tls => ConnectionAddr::TcpTls {
            host: host.clone(),
            port: *port,
            insecure: false,
            tls_params: None,
        },
        Server::Tcp { host, port } => ConnectionAddr::Tcp(host.clone(), *port),
    };
    let info = addr
        .into_connection_info()
        .map_err(|error| ConnectError::from_redis(&server.to_string(), &error))?;
    Ok(info
        .set_tcp_settings(tcp_settings())
        .set_redis_settings(redis.set_protocol(ProtocolVersion::RESP3)))
}

fn credentials(
    settings: &ConnectSettings,
) -> Result<(Option<String>, Option<String>), ConnectError> {
    let username = settings.username.clone().or_else(|| settings.location.username.clone());
    let password = match &settings.password_file {
        Some(file) => Some(read_secret(file)?),
        None => settings.location.password.clone(),
    };
    Ok((username, password))
}

fn redis_info(settings: &ConnectSettings) -> Result<RedisConnectionInfo, ConnectError> {
    let (username, password) = credentials(settings)?;
    let mut redis = RedisConnectionInfo::default().set_db(settings.location.database);
    if let Some(username) = username {
        redis = redis.set_username(username);
    }
    if let Some(password) = password {
        redis = redis.set_password(password);
    }
    Ok(redis)
}

fn read_secret(file: &PathBuf) -> Result<String, ConnectError> {
    std::fs::read_to_string(file)
        .map(|text| text.trim_end_matches(['\n', '\r']).to_owned())
        .map_err(|error| unreadable(file, &error))
}

fn unreadable(file: &std::path::Path, error: &std::io::Error) -> ConnectError {
    ConnectError::File { path: file.display().to_string(), detail: error.to_string() }
}

fn certificates(files: &TlsFiles) -> Result<TlsCertificates, ConnectError> {
    let read = |file: &PathBuf| std::fs::read(file).map_err(|error| unreadable(file, &error));
    let client_tls = match (&files.cert_file, &files.key_file) {
        (Some(cert), Some(key)) => {
            Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? })
        }
        _ => None,
    };
    let root_cert = files.ca_file.as_ref().map(read).transpose()?;
    Ok(TlsCertificates { client_tls, root_cert })
}
