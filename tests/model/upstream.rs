//! What the coalescer takes from the upstream.

pub(crate) use outrigger_proxy::UpstreamError;
