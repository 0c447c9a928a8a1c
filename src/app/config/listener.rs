//! Where the process listens, and who sends requests there.
//!
//! The mode of a listener is the side of the pod that it serves, or none. Only its written form is
//! defined here: the word for none is `direct`.

use std::fmt;

use outrigger_policy::Side;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The mode of a listener that serves no side of a pod, as it is written.
const DIRECT: &str = "direct";
/// What it means that a listener serves the inbound side, for `--help` and the JSON Schema.
pub(super) const INBOUND: &str = "The pod's Envoy, requests for the application in this pod; its \
                                  route names the address in `x-outrigger-upstream` and the \
                                  caller in `x-outrigger-peer`";
/// The same for the outbound side.
pub(super) const OUTBOUND: &str = "The pod's Envoy, requests of the application in this pod; its \
                                   route names the destination in `x-outrigger-orig-dst`";

/// One listener: its address, and who sends requests to it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ListenerConfig {
    /// `ADDRESS:PORT` or `unix:PATH`.
    pub address: String,
    /// Who sends requests to it.
    #[serde(default, serialize_with = "write_mode", deserialize_with = "read_mode")]
    #[schemars(with = "ModeSchema")]
    pub mode: Option<Side>,
}

impl ListenerConfig {
    /// A listener at the default address of its mode.
    pub fn at_default(mode: Option<Side>) -> Self {
        ListenerConfig { address: Self::default_address(mode).to_owned(), mode }
    }

    /// Where a listener listens if nothing else is said.
    pub fn default_address(mode: Option<Side>) -> &'static str {
        match mode {
            None | Some(Side::Inbound) => "127.0.0.1:15480",
            Some(Side::Outbound) => "127.0.0.1:15481",
        }
    }
}

// serde hands the field over by reference.
fn write_mode<S: Serializer>(mode: &Option<Side>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(mode.map_or(DIRECT, Side::as_str))
}

fn read_mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Side>, D::Error> {
    struct Mode;
    impl Visitor<'_> for Mode {
        type Value = Option<Side>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("direct, inbound or outbound")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Option<Side>, E> {
            if text == DIRECT {
                return Ok(None);
            }
            let known = &[DIRECT, "inbound", "outbound"];
            text.parse().map(Some).map_err(|_| E::unknown_variant(text, known))
        }
    }
    deserializer.deserialize_str(Mode)
}

/// The JSON Schema of a mode, with what each means for a listener.
struct ModeSchema;

impl JsonSchema for ModeSchema {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ModeConfig".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let modes = [
            (DIRECT, "Clients. Requests go to the upstream that is configured"),
            (Side::Inbound.as_str(), INBOUND),
            (Side::Outbound.as_str(), OUTBOUND),
        ];
        let modes = modes.map(|(name, description)| {
            let description = format!("{description}.");
            json_schema!({"description": description, "type": "string", "const": name})
        });
        json_schema!({"description": "Who sends requests to a listener.", "oneOf": modes})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_they_are_written() {
        let text = "- address: a\n  mode: direct\n- address: a\n  mode: inbound\n- address: a\n  \
                    mode: outbound\n";
        let read: Vec<ListenerConfig> = serde_yaml::from_str(text).unwrap();
        let modes: Vec<Option<Side>> = read.iter().map(|listener| listener.mode).collect();
        assert_eq!(modes, [None, Some(Side::Inbound), Some(Side::Outbound)]);
        assert_eq!(serde_yaml::to_string(&read).unwrap(), text);
        assert_eq!(serde_yaml::from_str::<ListenerConfig>("address: a").unwrap().mode, None);
        for wrong in ["sideways", "Inbound", "5", "~", "[inbound]"] {
            let text = format!("address: a\nmode: {wrong}");
            let error = serde_yaml::from_str::<ListenerConfig>(&text).unwrap_err();
            assert_eq!(
                error.location().map(|at| (at.line(), at.column())),
                Some((2, 7)),
                "{error}"
            );
        }
    }
}
