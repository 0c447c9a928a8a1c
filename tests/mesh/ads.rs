//! A client of the discovery service that shows every message.

use std::net::SocketAddr;

use http::uri::PathAndQuery;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::control_plane::ControlPlane;
use crate::control_plane::proto::{
    Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, ECDS,
    Node, RpcStatus, Struct, TypedExtensionConfig, TypedStruct, json_of_struct,
};
use crate::support::within;

/// The names that Outrigger asks for.
pub const NAMES: [&str; 3] = ["outrigger/mesh", "outrigger/namespace", "outrigger/workload"];

/// The id of Outrigger in a pod `reviews-1` of a namespace.
pub fn node_id(namespace: &str) -> String {
    format!("sidecar~127.0.0.6~reviews-1-outrigger.{namespace}~{namespace}.svc.cluster.local")
}

/// That node, with labels `app=reviews`.
pub fn node(namespace: &str) -> Node {
    node_with(&node_id(namespace), &[("app", "reviews")], &[("NAMESPACE", namespace)])
}

/// Any node.
pub fn node_with(id: &str, labels: &[(&str, &str)], metadata: &[(&str, &str)]) -> Node {
    let text = |s: &str| crate::control_plane::proto::Value {
        kind: Some(prost_reflect::prost_types::value::Kind::StringValue(s.to_owned())),
    };
    let fields = |pairs: &[(&str, &str)]| Struct {
        fields: pairs.iter().map(|(k, v)| ((*k).to_owned(), text(v))).collect(),
    };
    let mut all = fields(metadata);
    let labels = prost_reflect::prost_types::value::Kind::StructValue(fields(labels));
    let labels = crate::control_plane::proto::Value { kind: Some(labels) };
    all.fields.insert("LABELS".to_owned(), labels);
    Node { id: id.to_owned(), cluster: String::new(), metadata: Some(all) }
}

/// The first request of a stream, for these extensions.
pub fn first(node: Node, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(node),
        resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
        type_url: ECDS.to_owned(),
        ..DiscoveryRequest::default()
    }
}

/// A channel to a control plane.
pub async fn channel(addr: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("a URL");
    endpoint.connect().await.expect("a connection to the control plane")
}

/// The same over TLS, trusting this authority.
pub async fn tls_channel(addr: SocketAddr, ca: &str) -> Result<Channel, tonic::transport::Error> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .domain_name("istiod.istio-system.svc");
    let endpoint = Endpoint::from_shared(format!("https://{addr}")).expect("a URL");
    endpoint.tls_config(tls).expect("a TLS configuration").connect().await
}

/// An open state-of-the-world stream.
pub struct Ads {
    requests: mpsc::UnboundedSender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Ads {
    /// Opens a stream of Outrigger in a namespace, for the three names.
    pub async fn open(plane: &ControlPlane, namespace: &str) -> Self {
        Self::with(plane, first(node(namespace), &NAMES)).await.expect("a stream")
    }

    /// Opens a stream with this first request.
    pub async fn with(plane: &ControlPlane, first: DiscoveryRequest) -> Result<Self, Status> {
        Self::on(channel(plane.addr()).await, first, None).await
    }

    /// Opens a stream on a channel, perhaps with a token.
    pub async fn on(
        channel: Channel,
        first: DiscoveryRequest,
        token: Option<&str>,
    ) -> Result<Self, Status> {
        let (requests, stream) = mpsc::unbounded_channel();
        requests.send(first).expect("the receiver lives");
        let mut request = Request::new(UnboundedReceiverStream::new(stream));
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().expect("a header value");
            request.metadata_mut().insert("authorization", value);
        }
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let path = PathAndQuery::from_static(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        );
        let codec: ProstCodec<DiscoveryRequest, DiscoveryResponse> = ProstCodec::default();
        let responses = grpc.streaming(request, path, codec).await?.into_inner();
        Ok(Self { requests, responses })
    }

    /// Sends a request.
    pub fn send(&self, request: DiscoveryRequest) {
        self.requests.send(request).expect("the stream is open");
    }

    /// The next response.
    pub async fn next(&mut self) -> DiscoveryResponse {
        self.try_next().await.expect("a response").expect("a response before the end")
    }

    /// The next response, the end, or what ended the stream.
    pub async fn try_next(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
        within("a response of the control plane", self.responses.message()).await
    }

    /// The next response, which is taken.
    pub async fn take(&mut self) -> DiscoveryResponse {
        let response = self.next().await;
        self.ack(&response);
        response
    }

    /// Takes a response.
    pub fn ack(&self, response: &DiscoveryResponse) {
        self.ack_names(response, &NAMES);
    }

    /// Takes a response and asks for these names from now on.
    pub fn ack_names(&self, response: &DiscoveryResponse, names: &[&str]) {
        self.send(DiscoveryRequest {
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
            type_url: response.type_url.clone(),
            ..DiscoveryRequest::default()
        });
    }

    /// Refuses a response; what was taken before stays in use.
    pub fn nack(&self, response: &DiscoveryResponse, accepted: &str, message: &str) {
        self.send(DiscoveryRequest {
            version_info: accepted.to_owned(),
            response_nonce: response.nonce.clone(),
            resource_names: NAMES.map(str::to_owned).to_vec(),
            type_url: response.type_url.clone(),
            error_detail: Some(RpcStatus { code: 3, message: message.to_owned() }),
            ..DiscoveryRequest::default()
        });
    }
}

/// The same over the delta protocol, for ECDS.
pub async fn delta(
    plane: &ControlPlane,
    request: DeltaDiscoveryRequest,
) -> (mpsc::UnboundedSender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>) {
    let (requests, stream) = mpsc::unbounded_channel();
    requests.send(request).expect("the receiver lives");
    let mut grpc = tonic::client::Grpc::new(channel(plane.addr()).await);
    grpc.ready().await.expect("a channel that is ready");
    let path = PathAndQuery::from_static(
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
    );
    let codec: ProstCodec<DeltaDiscoveryRequest, DeltaDiscoveryResponse> = ProstCodec::default();
    let request = Request::new(UnboundedReceiverStream::new(stream));
    let responses = grpc.streaming(request, path, codec).await.expect("a stream").into_inner();
    (requests, responses)
}

/// Name and policy document of every resource of an ECDS response, in order.
pub fn policies(resources: &[Any]) -> Vec<(String, Value)> {
    resources.iter().map(policy).collect()
}

/// Name and policy document of one resource.
pub fn policy(resource: &Any) -> (String, Value) {
    let config = TypedExtensionConfig::decode(resource.value.as_slice()).expect("an extension");
    let typed = config.typed_config.expect("a typed_config");
    assert_eq!(typed.type_url, "type.googleapis.com/udpa.type.v1.TypedStruct");
    let typed = TypedStruct::decode(typed.value.as_slice()).expect("a TypedStruct");
    assert_eq!(typed.type_url, "type.googleapis.com/outrigger.v1.Policy");
    (config.name, json_of_struct(&typed.value.unwrap_or_default()))
}

/// An EnvoyFilter object that carries one policy with one route of this name.
pub fn policy_object(
    namespace: &str,
    name: &str,
    resource: &str,
    route: &str,
    more: &Value,
) -> String {
    let mut object = json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "configPatches": [{
                "applyTo": "EXTENSION_CONFIG",
                "match": {"context": "SIDECAR_INBOUND"},
                "patch": {
                    "operation": "ADD",
                    "value": {
                        "name": resource,
                        "typed_config": {
                            "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                            "type_url": "type.googleapis.com/outrigger.v1.Policy",
                            "value": {"routes": [{"name": route}]},
                        },
                    },
                },
            }],
        },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object.to_string()
}

/// The names of the resources and of the one route in each.
pub fn routes(response: &DiscoveryResponse) -> Vec<(String, String)> {
    let route = |policy: Value| policy["routes"][0]["name"].as_str().expect("a route").to_owned();
    policies(&response.resources).into_iter().map(|(name, p)| (name, route(p))).collect()
}
