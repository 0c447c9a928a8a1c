//! Sealing: encryption and authentication of values with AES-256-GCM. One key seals and all keys
//! open, so that keys can be changed without losing what is stored. Keys are files of a folder, such
//! as a mounted Secret, and may change while the process runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine;

use super::rest::{Refused, Rest};

/// Bytes between head and content of a sealed value: number of the key, then the nonce.
pub(super) const EXTRA_BYTES: usize = 4 + NONCE_BYTES;
const NONCE_BYTES: usize = 12;
/// Bytes that sealing adds at the end.
pub(super) const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
/// How often the folder is read again.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The folder or a file cannot be read.
    #[error("{path}: cannot read it: {reason}")]
    Unreadable {
        /// The folder or file.
        path: String,
        /// The system's message.
        reason: String,
    },
    /// The folder holds no key.
    #[error("{0}: no key in it; put 32 random bytes into a file named 1.key")]
    Empty(String),
    /// A file does not hold a key in any of the accepted forms.
    #[error("{0}: not a key; write 32 bytes, 64 hexadecimal digits, or their base64")]
    NotAKey(String),
    /// `active` names a key that is not there.
    #[error("{path}: it names key \"{wanted}\", which is not there")]
    NoSuchKey {
        /// Path of the file `active`.
        path: String,
        /// The number in it.
        wanted: String,
    },
}

/// The keys in force.
pub struct Keyring {
    keys: BTreeMap<u32, RandomizedNonceKey>,
    active: u32,
    fingerprint: [u8; 32],
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers: Vec<&u32> = self.keys.keys().collect();
        f.debug_struct("Keyring").field("keys", &numbers).field("active", &self.active).finish()
    }
}

impl Keyring {
    /// Reads the keys of a folder: files `<number>.key`, and optionally `active` with the number of
    /// the key that seals (otherwise the highest does).
    ///
    /// # Errors
    /// When there is no usable key, or one that cannot be used.
    pub fn load(folder: &Path) -> Result<Self, KeyError> {
        let unreadable = |path: &Path, error: std::io::Error| KeyError::Unreadable {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        let mut keys = BTreeMap::new();
        let mut hasher = blake3::Hasher::new();
        let listed = std::fs::read_dir(folder).map_err(|error| unreadable(folder, error))?;
        let mut files: Vec<PathBuf> = listed.filter_map(|file| Some(file.ok()?.path())).collect();
        files.sort();
        for path in files {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(number) = name.strip_suffix(".key").and_then(|n| n.parse::<u32>().ok()) else {
                continue;
            };
            let text = std::fs::read(&path).map_err(|error| unreadable(&path, error))?;
            let key =
                key_bytes(&text).ok_or_else(|| KeyError::NotAKey(path.display().to_string()))?;
            hasher.update(&number.to_le_bytes()).update(&key);
            let key = RandomizedNonceKey::new(&AES_256_GCM, &key)
                .map_err(|_| KeyError::NotAKey(path.display().to_string()))?;
            keys.insert(number, key);
        }
        let Some(highest) = keys.keys().next_back().copied() else {
            return Err(KeyError::Empty(folder.display().to_string()));
        };
        let active_file = folder.join("active");
        let active = match std::fs::read_to_string(&active_file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => highest,
            Err(error) => return Err(unreadable(&active_file, error)),
            Ok(text) => {
                text.trim().parse().ok().filter(|n| keys.contains_key(n)).ok_or_else(|| {
                    let path = active_file.display().to_string();
                    KeyError::NoSuchKey { path, wanted: text.trim().to_owned() }
                })?
            }
        };
        hasher.update(&active.to_le_bytes());
        Ok(Keyring { keys, active, fingerprint: *hasher.finalize().as_bytes() })
    }

    /// Seals `rest` in place; returns what goes between the head and it. `None` if encryption fails.
    pub(super) fn seal(
        &self,
        head: &[u8],
        name: &[u8],
        rest: &mut Vec<u8>,
    ) -> Option<[u8; EXTRA_BYTES]> {
        let key = self.keys.get(&self.active)?;
        let aad = associated(head, self.active, name);
        let nonce = key.seal_in_place_append_tag(Aad::from(aad), rest).ok()?;
        let mut extra = [0; EXTRA_BYTES];
        extra[..4].copy_from_slice(&self.active.to_le_bytes());
        extra[4..].copy_from_slice(nonce.as_ref());
        Some(extra)
    }

    /// Opens in place the part of a value behind `from`.
    pub(super) fn open(
        &self,
        head: &[u8],
        name: &[u8],
        mut value: Vec<u8>,
        from: usize,
    ) -> Result<Rest, Refused> {
        let Some((extra, sealed)) = value[from..].split_first_chunk_mut::<EXTRA_BYTES>() else {
            return Err(Refused::Corrupt);
        };
        let number = u32::from_le_bytes([extra[0], extra[1], extra[2], extra[3]]);
        let key = self.keys.get(&number).ok_or(Refused::Seal)?;
        let nonce = Nonce::try_assume_unique_for_key(&extra[4..]).map_err(|_| Refused::Seal)?;
        let aad = associated(head, number, name);
        let opened = key.open_in_place(nonce, Aad::from(aad), sealed).map_err(|_| Refused::Seal)?;
        let from = from + EXTRA_BYTES;
        let to = from + opened.len();
        Ok(Rest::part(value, from, to))
    }

    /// Number of the key that seals.
    pub fn active(&self) -> u32 {
        self.active
    }

    /// Numbers of all keys, in order.
    pub fn numbers(&self) -> Vec<u32> {
        self.keys.keys().copied().collect()
    }
}

/// The associated data: head, key number and name, which the seal protects besides the content.
fn associated(head: &[u8], number: u32, name: &[u8]) -> Vec<u8> {
    let mut aad = Vec::with_capacity(head.len() + 4 + name.len());
    aad.extend_from_slice(head);
    aad.extend_from_slice(&number.to_le_bytes());
    aad.extend_from_slice(name);
    aad
}

fn key_bytes(text: &[u8]) -> Option<[u8; KEY_BYTES]> {
    if let Ok(raw) = text.try_into() {
        return Some(raw);
    }
    let text = text.trim_ascii();
    if text.len() == KEY_BYTES * 2 {
        let mut key = [0; KEY_BYTES];
        for (byte, pair) in key.iter_mut().zip(text.chunks(2)) {
            let digit = |b: u8| (b as char).to_digit(16);
            *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
        }
        return Some(key);
    }
    base64::engine::general_purpose::STANDARD.decode(text).ok()?.try_into().ok()
}

/// Keys that follow their folder.
#[derive(Clone, Debug)]
pub struct Keys {
    folder: PathBuf,
    ring: Arc<ArcSwap<Keyring>>,
}

impl Keys {
    /// Loads the keys of a folder.
    ///
    /// # Errors
    /// As [`Keyring::load`].
    pub fn open(folder: &Path) -> Result<Self, KeyError> {
        let ring = Arc::new(ArcSwap::from_pointee(Keyring::load(folder)?));
        Ok(Keys { folder: folder.to_owned(), ring })
    }

    /// The keys in force.
    pub fn ring(&self) -> Arc<Keyring> {
        self.ring.load_full()
    }

    /// Reads the folder again whenever it has changed, for ever. While its keys cannot be used, the
    /// last good ones stay in force.
    pub async fn follow(self) {
        let mut complained = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match Keyring::load(&self.folder) {
                Ok(ring) => {
                    complained = None;
                    if ring.fingerprint != self.ring.load().fingerprint {
                        tracing::info!(keys = ?ring.numbers(), active = ring.active, "sealing keys changed");
                        self.ring.store(Arc::new(ring));
                    }
                }
                Err(error) => {
                    if complained.as_ref() != Some(&error) {
                        tracing::warn!(%error, "sealing keys not changed");
                        complained = Some(error);
                    }
                }
            }
        }
    }
}
