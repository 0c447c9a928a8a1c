//! What can be the name of a container image. It is no full check of a reference: the registry decides.

/// Whether a text can be an image: what no registry takes is refused here and not by a kubelet.
pub fn is_image(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "._-:/@".contains(c);
    !text.is_empty()
        && text.len() <= 512
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        && text.chars().all(inner)
        && !text.contains("//")
}
