//! What is injected: the injection file, and the options that it and the command line make up.

use std::fmt;
use std::str::FromStr;

use outrigger_diagnostic::Diagnostic;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::annotations;
use crate::template::Template;

/// The image where nothing names one: the build's own version, from the node's default registry.
pub const DEFAULT_IMAGE: &str = concat!("outrigger:", env!("CARGO_PKG_VERSION"));

/// What carries traffic to Outrigger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mesh {
    /// Istio: Envoy sends requests to it, and policy comes from istiod.
    #[default]
    Istio,
    /// No mesh: it listens itself, before one port of the pod.
    None,
}

/// Which sides of a pod's traffic Outrigger takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Requests to this pod.
    pub inbound: bool,
    /// Requests of this pod.
    pub outbound: bool,
}

impl Default for Mode {
    fn default() -> Self {
        Mode { inbound: true, outbound: false }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.inbound, self.outbound) {
            (true, false) => "inbound",
            (false, true) => "outbound",
            _ => "inbound,outbound",
        })
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut mode = Mode { inbound: false, outbound: false };
        for word in text.split(',').map(str::trim) {
            match word {
                "inbound" => mode.inbound = true,
                "outbound" => mode.outbound = true,
                _ => {
                    return Err(format!(
                        "\"{text}\" is no mode; write inbound, outbound or inbound,outbound"
                    ));
                }
            }
        }
        Ok(mode)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ModeVisitor)
    }
}

/// Refuses within the visit: the YAML library adds the place to such errors alone.
struct ModeVisitor;

impl Visitor<'_> for ModeVisitor {
    type Value = Mode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("inbound, outbound or inbound,outbound")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Mode, E> {
        text.parse().map_err(|reason: String| E::custom(reason))
    }
}

/// The injection file, which the Helm chart writes. What is absent has a default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InjectionConfig {
    /// The partial pod, as YAML or as a string that holds YAML; absent: the built-in one of `mesh`.
    pub template: Option<Value>,
    /// The image; absent: the template's, or else [`DEFAULT_IMAGE`].
    pub image: Option<String>,
    /// Whether the container is a native sidecar: an init container that keeps running.
    pub native: bool,
    /// Which traffic, with Istio.
    pub mode: Mode,
    /// What carries traffic to it.
    pub mesh: Mesh,
}

impl InjectionConfig {
    /// Reads an injection file.
    ///
    /// # Errors
    /// The first reason, with its place.
    pub fn from_yaml(origin: &str, text: &str) -> Result<Self, Diagnostic> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        serde_yaml::from_str(text)
            .map_err(|error| Diagnostic::new(error.to_string()).in_source(origin))
    }

    /// What is injected by this file.
    ///
    /// # Errors
    /// When the template is none, or the image is no image.
    pub fn options(self, origin: &str) -> Result<Options, Diagnostic> {
        let template = match self.template {
            None => Template::builtin(self.mesh)?,
            Some(Value::String(text)) => {
                Template::from_yaml(&format!("{origin}: template"), &text)?
            }
            Some(value) => Template::from_value(&format!("{origin}: template"), value)?,
        };
        let image = self.image.or_else(|| template.image().map(str::to_owned));
        let image = image.unwrap_or_else(|| DEFAULT_IMAGE.to_owned());
        if !annotations::is_image(&image) {
            return Err(Diagnostic::new(format!("\"{image}\" is no image"))
                .at("image")
                .fix("write registry/name:tag")
                .in_source(origin));
        }
        Ok(Options { template, image, mode: self.mode, native: self.native, mesh: self.mesh })
    }
}

/// What is injected, where a pod's annotations say nothing else.
#[derive(Clone, Debug)]
pub struct Options {
    /// Container and volumes.
    pub template: Template,
    /// The image.
    pub image: String,
    /// Which traffic, with Istio.
    pub mode: Mode,
    /// Whether the container is a native sidecar.
    pub native: bool,
    /// What carries traffic to it.
    pub mesh: Mesh,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Result<Options, String> {
        InjectionConfig::from_yaml("i.yaml", text)
            .and_then(|config| config.options("i.yaml"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        for text in ["", "# nothing\n", "{}"] {
            let options = options(text).unwrap();
            assert_eq!((options.native, options.mesh), (false, Mesh::Istio), "{text}");
            assert_eq!(options.mode.to_string(), "inbound");
            assert_eq!(options.image, DEFAULT_IMAGE);
        }
    }

    #[test]
    fn a_template_may_be_a_mapping_or_a_string_and_brings_its_image() {
        let inner = "spec:\n  containers:\n  - {name: outrigger, image: \"r/o:1\"}\n";
        let mapping = format!("template:\n  {}", inner.replace('\n', "\n  "));
        let string = format!("template: |\n  {}", inner.replace('\n', "\n  "));
        for text in [&mapping, &string] {
            assert_eq!(options(text).unwrap().image, "r/o:1", "{text}");
        }
        let with_image = format!("{mapping}\nimage: r/o:2\n");
        assert_eq!(options(&with_image).unwrap().image, "r/o:2");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("natve: true", "i.yaml: unknown field `natve`"),
            ("mode: both", "i.yaml: mode: \"both\" is no mode; write inbound, outbound or"),
            ("mesh: linkerd", "i.yaml: mesh: unknown variant `linkerd`"),
            ("image: 'a b'", "i.yaml: image: \"a b\" is no image"),
            ("template: {spec: {}}", "i.yaml: template: spec.containers: "),
        ] {
            let error = options(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn modes_are_read_in_any_order() {
        for (text, shown) in [
            ("inbound", "inbound"),
            ("outbound", "outbound"),
            ("outbound, inbound", "inbound,outbound"),
        ] {
            assert_eq!(text.parse::<Mode>().unwrap().to_string(), shown);
        }
        for wrong in ["", ",", "inbound,", "in", "Inbound"] {
            assert!(wrong.parse::<Mode>().is_err(), "{wrong}");
        }
    }
}
