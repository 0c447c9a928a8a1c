//! From the `redis` section to what can be started.

use std::path::PathBuf;
use std::time::Duration;

use outrigger_coherence::RedisLogSettings;
use outrigger_diagnostic::Diagnostic;
use outrigger_redis::{ConnectSettings, Location};
use outrigger_store::envelope::Codec;
use outrigger_store::redis::{Names, RedisSettings, WarmSettings};

use crate::app::config::RedisConfig;
use crate::app::pod::PodIdentity;

/// Bytes by which a value may exceed its body, for header fields and keys.
const VALUE_EXTRA_BYTES: u64 = 1 << 20;

/// Everything about Redis that a running process needs to know.
#[derive(Clone, Debug)]
pub struct RedisPlan {
    /// Settings of the tier.
    pub tier: RedisSettings,
    /// Folder of the sealing keys, where values are encrypted.
    pub keys: Option<PathBuf>,
    /// The purge log; `None` leaves it to this process alone.
    pub log: Option<RedisLogSettings>,
    /// The warm start, with whether readiness waits for it.
    pub warm: Option<(WarmSettings, bool)>,
}

fn wrong(field: &str, reason: impl Into<String>) -> Diagnostic {
    Diagnostic::new(reason).at(format!("redis.{field}"))
}

fn millis(field: &str, value: u64) -> Result<Duration, Diagnostic> {
    match value {
        1..=600_000 => Ok(Duration::from_millis(value)),
        _ => Err(wrong(field, format!("{value} is not within 1 and 600000 milliseconds"))),
    }
}

/// Turns the section into a plan. `env` reads the environment.
///
/// # Errors
/// With the field, the reason and the fix.
pub fn plan(
    config: &RedisConfig,
    workers: usize,
    identity: &PodIdentity,
    env: impl Fn(&str) -> Option<String>,
) -> Result<RedisPlan, Diagnostic> {
    let connect = connect(config)?;
    let namespace = config.namespace.clone().unwrap_or_else(|| identity.namespace.clone());
    let from_env = || env("OUTRIGGER_WORKLOAD").filter(|text| !text.is_empty());
    let workload = config.workload.clone().or_else(from_env).or_else(|| identity.workload());
    let workload = workload.unwrap_or_else(|| "default".to_owned());
    let names = Names::new(&namespace, &workload)
        .map_err(|error| wrong("namespace, workload", error.to_string()))?;
    let pod = config.pod.clone().or_else(|| identity.pod.clone());
    let pod = pod.unwrap_or_else(|| format!("pod-{:012x}", fastrand::u64(..) >> 16));
    if pod.len() > 253 || !pod.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c)) {
        let reason = format!("\"{pod}\" must be 1 to 253 letters, digits, '-' or '.'");
        return Err(wrong("pod", reason));
    }
    if config.breaker.failures == 0 {
        return Err(wrong("breaker.failures", "0 is too few").fix("write 1 or more"));
    }
    let log = log(config, &namespace, pod)?;
    let tier = RedisSettings {
        connect,
        names,
        read_timeout: millis("readTimeoutMs", config.read_timeout_ms)?,
        write_timeout: millis("writeTimeoutMs", config.write_timeout_ms)?,
        queue_bytes_max: usize::try_from(config.write_queue_bytes_max.0).unwrap_or(usize::MAX),
        object_bytes_max: config.object_bytes_max.0,
        ttl_ms_min: i64::try_from(config.min_ttl_ms).unwrap_or(i64::MAX),
        quota_bytes: config.quota.map(|size| size.0),
        codec: codec(config)?,
        breaker_failures: config.breaker.failures,
        breaker_open: millis("breaker.openMs", config.breaker.open_ms)?,
        breaker_open_max: millis("breaker.openMsMax", config.breaker.open_ms_max)?,
        single_flight: match config.single_flight.enabled {
            true => Some(millis("singleFlight.waitMsMax", config.single_flight.wait_ms_max)?),
            false => None,
        },
        workers,
        shared_log: log.is_some(),
    };
    let keys = config.seal.as_ref().map(|seal| seal.directory.clone());
    Ok(RedisPlan { tier, keys, log, warm: warm(config)? })
}

fn connect(config: &RedisConfig) -> Result<ConnectSettings, Diagnostic> {
    let location =
        Location::parse(&config.url.0).map_err(|error| wrong("url", error.to_string()))?;
    let tls = &config.tls;
    if !location.tls && (tls.ca_file.is_some() || tls.cert_file.is_some()) {
        return Err(wrong("tls", "the URL has no TLS").fix("write rediss://… or leave tls out"));
    }
    if tls.cert_file.is_some() != tls.key_file.is_some() {
        return Err(
            wrong("tls", "certFile and keyFile belong together").fix("write both or neither")
        );
    }
    let files = [
        ("passwordFile", &config.password_file),
        ("sentinel.passwordFile", &config.sentinel.password_file),
        ("tls.caFile", &tls.ca_file),
        ("tls.certFile", &tls.cert_file),
        ("tls.keyFile", &tls.key_file),
    ];
    for (field, file) in files {
        if let Some(path) = file {
            std::fs::metadata(path)
                .map_err(|error| wrong(field, format!("{}: {error}", path.display())))?;
        }
    }
    Ok(ConnectSettings {
        location,
        username: config.username.clone(),
        password_file: config.password_file.clone(),
        sentinel_username: config.sentinel.username.clone(),
        sentinel_password_file: config.sentinel.password_file.clone(),
        tls: tls.clone(),
        connect_timeout: millis("connectTimeoutMs", config.connect_timeout_ms)?,
    })
}

fn codec(config: &RedisConfig) -> Result<Codec, Diagnostic> {
    // The head of a value tells its length in 32 bits.
    const OBJECT_BYTES_MAX: u64 = 1 << 30;
    let object = config.object_bytes_max;
    if object.0 > OBJECT_BYTES_MAX {
        return Err(wrong("objectBytesMax", format!("{object} is more than 1GiB")).fix("lower it"));
    }
    Ok(Codec {
        compression: config.compression.algorithm,
        compress_bytes_min: usize::try_from(config.compression.min_bytes.0).unwrap_or(usize::MAX),
        value_bytes_max: usize::try_from(object.0 + VALUE_EXTRA_BYTES).unwrap_or(usize::MAX),
    })
}

fn log(
    config: &RedisConfig,
    namespace: &str,
    pod: String,
) -> Result<Option<RedisLogSettings>, Diagnostic> {
    let log = &config.log;
    if !log.enabled {
        return Ok(None);
    }
    if log.events_max == 0 {
        return Err(wrong("log.eventsMax", "0 is too few").fix("write 1000 or more"));
    }
    if log.lease_ms < 100 {
        let reason = format!("{} is too short", log.lease_ms);
        return Err(wrong("log.leaseMs", reason).fix("write 100 or more"));
    }
    Ok(Some(RedisLogSettings {
        namespace: namespace.to_owned(),
        pod,
        events_max: log.events_max,
        lease: millis("log.leaseMs", log.lease_ms)?,
        append_timeout: millis("log.appendTimeoutMs", log.append_timeout_ms)?,
        trust_fail_over: log.trust_fail_over,
        question_timeout: millis("readTimeoutMs", config.read_timeout_ms)?,
    }))
}

fn warm(config: &RedisConfig) -> Result<Option<(WarmSettings, bool)>, Diagnostic> {
    let warm = &config.warm_start;
    if warm.keys_max == 0 {
        return Ok(None);
    }
    let settings = WarmSettings {
        keys_max: warm.keys_max,
        bytes_max: warm.bytes_max.0,
        keys_per_second: warm.keys_per_second,
        timeout: millis("warmStart.timeoutMs", warm.timeout_ms)?,
    };
    Ok(Some((settings, warm.before_ready)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::config::MeshConfig;

    fn planned(config: &RedisConfig) -> Result<RedisPlan, String> {
        let shop = MeshConfig { namespace: Some("shop".to_owned()), ..MeshConfig::default() };
        let identity = PodIdentity::gather(&shop, |_| None);
        plan(config, 2, &identity, |_| None).map_err(|error| error.to_string())
    }

    #[test]
    fn one_word_is_enough() {
        let plan = planned(&RedisConfig::at("redis://r")).unwrap();
        assert_eq!(
            plan.tier.names.prefix(outrigger_store::ShareScope::Workload),
            "or:shop:default:"
        );
        assert_eq!(plan.log.map(|log| log.namespace).as_deref(), Some("shop"));
        assert!(plan.keys.is_none());
    }

    #[test]
    fn mistakes_name_the_field() {
        let with = |change: fn(&mut RedisConfig)| {
            let mut config = RedisConfig::at("redis://r");
            change(&mut config);
            planned(&config).unwrap_err()
        };
        assert!(with(|c| c.url.0 = "http://r".to_owned()).starts_with("redis.url:"));
        assert!(with(|c| c.namespace = Some("a:b".to_owned())).contains("a:b"));
        assert!(with(|c| c.read_timeout_ms = 0).starts_with("redis.readTimeoutMs:"));
        assert!(with(|c| c.tls.ca_file = Some("/x".into())).contains("rediss"));
        assert!(with(|c| c.password_file = Some("/no/such".into())).contains("/no/such"));
        assert!(with(|c| c.log.lease_ms = 1).starts_with("redis.log.leaseMs:"));
    }
}
