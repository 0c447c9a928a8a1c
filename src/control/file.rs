//! Policy from a file, reloaded when its content changes.
//!
//! The content is compared, not the modification time: a ConfigMap is changed by swapping a
//! symbolic link above the file, which leaves no trace that holds on every file system. Reading a
//! small file twice a second costs nothing that can be measured.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::controller::{Controller, Layer};

/// How often the file is read.
const INTERVAL: Duration = Duration::from_millis(500);
/// A larger file is refused: it is not a policy.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Watches a file for ever. `known` is the content that is in force already.
///
/// A file that cannot be read leaves the policy as it is. That is logged once, not at every read.
pub async fn watch_file(controller: Arc<Controller>, path: &Path, mut known: String) {
    let source = path.display().to_string();
    let mut unreadable = false;
    loop {
        tokio::time::sleep(INTERVAL).await;
        match read(path).await {
            Ok(text) => {
                if std::mem::take(&mut unreadable) {
                    tracing::info!(path = source, "the policy file can be read again");
                }
                if text != known {
                    // A refusal is logged and kept in the status by the controller.
                    let _ = controller.offer(Layer::File, &source, &text);
                    known = text;
                }
            }
            Err(error) if !unreadable => {
                unreadable = true;
                tracing::error!(path = source, %error, "cannot read the policy file; the last good policy stays in force");
            }
            Err(_) => {}
        }
    }
}

async fn read(path: &Path) -> std::io::Result<String> {
    let length = tokio::fs::metadata(path).await?.len();
    if length > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!(
            "{length} bytes are more than {FILE_BYTES_MAX}"
        )));
    }
    tokio::fs::read_to_string(path).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[tokio::test(start_paused = true)]
    async fn a_swapped_symbolic_link_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let version = |name: &str, text: &str| {
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("policy.yaml"), text).unwrap();
        };
        version("v1", "routes: [{name: one}]");
        version("v2", "routes: [{name: two}]");
        symlink("v1", dir.path().join("..data")).unwrap();
        symlink("..data/policy.yaml", dir.path().join("policy.yaml")).unwrap();
        let controller = Arc::new(Controller::new(|_| {}, |_| {}));
        let path = dir.path().join("policy.yaml");
        let watched = Arc::clone(&controller);
        let watching = tokio::spawn(async move {
            watch_file(watched, &path, "routes: [{name: one}]".to_owned()).await;
        });
        symlink("v2", dir.path().join("..tmp")).unwrap();
        std::fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
        for _ in 0..1000 {
            tokio::time::sleep(INTERVAL).await;
            if controller.status().sources.len() == 1 {
                break;
            }
            // File access runs on real threads, which paused time does not wait for.
            std::thread::yield_now();
        }
        watching.abort();
        let expected = outrigger_policy::Snapshot::from_yaml("x", "routes: [{name: two}]").unwrap();
        assert_eq!(controller.status().version, expected.version());
    }
}
