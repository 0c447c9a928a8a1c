//! Why Redis cannot be reached, for the operator who must act.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// User name or password are wrong.
    #[error(
        "{server} refused the credentials ({detail}): check redis.username and redis.passwordFile"
    )]
    Credentials {
        /// The server.
        server: String,
        /// Its words.
        detail: String,
    },
    /// A file could not be read.
    #[error("{path}: cannot read it: {detail}")]
    File {
        /// The file.
        path: String,
        /// The reason.
        detail: String,
    },
    /// No sentinel knows the master.
    #[error("no sentinel tells who the master \"{master}\" is: {detail}")]
    NoMaster {
        /// The master's name.
        master: String,
        /// The last reason.
        detail: String,
    },
    /// The server is not the master it was said to be.
    #[error("{server} is a replica, not the master")]
    NotMaster {
        /// The server.
        server: String,
    },
    /// It did not answer in time.
    #[error("{server} did not answer within {millis} ms")]
    Timeout {
        /// The server.
        server: String,
        /// The limit.
        millis: u128,
    },
    /// Anything else.
    #[error("{server}: {detail}")]
    Failed {
        /// The server.
        server: String,
        /// The reason.
        detail: String,
    },
}

impl ConnectError {
    /// Sorts an error of the client library.
    pub(crate) fn from_redis(server: &str, error: &RedisError) -> Self {
        let server = server.to_owned();
        if is_about_credentials(error) {
            return Self::Credentials { server, detail: error.to_string() };
        }
        Self::Failed { server, detail: error.to_string() }
    }
}

fn is_about_credentials(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"))
}

/// Whether an error says that the connection leads to the wrong place or is gone, so that a new
/// one must be opened.
pub fn wants_reconnect(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || error.is_connection_dropped()
        || matches!(error.code(), Some("NOAUTH"))
}

/// Whether the server answered that it takes no writes: a replica, or a master without enough
/// replicas.
pub fn is_read_only(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
        || matches!(error.code(), Some("READONLY" | "NOREPLICAS" | "MISCONF"))
}

/// Whether the server is out of memory.
pub fn is_out_of_memory(error: &RedisError) -> bool {
    error.code() == Some("OOM")
}
