//! Puts the Outrigger container into pods.
//!
//! [`inject`] is a pure function of a pod and [`Options`]; [`manifest`] applies it to a stream of
//! YAML documents, for `outrigger inject`; [`webhook`] serves it to the API server. Both the container
//! and its volumes are merged by name, so that a second injection changes nothing: the API server
//! calls a webhook again when another one has changed the pod.

pub mod annotations;
mod config;
mod image;
pub mod manifest;
mod merge;
mod mesh;
mod pod;
mod refuse;
mod sides;
mod template;
#[cfg(test)]
mod tests;
pub mod webhook;
mod yaml;

pub use config::{DEFAULT_IMAGE, InjectionConfig, Options};
pub use mesh::Mesh;
pub use pod::{Choice, Injection, choice, inject};
pub use sides::{NotSides, Sides};
pub use template::Template;

/// The name of the container, and the prefix of everything else that is Outrigger's in a pod.
pub const CONTAINER: &str = "outrigger";

/// The user and group that the container runs as.
pub const USER: u64 = 15480;

/// The label by which a pod asks for Outrigger (`"true"`) or declines it (`"false"`).
pub const LABEL: &str = "outrigger.io/inject";

/// The version that the status annotation tells.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
