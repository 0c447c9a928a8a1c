//! The digest by which keys are found: the same in every pod and every crate.

/// 128 bits of BLAKE3.
pub fn digest(text: &[u8]) -> u128 {
    let hash = blake3::hash(text);
    let mut first = [0; 16];
    first.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_le_bytes(first)
}
