//! The error type of the upstream, which the coalescer hands to everybody who waits.

pub(crate) use outrigger_proxy::UpstreamError;
