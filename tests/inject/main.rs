//! Injection: `outrigger inject` on manifests, as snapshots, and the webhook as a process before a
//! small stand-in of the Kubernetes API.
//!
//! `INSTA_UPDATE=always cargo test --test inject` writes the snapshots anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod command;
mod webhook;
