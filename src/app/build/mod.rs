//! From a bootstrap document to a plan that can be run. What cannot work is refused here, before
//! any port is touched. Sections that the data path takes as they are written are checked and cloned;
//! what the document leaves open, such as memory and workers, is decided here.

mod upstream;

use std::net::SocketAddr;

use outrigger_control::xds::XdsSettings;
use outrigger_diagnostic::Diagnostic;
use outrigger_policy::Side;
use outrigger_policy::values::ByteSize;
use outrigger_proxy::{ConnectionLimits, ListenAddress, Settings};

use crate::app::config::{Config, ListenerConfig, MemoryConfig, TelemetryConfig};
use crate::app::memory_limit::memory_limit_bytes;
use crate::app::pod::PodIdentity;
use crate::app::redis::{self, RedisPlan};

/// Bytes of the memory tier where neither a cgroup nor the machine says how much memory there is.
const FALLBACK_MEMORY_BYTES: u64 = 256 << 20;
/// More worker threads than this are not started.
const WORKERS_MAX: usize = 1024;

/// Everything that a running process needs to know.
#[derive(Clone, Debug)]
pub struct ProcessPlan {
    /// Where to listen, and for which side of the pod; `None` for clients outside of a mesh.
    pub listeners: Vec<(ListenAddress, Option<Side>)>,
    /// The address of the admin port.
    pub admin: SocketAddr,
    /// The address of the read-only port, for metrics and probes.
    pub metrics: Option<SocketAddr>,
    /// How istiod is reached, where policy comes from it.
    pub xds: Option<XdsSettings>,
    /// Settings of the data path.
    pub settings: Settings,
    /// The tier and the purge log that pods share, where there is Redis.
    pub redis: Option<RedisPlan>,
    /// The document, for parts that take it as it is.
    pub config: Config,
}

/// Turns a bootstrap document into a plan.
///
/// # Errors
/// With the field, the reason and the fix.
pub fn plan(config: Config) -> Result<ProcessPlan, Diagnostic> {
    let listeners = listeners(&config.listeners)?;
    let admin = address("admin.address", &config.admin.address, "127.0.0.1:15490")?;
    let metrics = config.admin.metrics_address.as_ref();
    let metrics =
        metrics.map(|given| address("admin.metricsAddress", given, "0.0.0.0:15491")).transpose()?;
    let env = |name: &str| std::env::var(name).ok();
    let pod = PodIdentity::gather(&config.mesh, env);
    let own_ports = own_ports(&listeners, [Some(admin), metrics]);
    let mesh = pod.mesh_settings(&listeners, &config, own_ports)?;
    let named = listeners.iter().all(|(_, side)| side.is_some());
    let upstream = upstream::upstream(&config.upstream, &config.limits, named)?;
    let memory_bytes_max = memory_bytes_max(&config.memory)?;
    check_telemetry(&config.telemetry)?;
    let workers = workers(config.workers)?;
    check_limits(&config.limits)?;
    let settings = Settings {
        limits: config.limits.clone(),
        upstream,
        mesh,
        memory_bytes_max,
        object_bytes_max: config.memory.object_bytes_max.0,
        variants_max: config.memory.variants_max,
        coalesce: config.coalesce.clone(),
        workers,
        show_key: config.cache_status.key,
    };
    let redis = config.redis.as_ref();
    let redis =
        redis.map(|redis| redis::plan::plan(redis, settings.workers, &pod, env)).transpose()?;
    let xds = config.policy.xds.as_ref();
    let xds = xds.map(|xds| pod.xds_settings(xds, &config.policy)).transpose()?;
    Ok(ProcessPlan { listeners, admin, metrics, xds, settings, redis, config })
}

/// Bytes of the memory tier: what is written, else a quarter of what the process may use.
fn memory_bytes_max(memory: &MemoryConfig) -> Result<u64, Diagnostic> {
    let quarter = || memory_limit_bytes().map_or(FALLBACK_MEMORY_BYTES, |limit| limit / 4);
    let all = memory.bytes_max.map_or_else(quarter, |size| size.0);
    if memory.object_bytes_max.0 > all {
        let (object, all) = (memory.object_bytes_max, ByteSize(all));
        let reason = format!("{object} is more than the memory tier holds, {all}");
        return Err(Diagnostic::new(reason).at("memory.objectBytesMax").fix("lower it"));
    }
    Ok(all)
}

fn check_telemetry(telemetry: &TelemetryConfig) -> Result<(), Diagnostic> {
    match telemetry.otlp.as_ref().map(|otlp| otlp.root_sample_percent) {
        Some(percent) if percent > 100 => {
            let reason = format!("{percent} is more than 100");
            Err(Diagnostic::new(reason).at("telemetry.otlp.rootSamplePercent"))
        }
        _ => Ok(()),
    }
}

/// Worker threads: as many as are written, else one for each core of this process.
fn workers(given: Option<usize>) -> Result<usize, Diagnostic> {
    match given {
        Some(0) => Err(Diagnostic::new("0 is too few").at("workers").fix("write 1 or more")),
        Some(workers) => Ok(workers.min(WORKERS_MAX)),
        None => Ok(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
    }
}

fn check_limits(limits: &ConnectionLimits) -> Result<(), Diagnostic> {
    if limits.header_bytes_max < 8192 {
        let reason = format!("{} is too few", limits.header_bytes_max);
        return Err(Diagnostic::new(reason).at("limits.headerBytesMax").fix("write 8192 or more"));
    }
    Ok(())
}

fn address(path: &str, given: &str, example: &str) -> Result<SocketAddr, Diagnostic> {
    given.parse().map_err(|_| {
        let reason = format!("\"{given}\" is no address");
        Diagnostic::new(reason).at(path).fix(format!("write {example}"))
    })
}

/// Ports on which this process listens.
fn own_ports(
    listeners: &[(ListenAddress, Option<Side>)],
    others: impl IntoIterator<Item = Option<SocketAddr>>,
) -> Vec<u16> {
    let tcp = listeners.iter().filter_map(|(address, _)| match address {
        ListenAddress::Tcp(address) => Some(address.port()),
        ListenAddress::Unix(_) => None,
    });
    tcp.chain(others.into_iter().flatten().map(|address| address.port())).collect()
}

fn listeners(given: &[ListenerConfig]) -> Result<Vec<(ListenAddress, Option<Side>)>, Diagnostic> {
    let default = [ListenerConfig::at_default(None)];
    let given = if given.is_empty() { &default[..] } else { given };
    given
        .iter()
        .enumerate()
        .map(|(at, listener)| {
            let wrong =
                |reason: String| Diagnostic::new(reason).at(format!("listeners[{at}].address"));
            let address = ListenAddress::parse(&listener.address)
                .map_err(|error| wrong(error.to_string()))?;
            if listener.mode.is_some() && !address.is_local() {
                let reason = format!(
                    "{address} can be reached from outside the pod, where nobody's header fields \
                     may be believed"
                );
                let fix = format!(
                    "write {} or unix:/path",
                    ListenerConfig::default_address(listener.mode)
                );
                return Err(wrong(reason).fix(fix));
            }
            Ok((address, listener.mode))
        })
        .collect()
}
