//! What the webhook's objects say to each other: names, ports, rights.

use serde_json::{Value, json};

use crate::helm::{NAME, NAMESPACE, find, objects};

fn installed(values: &Value) -> Vec<Value> {
    let mut values = values.clone();
    values["webhook"]["enabled"] = json!(true);
    objects(&values)
}

fn pod(objects: &[Value]) -> &Value {
    &find(objects, "Deployment", &format!("{NAME}-webhook"))["spec"]["template"]
}

#[test]
fn flags_name_the_objects_that_it_may_write() {
    let objects = installed(&json!({}));
    let (service, secret) = (format!("{NAME}-webhook"), format!("{NAME}-webhook-tls"));
    let configuration = format!("{NAME}-{NAMESPACE}");
    let args = &pod(&objects)["spec"]["containers"][0]["args"];
    assert_eq!(
        *args,
        json!([
            "inject-webhook",
            "--config=/etc/outrigger/injection.yaml",
            "--listen=0.0.0.0:8443",
            "--namespace=$(POD_NAMESPACE)",
            format!("--service={service}"),
            format!("--secret={secret}"),
            format!("--webhook-configuration={configuration}"),
        ])
    );
    let role = find(&objects, "Role", &service);
    assert_eq!(role["metadata"]["namespace"], NAMESPACE);
    assert_eq!(
        role["rules"],
        json!([
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get", "update"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
        ])
    );
    let role = find(&objects, "ClusterRole", &configuration);
    assert_eq!(
        role["rules"],
        json!([{
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations"],
            "resourceNames": [configuration],
            "verbs": ["get", "patch", "update"],
        }])
    );
    let account = pod(&objects)["spec"]["serviceAccountName"].as_str().unwrap();
    find(&objects, "ServiceAccount", account);
    let subject = json!([{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]);
    for (kind, name) in [("RoleBinding", &service), ("ClusterRoleBinding", &configuration)] {
        let binding = find(&objects, kind, name);
        assert_eq!((&binding["subjects"], &binding["roleRef"]["name"]), (&subject, &json!(name)));
    }
}

#[test]
fn the_api_server_reaches_it_and_asks_for_the_right_pods() {
    let objects = installed(&json!({"webhook": {"excludedNamespaces": ["kube-system", "infra"]}}));
    let configuration =
        find(&objects, "MutatingWebhookConfiguration", &format!("{NAME}-{NAMESPACE}"));
    let [webhook] = configuration["webhooks"].as_array().unwrap().as_slice() else { panic!("one") };
    let client = &webhook["clientConfig"];
    assert!(client["caBundle"].is_null(), "the webhook's own would be lost with every upgrade");
    let service = find(&objects, "Service", client["service"]["name"].as_str().unwrap());
    assert_eq!(client["service"]["namespace"], service["metadata"]["namespace"]);
    let port = &service["spec"]["ports"][0];
    assert_eq!((&port["port"], &client["service"]["port"]), (&json!(443), &json!(443)));
    let pod = pod(&objects);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["ports"][0]["name"], port["targetPort"]);
    assert_eq!(container["ports"][0]["containerPort"], 8443);
    for (key, value) in service["spec"]["selector"].as_object().unwrap() {
        assert_eq!(pod["metadata"]["labels"][key], *value);
    }
    for probe in ["readinessProbe", "livenessProbe"] {
        let get = &container[probe]["httpGet"];
        assert_eq!(*get, json!({"path": "/healthz", "port": "https", "scheme": "HTTPS"}));
    }
    assert_eq!(webhook["objectSelector"], json!({"matchLabels": {"outrigger.io/inject": "true"}}));
    let left_alone = &webhook["namespaceSelector"]["matchExpressions"][0];
    assert_eq!(left_alone["values"], json!(["kube-system", "infra", NAMESPACE]));
    for (field, value) in [
        ("failurePolicy", json!("Ignore")),
        ("reinvocationPolicy", json!("IfNeeded")),
        ("sideEffects", json!("None")),
        ("matchPolicy", json!("Equivalent")),
        ("timeoutSeconds", json!(5)),
    ] {
        assert_eq!(webhook[field], value, "{field}");
    }
}

#[test]
fn its_own_pods_are_never_sent_to_it() {
    let objects = installed(&json!({}));
    let labels = pod(&objects)["metadata"]["labels"].as_object().unwrap();
    assert_eq!(labels["sidecar.istio.io/inject"], "false");
    assert!(!labels.contains_key("outrigger.io/inject"));
}

#[test]
fn its_pods_are_replaced_when_what_it_injects_changes_and_only_then() {
    let one = installed(&json!({}));
    let same = installed(
        &json!({"podMonitor": {"interval": "10s"}, "webhook": {"failurePolicy": "Fail"}}),
    );
    let other = installed(&json!({"sidecar": {"otlpUrl": "http://otel:4317"}}));
    assert_eq!(pod(&one), pod(&same));
    assert_ne!(pod(&one)["metadata"]["annotations"], pod(&other)["metadata"]["annotations"]);
}

#[test]
fn several_are_spread_and_not_evicted_together() {
    let objects = installed(&json!({"webhook": {"replicas": 3}}));
    let budget = &find(&objects, "PodDisruptionBudget", &format!("{NAME}-webhook"))["spec"];
    let deployment = &find(&objects, "Deployment", &format!("{NAME}-webhook"))["spec"];
    assert_eq!(budget["selector"], deployment["selector"]);
    assert_eq!((&budget["maxUnavailable"], &deployment["replicas"]), (&json!(1), &json!(3)));
    let spread = &deployment["template"]["spec"]["topologySpreadConstraints"][0];
    assert_eq!(spread["labelSelector"], deployment["selector"]);
    assert_eq!(spread["whenUnsatisfiable"], "ScheduleAnyway");
}
