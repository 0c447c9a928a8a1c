//! Why Redis cannot be reached, in sentences that tell an operator what to do; and what an error of
//! a command means for the connection.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// User name or password are wrong.
    #[error(
        "{server} refused the credentials ({detail}): check redis.username and redis.passwordFile"
    )]
    Credentials {
        /// Address of the server.
        server: String,
        /// The server's own message.
        detail: String,
    },
    /// A file could not be read.
    #[error("{path}: cannot read it: {detail}")]
    File {
        /// Path of the file.
        path: String,
        /// The system's or the server's message.
        detail: String,
    },
    /// No sentinel knows the master.
    #[error("no sentinel tells who the master \"{master}\" is: {detail}")]
    NoMaster {
        /// Name under which the sentinels know the master.
        master: String,
        /// The last error of a sentinel.
        detail: String,
    },
    /// The server is not the master it was said to be.
    #[error("{server} is a replica, not the master")]
    NotMaster {
        /// Address of the server.
        server: String,
    },
    /// It did not answer in time.
    #[error("{server} did not answer within {millis} ms")]
    Timeout {
        /// Address of the server.
        server: String,
        /// Longest time for an answer, milliseconds.
        millis: u128,
    },
    /// Any other error, of the network or of the server.
    #[error("{server}: {detail}")]
    Failed {
        /// Address of the server.
        server: String,
        /// The system's or the server's message.
        detail: String,
    },
}

impl ConnectError {
    /// Tells wrong credentials from other errors of the client library.
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

/// Whether an error says that the connection is gone or leads to the wrong server, so that a new one
/// must be opened.
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
