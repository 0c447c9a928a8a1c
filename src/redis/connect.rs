//! Opening a connection: addresses, credentials, certificates, deadlines.

use std::path::PathBuf;
use std::time::Duration;

use redis::cluster::ClusterClientBuilder;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo,
    IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, TlsCertificates, TlsMode,
};
use tokio::sync::mpsc;

use crate::conn::{Conn, Opened};
use crate::error::ConnectError;
use crate::location::Server;
use crate::settings::{ConnectSettings, TlsFiles};

/// A connection is dead when data has stayed unacknowledged for this long (TCP_USER_TIMEOUT).
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the connections to a cluster, found through `nodes`. `name` stands for it in errors.
pub(crate) async fn open_cluster(
    settings: &ConnectSettings,
    name: &str,
    nodes: &[Server],
) -> Result<Opened, ConnectError> {
    let infos = nodes
        .iter()
        .map(|node| connection_info(settings, node, redis_info(settings)?))
        .collect::<Result<Vec<_>, _>>()?;
    let (username, password) = credentials(settings)?;
    let mut builder = ClusterClientBuilder::new(infos)
        .connection_timeout(settings.connect_timeout)
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
    let failed = |error: redis::RedisError| ConnectError::from_redis(name, &error);
    let client = builder.build().map_err(failed)?;
    // All nodes have to be visited.
    let limit = settings.connect_timeout * 4;
    let conn = tokio::time::timeout(limit, client.get_async_connection())
        .await
        .map_err(|_| ConnectError::Timeout { server: name.to_owned(), millis: limit.as_millis() })?
        .map_err(failed)?;
    Ok(Opened { conn: Conn::Cluster(conn), pushes: None })
}

/// Opens a connection to one server with the credentials of the settings.
pub(crate) async fn open_single(
    settings: &ConnectSettings,
    server: &Server,
) -> Result<Opened, ConnectError> {
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
    let limit = settings.connect_timeout;
    // Callers put deadlines on their commands; a second timer here would only cost.
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

pub(crate) fn timed_out(server: &Server, limit: Duration) -> ConnectError {
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
