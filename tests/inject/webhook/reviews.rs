//! Admission reviews, as an API server sends them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};

use super::api::Api;
use super::harness::{Webhook, ask, ask_h2, open, send};

/// A pod as a Deployment makes it.
fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "cart-5d4f8c7b9-",
            "labels": {"app": "cart", "pod-template-hash": "5d4f8c7b9", "outrigger.io/inject": "true"},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-5d4f8c7b9", "uid": "r"},
            ],
        },
        "spec": {
            "containers": [{"name": "cart", "image": "cart:1", "ports": [{"containerPort": 8080}]}],
            "serviceAccountName": "cart",
        },
    })
}

pub fn review(uid: &str, pod: &Value, dry_run: bool) -> String {
    let gvk = json!({"group": "", "version": "v1", "kind": "Pod"});
    let request = json!({
        "uid": uid,
        "kind": gvk,
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": gvk,
        "namespace": "shop",
        "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        "object": pod,
        "oldObject": null,
        "dryRun": dry_run,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    });
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
        .to_string()
}

pub fn a_review() -> String {
    review("u-1", &pod(), false)
}

fn response(answer: &(StatusCode, String)) -> Value {
    assert_eq!(answer.0, StatusCode::OK, "{}", answer.1);
    let review: Value = serde_json::from_str(&answer.1).unwrap();
    assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(review["kind"], "AdmissionReview");
    review["response"].clone()
}

/// Applies the patch of a response: such patches only add.
fn patched(pod: &Value, response: &Value) -> Value {
    assert_eq!(response["patchType"], "JSONPatch");
    let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
    let mut pod = pod.clone();
    for operation in patch {
        assert_eq!(operation["op"], "add", "{operation}");
        let (parent, key) = operation["path"].as_str().unwrap().rsplit_once('/').unwrap();
        match pod.pointer_mut(parent).unwrap() {
            Value::Array(items) => items.insert(key.parse().unwrap(), operation["value"].clone()),
            map => map[key] = operation["value"].clone(),
        }
    }
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_injected_once_and_refusals_let_them_start() {
    let api = Api::start().await;
    let webhook = Webhook::own(&api, &[]).await;
    webhook.serving().await;
    let mut sender = open(webhook.addr, &api.bundle()).await.unwrap();
    let mut ask = async |body: String| send(&mut sender, "POST", "/inject", body).await.unwrap();

    let first = response(&ask(review("u-1", &pod(), false)).await);
    assert_eq!((&first["uid"], &first["allowed"]), (&json!("u-1"), &json!(true)));
    let injected = patched(&pod(), &first);
    let containers = injected["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 2);
    assert_eq!(containers[1]["image"], "r.io/outrigger:1");

    let dry = response(&ask(review("u-2", &pod(), true)).await);
    assert_eq!((&dry["uid"], &dry["patch"]), (&json!("u-2"), &first["patch"]));

    let again = response(&ask(review("u-3", &injected, false)).await);
    assert_eq!(again, json!({"uid": "u-3", "allowed": true}));

    let mut host = pod();
    host["spec"]["hostNetwork"] = json!(true);
    let refused = response(&ask(review("u-4", &host, false)).await);
    assert_eq!((&refused["allowed"], refused.get("patch")), (&json!(true), None));
    let warnings = refused["warnings"].to_string();
    assert!(warnings.contains("spec.hostNetwork") && warnings.contains("leave this pod out"));

    let mut typo = pod();
    typo["metadata"]["annotations"] = json!({"outrigger.io/memroy": "1Gi"});
    let warned = response(&ask(review("u-5", &typo, false)).await);
    assert!(warned["warnings"][0].as_str().unwrap().contains("did you mean outrigger.io/memory?"));
    assert!(warned["patch"].is_string());
    assert_eq!(webhook.logged(": injected pod="), 3, "with the dry run");
    assert_eq!(webhook.logged("not injected"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_review_is_refused_with_a_reason() {
    let api = Api::start().await;
    let webhook = Webhook::own(&api, &["--strict"]).await;
    webhook.serving().await;
    let (addr, bundle) = (webhook.addr, api.bundle());
    let post = async |body: Vec<u8>| ask(addr, &bundle, "POST", "/inject", body).await;

    let (status, reason) = post(b"garbage".to_vec()).await.unwrap();
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(reason.contains("the body is no AdmissionReview"), "{reason}");
    let beta = a_review().replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let (status, reason) = post(beta.into_bytes()).await.unwrap();
    assert!(status == StatusCode::BAD_REQUEST && reason.contains("admissionReviewVersions"));

    // As large as may be, and one byte more.
    let mut padded = a_review().into_bytes();
    padded.resize(3 << 20, b' ');
    assert_eq!(post(padded.clone()).await.unwrap().0, StatusCode::OK);
    padded.push(b' ');
    assert_eq!(post(padded).await.unwrap().0, StatusCode::PAYLOAD_TOO_LARGE);

    for (method, path, expected) in [
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/inject", 405),
        ("POST", "/other", 404),
    ] {
        let (status, _) = ask(addr, &bundle, method, path, "").await.unwrap();
        assert_eq!(status, expected, "{method} {path}");
    }
    let mut host = pod();
    host["spec"]["hostNetwork"] = json!(true);
    let strict = post(review("u-1", &host, false).into_bytes()).await.unwrap();
    let strict = response(&strict);
    assert!(strict["allowed"] == false && strict["status"]["code"] == 422, "{strict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_may_speak_http_2() {
    let api = Api::start().await;
    let webhook = Webhook::own(&api, &[]).await;
    webhook.serving().await;
    let answer = ask_h2(webhook.addr, &api.bundle(), a_review()).await;
    assert_eq!(response(&answer)["allowed"], true);
}
