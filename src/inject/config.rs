//! The injection file, and the options that are made of it and the command line.

use outrigger_diagnostic::Diagnostic;
use serde::Deserialize;
use serde_json::Value;

use crate::image::is_image;
use crate::mesh::Mesh;
use crate::sides::Sides;
use crate::template::Template;

/// The image where nothing names one: the build's own version, from the node's default registry.
pub const DEFAULT_IMAGE: &str = concat!("outrigger:", env!("CARGO_PKG_VERSION"));

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
    #[serde(rename = "mode")]
    pub sides: Sides,
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
        if !is_image(&image) {
            return Err(Diagnostic::new(format!("\"{image}\" is no image"))
                .at("image")
                .fix("write registry/name:tag")
                .in_source(origin));
        }
        Ok(Options { template, image, sides: self.sides, native: self.native, mesh: self.mesh })
    }
}

/// What is injected, where a pod's annotations say nothing else.
#[derive(Clone, Debug)]
pub struct Options {
    /// The container and its volumes, before what a pod asks for.
    pub template: Template,
    /// The image of the container.
    pub image: String,
    /// Which traffic, with Istio.
    pub sides: Sides,
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
            assert_eq!(options.sides.to_string(), "inbound");
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
}
