//! The last good policy on disk, for a start while istiod cannot be reached.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The file in the state folder.
const FILE: &str = "policy.json";
/// The version of the file's format.
const FORMAT: u32 = 1;

/// Why the policy on disk cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateFileError {
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    /// The file holds something else, or a part only.
    #[error("{}: not a kept policy: {error}", path.display())]
    NotSaved { path: PathBuf, error: serde_json::Error },
    /// Another version of this program has written it.
    #[error("{}: form {found}, and this version reads {FORMAT}", path.display())]
    Format { path: PathBuf, found: u32 },
}

/// The policy of an earlier run, as the file holds it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SavedPolicy {
    format: u32,
    saved_unix_seconds: u64,
    /// The version that istiod gave it.
    pub(crate) version: String,
    /// The documents, as JSON texts, by the name of their resource.
    pub(crate) documents: BTreeMap<String, String>,
}

impl SavedPolicy {
    pub(crate) fn new(version: &str, documents: &BTreeMap<&'static str, String>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let documents = documents.iter().map(|(name, text)| ((*name).to_owned(), text.clone()));
        SavedPolicy {
            format: FORMAT,
            saved_unix_seconds: now.as_secs(),
            version: version.to_owned(),
            documents: documents.collect(),
        }
    }

    /// When it was saved.
    pub(crate) fn saved(&self) -> SystemTime {
        let since = Duration::from_secs(self.saved_unix_seconds);
        UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
    }
}

/// The place on disk where a policy is kept.
#[derive(Clone, Debug)]
pub(crate) struct StateFile {
    folder: PathBuf,
}

impl StateFile {
    pub(crate) fn new(folder: PathBuf) -> Self {
        StateFile { folder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// The policy that is kept; `None` if there is none.
    pub(crate) fn read(&self) -> Result<Option<SavedPolicy>, StateFileError> {
        let path = self.path();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StateFileError::File { path, error }),
        };
        let kept: SavedPolicy = match serde_json::from_slice(&text) {
            Ok(kept) => kept,
            Err(error) => return Err(StateFileError::NotSaved { path, error }),
        };
        if kept.format != FORMAT {
            return Err(StateFileError::Format { path, found: kept.format });
        }
        Ok(Some(kept))
    }

    /// Removes the policy that is kept. An error is ignored: the file is gone already, or nothing
    /// can be done about it.
    pub(crate) fn forget(&self) {
        let _ = std::fs::remove_file(self.path());
    }

    /// Replaces the policy that is kept, in one step: a crash leaves the old one or the new one.
    pub(crate) fn write(&self, kept: &SavedPolicy) -> Result<(), StateFileError> {
        let path = self.path();
        write_atomically(&path, kept).map_err(|error| StateFileError::File { path, error })
    }
}

/// Writes a new file and renames it: a reader sees the old one or the whole new one.
fn write_atomically(path: &Path, kept: &SavedPolicy) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("json.new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(&serde_json::to_vec(kept)?)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let state_file = StateFile::new(dir.path().join("below"));
        assert_eq!(state_file.read().unwrap(), None);
        let kept = SavedPolicy::new("v/1", &[("outrigger/mesh", "{}".to_owned())].into());
        state_file.write(&kept).unwrap();
        assert_eq!(state_file.read().unwrap(), Some(kept.clone()));
        assert!(kept.saved() <= SystemTime::now());
    }

    #[test]
    fn no_time_breaks_it() {
        let mut kept = SavedPolicy::new("1", &BTreeMap::new());
        kept.saved_unix_seconds = u64::MAX;
        assert_eq!(kept.saved(), UNIX_EPOCH);
    }

    #[test]
    fn what_is_broken_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state_file = StateFile::new(dir.path().to_owned());
        for (text, says) in [
            ("{", "not a kept policy"),
            (r#"{"format":9,"savedUnixSeconds":1,"version":"","documents":{}}"#, "form 9"),
        ] {
            std::fs::write(state_file.path(), text).unwrap();
            let error = state_file.read().unwrap_err().to_string();
            assert!(error.contains("policy.json") && error.contains(says), "{error}");
        }
    }
}
