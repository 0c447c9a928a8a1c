//! The template for Istio's injector, evaluated with the data that Istio hands to it.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::helm::{NAME, documents, find, helm, objects};
use crate::judge::{self, NATIVE_RELEASES, RELEASES};
use crate::pods::{self, variable};

/// The template, through the two layers of YAML that it is shipped in.
fn template(values: &Value) -> String {
    let objects = objects(values);
    let snippet = find(&objects, "ConfigMap", &format!("{NAME}-istio-injection"));
    let text = snippet["data"]["values.yaml"].as_str().unwrap();
    let [istiod] = documents(text).try_into().unwrap();
    let webhook = istiod["sidecarInjectorWebhook"].as_object().unwrap();
    assert_eq!(
        (istiod.as_object().unwrap().len(), webhook.len()),
        (1, 1),
        "nothing else is changed"
    );
    webhook["templates"]["outrigger"].as_str().unwrap().to_owned()
}

/// What Istio's injector knows of a pod with these annotations.
fn data(annotations: Value, native: bool) -> Value {
    json!({
        "TypeMeta": {"APIVersion": "apps/v1", "Kind": "Deployment"},
        "DeploymentMeta": {"Name": "catalog", "Namespace": "shop"},
        "ObjectMeta": {"Name": "", "Labels": {"app": "catalog"}, "Annotations": annotations},
        "ProxyConfig": {"DiscoveryAddress": "istiod.istio-system.svc:15012"},
        "MeshConfig": {"TrustDomain": "corp.example"},
        "Values": {"global": {"istioNamespace": "istio-system", "multiCluster": {"clusterName": "east"}},
                   "revision": ""},
        "Revision": "default",
        "NativeSidecars": native,
    })
}

/// Evaluates a template for each case, in one chart written for that. `tpl` takes the case alone, so the
/// template sees nothing of the chart.
fn evaluate(template: &str, cases: &[Value]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    fs::create_dir(folder.path().join("templates")).unwrap();
    write("Chart.yaml", "apiVersion: v2\nname: evaluate\nversion: 0.0.0\n");
    write("template.txt", template);
    write(
        "templates/pods.yaml",
        "{{- range $case := .Values.cases }}\n---\n{{ tpl ($.Files.Get \"template.txt\") $case }}\n{{- end }}\n",
    );
    let path = folder.path().to_str().unwrap();
    // Partial pods have no kind, which Helm wants of what it sorts: hooks and order are not at issue.
    let said = helm(&["template", "x", path, "-f", "-", "--no-hooks"], &json!({"cases": cases}));
    assert!(said.ok, "{}", said.err);
    let found = documents(&said.out);
    assert_eq!(found.len(), cases.len(), "{}", said.out);
    found
}

fn sidecar(partial: &Value) -> &Value {
    pods::container(&partial["spec"], "outrigger")
}

#[test]
fn a_pod_with_any_annotations_is_valid_and_restricted() {
    let annotations = [
        json!({}),
        json!({"outrigger.io/image": "r.example/o@sha256:ab", "outrigger.io/mode": "inbound,outbound"}),
        json!({"outrigger.io/memory": "1Gi", "outrigger.io/config-map": "catalog-cache"}),
        json!({"outrigger.io/redis-secret": "other/key", "prometheus.io/port": "8080"}),
        json!({"sidecar.istio.io/nativeSidecar": "true"}),
        json!({"sidecar.istio.io/nativeSidecar": "false"}),
    ];
    let cases: Vec<Value> = annotations
        .iter()
        .flat_map(|given| [true, false].map(|native| data(given.clone(), native)))
        .collect();
    let mut seen = (Vec::new(), Vec::new());
    for values in [
        json!({}),
        json!({"redis": {"url": "redis://r:6379"}, "prometheus": "none"}),
        json!({"redis": {"existingSecret": {"name": "redis"}}, "prometheus": "podMonitor"}),
        json!({"sidecar": {"resources": {"requests": {"memory": "1Mi"}, "limits": {"memory": "2Mi"}}}}),
    ] {
        for (case, partial) in cases.iter().zip(evaluate(&template(&values), &cases)) {
            let mut pod = pods::application();
            pod["metadata"]["annotations"] = case["ObjectMeta"]["Annotations"].clone();
            pods::merge(&mut pod, &partial);
            pods::check(&pod["spec"], &["outrigger"]);
            let asked =
                case["ObjectMeta"]["Annotations"]["sidecar.istio.io/nativeSidecar"].as_str();
            let native = asked.map_or(case["NativeSidecars"] == true, |text| text != "false");
            as_native_or_ordinary(&partial, native);
            if native { seen.0.push(pod) } else { seen.1.push(pod) }
        }
    }
    assert_eq!((seen.0.len(), seen.1.len()), (24, 24));
    judge::all_valid(&seen.0, &NATIVE_RELEASES);
    judge::all_valid(&seen.1, &RELEASES);
}

fn as_native_or_ordinary(partial: &Value, native: bool) {
    let (there, absent) =
        if native { ("initContainers", "containers") } else { ("containers", "initContainers") };
    assert_eq!(partial["spec"][there].as_array().map(Vec::len), Some(1), "{partial}");
    assert!(partial["spec"][absent].is_null(), "{partial}");
    let sidecar = sidecar(partial);
    assert_eq!(sidecar["restartPolicy"], if native { json!("Always") } else { Value::Null });
    assert_eq!(sidecar["startupProbe"].is_object(), native);
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let probe = &sidecar[probe];
        assert!(probe.is_null() || probe["exec"].is_object(), "Istio rewrites all others: {probe}");
    }
    let ready = json!(["/usr/local/bin/outrigger", "health", "--ready"]);
    assert_eq!(sidecar["readinessProbe"]["exec"]["command"], ready);
}

#[test]
fn annotations_decide_and_values_are_the_default() {
    let values = json!({"mode": "outbound", "redis": {"existingSecret": {"name": "redis", "key": "address"}}});
    let own = json!({
        "outrigger.io/image": "r.example/o:2", "outrigger.io/mode": "inbound", "outrigger.io/memory": "512Mi",
        "outrigger.io/config-map": "catalog-cache", "outrigger.io/redis-secret": "other/key",
    });
    let cases = [data(json!({}), false), data(own, false)];
    let [plain, own] = evaluate(&template(&values), &cases).try_into().unwrap();
    let value = |partial: &Value, name: &str| variable(sidecar(partial), name).cloned();
    let secret = |partial: &Value| {
        let redis = value(partial, "OUTRIGGER_REDIS").unwrap()["valueFrom"]["secretKeyRef"].clone();
        assert_eq!(redis["optional"], true);
        (redis["name"].clone(), redis["key"].clone())
    };
    assert_eq!(sidecar(&plain)["image"], concat!("outrigger:", env!("CARGO_PKG_VERSION")));
    assert_eq!(value(&plain, "OUTRIGGER_MODE").unwrap()["value"], "outbound");
    assert_eq!(sidecar(&plain)["resources"]["requests"], json!({"cpu": "50m", "memory": "128Mi"}));
    assert_eq!(sidecar(&plain)["resources"]["limits"], json!({"memory": "256Mi"}));
    assert_eq!(value(&plain, "OUTRIGGER_CONFIG"), None);
    assert_eq!(secret(&plain), (json!("redis"), json!("address")));

    assert_eq!(sidecar(&own)["image"], "r.example/o:2");
    assert_eq!(value(&own, "OUTRIGGER_MODE").unwrap()["value"], "inbound");
    assert_eq!(sidecar(&own)["resources"]["requests"], json!({"cpu": "50m", "memory": "512Mi"}));
    assert_eq!(sidecar(&own)["resources"]["limits"], json!({"memory": "512Mi"}));
    let file = &value(&own, "OUTRIGGER_CONFIG").unwrap()["value"];
    assert_eq!(file, "/etc/outrigger/config/outrigger.yaml");
    let mounts = sidecar(&own)["volumeMounts"].as_array().unwrap();
    assert!(mounts.iter().any(|m| m["mountPath"] == "/etc/outrigger/config"), "{mounts:?}");
    let volumes = own["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.iter().any(|v| v["configMap"]["name"] == "catalog-cache"), "{volumes:?}");
    assert_eq!(secret(&own), (json!("other"), json!("key")));
}

#[test]
fn without_a_limit_in_the_values_a_pod_can_still_ask_for_one() {
    let without = json!({"memory": null});
    let values = json!({"sidecar": {"resources": {"requests": without, "limits": without}}});
    let hostile = "a: b";
    let cases = [
        data(json!({}), true),
        data(json!({"outrigger.io/memory": "512Mi"}), true),
        data(json!({"outrigger.io/memory": hostile}), true),
    ];
    let shown = evaluate(&template(&values), &cases);
    let limits: Vec<&Value> = shown.iter().map(|p| &sidecar(p)["resources"]["limits"]).collect();
    assert_eq!(limits, [&Value::Null, &json!({"memory": "512Mi"}), &json!({"memory": hostile})]);
    assert_eq!(sidecar(&shown[0])["resources"]["requests"], json!({"cpu": "50m"}));
    let mut pod = pods::application();
    pods::merge(&mut pod, &shown[0]);
    judge::all_valid([&pod], &NATIVE_RELEASES);
}

#[test]
fn istiod_and_identity_are_those_of_the_mesh() {
    let mut cases = vec![data(json!({}), true); 5];
    cases[1]["ProxyConfig"]["DiscoveryAddress"] = json!("istiod-canary.mesh.svc:15010");
    cases[2]["ProxyConfig"] = Value::Null;
    cases[2]["Revision"] = json!("canary");
    cases[3]["ProxyConfig"] = json!({"DiscoveryAddress": ""});
    cases[4]["Values"]["global"]["multiCluster"]["clusterName"] = json!("");
    cases[4]["MeshConfig"]["TrustDomain"] = json!("");
    cases[4]["DeploymentMeta"]["Name"] = json!("");
    let of = |values: Value, name: &str| -> Vec<String> {
        let shown = evaluate(&template(&values), &cases);
        let text =
            |p: &Value| variable(sidecar(p), name).unwrap()["value"].as_str().unwrap().to_owned();
        shown.iter().map(text).collect()
    };
    let stock = "grpcs://istiod.istio-system.svc:15012";
    let canary = "grpcs://istiod-canary.istio-system.svc:15012";
    assert_eq!(
        of(json!({}), "OUTRIGGER_XDS"),
        [stock, "grpc://istiod-canary.mesh.svc:15010", canary, stock, stock]
    );
    assert_eq!(of(json!({}), "CLUSTER_ID"), ["east", "east", "east", "east", "Kubernetes"]);
    assert_eq!(of(json!({}), "TRUST_DOMAIN")[3..], ["corp.example", "cluster.local"]);
    assert_eq!(of(json!({}), "OUTRIGGER_WORKLOAD")[3..], ["catalog", ""]);
    let fixed = json!({"istio": {"discoveryAddress": "istiod.corp:15012", "clusterId": "west", "trustDomain": "td"}});
    assert_eq!(of(fixed.clone(), "OUTRIGGER_XDS"), ["grpcs://istiod.corp:15012"; 5]);
    assert_eq!(of(fixed.clone(), "CLUSTER_ID"), ["west"; 5]);
    assert_eq!(of(fixed, "TRUST_DOMAIN"), ["td"; 5]);
}

#[test]
fn volumes_are_what_istiod_and_the_process_expect() {
    let [partial] = evaluate(&template(&json!({})), &[data(json!({}), true)]).try_into().unwrap();
    let mounted = |path: &str| -> Value {
        let mounts = sidecar(&partial)["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|m| m["mountPath"] == path).expect(path);
        let volumes = partial["spec"]["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|v| v["name"] == mount["name"]).unwrap();
        assert!(volume["name"].as_str().unwrap().starts_with("outrigger-"), "{volume}");
        volume.clone()
    };
    let token = json!([{"serviceAccountToken":
        {"audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"}}]);
    assert_eq!(mounted("/var/run/secrets/tokens")["projected"]["sources"], token);
    let authority = json!({"name": "istio-ca-root-cert", "optional": true});
    assert_eq!(mounted("/var/run/secrets/istio")["configMap"], authority);
    let labels = &mounted("/etc/istio/pod")["downwardAPI"]["items"][0];
    assert_eq!(
        (&labels["path"], &labels["fieldRef"]["fieldPath"]),
        (&json!("labels"), &json!("metadata.labels"))
    );
    for path in ["/var/lib/outrigger", "/run/outrigger"] {
        let volume = mounted(path);
        assert_eq!(volume["emptyDir"]["medium"], "Memory");
        assert!(volume["emptyDir"]["sizeLimit"].is_string());
    }
}

#[test]
fn a_pod_keeps_its_own_scrape_annotations() {
    let cases = [
        data(json!({}), true),
        data(json!({"prometheus.io/port": "8080"}), true),
        data(json!({"prometheus.io/scrape": "false"}), true),
    ];
    let shown = evaluate(&template(&json!({})), &cases);
    let scraped = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "15491",
                         "prometheus.io/path": "/metrics"});
    let annotations: Vec<&Value> = shown.iter().map(|p| &p["metadata"]["annotations"]).collect();
    assert_eq!(annotations, [&scraped, &Value::Null, &Value::Null]);
}

#[test]
fn hostile_annotations_stay_text() {
    let text = "a\"\n    securityContext: {privileged: true}\n#'{{ .Values }}";
    let given = json!({"outrigger.io/image": text, "outrigger.io/mode": text, "outrigger.io/memory": text,
                       "outrigger.io/config-map": text});
    let [partial] = evaluate(&template(&json!({})), &[data(given, true)]).try_into().unwrap();
    let sidecar = sidecar(&partial);
    assert_eq!(sidecar["image"], text);
    assert_eq!(sidecar["resources"]["limits"]["memory"], text);
    assert_eq!(sidecar["securityContext"]["privileged"], Value::Null);
    assert_eq!(variable(sidecar, "OUTRIGGER_MODE").unwrap()["value"], text);
}

/// Helm has functions that Istio lacks or means otherwise (`toYaml`, `include`, `contains`): the template
/// keeps to those of Go and of sprig that are the same in both.
#[test]
fn only_functions_that_both_have_are_used() {
    let shared = [
        "and",
        "default",
        "dict",
        "else",
        "end",
        "first",
        "hasSuffix",
        "if",
        "index",
        "last",
        "ne",
        "not",
        "or",
        "printf",
        "quote",
        "splitList",
        "ternary",
        "with",
    ];
    let template = template(&json!({"redis": {"existingSecret": {"name": "redis"}}}));
    let mut used = BTreeSet::new();
    let mut actions = 0;
    for action in template.split("{{").skip(1) {
        let action = action.split_once("}}").expect("closed").0;
        actions += 1;
        // Every second piece is inside quotes.
        for code in action.split('"').step_by(2) {
            let words = code.split(|c: char| !(c.is_alphanumeric() || "$._".contains(c)));
            used.extend(words.filter(|w| w.starts_with(char::is_alphabetic)).map(str::to_owned));
        }
    }
    assert!(actions > 30, "{actions}");
    let other: Vec<&String> = used.iter().filter(|word| !shared.contains(&word.as_str())).collect();
    assert!(other.is_empty(), "{other:?}");
}
