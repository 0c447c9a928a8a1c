//! From a bootstrap document to a plan that can be run. What cannot work is refused here, before
//! any port is touched.

use std::net::SocketAddr;
use std::path::Path;

use outrigger_control::xds::XdsSettings;
use outrigger_policy::values::ByteSize;
use outrigger_proxy::{
    Address, Balance, ConnectionLimits, EjectionSettings, HealthCheckSettings, HostHeader,
    ListenAddress, Mode, Protocol, Settings, Timeouts, TlsSettings, UpstreamSettings,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::app::config::{
    BalanceConfig, Config, EjectionConfig, HostHeaderConfig, LimitsConfig, ListenerConfig,
    ModeConfig, UpstreamConfig,
};
use crate::app::error::PlanError;
use crate::app::memory_limit::memory_limit_bytes;
use crate::app::mesh;
use crate::app::redis::{self, RedisPlan};

/// The memory tier when nothing tells how much memory there is.
const FALLBACK_MEMORY_BYTES: u64 = 256 << 20;

/// Everything that a running process needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to listen, and for whom.
    pub listeners: Vec<(ListenAddress, Mode)>,
    /// The admin address.
    pub admin: SocketAddr,
    /// The address that only tells.
    pub metrics: Option<SocketAddr>,
    /// istiod, where policy comes from it.
    pub xds: Option<XdsSettings>,
    /// The data path.
    pub settings: Settings,
    /// Redis.
    pub redis: Option<RedisPlan>,
    /// The document, for parts that take it as it is.
    pub config: Config,
}

/// Turns a bootstrap document into a plan.
///
/// # Errors
/// With the field, the reason and the fix.
pub fn plan(config: Config) -> Result<Plan, PlanError> {
    let listeners = listeners(&config.listeners)?;
    let admin = address("admin.address", &config.admin.address, "127.0.0.1:15490")?;
    let metrics = config.admin.metrics_address.as_ref();
    let metrics =
        metrics.map(|given| address("admin.metricsAddress", given, "0.0.0.0:15491")).transpose()?;
    let who = mesh::who(&config.mesh, |name| std::env::var(name).ok());
    let own_ports = own_ports(&listeners, [Some(admin), metrics]);
    let mesh = mesh::settings(&who, &listeners, &config, own_ports)?;
    let named = listeners.iter().all(|(_, mode)| *mode != Mode::Direct);
    let upstream = upstream(&config.upstream, &config.limits, named)?;
    let memory_bytes_max = config.memory.bytes_max.map_or_else(
        || memory_limit_bytes().map_or(FALLBACK_MEMORY_BYTES, |limit| limit / 4),
        |size| size.0,
    );
    if config.memory.object_bytes_max.0 > memory_bytes_max {
        let (object, all) = (config.memory.object_bytes_max, ByteSize(memory_bytes_max));
        let reason = format!("{object} is more than the memory tier holds, {all}; lower it");
        return Err(PlanError::new("memory.objectBytesMax", reason));
    }
    if let Some(otlp) = config.telemetry.otlp.as_ref().filter(|o| o.root_sample_percent > 100) {
        let reason = format!("{} is more than 100", otlp.root_sample_percent);
        return Err(PlanError::new("telemetry.otlp.rootSamplePercent", reason));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = match config.workers {
        Some(0) => {
            return Err(PlanError::new("workers", "0 is too few; write 1 or more"));
        }
        Some(workers) => workers.min(1024),
        None => cores,
    };
    let settings = Settings {
        limits: limits(&config.limits)?,
        upstream,
        mesh,
        memory_bytes_max,
        object_bytes_max: config.memory.object_bytes_max.0,
        variants_max: config.memory.variants_max,
        waiters_max: config.coalesce.waiters_max,
        wait_ms_max: config.coalesce.wait_ms_max,
        workers,
        show_key: config.cache_status.key,
    };
    let redis = match &config.redis {
        Some(redis) => {
            let env = |name: &str| std::env::var(name).ok();
            Some(redis::plan::plan(redis, settings.workers, &who, env)?)
        }
        None => None,
    };
    let xds = config.policy.xds.as_ref();
    let xds = xds.map(|xds| mesh::xds(xds, &config.policy, &who)).transpose()?;
    Ok(Plan { listeners, admin, metrics, xds, settings, redis, config })
}

fn address(path: &str, given: &str, example: &str) -> Result<SocketAddr, PlanError> {
    let wrong = |_| PlanError::new(path, format!("\"{given}\" is no address; write {example}"));
    given.parse().map_err(wrong)
}

/// Ports on which this process listens.
fn own_ports(
    listeners: &[(ListenAddress, Mode)],
    others: impl IntoIterator<Item = Option<SocketAddr>>,
) -> Vec<u16> {
    let tcp = listeners.iter().filter_map(|(address, _)| match address {
        ListenAddress::Tcp(address) => Some(address.port()),
        ListenAddress::Unix(_) => None,
    });
    tcp.chain(others.into_iter().flatten().map(|address| address.port())).collect()
}

fn listeners(given: &[ListenerConfig]) -> Result<Vec<(ListenAddress, Mode)>, PlanError> {
    let default = [ListenerConfig::at_default(ModeConfig::Direct)];
    let given = if given.is_empty() { &default[..] } else { given };
    given
        .iter()
        .enumerate()
        .map(|(at, listener)| {
            let wrong = |reason| PlanError::new(format!("listeners[{at}].address"), reason);
            let address = ListenAddress::parse(&listener.address).map_err(wrong)?;
            let mode = match listener.mode {
                ModeConfig::Direct => Mode::Direct,
                ModeConfig::Inbound => Mode::Inbound,
                ModeConfig::Outbound => Mode::Outbound,
            };
            if mode != Mode::Direct && !address.is_local() {
                let reason = format!(
                    "{address} can be reached from outside the pod, where nobody's header fields \
                     may be believed; write {} or unix:/path",
                    listener.mode.address()
                );
                return Err(wrong(reason));
            }
            Ok((address, mode))
        })
        .collect()
}

fn limits(limits: &LimitsConfig) -> Result<ConnectionLimits, PlanError> {
    if limits.header_bytes_max < 8192 {
        let reason = format!("{} is too few; write 8192 or more", limits.header_bytes_max);
        return Err(PlanError::new("limits.headerBytesMax", reason));
    }
    Ok(ConnectionLimits {
        header_bytes_max: limits.header_bytes_max,
        header_count_max: limits.header_count_max,
        header_read_ms_max: limits.header_read_timeout_ms,
        idle_ms_max: limits.idle_timeout_ms,
        body_idle_ms_max: limits.body_idle_timeout_ms,
        write_stall_ms_max: limits.write_stall_timeout_ms,
        h2_streams_max: limits.h2_streams_max,
        h2_resets_max: limits.h2_resets_max,
        h2_header_list_bytes_max: limits.h2_header_list_bytes_max,
    })
}

/// What a URL says about the upstream.
struct FromUrl {
    address: Address,
    authority: String,
    tls: bool,
    protocol: Protocol,
}

/// What is configured about the upstream; a process whose requests all name theirs needs no URL.
fn upstream(
    config: &UpstreamConfig,
    limits: &LimitsConfig,
    named: bool,
) -> Result<UpstreamSettings, PlanError> {
    let from_url = match &config.url {
        Some(url) => Some(parse_url(url)?),
        None if named && config.endpoints.is_empty() => None,
        None => {
            return Err(PlanError::new(
                "upstream.url",
                "it is missing; say --upstream http://127.0.0.1:8080, or write it into the bootstrap \
             file",
            ));
        }
    };
    let endpoints = match &from_url {
        Some(url) if config.endpoints.is_empty() => vec![url.address.clone()],
        _ => config.endpoints.iter().map(|text| parse_endpoint(text)).collect::<Result<_, _>>()?,
    };
    Ok(UpstreamSettings {
        endpoints,
        tls: from_url.as_ref().map(|url| tls(config, url)).transpose()?.flatten(),
        protocol: from_url.as_ref().map_or(Protocol::Http1, |url| url.protocol),
        balance: match config.balance {
            BalanceConfig::RoundRobin => Balance::RoundRobin,
            BalanceConfig::ConsistentHash => Balance::ConsistentHash,
        },
        host_header: match config.host_header {
            HostHeaderConfig::Preserve => HostHeader::Preserve,
            HostHeaderConfig::Upstream => HostHeader::Upstream,
        },
        authority: from_url.map(|url| url.authority).unwrap_or_default(),
        health_check: config.health_check.as_ref().map(|check| HealthCheckSettings {
            path: check.path.clone(),
            interval_ms: check.interval_ms.max(100),
            timeout_ms: check.timeout_ms,
            healthy_after: check.healthy_after.max(1),
            unhealthy_after: check.unhealthy_after.max(1),
        }),
        ejection: ejection(&config.ejection)?,
        timeouts: Timeouts {
            connect_ms: config.timeouts.connect_ms,
            tls_ms: config.timeouts.tls_ms,
            first_byte_ms: config.timeouts.first_byte_ms,
            between_bytes_ms: config.timeouts.between_bytes_ms,
            total_ms: config.timeouts.total_ms,
        },
        idle_connections_max: config.pool.idle_connections_max,
        idle_ms: config.pool.idle_ms,
        header_count_max: limits.header_count_max.max(256),
        header_bytes_max: limits.header_bytes_max.max(256 * 1024),
    })
}

fn ejection(config: &EjectionConfig) -> Result<Option<EjectionSettings>, PlanError> {
    if config.eject_for_ms == 0 {
        let reason = "0 is no time; write 5000, or enabled: false";
        return Err(PlanError::new("upstream.ejection.ejectForMs", reason));
    }
    if config.eject_ms_max < config.eject_for_ms {
        let (max, first) = (config.eject_ms_max, config.eject_for_ms);
        let reason = format!("{max} is less than ejectForMs, {first}; raise it or lower that");
        return Err(PlanError::new("upstream.ejection.ejectMsMax", reason));
    }
    Ok(config.enabled.then(|| EjectionSettings {
        consecutive_failures: config.consecutive_failures.get(),
        eject_for_ms: config.eject_for_ms,
        eject_ms_max: config.eject_ms_max,
        ejected_percent_max: config.ejected_percent_max.0,
        panic_percent: config.panic_percent.0,
    }))
}

fn tls(config: &UpstreamConfig, from_url: &FromUrl) -> Result<Option<TlsSettings>, PlanError> {
    if !from_url.tls {
        if config.tls.server_name.is_some() || config.tls.ca_file.is_some() {
            return Err(PlanError::new(
                "upstream.tls",
                "the URL is not https; write https://… or leave tls out",
            ));
        }
        return Ok(None);
    }
    let host = match &from_url.address {
        // A certificate names an IPv6 address without brackets.
        Address::Tcp { host, .. } => host.trim_matches(['[', ']']).to_owned(),
        Address::Unix(_) => String::new(),
    };
    let server_name = config.tls.server_name.clone().unwrap_or(host);
    // Without a name the certificate could not be verified.
    if server_name.is_empty() {
        return Err(PlanError::new("upstream.tls.serverName", "it is missing"));
    }
    if let Some(path) = &config.tls.ca_file {
        check_certificates(path).map_err(|reason| {
            PlanError::new("upstream.tls.caFile", format!("{}: {reason}", path.display()))
        })?;
    }
    Ok(Some(TlsSettings { server_name, ca_file: config.tls.ca_file.clone() }))
}

/// Checks a file of trusted certificates, which the connector takes for granted.
fn check_certificates(path: &Path) -> Result<(), String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let labels = String::from_utf8_lossy(&text);
    let foreign = labels
        .lines()
        .filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"))
        .find(|label| *label != "CERTIFICATE");
    if let Some(label) = foreign {
        return Err(format!("it holds a {label}; leave only certificates (PEM) in it"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| format!("no valid PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("not a certificate: {error}"))?;
    }
    if roots.is_empty() { Err("no PEM certificate in it".to_owned()) } else { Ok(()) }
}

fn parse_url(url: &str) -> Result<FromUrl, PlanError> {
    let wrong = |why: &str| {
        let forms = "write http://host:port, https://host, h2c://host:port or unix:/path";
        PlanError::new("upstream.url", format!("\"{url}\" {why}; {forms}"))
    };
    if let Some(path) = url.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(wrong("has no path"));
        }
        return Ok(FromUrl {
            address: Address::Unix(path.into()),
            authority: "localhost".to_owned(),
            tls: false,
            protocol: Protocol::Http1,
        });
    }
    let uri: http::Uri = url.parse().map_err(|_| wrong("is no URL"))?;
    let (tls, protocol, port) = match uri.scheme_str() {
        Some("http") => (false, Protocol::Http1, 80),
        Some("https") => (true, Protocol::Auto, 443),
        Some("h2c") => (false, Protocol::Http2, 80),
        _ => return Err(wrong("has no scheme that is known")),
    };
    let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
    if authority.host().is_empty() || authority.as_str().contains('@') {
        return Err(wrong("has no usable host"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("has a path, which is not supported"));
    }
    Ok(FromUrl {
        address: Address::Tcp {
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(port),
        },
        authority: authority.as_str().to_owned(),
        tls,
        protocol,
    })
}

fn parse_endpoint(text: &str) -> Result<Address, PlanError> {
    let wrong = || {
        let reason = format!("\"{text}\" is no endpoint; write host:port or unix:/path");
        PlanError::new("upstream.endpoints", reason)
    };
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.is_empty() { Err(wrong()) } else { Ok(Address::Unix(path.into())) };
    }
    let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let (host, port) = bare.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || host.contains('/') {
        return Err(wrong());
    }
    Ok(Address::Tcp { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_url(url: &str) -> Result<Plan, String> {
        let mut config = Config::default();
        config.upstream.url = Some(url.to_owned());
        plan(config).map_err(|error| error.to_string())
    }

    #[test]
    fn urls_name_protocol_and_address() {
        let upstream = with_url("h2c://shop:9000").unwrap().settings.upstream;
        assert_eq!(upstream.protocol, Protocol::Http2);
        assert_eq!(upstream.endpoints[0].to_string(), "shop:9000");
        let upstream = with_url("https://shop.example").unwrap().settings.upstream;
        assert_eq!(upstream.tls.map(|tls| tls.server_name).as_deref(), Some("shop.example"));
        assert_eq!(upstream.endpoints[0].to_string(), "shop.example:443");
        assert!(with_url("unix:/run/app.sock").is_ok());
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_fix() {
        for url in ["shop:80", "ftp://shop", "http://", "http://shop/path", "unix:", "http://a@b"] {
            let error = with_url(url).unwrap_err();
            assert!(
                error.contains("upstream.url") && error.contains("http://host:port"),
                "{error}"
            );
        }
        assert!(plan(Config::default()).unwrap_err().to_string().contains("--upstream"));
    }
}
