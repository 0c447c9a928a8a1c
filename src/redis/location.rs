//! Where Redis is: the URL as operators write it, read into servers, credentials and database.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

/// The port of a server when the URL names none.
const DEFAULT_PORT: u16 = 6379;
/// The port of a sentinel when the URL names none.
const DEFAULT_SENTINEL_PORT: u16 = 26379;

/// The address of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// Reached over TCP.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// TCP port, never zero.
        port: u16,
    },
    /// Path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How servers belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server, or several over which keys are spread by consistent hashing.
    Servers(Vec<Server>),
    /// The master that these sentinels name.
    Sentinel {
        /// Addresses of the sentinels.
        sentinels: Vec<Server>,
        /// Name of the master.
        master: String,
    },
    /// A cluster, found through these nodes.
    Cluster(Vec<Server>),
}

/// What a URL says.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    /// The servers, and how they belong together.
    pub topology: Topology,
    /// Whether connections use TLS.
    pub tls: bool,
    /// User name within the URL.
    pub username: Option<String>,
    /// Password within the URL.
    pub password: Option<String>,
    /// Database number; 0 where none is given.
    pub database: i64,
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password stays out of logs.
        f.debug_struct("Location")
            .field("topology", &self.topology)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// What a URL may look like, for error messages.
const FORMS: &str = "write redis://host:port, rediss://host:port (TLS), unix:/path, \
     redis://host1:port,host2:port, redis+sentinel://host1:port,host2:port/master or \
     redis+cluster://host1:port,host2:port";

/// What is wrong with a URL, and what to write instead. No message shows the password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Text without a scheme.
    #[error("it is no URL; {forms}", forms = FORMS)]
    NotAUrl,
    /// A scheme that is not known.
    #[error("the scheme \"{0}\" is not known; {forms}", forms = FORMS)]
    Scheme(String),
    /// A Unix socket without a path.
    #[error("the socket has no path; {forms}", forms = FORMS)]
    NoPath,
    /// A server that is not `host:port`.
    #[error("\"{0}\" is no host:port; {forms}", forms = FORMS)]
    Server(String),
    /// Sentinel without the name of the master.
    #[error("the name of the master is missing; write it behind the last /")]
    NoMaster,
    /// A database that is not a number from 0 to 9999.
    #[error("\"{0}\" is no database number")]
    Database(String),
    /// A cluster with a database.
    #[error("a cluster has no databases; leave the number out")]
    ClusterDatabase,
    /// Credentials with a `%` that begins no escape, or that are not UTF-8.
    #[error("user name or password are not percent-encoded")]
    Credentials,
}

impl Location {
    /// Reads a URL as operators write it.
    ///
    /// # Errors
    /// When it is none of the forms that are understood.
    pub fn parse(url: &str) -> Result<Self, LocationError> {
        if let Some(path) = url.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(LocationError::NoPath);
            }
            return Ok(Location {
                topology: Topology::Servers(vec![Server::Unix(path.into())]),
                tls: false,
                username: None,
                password: None,
                database: 0,
            });
        }
        let (scheme, rest) = url.split_once("://").ok_or(LocationError::NotAUrl)?;
        let (tls, kind) = match scheme {
            "redis" => (false, ""),
            "rediss" => (true, ""),
            "redis+sentinel" => (false, "sentinel"),
            "rediss+sentinel" => (true, "sentinel"),
            "redis+cluster" => (false, "cluster"),
            "rediss+cluster" => (true, "cluster"),
            _ => return Err(LocationError::Scheme(scheme.to_owned())),
        };
        // Credentials come off first: whatever they hold, no message may show it.
        let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(u, r)| (Some(u), r));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (username, password) = credentials(user)?;
        let default = if kind == "sentinel" { DEFAULT_SENTINEL_PORT } else { DEFAULT_PORT };
        let servers: Vec<Server> =
            hosts.split(',').map(|text| server(text, default)).collect::<Result<_, _>>()?;
        let (topology, database) = match kind {
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(LocationError::NoMaster);
                }
                let master = master.to_owned();
                (Topology::Sentinel { sentinels: servers, master }, database)
            }
            "cluster" => (Topology::Cluster(servers), path),
            _ => (Topology::Servers(servers), path),
        };
        let database = match database {
            "" => 0,
            number => number
                .parse()
                .ok()
                .filter(|n| (0..=9999).contains(n))
                .ok_or_else(|| LocationError::Database(number.to_owned()))?,
        };
        if database != 0 && kind == "cluster" {
            return Err(LocationError::ClusterDatabase);
        }
        Ok(Location { topology, tls, username, password, database })
    }
}

/// User name and password of the part before the `@`.
fn credentials(user: Option<&str>) -> Result<(Option<String>, Option<String>), LocationError> {
    let Some(user) = user else { return Ok((None, None)) };
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let decode = |text: &str| {
        if text.is_empty() {
            return Ok(None);
        }
        decoded(text).map(Some).ok_or(LocationError::Credentials)
    };
    Ok((decode(name)?, decode(password)?))
}

fn decoded(text: &str) -> Option<String> {
    // The library leaves a % that begins no escape as it is; here it is a mistake.
    let is_escape = |rest: &str| {
        rest.as_bytes()
            .first_chunk::<2>()
            .is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(is_escape) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned)
}

fn server(text: &str, default_port: u16) -> Result<Server, LocationError> {
    let wrong = || LocationError::Server(text.to_owned());
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
        (host, rest.strip_prefix(':'))
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = match port {
        None => default_port,
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
    };
    let good = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
    if host.is_empty() || !host.chars().all(good) {
        return Err(wrong());
    }
    Ok(Server::Tcp { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Server {
        Server::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn all_topologies_are_read() {
        let one = Location::parse("redis://cart:p%40ss@r.svc/3").unwrap();
        assert_eq!(one.topology, Topology::Servers(vec![tcp("r.svc", 6379)]));
        assert_eq!(one.username.as_deref(), Some("cart"));
        assert_eq!(one.password.as_deref(), Some("p@ss"));
        assert_eq!((one.tls, one.database), (false, 3));
        let several = Location::parse("rediss://a:1,[::1]:2").unwrap();
        assert_eq!(several.topology, Topology::Servers(vec![tcp("a", 1), tcp("::1", 2)]));
        assert!(several.tls);
        let sentinel = Location::parse("redis+sentinel://s1,s2:5/main").unwrap();
        let sentinels = vec![tcp("s1", 26379), tcp("s2", 5)];
        assert_eq!(sentinel.topology, Topology::Sentinel { sentinels, master: "main".to_owned() });
        let cluster = Location::parse("rediss+cluster://n:1").unwrap();
        assert_eq!(cluster.topology, Topology::Cluster(vec![tcp("n", 1)]));
        let unix = Location::parse("unix:/run/redis.sock").unwrap();
        assert_eq!(unix.topology, Topology::Servers(vec![Server::Unix("/run/redis.sock".into())]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_without_showing_secrets() {
        for url in [
            "r:6379",
            "http://r",
            "redis://",
            "redis://u:secret@r:port",
            "redis://u:secret@r:0",
            "redis://u:sec/secret@r:port",
            "redis://u:secret/sec@r:port",
            "redis+sentinel://u:secret@s",
            "redis+cluster://n/2",
            "redis://u:secret@r/x",
            "unix:",
        ] {
            let error = Location::parse(url).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
