//! What an operator is told after the installation: the next command, for what was chosen.

use serde_json::{Value, json};

use crate::apiserver::ApiServer;

fn notes(values: Value) -> String {
    ApiServer::start(Vec::new()).install(&values).1
}

/// `kubectl patch … -p '…'`: the patches in the text, each of which must be JSON.
fn patches(notes: &str) -> Vec<Value> {
    let quoted = notes.lines().filter(|line| line.contains(" patch ")).map(|line| {
        let text = line.split('\'').nth(1).unwrap_or_else(|| panic!("no patch in {line}"));
        serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    });
    quoted.collect()
}

#[test]
fn istio_is_told_how_istiod_learns_of_the_template() {
    let notes = notes(json!({}));
    for line in [
        "kubectl -n caches get configmap or-outrigger-istio-injection -o jsonpath='{.data.values\\.yaml}' > outrigger-istiod-values.yaml",
        "helm upgrade istiod istio/istiod -n istio-system --reuse-values -f outrigger-istiod-values.yaml",
        "kubectl -n shop port-forward deployment/catalog 15490 &",
        "curl -s localhost:15490/stats",
    ] {
        assert!(notes.contains(line), "{line} is not in:\n{notes}");
    }
    let metadata = json!({"annotations": {"inject.istio.io/templates": "sidecar,outrigger"}});
    assert_eq!(patches(&notes), [json!({"spec": {"template": {"metadata": metadata}}})]);
    assert!(!notes.contains("outrigger.io/inject") && !notes.contains("Redis"), "{notes}");
}

#[test]
fn the_webhook_is_told_the_label() {
    let webhook = json!({"enabled": true});
    let in_mesh = notes(json!({"webhook": webhook}));
    let metadata = json!({"labels": {"outrigger.io/inject": "true"}});
    assert_eq!(patches(&in_mesh), [json!({"spec": {"template": {"metadata": metadata}}})]);
    assert!(in_mesh.contains("EnvoyFilters") && !in_mesh.contains("istiod"), "{in_mesh}");

    let alone = notes(json!({"webhook": webhook, "mesh": "none"}));
    let metadata = json!({"labels": {"outrigger.io/inject": "true"},
                          "annotations": {"outrigger.io/upstream-port": "8080"}});
    let port =
        json!([{"op": "replace", "path": "/spec/ports/0/targetPort", "value": "http-outrigger"}]);
    assert_eq!(patches(&alone), [json!({"spec": {"template": {"metadata": metadata}}}), port]);
    assert!(alone.contains("curl -s localhost:15490/stats") && !alone.contains("Envoy"), "{alone}");
}

#[test]
fn an_installation_that_injects_nothing_says_so() {
    let notes = notes(json!({"mesh": "none"}));
    assert!(notes.contains("NOTHING INJECTS YET"), "{notes}");
    assert!(notes.contains("--set webhook.enabled=true") && !notes.contains("curl"), "{notes}");
}

#[test]
fn redis_is_explained_when_there_is_one() {
    let secret =
        notes(json!({"redis": {"existingSecret": {"name": "redis-url", "key": "address"}}}));
    let command = "kubectl -n shop create secret generic redis-url --from-literal=address=redis://";
    assert!(secret.contains(command), "{secret}");
    let deployed = notes(json!({"redis": {"deploy": {"enabled": true}}}));
    assert!(deployed.contains("NOT FOR PRODUCTION"), "{deployed}");
    assert!(deployed.contains("--set 'redis.deploy.workloadNamespaces={shop}'"), "{deployed}");
    let shared =
        notes(json!({"redis": {"deploy": {"enabled": true, "workloadNamespaces": ["shop"]}}}));
    assert!(shared.contains("Secret or-outrigger-redis of: shop, caches"), "{shared}");
}
