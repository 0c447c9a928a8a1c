//! What is needed to open connections. Passwords are read from their files for each connection.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::location::Location;

/// Files for TLS, all PEM. The server's certificate is always verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "RedisTlsConfig")]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TlsFiles {
    /// Trust these certificates in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Certificate that this process presents.
    pub cert_file: Option<PathBuf>,
    /// Private key of that certificate.
    pub key_file: Option<PathBuf>,
}

/// Everything needed to open connections.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectSettings {
    /// Where Redis is, as its URL says.
    pub location: Location,
    /// User name; wins over the URL's.
    pub username: Option<String>,
    /// File with the password, read for each connection; wins over the URL's.
    pub password_file: Option<PathBuf>,
    /// User name for the sentinels themselves.
    pub sentinel_username: Option<String>,
    /// File with the sentinels' password.
    pub sentinel_password_file: Option<PathBuf>,
    /// Certificates and key, used where the location says TLS.
    pub tls: TlsFiles,
    /// Longest time for opening a connection, TLS and greeting included.
    pub connect_timeout: Duration,
}

impl std::fmt::Debug for ConnectSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectSettings").field("location", &self.location).finish_non_exhaustive()
    }
}
