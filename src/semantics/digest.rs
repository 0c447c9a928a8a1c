//! The digest by which keys are found: the same in every pod and every crate.

/// The first 128 bits of the BLAKE3 hash. Stored in Redis and in the purge log: it must not change.
pub fn digest(text: &[u8]) -> u128 {
    let hash = blake3::hash(text);
    let mut first = [0; 16];
    first.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_le_bytes(first)
}
