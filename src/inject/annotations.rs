//! The annotations by which a pod configures its own injection.

use outrigger_diagnostic::Diagnostic;
use serde_json::{Map, Value};

use crate::LABEL;
use crate::image::is_image;
use crate::mesh::Mesh;
use crate::sides::Sides;

/// The beginning of every annotation of ours.
pub const PREFIX: &str = "outrigger.io/";
/// The image of the container.
pub const IMAGE: &str = "outrigger.io/image";
/// `inbound`, `outbound` or both; Istio only.
pub const MODE: &str = "outrigger.io/mode";
/// Whether the container is a native sidecar: `"true"` or `"false"`.
pub const NATIVE: &str = "outrigger.io/native-sidecar";
/// Request and limit of memory.
pub const MEMORY: &str = "outrigger.io/memory";
/// The port of the pod that Outrigger stands before; without a mesh only.
pub const UPSTREAM_PORT: &str = "outrigger.io/upstream-port";
/// A ConfigMap with the policy as `policy.yaml`; without a mesh only.
pub const POLICY_CONFIG_MAP: &str = "outrigger.io/policy-config-map";
/// A ConfigMap with the bootstrap file as `outrigger.yaml`.
pub const CONFIG_MAP: &str = "outrigger.io/config-map";
/// `name/key` of the Secret with the URL of Redis.
pub const REDIS_SECRET: &str = "outrigger.io/redis-secret";
/// What was injected; written by the injector.
pub const STATUS: &str = "outrigger.io/status";

const KNOWN: [&str; 9] = [
    IMAGE,
    MODE,
    NATIVE,
    MEMORY,
    UPSTREAM_PORT,
    POLICY_CONFIG_MAP,
    CONFIG_MAP,
    REDIS_SECRET,
    STATUS,
];

/// Bytes of memory at least: less would hold the process, but no cache.
const MEMORY_BYTES_MIN: u64 = 64 << 20;

/// What the annotations of a pod ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requested {
    pub image: Option<String>,
    pub sides: Option<Sides>,
    pub native: Option<bool>,
    pub memory: Option<String>,
    pub upstream_port: Option<u16>,
    pub policy_config_map: Option<String>,
    pub config_map: Option<String>,
    /// Name of the Secret, and the key of its data.
    pub redis_secret: Option<(String, String)>,
}

/// Reads the annotations of ours.
pub(crate) fn read(
    pod: &Value,
    mesh: Mesh,
    warnings: &mut Vec<String>,
) -> Result<Requested, Diagnostic> {
    let none = Map::new();
    let annotations = pod.pointer("/metadata/annotations").and_then(Value::as_object);
    let ours = annotations.unwrap_or(&none).iter().filter(|(key, _)| key.starts_with(PREFIX));
    let mut requested = Requested::default();
    for (key, value) in ours {
        if !KNOWN.contains(&key.as_str()) {
            warnings.push(unknown(key));
            continue;
        }
        if let Some(why) = without_effect(key, mesh) {
            warnings.push(format!("{}: it has no effect {why}", path(key)));
            continue;
        }
        let Some(text) = value.as_str() else {
            return Err(refuse(
                key,
                &format!("{value} is no string"),
                "put it in quotes, as in every annotation",
            ));
        };
        requested.read_one(key, text)?;
    }
    Ok(requested)
}

impl Requested {
    fn read_one(&mut self, key: &str, text: &str) -> Result<(), Diagnostic> {
        let bad = |fix: &str| refuse(key, &format!("\"{text}\" is not valid"), fix);
        match key {
            IMAGE if is_image(text) => self.image = Some(text.to_owned()),
            IMAGE => return Err(bad("write registry/name:tag or registry/name@sha256:...")),
            MODE => match text.parse() {
                Ok(sides) => self.sides = Some(sides),
                Err(_) => return Err(bad("write inbound, outbound or inbound,outbound")),
            },
            NATIVE => match text {
                "true" => self.native = Some(true),
                "false" => self.native = Some(false),
                _ => return Err(bad("write \"true\" or \"false\"")),
            },
            MEMORY => match bytes_of(text) {
                Some(bytes) if bytes >= MEMORY_BYTES_MIN => self.memory = Some(text.to_owned()),
                Some(_) => return Err(bad("Outrigger needs 64Mi or more")),
                None => return Err(bad("write a number with Mi or Gi, such as 256Mi")),
            },
            UPSTREAM_PORT => match text.parse::<u16>() {
                Ok(port) if port > 0 => self.upstream_port = Some(port),
                _ => return Err(bad("write a port number, such as \"8080\"")),
            },
            POLICY_CONFIG_MAP if is_object_name(text) => {
                self.policy_config_map = Some(text.to_owned());
            }
            CONFIG_MAP if is_object_name(text) => self.config_map = Some(text.to_owned()),
            POLICY_CONFIG_MAP | CONFIG_MAP => {
                return Err(bad("write the name of a ConfigMap in the pod's namespace"));
            }
            REDIS_SECRET => match text.split_once('/') {
                Some((name, key)) if is_object_name(name) && is_data_key(key) => {
                    self.redis_secret = Some((name.to_owned(), key.to_owned()));
                }
                _ => {
                    return Err(bad(
                        "write name/key of a Secret in the pod's namespace, such as redis/url",
                    ));
                }
            },
            _ => {}
        }
        Ok(())
    }
}

/// The path of an annotation, as errors and warnings name it.
pub(crate) fn path(key: &str) -> String {
    format!("metadata.annotations[\"{key}\"]")
}

fn refuse(key: &str, reason: &str, fix: &str) -> Diagnostic {
    Diagnostic::new(reason).at(path(key)).fix(fix)
}

fn without_effect(key: &str, mesh: Mesh) -> Option<&'static str> {
    match (key, mesh) {
        (UPSTREAM_PORT | POLICY_CONFIG_MAP, Mesh::Istio) => {
            Some("with Istio, where Envoy chooses the port and policy comes from istiod")
        }
        (MODE, Mesh::None) => Some("without a mesh, where Outrigger takes part in inbound alone"),
        _ => None,
    }
}

fn unknown(key: &str) -> String {
    let place = path(key);
    if key == LABEL {
        return format!("{place}: this is a label, not an annotation; it has no effect here");
    }
    let nearest = KNOWN.iter().map(|known| (strsim::levenshtein(key, known), known)).min();
    match nearest {
        Some((steps, known)) if steps <= 4 => {
            format!("{place}: no such annotation, it has no effect; did you mean {known}?")
        }
        _ => format!("{place}: no such annotation, it has no effect"),
    }
}

/// A quantity of memory in bytes: a whole number with a unit.
fn bytes_of(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The name of a ConfigMap or Secret: a DNS subdomain.
fn is_object_name(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 253
        && text.split('.').all(|label| {
            label.starts_with(edge)
                && label.ends_with(edge)
                && label.chars().all(|c| edge(c) || c == '-')
        })
}

fn is_data_key(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !text.is_empty() && text.len() <= 253 && text.chars().all(inner) && !text.starts_with("..")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(key: &str, value: Value, mesh: Mesh) -> (Result<Requested, String>, Vec<String>) {
        let mut warnings = Vec::new();
        let pod = json!({"metadata": {"annotations": {key: value, "other/thing": "x"}}});
        let requested = read(&pod, mesh, &mut warnings).map_err(|refusal| refusal.to_string());
        (requested, warnings)
    }

    #[test]
    fn every_annotation_is_read() {
        let some = |text: &str| Some(text.to_owned());
        let base = Requested::default;
        let sides = Some(Sides { inbound: true, outbound: false });
        let cases = [
            (
                IMAGE,
                "r.io:5000/o@sha256:ab",
                Requested { image: some("r.io:5000/o@sha256:ab"), ..base() },
            ),
            (NATIVE, "true", Requested { native: Some(true), ..base() }),
            (NATIVE, "false", Requested { native: Some(false), ..base() }),
            (MEMORY, "1Gi", Requested { memory: some("1Gi"), ..base() }),
            (MEMORY, "67108864", Requested { memory: some("67108864"), ..base() }),
            (UPSTREAM_PORT, "8080", Requested { upstream_port: Some(8080), ..base() }),
            (POLICY_CONFIG_MAP, "a.b-c", Requested { policy_config_map: some("a.b-c"), ..base() }),
            (CONFIG_MAP, "cfg", Requested { config_map: some("cfg"), ..base() }),
            (
                REDIS_SECRET,
                "redis/url",
                Requested { redis_secret: Some(("redis".to_owned(), "url".to_owned())), ..base() },
            ),
            (STATUS, "{}", base()),
        ];
        for (key, value, expected) in cases {
            let read = one(key, json!(value), Mesh::None);
            assert_eq!(read, (Ok(expected), Vec::new()), "{key}: {value}");
        }
        let read = one(MODE, json!("inbound"), Mesh::Istio);
        assert_eq!(read, (Ok(Requested { sides, ..base() }), Vec::new()));
    }

    #[test]
    fn a_bad_value_is_refused_with_its_fix() {
        let cases = [
            (IMAGE, json!(""), "write registry/name:tag"),
            (IMAGE, json!("a b"), "write registry/name:tag"),
            (IMAGE, json!("o:"), "write registry/name:tag"),
            (MODE, json!("both"), "write inbound, outbound or inbound,outbound"),
            (NATIVE, json!("yes"), "write \"true\" or \"false\""),
            (NATIVE, json!(true), "put it in quotes"),
            (MEMORY, json!("lots"), "write a number with Mi or Gi"),
            (MEMORY, json!("-1Gi"), "write a number with Mi or Gi"),
            (MEMORY, json!("1Ti"), "write a number with Mi or Gi"),
            (MEMORY, json!("63Mi"), "Outrigger needs 64Mi or more"),
            (MEMORY, json!("256"), "Outrigger needs 64Mi or more"),
            (UPSTREAM_PORT, json!("0"), "write a port number"),
            (UPSTREAM_PORT, json!("http"), "write a port number"),
            (UPSTREAM_PORT, json!("70000"), "write a port number"),
            (UPSTREAM_PORT, json!(8080), "put it in quotes"),
            (POLICY_CONFIG_MAP, json!("A"), "write the name of a ConfigMap"),
            (CONFIG_MAP, json!("a/b"), "write the name of a ConfigMap"),
            (REDIS_SECRET, json!("redis"), "write name/key of a Secret"),
            (REDIS_SECRET, json!("redis/"), "write name/key of a Secret"),
            (REDIS_SECRET, json!("redis/u/v"), "write name/key of a Secret"),
        ];
        for (key, value, fix) in cases {
            let mesh = if key == MODE { Mesh::Istio } else { Mesh::None };
            let error = one(key, value.clone(), mesh).0.unwrap_err();
            assert!(error.starts_with(&path(key)) && error.contains(fix), "{key} {value}: {error}");
        }
    }

    #[test]
    fn what_has_no_effect_is_a_warning() {
        let cases = [
            ("outrigger.io/imgae", Mesh::Istio, "did you mean outrigger.io/image?"),
            ("outrigger.io/redis-secert", Mesh::Istio, "did you mean outrigger.io/redis-secret?"),
            ("outrigger.io/something-else", Mesh::Istio, "no such annotation, it has no effect"),
            ("outrigger.io/inject", Mesh::Istio, "this is a label"),
            (UPSTREAM_PORT, Mesh::Istio, "it has no effect with Istio"),
            (POLICY_CONFIG_MAP, Mesh::Istio, "it has no effect with Istio"),
            (MODE, Mesh::None, "it has no effect without a mesh"),
        ];
        for (key, mesh, expected) in cases {
            let (requested, warnings) = one(key, json!("x"), mesh);
            assert_eq!(requested, Ok(Requested::default()));
            assert!(warnings.len() == 1 && warnings[0].contains(expected), "{warnings:?}");
        }
    }
}
