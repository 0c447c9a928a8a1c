//! `outrigger istio`: Istio's objects for a workload, so that nobody writes them by hand.

use std::path::PathBuf;

use outrigger_policy::Side;
use outrigger_policy::check::check;

use crate::app::config::side_parser;
use crate::app::error::CliError;
use crate::istio::{
    AppProtocol, Inbound, OtherPort, Outbound, PolicyObject, PolicyScope, Variant, Workload,
    render_policy,
};

/// `outrigger istio`.
#[derive(Clone, Debug, clap::Subcommand)]
pub(super) enum IstioCommand {
    /// Print what sends a workload's traffic through Outrigger, for `kubectl apply -f -`.
    Render(RenderArgs),
    /// Print a policy file as the EnvoyFilter that carries it, for `kubectl apply -f -`.
    Policy(PolicyArgs),
}

/// Which of the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum StageArg {
    /// Outbound: what the destinations of a workload share. Delete it after the last of them.
    Egress,
    /// Those that take no traffic yet: apply them first, delete them last.
    Clusters,
    /// Those that send traffic: apply them last, delete them first.
    Routes,
}

/// `outrigger istio render`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RenderArgs {
    /// Side of the pod.
    #[arg(long, value_parser = side_parser(
        "Requests for the workload: it caches its own responses",
        "Requests of the workload: it caches responses of others",
    ))]
    mode: Side,
    /// Beginning of the objects' names, such as the workload's.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Namespace of the workload.
    #[arg(long, value_name = "NAMESPACE")]
    namespace: String,
    /// Label of the workload's pods; may be repeated, all must hold.
    #[arg(long, value_name = "KEY=VALUE")]
    selector: Vec<String>,
    /// Inbound: port that the application listens on (targetPort), may be repeated. Outbound: port
    /// of the service.
    #[arg(long, value_name = "PORT", required = true)]
    port: Vec<u16>,
    /// Outbound: host of a service, fully qualified; may be repeated.
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Inbound: by which means.
    #[arg(long, value_enum, default_value = "route")]
    variant: Variant,
    /// Inbound: what the application speaks on these ports.
    #[arg(long, value_enum, default_value = "http1")]
    protocol: AppProtocol,
    /// Inbound by Sidecar: another port of the application, which stays as it is, TCP unless said;
    /// may be repeated.
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = OtherPort::parse)]
    other_port: Vec<OtherPort>,
    /// Where Outrigger listens [default: 15480 inbound, 15481 outbound].
    #[arg(long, value_name = "PORT")]
    listener_port: Option<u16>,
    /// GET and HEAD that have no first byte after this time are sent to the application or service
    /// directly as well, in case Outrigger hangs. Longer than slow responses take: these would be
    /// asked for twice.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    hang_after: u32,
    /// Only these objects. Switching off: delete routes, wait for Envoy's drain, delete clusters.
    #[arg(long, value_enum)]
    stage: Option<StageArg>,
}

/// `outrigger istio policy`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PolicyArgs {
    /// Policy file (YAML).
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: PathBuf,
    /// For whom it is.
    #[arg(long, value_enum)]
    scope: PolicyScope,
    /// Name of the object.
    #[arg(long, value_name = "NAME", default_value = "outrigger-policy")]
    name: String,
    /// Namespace of the object; for the mesh, Istio's root namespace.
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Label of the workloads; may be repeated, all must hold.
    #[arg(long, value_name = "KEY=VALUE")]
    selector: Vec<String>,
}

/// Prints objects.
pub(super) fn istio(command: &IstioCommand) -> Result<(), CliError> {
    match command {
        IstioCommand::Render(args) => render(args),
        IstioCommand::Policy(args) => policy(args),
    }
}

fn render(args: &RenderArgs) -> Result<(), CliError> {
    let workload = Workload {
        name: args.name.clone(),
        namespace: args.namespace.clone(),
        selector: args.selector.clone(),
    };
    let objects = match args.mode {
        Side::Inbound if !args.host.is_empty() => {
            let reason = "--host: it is for --mode outbound; inbound takes every host of a port";
            return Err(CliError::Usage(reason.to_owned()));
        }
        Side::Inbound if args.variant == Variant::Sidecar && args.stage.is_some() => {
            let reason = "--stage: of the Sidecar variant all is applied in the order in which it \
                          is printed, and deleted in the other; leave --stage out";
            return Err(CliError::Usage(reason.to_owned()));
        }
        Side::Inbound => Inbound {
            ports: args.port.clone(),
            variant: args.variant,
            other_ports: args.other_port.clone(),
            protocol: args.protocol,
            listener_port: args.listener_port.unwrap_or(15480),
            hang_after: args.hang_after,
        }
        .render(&workload)?,
        Side::Outbound => {
            let [port] = args.port[..] else {
                let reason = "--port: one port at a time; render once for each port";
                return Err(CliError::Usage(reason.to_owned()));
            };
            Outbound {
                hosts: args.host.clone(),
                port,
                listener_port: args.listener_port.unwrap_or(15481),
                hang_after: args.hang_after,
            }
            .render(&workload)?
        }
    };
    let wanted = objects.iter().filter(|object| match args.stage {
        None => true,
        Some(StageArg::Routes) => is_named(object, "-routes"),
        Some(StageArg::Clusters) => is_named(object, "-clusters"),
        Some(StageArg::Egress) => is_named(object, "-egress"),
    });
    print!("{}", wanted.cloned().collect::<Vec<_>>().join("---\n"));
    Ok(())
}

/// Whether an object's name ends so.
fn is_named(object: &str, end: &str) -> bool {
    let name = object.lines().find_map(|line| line.strip_prefix("  name: "));
    name.is_some_and(|name| name.ends_with(end))
}

fn policy(args: &PolicyArgs) -> Result<(), CliError> {
    let source = args.file.display().to_string();
    let text = std::fs::read_to_string(&args.file)
        .map_err(|error| CliError::Usage(format!("{source}: cannot read the file: {error}")))?;
    check(&source, &text)?;
    let namespace = match (&args.namespace, args.scope) {
        (Some(namespace), _) => namespace.clone(),
        (None, PolicyScope::Mesh) => "istio-system".to_owned(),
        (None, PolicyScope::Namespace | PolicyScope::Workload) => {
            let reason = "--namespace: it is missing; write the namespace of the workloads";
            return Err(CliError::Usage(reason.to_owned()));
        }
    };
    let (name, selector) = (args.name.clone(), args.selector.clone());
    let object = PolicyObject { name, namespace, scope: args.scope, selector };
    print!("{}", render_policy(&object, &text)?);
    Ok(())
}
