//! The few protobuf messages of the aggregated discovery service that this client speaks, with the
//! field numbers of Envoy's API v3 (`envoy/service/discovery/v3/discovery.proto`,
//! `envoy/config/core/v3/base.proto` and `extension.proto`, `google/rpc/status.proto`,
//! `udpa/type/v1/typed_struct.proto`).
//!
//! Written out instead of generated: seven messages need no protobuf compiler in the build, and
//! fields that are not listed are skipped by any protobuf reader. The tests' control plane encodes
//! with Envoy's own descriptors, which holds the numbers.

use prost_types::{Any, Struct};

/// The type that extension configuration resources are asked for and sent as.
pub(crate) const EXTENSION_CONFIG: &str =
    "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";

/// The method of the aggregated discovery service, state of the world.
pub(crate) const STREAM_AGGREGATED_RESOURCES: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// `envoy.service.discovery.v3.DiscoveryRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DiscoveryRequest {
    /// The version accepted last; empty at first.
    #[prost(string, tag = "1")]
    pub(crate) version_info: String,
    /// In the first request of a stream only.
    #[prost(message, optional, tag = "2")]
    pub(crate) node: Option<Node>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) resource_names: Vec<String>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    /// The nonce of the response that is answered; empty at first.
    #[prost(string, tag = "5")]
    pub(crate) response_nonce: String,
    /// Why the response is refused.
    #[prost(message, optional, tag = "6")]
    pub(crate) error_detail: Option<Status>,
}

/// `envoy.service.discovery.v3.DiscoveryResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DiscoveryResponse {
    #[prost(string, tag = "1")]
    pub(crate) version_info: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) resources: Vec<Any>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) nonce: String,
    #[prost(message, optional, tag = "6")]
    pub(crate) control_plane: Option<ControlPlane>,
}

/// `envoy.config.core.v3.ControlPlane`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ControlPlane {
    #[prost(string, tag = "1")]
    pub(crate) identifier: String,
}

/// `envoy.config.core.v3.Node`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Node {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) cluster: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) metadata: Option<Struct>,
    #[prost(string, tag = "6")]
    pub(crate) user_agent_name: String,
    #[prost(string, tag = "7")]
    pub(crate) user_agent_version: String,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

/// `envoy.config.core.v3.TypedExtensionConfig`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TypedExtensionConfig {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) typed_config: Option<Any>,
}

/// `udpa.type.v1.TypedStruct`, and `xds.type.v3.TypedStruct`, which has the same fields.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TypedStruct {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<Struct>,
}
