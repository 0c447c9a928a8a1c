//! Outrigger: an HTTP cache that runs beside a service in an Envoy or Istio mesh, one process in each
//! pod.
//!
//! The pod's Envoy sends it the requests for the application in the pod (*inbound*), or those that the
//! application makes (*outbound*); without a mesh, clients send their requests to it (*direct*). It
//! answers from what it has stored, by RFC 9111 and the operator's policy, and forwards the rest.
//!
//! This package is the `outrigger` command: command line, composition and admin port. What decides
//! about a request is in the member crates, which do not know this one.
//!
//! # How the parts hang together
//!
//! Each layer uses those below it, and none above:
//!
//! | layer | holds |
//! |---|---|
//! | [`cli`] | commands: arguments, output, exit codes |
//! | [`app`] | the bootstrap document, the plan that comes of it, the process that runs a plan |
//! | [`admin`] | the admin port: health, metrics, explanations, circuit breakers, purges |
//! | [`http_api`] | the HTTP server of ports that operators use, apart from the data path |
//! | [`istio`] | Istio's objects that send traffic here; stands beside `app` and `admin` |
//! | [`outrigger_proxy`] | the data path: listeners, pipeline, coalescing, guard, upstream |
//! | [`outrigger_control`], [`outrigger_policy`] | where policy comes from, and what it says of a request |
//! | [`outrigger_store`], [`outrigger_coherence`], [`outrigger_redis`] | stored responses, the purge log, connections to Redis |
//! | [`outrigger_semantics`], [`outrigger_guard`] | the rules of the RFCs, and the state machines that protect the upstream: pure functions |
//! | [`outrigger_telemetry`], [`outrigger_diagnostic`] | metrics, logs and traces; what is wrong in a document |
//! | [`outrigger_inject`] | puts Outrigger into pods: manifests and admission webhook |
//!
//! Configuration comes in two kinds. The *bootstrap* ([`app::config::Config`]: listeners, upstream,
//! memory) is read at the start. The *policy* ([`outrigger_policy::Document`]: routes, lifetimes,
//! guards) is taken from a file or istiod and replaced while the process runs, as a whole or not at
//! all.
//!
//! # Where to start reading
//!
//! - **The start of a process**: [`app::load::load`], [`app::build::plan`],
//!   [`app::run::until_signalled`].
//! - **A request**: `src/proxy/pipeline/mod.rs` shows the stages in their order; its rules are in
//!   [`outrigger_semantics`].
//! - **A change of policy**: [`outrigger_control::Controller`] checks it,
//!   [`outrigger_policy::Snapshot`] is its compiled form, [`outrigger_proxy::Shared::install`] puts it
//!   in force.
//! - **A purge**: [`admin`] takes it, [`outrigger_proxy::purge`] writes it to the
//!   [`outrigger_coherence::PurgeLog`], and every pod judges what it has stored by that log.
//!
//! `src/README.md` has the architecture, `src/decisions` the reasons and measurements.

#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod cli;
pub mod http_api;
pub mod istio;
