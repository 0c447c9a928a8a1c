//! End-to-end tests: the real `outrigger` binary between peers that others wrote.
//!
//! WebSocket, gRPC and OTLP peers are PyPI's own (helper scripts beside this file), the ordinary origin is
//! Debian's nginx, the demo is tried with curl. `tests/setup test` installs them all; a test whose peer is
//! missing fails and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod demo;
mod endpoints;
mod grpc;
mod memory;
mod nginx;
mod otlp;
mod tls;
mod websocket;
