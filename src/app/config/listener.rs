//! Where the process listens, and who sends requests there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One listener.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ListenerConfig {
    /// `ADDRESS:PORT` or `unix:PATH`.
    pub address: String,
    /// Who sends requests to it.
    #[serde(default)]
    pub mode: ModeConfig,
}

impl ListenerConfig {
    /// A listener at the usual address of its mode.
    pub fn at_default(mode: ModeConfig) -> Self {
        ListenerConfig { address: mode.address().to_owned(), mode }
    }
}

/// Who sends requests to a listener.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "camelCase")]
pub enum ModeConfig {
    /// Clients. Requests go to the upstream that is configured.
    #[default]
    #[value(skip)]
    Direct,
    /// The pod's Envoy, requests for the application in this pod; its route names the address in
    /// `x-outrigger-upstream` and the caller in `x-outrigger-peer`.
    Inbound,
    /// The pod's Envoy, requests of the application in this pod; its route names the destination
    /// in `x-outrigger-orig-dst`.
    Outbound,
}

impl ModeConfig {
    /// Where it listens if nothing else is said.
    pub fn address(self) -> &'static str {
        match self {
            Self::Direct | Self::Inbound => "127.0.0.1:15480",
            Self::Outbound => "127.0.0.1:15481",
        }
    }
}
