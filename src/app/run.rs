//! Running a plan: bind, start, serve, drain.
//!
//! Two kinds of runtime: worker threads carry client traffic; one further runtime carries the
//! acceptors, the admin port, health checks and the policy watch, so that a slow scrape never
//! delays a request.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_coherence::PurgeLog;
use outrigger_control::xds::{self, XdsSettings, XdsStatus};
use outrigger_control::{Controller, Layer, watch_file};
use outrigger_policy::{Side, Snapshot};
use outrigger_proxy::{Bound, Clock, Parts, Shared, bind};
use outrigger_store::Tier;
use outrigger_telemetry::logging;
use outrigger_telemetry::{AccessLog, Metrics, Tracing};
use prometheus_client::registry::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::{self, Admin, AdminScope, Readiness, Ready};
use crate::app::build::ProcessPlan;
use crate::app::config::AccessLogConfig;
use crate::app::error::CliError;
use crate::app::redis::{self, Redis};
use crate::http_api;

/// Runs a plan until SIGTERM or SIGINT.
///
/// # Errors
/// When something needed for the start is missing or taken.
pub fn until_signalled(plan: ProcessPlan) -> Result<(), CliError> {
    until_signalled_with(plan, |_, _| {})
}

/// Runs a plan until SIGTERM or SIGINT. Calls `started` once traffic is taken, with the addresses of the listeners and that of
/// the admin port.
///
/// # Errors
/// When something needed for the start is missing or taken.
pub fn until_signalled_with(
    plan: ProcessPlan,
    started: impl FnOnce(&[String], &str),
) -> Result<(), CliError> {
    logging::start(plan.config.telemetry.log);
    // Ports are taken first: a second instance fails at once and harms nothing.
    let listeners = plan
        .listeners
        .iter()
        .map(|(address, side)| Ok((bind(address)?, *side)))
        .collect::<Result<Vec<(Bound, Option<Side>)>, outrigger_proxy::ListenError>>()
        .map_err(|error| CliError::Startup(error.to_string()))?;
    let bind_admin = |address| {
        let wrong = |error| CliError::Startup(format!("cannot listen on {address}: {error}"));
        http_api::bind(address).map_err(wrong)
    };
    let admin_listener = bind_admin(plan.admin)?;
    let metrics_listener = plan.metrics.map(bind_admin).transpose()?;
    let ports = Ports { listeners, admin: admin_listener, metrics: metrics_listener };
    let policy = first_policy(plan.config.policy.file.clone())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| CliError::Startup(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(serve(plan, ports, policy, started))
}

/// The ports that are bound before anything is started.
struct Ports {
    listeners: Vec<(Bound, Option<Side>)>,
    admin: std::net::TcpListener,
    metrics: Option<std::net::TcpListener>,
}

/// The policy to begin with: a file that is named must be there and be valid.
struct FirstPolicy {
    file: Option<(PathBuf, String)>,
}

fn first_policy(file: Option<PathBuf>) -> Result<FirstPolicy, CliError> {
    let Some(path) = file else { return Ok(FirstPolicy { file: None }) };
    let text = std::fs::read_to_string(&path).map_err(|error| {
        CliError::Usage(format!("{}: cannot read the policy file: {error}", path.display()))
    })?;
    Snapshot::from_yaml(&path.display().to_string(), &text)?;
    Ok(FirstPolicy { file: Some((path, text)) })
}

async fn serve(
    plan: ProcessPlan,
    ports: Ports,
    policy: FirstPolicy,
    started: impl FnOnce(&[String], &str),
) -> Result<(), CliError> {
    let begun = Instant::now();
    // Before the first request can come: none may be lost to an early signal.
    let signals = Signals::register()?;
    let mut registry = Registry::with_prefix("outrigger");
    let metrics = Metrics::new(&mut registry);
    let redis = plan.redis.as_ref().map(redis::start).transpose()?;
    let shared = start_shared(&plan, &metrics, redis.as_ref()).await?;
    let xds = plan.xds.as_ref().map(|_| Arc::new(XdsStatus::default()));
    let tier = redis.as_ref().map(|redis| Arc::clone(&redis.tier));
    admin::gauges::register(&mut registry, &shared, tier.clone());
    if let Some(xds) = &xds {
        registry.register_collector(Box::new(admin::xds::Gauges(Arc::clone(xds))));
    }
    let controller = controller(&shared, &metrics);
    follow_policy(&plan, policy, &controller, xds.as_ref())?;
    let Ports { listeners, admin: admin_listener, metrics: metrics_listener } = ports;
    let addresses: Vec<String> = listeners.iter().map(|(bound, _)| bound.address()).collect();
    for ((bound, _), address) in plan.listeners.iter().zip(&addresses) {
        if !bound.is_local() {
            tracing::warn!(address, "this listener can be reached from other machines");
        }
    }
    let running = outrigger_proxy::run(&shared, listeners)
        .map_err(|error| CliError::Startup(format!("cannot start the workers: {error}")))?;
    let ready = Arc::new(Readiness::default());
    warm_up(&plan, &shared, redis.as_ref(), &ready);
    let admin_address = admin_listener.local_addr().unwrap_or(plan.admin);
    let admin = Arc::new(Admin {
        shared: Arc::clone(&shared),
        controller,
        registry,
        ready: Arc::clone(&ready),
        tier,
        xds,
        listeners: plan.listeners.iter().map(|(_, side)| *side).collect(),
        bootstrap: serde_json::to_value(&plan.config)
            .map_err(|error| CliError::Startup(format!("cannot show the bootstrap: {error}")))?,
        address: plan.config.admin.address.clone(),
        began: Instant::now(),
    });
    let not_started = |error| CliError::Startup(format!("cannot start the admin port: {error}"));
    if let Some(listener) = metrics_listener {
        admin::spawn(Arc::clone(&admin), listener, AdminScope::ReadOnly).map_err(not_started)?;
    }
    admin::spawn(admin, admin_listener, AdminScope::All).map_err(not_started)?;
    tokio::spawn(Arc::clone(&shared).maintain());
    let millis = begun.elapsed().as_millis();
    tracing::info!(?addresses, admin = %admin_address, millis, "serving");
    started(&addresses, &admin_address.to_string());
    signals.wait().await;
    ready.set(Ready::Draining);
    drain(&plan, running).await;
    if let Some(redis) = redis {
        redis.finish().await;
    }
    finish(shared).await;
    Ok(())
}

/// Puts the policy file in force and watches it, and follows istiod where that is configured.
fn follow_policy(
    plan: &ProcessPlan,
    policy: FirstPolicy,
    controller: &Arc<Controller>,
    xds: Option<&Arc<XdsStatus>>,
) -> Result<(), CliError> {
    if let Some((path, text)) = policy.file {
        controller.offer(Layer::File, &path.display().to_string(), &text)?;
        let watched = Arc::clone(controller);
        tokio::spawn(async move { watch_file(watched, &path, text).await });
    }
    if let (Some(settings), Some(status)) = (plan.xds.clone(), xds) {
        follow_istiod(settings, controller, status);
    }
    Ok(())
}

/// Puts in force what was kept of istiod's policy, and follows istiod from then on.
fn follow_istiod(settings: XdsSettings, controller: &Arc<Controller>, status: &Arc<XdsStatus>) {
    let client = xds::Client::restored(settings, Arc::clone(controller), Arc::clone(status));
    tokio::spawn(client.follow());
}

/// Becomes ready: at once without Redis; otherwise when it is connected or the time for that is
/// over, and, if configured, when the hottest keys have been loaded.
fn warm_up(
    plan: &ProcessPlan,
    shared: &Arc<Shared>,
    redis: Option<&Redis>,
    ready: &Arc<Readiness>,
) {
    let Some(redis) = redis.cloned() else { return ready.set(Ready::Yes) };
    let warm = plan.redis.as_ref().and_then(|redis| redis.warm);
    let (shared, ready) = (Arc::clone(shared), Arc::clone(ready));
    tokio::spawn(async move {
        redis.tier.until_attached().await;
        let Some((bounds, before_ready)) = warm else { return ready.set(Ready::Yes) };
        if !before_ready {
            ready.set(Ready::Yes);
        }
        redis.warm(&shared, bounds).await;
        ready.set(Ready::Yes);
    });
}

async fn start_shared(
    plan: &ProcessPlan,
    metrics: &Arc<Metrics>,
    redis: Option<&Redis>,
) -> Result<Arc<Shared>, CliError> {
    let instance = instance_id();
    let tracing = match &plan.config.telemetry.otlp {
        None => None,
        Some(otlp) => Some(
            Tracing::start(&otlp.url, otlp.root_sample_percent, &instance)
                .map_err(|error| CliError::Usage(error.to_string()))?,
        ),
    };
    let access_log =
        (plan.config.telemetry.access_log == AccessLogConfig::Stdout).then(AccessLog::stdout);
    Shared::start(Parts {
        settings: plan.settings.clone(),
        snapshot: Arc::new(Snapshot::built_in()),
        tiers: redis.map(|redis| Arc::clone(&redis.tier) as Arc<dyn Tier>).into_iter().collect(),
        log: redis.map_or_else(PurgeLog::local, Redis::purge_log),
        metrics: Arc::clone(metrics),
        tracing,
        access_log,
        clock: Clock::system(),
        instance,
    })
    .await
    .map_err(|error| CliError::Startup(error.to_string()))
}

/// A token of this process, for `CDN-Loop` and traces.
fn instance_id() -> String {
    let mut bytes = [0u8; 8];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    if provider.secure_random.fill(&mut bytes).is_err() {
        return format!("pid{}", std::process::id());
    }
    format!("{:016x}", u64::from_le_bytes(bytes))
}

fn controller(shared: &Arc<Shared>, metrics: &Arc<Metrics>) -> Arc<Controller> {
    let target = Arc::clone(shared);
    let metrics = Arc::clone(metrics);
    Arc::new(Controller::new(
        move |snapshot| target.install(snapshot),
        move |accepted| metrics.count_policy(accepted),
    ))
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on a signal no longer kills the process.
    fn register() -> Result<Self, CliError> {
        let failed = |error: std::io::Error| {
            CliError::Startup(format!("cannot listen for signals: {error}"))
        };
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for the first signal; the second one ends the process at once.
    async fn wait(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("second signal: ending at once");
            std::process::exit(0);
        });
    }
}

async fn drain(plan: &ProcessPlan, running: outrigger_proxy::Running) {
    let lifecycle = &plan.config.lifecycle;
    tracing::info!("draining");
    let left = running
        .drain(
            Duration::from_millis(lifecycle.drain_quiet_ms),
            Duration::from_millis(lifecycle.drain_timeout_ms),
        )
        .await;
    if left > 0 {
        tracing::warn!(connections = left, "connections were still open at the end");
    }
}

/// Sends what telemetry still holds.
async fn finish(shared: Arc<Shared>) {
    let flushed = tokio::task::spawn_blocking(move || {
        if let Some(tracing) = shared.tracing() {
            tracing.shutdown();
        }
    });
    // The process ends in any case; a panic there changes nothing.
    let _ = flushed.await;
    tracing::info!("ended");
}
