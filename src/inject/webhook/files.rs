//! A certificate from files that something else renews, such as cert-manager's Secret in a volume.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::error::WebhookError;
use super::tls::{Resolver, certified_key};

/// The files of certificate and key, and their content at the last read.
pub(super) struct Files {
    cert: PathBuf,
    key: PathBuf,
    resolver: Arc<Resolver>,
    last: (Vec<u8>, Vec<u8>),
}

impl Files {
    /// Reads the files for the first time.
    pub fn open(cert: &Path, key: &Path, resolver: Arc<Resolver>) -> Result<Self, WebhookError> {
        let mut files = Files {
            cert: cert.to_owned(),
            key: key.to_owned(),
            resolver,
            last: Default::default(),
        };
        files.reload()?;
        Ok(files)
    }

    /// Reads them; `true` if they have changed. Files that do not fit together change nothing: they
    /// may be written one after the other.
    fn reload(&mut self) -> Result<bool, WebhookError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| WebhookError::File { path: path.to_owned(), error })
        };
        let now = (read(&self.cert)?, read(&self.key)?);
        if now == self.last {
            return Ok(false);
        }
        let key = certified_key(&now.0, &now.1).map_err(|error| {
            let (cert, key) = (self.cert.clone(), self.key.clone());
            WebhookError::Certificate { cert, key, error }
        })?;
        self.resolver.set(key);
        self.last = now;
        Ok(true)
    }

    /// Reads the files in this interval until the future is dropped.
    pub async fn watch(mut self, interval: Duration) {
        let mut trouble = false;
        loop {
            tokio::time::sleep(interval).await;
            match self.reload() {
                Ok(changed) => {
                    trouble = false;
                    if changed {
                        tracing::info!(cert = %self.cert.display(), "a new certificate is served");
                    }
                }
                Err(error) if !trouble => {
                    trouble = true;
                    let reason = error.to_string();
                    tracing::warn!(reason, "the certificate in use is served on");
                }
                Err(_) => {}
            }
        }
    }
}
