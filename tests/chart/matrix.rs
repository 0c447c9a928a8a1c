//! Every choice of values with every other: what Helm writes is valid and holds together.

use std::collections::BTreeSet;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::helm::{NAME, NAMESPACE, chart, documents, find, helm, kinds, objects};
use crate::judge::{self, NATIVE_RELEASES, RELEASES};
use crate::pods;

/// All combinations of what an installation chooses.
fn combinations() -> Vec<Value> {
    let redis = [
        json!({}),
        json!({"url": "redis://redis.shop.svc:6379"}),
        json!({"existingSecret": {"name": "redis-url", "key": "address"}}),
        json!({"deploy": {"enabled": true, "workloadNamespaces": ["shop"]}}),
    ];
    // Without the webhook there is nothing that these two would change, and they do not meet each other.
    let webhook = [
        json!({"enabled": false}),
        json!({"enabled": true, "replicas": 1, "nativeSidecars": "never"}),
        json!({"enabled": true, "replicas": 3, "nativeSidecars": "always"}),
    ];
    let mut all = Vec::new();
    for mesh in ["istio", "none"] {
        for redis in &redis {
            for webhook in &webhook {
                for prometheus in ["annotations", "podMonitor", "none"] {
                    all.push(json!({"mesh": mesh, "redis": redis, "webhook": webhook,
                                    "prometheus": prometheus}));
                }
            }
        }
    }
    all
}

/// Every kind and name that these values ask for, and no other.
fn expected(values: &Value) -> String {
    let mut all: Vec<String> = Vec::new();
    let mut add = |kind: &str, suffix: &str| all.push(format!("{kind}/{NAME}{suffix}"));
    if values["mesh"] == "istio" {
        add("ConfigMap", "-istio-injection");
    }
    if values["prometheus"] == "podMonitor" {
        add("PodMonitor", "");
    }
    if values["webhook"]["enabled"] == true {
        for kind in ["ConfigMap", "Deployment", "Role", "RoleBinding", "Service", "ServiceAccount"]
        {
            add(kind, "-webhook");
        }
        for kind in ["ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration"] {
            add(kind, &format!("-{NAMESPACE}"));
        }
        if values["webhook"]["replicas"] == 3 {
            add("PodDisruptionBudget", "-webhook");
        }
    }
    if values["redis"]["deploy"]["enabled"] == true {
        // One Secret in each of the two namespaces.
        for kind in ["Deployment", "NetworkPolicy", "Secret", "Secret", "Service"] {
            add(kind, "-redis");
        }
    }
    all.sort();
    all.join(" ")
}

/// The sidecar that the webhook is told to inject, in a small pod.
fn webhook_pod(objects: &[Value], values: &Value) -> (Value, bool) {
    let config = find(objects, "ConfigMap", &format!("{NAME}-webhook"));
    let text = config["data"]["injection.yaml"].as_str().unwrap();
    let [injection] = documents(text).try_into().unwrap();
    let native = injection["native"].as_bool().unwrap();
    assert_eq!(native, values["webhook"]["nativeSidecars"] == "always");
    assert_eq!(injection["mesh"], values["mesh"]);
    let mut partial = injection["template"].clone();
    let mut container = partial["spec"]["containers"][0].clone();
    assert_eq!(container["name"], "outrigger");
    assert_eq!(partial["spec"]["containers"].as_array().unwrap().len(), 1);
    assert!(container["restartPolicy"].is_null());
    if native {
        container["restartPolicy"] = json!("Always");
        partial["spec"] =
            json!({"initContainers": [container], "volumes": partial["spec"]["volumes"]});
    }
    let mut pod = pods::application();
    pods::merge(&mut pod, &partial);
    (pod, native)
}

fn check_sidecar(spec: &Value, values: &Value) {
    let sidecar = pods::container(spec, "outrigger");
    let has = |name: &str| pods::variable(sidecar, name).is_some();
    let istio = values["mesh"] == "istio";
    for name in ["OUTRIGGER_XDS", "OUTRIGGER_MODE", "TRUST_DOMAIN", "CLUSTER_ID"] {
        assert_eq!(has(name), istio, "{name}");
    }
    assert_eq!(has("OUTRIGGER_LISTEN"), !istio);
    assert_eq!(has("OUTRIGGER_METRICS"), values["prometheus"] != "none");
    assert_eq!(has("OUTRIGGER_REDIS"), !values["redis"].as_object().unwrap().is_empty());
    if let Some(secret) = pods::variable(sidecar, "OUTRIGGER_REDIS")
        .and_then(|redis| redis["valueFrom"]["secretKeyRef"].as_object())
    {
        assert_eq!(secret["optional"], true, "a missing Secret must not stop a pod");
    }
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let command = sidecar[probe]["exec"]["command"].as_array().unwrap();
        assert_eq!(command[0], "/usr/local/bin/outrigger");
    }
    let istio_volumes = spec["volumes"].as_array().unwrap().len() > 2;
    assert_eq!(istio_volumes, istio);
}

fn check(values: &Value) -> Vec<(Value, bool)> {
    let objects = objects(values);
    assert_eq!(kinds(&objects), expected(values), "{values}");
    let mut all: Vec<(Value, bool)> = Vec::new();
    if values["webhook"]["enabled"] == true {
        let deployment = find(&objects, "Deployment", &format!("{NAME}-webhook"));
        pods::check(&deployment["spec"]["template"]["spec"], &["webhook"]);
        let (mut pod, native) = webhook_pod(&objects, values);
        if values["mesh"] == "none" {
            // As the webhook does: before all others.
            let list = if native { "initContainers" } else { "containers" };
            let containers = pod["spec"][list].as_array_mut().unwrap();
            let sidecar = containers.iter_mut().find(|one| one["name"] == "outrigger").unwrap();
            let port = json!({"name": "OUTRIGGER_UPSTREAM_PORT", "value": "8080"});
            sidecar["env"].as_array_mut().unwrap().insert(0, port);
        }
        pods::check(&pod["spec"], &["outrigger"]);
        check_sidecar(&pod["spec"], values);
        all.push((pod, native));
    }
    all.extend(objects.into_iter().map(|object| (object, false)));
    all
}

#[test]
fn every_combination_is_valid() {
    let combinations = combinations();
    assert_eq!(combinations.len(), 72);
    let next = Mutex::new(combinations.iter());
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(values) = next.lock().unwrap().next() else { return };
                    let objects = check(values);
                    found.lock().unwrap().extend(objects);
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    let of =
        |native: bool| found.iter().filter(move |(_, n)| *n == native).map(|(object, _)| object);
    let judged = judge::all_valid(of(false), &RELEASES);
    let native = judge::all_valid(of(true), &NATIVE_RELEASES);
    println!("{judged} distinct objects, {native} distinct pods with a native sidecar");
    assert!(judged >= 40 && native >= 24, "{judged}, {native}");
    let kinds: BTreeSet<&str> = found.iter().map(|(o, _)| o["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.len(), 14, "{kinds:?}");
}

#[test]
fn lint_has_nothing_to_say() {
    for values in [
        json!({}),
        json!({"mesh": "none", "webhook": {"enabled": true}, "prometheus": "podMonitor"}),
        json!({"redis": {"deploy": {"enabled": true}}}),
    ] {
        let said = helm(&["lint", "--strict", &chart(), "-f", "-"], &values);
        assert!(
            said.ok && said.out.contains("1 chart(s) linted, 0 chart(s) failed"),
            "{}",
            said.out
        );
    }
}

#[test]
fn what_is_asked_for_is_what_is_written() {
    let values = json!({
        "commonLabels": {"team": "edge"},
        "image": {"repository": "registry.example.com:5000/edge/outrigger", "tag": "1.2.3"},
        "imagePullSecrets": [{"name": "registry"}],
        "sidecar": {
            "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
            "stateSizeLimit": "32Mi",
            "otlpUrl": "http://otel.observability.svc:4317",
            "env": [{"name": "RUST_BACKTRACE", "value": "1"}],
        },
        "istio": {"namespace": "mesh", "revision": "canary", "clusterId": "east", "trustDomain": "corp"},
        "prometheus": "podMonitor",
        "podMonitor": {"namespaces": ["shop"], "matchLabels": {"a": "b"}, "labels": {"prometheus": "main"},
                       "interval": "30s", "scrapeTimeout": "10s"},
        "webhook": {
            "enabled": true, "replicas": 2, "priorityClassName": "system-cluster-critical",
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "infra", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"nodeAffinity": {}}, "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"},
            "serviceAccount": {"annotations": {"e": "f"}}, "namespaceMatchLabels": {"cache": "on"},
            "podDisruptionBudget": {"maxUnavailable": "50%"}, "failurePolicy": "Fail",
        },
    });
    let objects = objects(&values);
    judge::all_valid(&objects, &RELEASES);
    for object in &objects {
        assert_eq!(object["metadata"]["labels"]["team"], "edge", "{object}");
    }
    let (pod, _) =
        webhook_pod(&objects, &json!({"mesh": "istio", "webhook": {"nativeSidecars": "always"}}));
    let sidecar = pods::container(&pod["spec"], "outrigger");
    assert_eq!(sidecar["image"], "registry.example.com:5000/edge/outrigger:1.2.3");
    assert_eq!(sidecar["resources"], values["sidecar"]["resources"]);
    for (name, value) in [
        ("OUTRIGGER_XDS", "grpcs://istiod-canary.mesh.svc:15012"),
        ("OUTRIGGER_OTLP", "http://otel.observability.svc:4317"),
        ("CLUSTER_ID", "east"),
        ("TRUST_DOMAIN", "corp"),
        ("RUST_BACKTRACE", "1"),
    ] {
        assert_eq!(pods::variable(sidecar, name).unwrap()["value"], value);
    }
    let pod = &find(&objects, "Deployment", "or-outrigger-webhook")["spec"]["template"];
    for field in ["priorityClassName", "nodeSelector", "tolerations", "affinity"] {
        assert_eq!(pod["spec"][field], values["webhook"][field], "{field}");
    }
    assert_eq!(pod["spec"]["imagePullSecrets"], values["imagePullSecrets"]);
    assert_eq!(
        (&pod["metadata"]["annotations"]["a"], &pod["metadata"]["labels"]["c"]),
        (&json!("b"), &json!("d"))
    );
    let monitor = &find(&objects, "PodMonitor", NAME)["spec"];
    assert_eq!(monitor["namespaceSelector"], json!({"matchNames": ["shop"]}));
    assert_eq!(monitor["selector"], json!({"matchLabels": {"a": "b"}}));
    assert_eq!(monitor["podMetricsEndpoints"][0]["interval"], "30s");
}

#[test]
fn native_sidecars_follow_the_cluster() {
    let native = |release: &str, choice: &str| {
        let values = json!({"webhook": {"enabled": true, "nativeSidecars": choice}});
        let show = "templates/webhook/configmap.yaml";
        let chart = chart();
        let args =
            ["template", "or", &chart, "-f", "-", "--kube-version", release, "--show-only", show];
        let said = helm(&args, &values);
        if said.ok { Ok(said.out.contains("native: true")) } else { Err(said.err) }
    };
    assert_eq!(native("v1.32.9", "auto"), Ok(false));
    assert_eq!(native("v1.33.0", "auto"), Ok(true));
    assert_eq!(native("v1.33.1-gke.100", "auto"), Ok(true));
    assert_eq!(native("v1.29.0", "always"), Ok(true));
    assert_eq!(native("v1.34.0", "never"), Ok(false));
    let error = native("v1.28.4", "always").unwrap_err();
    assert!(error.contains("webhook.nativeSidecars: this cluster is v1.28.4"), "{error}");
    let error = native("v1.24.0", "auto").unwrap_err();
    assert!(error.contains(">=1.25.0-0"), "{error}");
}
