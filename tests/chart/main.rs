//! The Helm chart and the image, by the tools that judge them elsewhere: Helm itself, Kubernetes' schemas
//! (PyPI's `kubernetes-validate`), Istio's and the Prometheus operator's (npm's `@kubernetes-models`). The template for
//! Istio's injector is evaluated by Helm's `tpl`, with the data that Istio hands to it.
//!
//! `tests/setup test` installs all of that; a test whose tool is missing fails and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod apiserver;
mod command;
mod helm;
mod image;
mod injector;
mod istio;
mod judge;
mod matrix;
mod notes;
mod pods;
mod redis;
mod values;
mod webhook;
