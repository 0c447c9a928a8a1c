//! The few messages of the discovery protocol, written out by hand: field
//! numbers are those of `envoy/service/discovery/v3` and `google/rpc`.

use prost::Message;
pub use prost_reflect::prost_types::{Any, Struct, Value};
use std::collections::HashMap;

/// `envoy.config.core.v3.Node`, as far as a control plane looks at it.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    /// `KIND~ADDRESS~NAME~DOMAIN`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The name of the workload.
    #[prost(string, tag = "2")]
    pub cluster: String,
    /// What istiod knows pods by: namespace, labels, addresses.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Struct>,
}

/// `google.rpc.Status`: why a client refused a response.
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    /// A gRPC status code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The reason, for people to read.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `DiscoveryRequest` of the state-of-the-world protocol.
#[derive(Clone, PartialEq, Message)]
pub struct DiscoveryRequest {
    /// The version in use; empty in a first request.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Who asks; in the first request of a stream.
    #[prost(message, optional, tag = "2")]
    pub node: Option<Node>,
    /// The names that are asked for, all of them.
    #[prost(string, repeated, tag = "3")]
    pub resource_names: Vec<String>,
    /// The type of the resources.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// The nonce of the response that this one answers.
    #[prost(string, tag = "5")]
    pub response_nonce: String,
    /// Why that response was refused.
    #[prost(message, optional, tag = "6")]
    pub error_detail: Option<RpcStatus>,
}

/// `DiscoveryResponse` of the state-of-the-world protocol.
#[derive(Clone, PartialEq, Message)]
pub struct DiscoveryResponse {
    /// The version of the resources.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// All resources of the names that were asked for.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Any>,
    /// The type URL of the resources.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// What the answer has to repeat.
    #[prost(string, tag = "5")]
    pub nonce: String,
}

/// `DeltaDiscoveryRequest` of the incremental protocol.
#[derive(Clone, PartialEq, Message)]
pub struct DeltaDiscoveryRequest {
    /// Who asks; in the first request of a stream.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// The type of the resources.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names that are asked for from now on.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names that are no longer asked for.
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// Versions by name that the client has from a stream before this one.
    #[prost(map = "string, string", tag = "5")]
    pub initial_resource_versions: HashMap<String, String>,
    /// The nonce of the response that this one answers.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Why that response was refused.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<RpcStatus>,
}

/// `DeltaDiscoveryResponse` of the incremental protocol.
#[derive(Clone, PartialEq, Message)]
pub struct DeltaDiscoveryResponse {
    /// The version of the server; for people to read.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// Resources that are new or changed.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<DeltaResource>,
    /// The type URL of the resources.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// What the answer has to repeat.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names of resources that are gone.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
}

/// `Resource` of a delta response.
#[derive(Clone, PartialEq, Message)]
pub struct DeltaResource {
    /// The version of this resource alone.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The resource itself; absent in a message that only names it.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// The name by which clients subscribe to it.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// `envoy.config.core.v3.TypedExtensionConfig`, what ECDS serves.
#[derive(Clone, PartialEq, Message)]
pub struct TypedExtensionConfig {
    /// Its name, which is asked for.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The configuration of the extension.
    #[prost(message, optional, tag = "2")]
    pub typed_config: Option<Any>,
}

/// `udpa.type.v1.TypedStruct`: arbitrary JSON under a type of one's own.
#[derive(Clone, PartialEq, Message)]
pub struct TypedStruct {
    /// The type that the JSON stands for.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The fields, as they stand in JSON.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Struct>,
}

/// The type of clusters.
pub const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// The type of endpoints.
pub const EDS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// The type of listeners.
pub const LDS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// The type of routes.
pub const RDS: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// The type of configuration of extensions.
pub const ECDS: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// The types in the order in which a push sends them: what is routed to comes before what routes to
/// it.
pub(super) const PUSH_ORDER: [&str; 5] = [CDS, EDS, LDS, RDS, ECDS];

/// CDS and LDS: no names means all there are.
pub(super) fn is_wildcard(type_url: &str) -> bool {
    matches!(type_url, CDS | LDS)
}

/// A protobuf `Value` as JSON.
fn json_of(value: &Value) -> serde_json::Value {
    use prost_reflect::prost_types::value::Kind;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::NumberValue(n)) => (*n).into(),
        Some(Kind::StringValue(s)) => s.as_str().into(),
        Some(Kind::BoolValue(b)) => (*b).into(),
        Some(Kind::StructValue(s)) => json_of_struct(s),
        Some(Kind::ListValue(l)) => l.values.iter().map(json_of).collect(),
    }
}

/// A protobuf `Struct` as JSON.
pub fn json_of_struct(fields: &Struct) -> serde_json::Value {
    fields.fields.iter().map(|(k, v)| (k.clone(), json_of(v))).collect()
}
