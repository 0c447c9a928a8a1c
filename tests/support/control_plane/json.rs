//! JSON of any Envoy resource as protobuf, by the descriptors that
//! `tests/setup test` writes.

use std::sync::OnceLock;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage};
use serde_json::Value;

use super::proto::Any;
use crate::machine::installed;

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let file = installed("envoy-protos.bin");
        let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        DescriptorPool::decode(bytes.as_slice())
            .unwrap_or_else(|e| panic!("{}: {e}: run `tests/setup test`", file.display()))
    })
}

/// A message whose JSON carries its `@type`. Unknown fields are errors.
pub(super) fn any_of(json: &Value) -> Result<Any, String> {
    let bytes = encode("google.protobuf.Any", json, true)?;
    Any::decode(bytes.as_slice()).map_err(|e| e.to_string())
}

/// A `TypedExtensionConfig`, whose JSON needs no `@type` of its own. As in
/// istiod, fields that nobody knows are passed over and unknown types are not.
pub(super) fn extension_of(json: &Value) -> Result<Any, String> {
    let value = encode("envoy.config.core.v3.TypedExtensionConfig", json, false)?;
    Ok(Any { type_url: super::proto::ECDS.to_owned(), value })
}

fn encode(message: &str, json: &Value, strict: bool) -> Result<Vec<u8>, String> {
    let descriptor = pool().get_message_by_name(message);
    let descriptor = descriptor.ok_or_else(|| format!("no descriptor of {message}"))?;
    let options = DeserializeOptions::new().deny_unknown_fields(strict);
    let dynamic = DynamicMessage::deserialize_with_options(descriptor, json, &options)
        .map_err(|e| e.to_string())?;
    Ok(dynamic.encode_to_vec())
}
