//! Outrigger: an HTTP cache that runs beside a service in an Envoy or Istio mesh.
//!
//! This package holds the command line ([`cli`]), the composition of a running process from its
//! configuration ([`app`]), and the admin port ([`admin`]) with the server that it runs on
//! ([`http_api`]). What it composes lives in the member crates; `src/README.md` shows how they hang
//! together.

#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod cli;
pub mod http_api;
pub mod istio;
