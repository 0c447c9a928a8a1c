//! `outrigger inject`: puts Outrigger into the workloads of a YAML stream.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use outrigger_inject::manifest::inject_stream;
use outrigger_inject::{InjectionConfig, Mesh, Options, Sides};

use crate::app::error::CliError;

/// `outrigger inject`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob and Pod get it, also \
    within a List; all other objects are printed as they are. The label outrigger.io/inject is not \
    needed here, other than with the webhook: a pod template is left out only if it is labelled \
    \"false\". Annotations outrigger.io/* of a pod template win over flags, and flags over the file \
    of --config."
)]
pub struct InjectArgs {
    /// The YAML stream; - is standard input.
    #[arg(short, long, value_name = "FILE|-")]
    file: PathBuf,
    /// Injection file, as the Helm chart writes it: template, image, native, mode, mesh.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What carries traffic to it [default: istio].
    #[arg(long, value_enum)]
    mesh: Option<MeshName>,
    /// inbound, outbound or inbound,outbound; with Istio [default: inbound].
    #[arg(long, value_name = "MODE")]
    mode: Option<Sides>,
    /// The image [default: that of the template, or outrigger:VERSION].
    #[arg(long)]
    image: Option<String>,
    /// Inject native sidecars: init containers that keep running (Kubernetes 1.29 and later).
    #[arg(long)]
    native: bool,
}

/// What carries traffic to Outrigger, by its name on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum MeshName {
    /// Envoy sends requests to it, and policy comes from istiod.
    Istio,
    /// No mesh: it listens itself, before one port of the pod.
    None,
}

/// Injects, and prints the stream.
pub(super) fn inject(args: &InjectArgs) -> Result<(), CliError> {
    let options = options(args)?;
    let (name, text) = read(&args.file)?;
    let injected = inject_stream(&text, &options)
        .map_err(|error| CliError::Usage(format!("{name}: {error}")))?;
    for warning in &injected.warnings {
        eprintln!("warning: {name}: {warning}");
    }
    if injected.pods == 0 {
        eprintln!("warning: {name}: no workload to put Outrigger into");
    }
    std::io::stdout()
        .lock()
        .write_all(injected.text.as_bytes())
        .map_err(|error| CliError::Startup(format!("cannot write the stream: {error}")))
}

fn options(args: &InjectArgs) -> Result<Options, CliError> {
    let (name, mut config) = match &args.config {
        None => ("the command line".to_owned(), InjectionConfig::default()),
        Some(file) => load(file)?,
    };
    if let Some(mesh) = args.mesh {
        config.mesh = match mesh {
            MeshName::Istio => Mesh::Istio,
            MeshName::None => Mesh::None,
        };
    }
    config.sides = args.mode.unwrap_or(config.sides);
    config.native |= args.native;
    config.image = args.image.clone().or(config.image);
    Ok(config.options(&name)?)
}

/// Reads an injection file; its name comes with it, for errors.
pub(super) fn load(file: &Path) -> Result<(String, InjectionConfig), CliError> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        CliError::Usage(format!("{name}: cannot read the injection file: {error}"))
    })?;
    let config = InjectionConfig::from_yaml(&name, &text)?;
    Ok((name, config))
}

fn read(file: &Path) -> Result<(String, String), CliError> {
    let mut text = String::new();
    let (name, read) = if file == Path::new("-") {
        ("standard input".to_owned(), std::io::stdin().lock().read_to_string(&mut text).map(|_| ()))
    } else {
        let name = file.display().to_string();
        (name, std::fs::read_to_string(file).map(|found| text = found))
    };
    read.map_err(|error| CliError::Usage(format!("{name}: cannot read the manifests: {error}")))?;
    Ok((name, text))
}
