//! Flags and environment of `outrigger run`, which win over the bootstrap file. Their doc comments are
//! what `--help` prints.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use outrigger_policy::Side;

use crate::app::config::listener::{INBOUND, OUTBOUND};
use crate::app::config::{Config, ListenerConfig, OtlpConfig, RedisConfig, RedisUrl};

/// Reads a side of the pod from an argument, with the meaning of each for `--help`.
pub(crate) fn side_parser(
    inbound: &'static str,
    outbound: &'static str,
) -> impl TypedValueParser<Value = Side> {
    let value = |side: Side, help| PossibleValue::new(side.as_str()).help(help);
    PossibleValuesParser::new([value(Side::Inbound, inbound), value(Side::Outbound, outbound)])
        .try_map(|name| name.parse::<Side>())
}

/// `outrigger run`. Flags win over the environment, which wins over the bootstrap file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RunArgs {
    /// Bootstrap file (YAML); see `outrigger schema config`.
    #[arg(long, value_name = "FILE", env = "OUTRIGGER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Policy file (YAML), reloaded when it changes; see `outrigger schema policy`.
    #[arg(long, value_name = "FILE", env = "OUTRIGGER_POLICY")]
    pub policy: Option<PathBuf>,
    /// Where to listen; may be repeated [default: 127.0.0.1:15480].
    #[arg(long, value_name = "ADDR|unix:PATH", env = "OUTRIGGER_LISTEN", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// Listen for the pod's Envoy: inbound (127.0.0.1:15480) for the application in this pod,
    /// outbound (127.0.0.1:15481) for what it calls; may be both, with a comma.
    #[arg(
        long,
        value_name = "MODE",
        env = "OUTRIGGER_MODE",
        value_delimiter = ',',
        value_parser = side_parser(INBOUND, OUTBOUND)
    )]
    pub mode: Vec<Side>,
    /// Take policy from istiod: grpcs://host:port, or grpc://host:port without TLS, for tests.
    #[arg(long, value_name = "URL", env = "OUTRIGGER_XDS")]
    pub xds: Option<String>,
    /// Folder in which the last good policy from istiod is kept.
    #[arg(long, value_name = "DIR", env = "OUTRIGGER_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// The upstream: http://host:port, https://host, h2c://host:port or unix:/path.
    #[arg(long, value_name = "URL", env = "OUTRIGGER_UPSTREAM")]
    pub upstream: Option<String>,
    /// Admin address: health, metrics, purging [default: 127.0.0.1:15490].
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN")]
    pub admin: Option<String>,
    /// A second port that only tells: /metrics, /healthz, /readyz; may be reached from outside.
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_METRICS")]
    pub metrics: Option<String>,
    /// Redis, shared by all pods: redis://host:port and other forms, see `outrigger schema config`.
    #[arg(long, value_name = "URL", env = "OUTRIGGER_REDIS", hide_env_values = true)]
    pub redis: Option<String>,
    /// Export traces to this OTLP gRPC endpoint, such as http://127.0.0.1:4317.
    #[arg(long, value_name = "URL", env = "OUTRIGGER_OTLP")]
    pub otlp: Option<String>,
}

impl RunArgs {
    /// Puts what was given over a document.
    pub(crate) fn apply(&self, config: &mut Config) {
        self.apply_listeners(config);
        if let Some(url) = &self.upstream {
            config.upstream.url = Some(url.clone());
            config.upstream.endpoints.clear();
        }
        if let Some(address) = &self.admin {
            config.admin.address = address.clone();
        }
        if let Some(address) = &self.metrics {
            config.admin.metrics_address = Some(address.clone());
        }
        if let Some(address) = &self.xds {
            config.policy.xds.get_or_insert_default().address = address.clone();
        }
        if let Some(dir) = &self.state_dir {
            config.policy.state_dir = Some(dir.clone());
        }
        if let Some(file) = &self.policy {
            config.policy.file = Some(file.clone());
        }
        if let Some(url) = &self.redis {
            match &mut config.redis {
                Some(redis) => redis.url = RedisUrl(url.clone()),
                None => config.redis = Some(RedisConfig::at(url)),
            }
        }
        if let Some(url) = &self.otlp {
            match &mut config.telemetry.otlp {
                Some(otlp) => otlp.url = url.clone(),
                None => config.telemetry.otlp = Some(OtlpConfig::at(url)),
            }
        }
    }

    /// Listeners that are given replace those of the document.
    fn apply_listeners(&self, config: &mut Config) {
        if !self.listen.is_empty() || !self.mode.is_empty() {
            config.listeners.clear();
        }
        let direct = self
            .listen
            .iter()
            .map(|address| ListenerConfig { address: address.clone(), mode: None });
        config.listeners.extend(direct);
        let of_sides = self.mode.iter().map(|side| ListenerConfig::at_default(Some(*side)));
        config.listeners.extend(of_sides);
    }
}
