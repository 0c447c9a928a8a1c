//! From the resources of a response to policy documents. What a document says is judged elsewhere.

use std::collections::BTreeMap;

use outrigger_diagnostic::Diagnostic;
use prost::Message as _;
use prost_types::{Any, Struct};

use crate::controller::Layer;
use crate::xds::proto::{EXTENSION_CONFIG, TypedExtensionConfig, TypedStruct};
use crate::xds::values::to_json;

/// The type URL of a policy document inside a `TypedStruct`.
pub const POLICY_TYPE: &str = "type.googleapis.com/outrigger.v1.Policy";

/// The resources that are asked for. The set never changes on a stream: istiod would answer an
/// addition with the added ones alone.
pub(crate) const RESOURCES: [(&str, Layer); 3] = [
    ("outrigger/mesh", Layer::Mesh),
    ("outrigger/namespace", Layer::Namespace),
    ("outrigger/workload", Layer::Workload),
];

/// The content of a response: the documents by resource, as JSON, and warnings about the response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) documents: BTreeMap<&'static str, String>,
    pub(crate) warnings: Vec<String>,
}

/// Reads the resources of a response, all or nothing.
///
/// # Errors
/// The first resource that is no policy document, by its name or its place in the response.
pub(crate) fn decode(resources: &[Any]) -> Result<Decoded, Diagnostic> {
    let mut decoded = Decoded::default();
    for (at, resource) in resources.iter().enumerate() {
        let wrong = |reason: String| Diagnostic::new(reason).in_source(format!("resource {at}"));
        if resource.type_url != EXTENSION_CONFIG {
            return Err(wrong(format!("is a {}, not a {EXTENSION_CONFIG}", resource.type_url)));
        }
        let config = TypedExtensionConfig::decode(&*resource.value)
            .map_err(|error| wrong(format!("cannot be decoded: {error}")))?;
        let Some((name, _)) = RESOURCES.iter().find(|(name, _)| *name == config.name) else {
            decoded.warnings.push(format!("{} was not asked for; ignored", config.name));
            continue;
        };
        let document =
            document(config.typed_config.as_ref()).map_err(|found| found.in_source(*name))?;
        if decoded.documents.insert(name, document).is_some() {
            let hint = "several EnvoyFilters carry it; the last one counts";
            decoded.warnings.push(format!("{name} came twice: {hint}"));
        }
    }
    Ok(decoded)
}

/// The policy document in a resource, as JSON.
fn document(config: Option<&Any>) -> Result<String, Diagnostic> {
    let config = config.ok_or_else(|| Diagnostic::new("has no typed_config"))?;
    let broken = |error| Diagnostic::new(format!("typed_config cannot be decoded: {error}"));
    let value = match config.type_url.as_str() {
        "type.googleapis.com/udpa.type.v1.TypedStruct"
        | "type.googleapis.com/xds.type.v3.TypedStruct" => {
            let typed = TypedStruct::decode(&*config.value).map_err(broken)?;
            if typed.type_url != POLICY_TYPE {
                let reason = format!("typed_config.type_url is \"{}\"", typed.type_url);
                return Err(Diagnostic::new(reason).fix(format!("write {POLICY_TYPE}")));
            }
            typed.value.unwrap_or_default()
        }
        "type.googleapis.com/google.protobuf.Struct" => {
            Struct::decode(&*config.value).map_err(broken)?
        }
        other => {
            return Err(Diagnostic::new(format!("typed_config is a {other}"))
                .fix("write type.googleapis.com/udpa.type.v1.TypedStruct"));
        }
    };
    let json = to_json(&value);
    let json = json.ok_or_else(|| Diagnostic::new("typed_config.value is nested too deeply"))?;
    Ok(json.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::xds::values::from_json;
    use prost_types::value::Kind;
    use serde_json::json;

    fn structure(value: &serde_json::Value) -> Struct {
        match from_json(value).kind {
            Some(Kind::StructValue(inner)) => inner,
            _ => Struct::default(),
        }
    }

    fn any(type_url: &str, message: &impl prost::Message) -> Any {
        Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
    }

    fn resource(name: &str, typed_config: Any) -> Any {
        let config =
            TypedExtensionConfig { name: name.to_owned(), typed_config: Some(typed_config) };
        any(EXTENSION_CONFIG, &config)
    }

    fn typed(outer: &str, inner: &str, value: &serde_json::Value) -> Any {
        let value = Some(structure(value));
        any(outer, &TypedStruct { type_url: inner.to_owned(), value })
    }

    const UDPA: &str = "type.googleapis.com/udpa.type.v1.TypedStruct";

    /// A resource as istiod sends it.
    pub(crate) fn policy(name: &str, value: &serde_json::Value) -> Any {
        resource(name, typed(UDPA, POLICY_TYPE, value))
    }

    #[test]
    fn every_form_of_a_document_is_read() {
        let value = json!({"routes": [{"name": "a"}]});
        let bare = "type.googleapis.com/google.protobuf.Struct";
        let xds = "type.googleapis.com/xds.type.v3.TypedStruct";
        let resources = [
            policy("outrigger/mesh", &value),
            resource("outrigger/namespace", typed(xds, POLICY_TYPE, &value)),
            resource("outrigger/workload", any(bare, &structure(&value))),
        ];
        let decoded = decode(&resources).unwrap();
        assert_eq!(decoded.documents.len(), 3);
        for document in decoded.documents.values() {
            assert_eq!(document, r#"{"routes":[{"name":"a"}]}"#);
        }
        assert!(decoded.warnings.is_empty());
    }

    #[test]
    fn of_two_with_one_name_the_last_counts() {
        let both =
            ["a", "b"].map(|name| policy("outrigger/mesh", &json!({"routes": [{"name": name}]})));
        let decoded = decode(&both).unwrap();
        assert_eq!(decoded.documents["outrigger/mesh"], r#"{"routes":[{"name":"b"}]}"#);
        assert!(decoded.warnings[0].contains("came twice"), "{:?}", decoded.warnings);
    }

    #[test]
    fn what_is_no_document_is_refused_with_name_and_fix() {
        let empty = json!({});
        for (resource, says) in [
            (
                resource("outrigger/mesh", typed(UDPA, "x", &empty)),
                "outrigger/mesh: typed_config.type_url is \"x\"; write",
            ),
            (
                resource("outrigger/mesh", any("type.googleapis.com/a.B", &Struct::default())),
                "write type.googleapis.com/udpa",
            ),
            (
                any("type.googleapis.com/a.B", &Struct::default()),
                "resource 0: is a type.googleapis.com/a.B",
            ),
            (
                Any { type_url: EXTENSION_CONFIG.to_owned(), value: vec![0xff] },
                "resource 0: cannot be decoded",
            ),
        ] {
            let error = decode(&[resource]).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let other = decode(&[policy("other", &empty)]).unwrap();
        assert!(other.documents.is_empty() && other.warnings[0].contains("not asked for"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = decode(&[Any { type_url: EXTENSION_CONFIG.to_owned(), value: bytes.clone() }]);
            let inner = Any { type_url: UDPA.to_owned(), value: bytes };
            let _ = decode(&[resource("outrigger/mesh", inner)]);
        }
    }
}
