//! Admission reviews: what the API server asks of a webhook, and what it answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_diagnostic::Diagnostic;
use serde::Deserialize;
use serde_json::{Value, json};

use super::patch::diff;
use crate::config::Options;
use crate::pod::{Choice, choice, inject};

const VERSION: &str = "admission.k8s.io/v1";

/// The outcome of a review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A patch was answered.
    Injected,
    /// Outrigger is in the pod already.
    Unchanged,
    /// The pod does not ask for it, or it is no new pod.
    NotAsked,
    /// Outrigger cannot be put into this pod.
    Refused(Diagnostic),
}

/// Why a body is no review.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReviewError {
    /// A body that is not the JSON of a review.
    #[error("the body is no AdmissionReview: {0}")]
    Body(#[from] serde_json::Error),
    /// A body of another kind or another version.
    #[error(
        "{api_version} {kind} is no AdmissionReview of {VERSION}; set admissionReviewVersions: [v1] in the webhook configuration"
    )]
    Version { api_version: String, kind: String },
    /// A review without a request.
    #[error("the review has no request")]
    NoRequest,
    /// A request without the identifier that an answer has to repeat.
    #[error("the request has no uid")]
    NoUid,
}

/// An answer, with what the log says of it.
#[derive(Debug)]
pub(super) struct Answer {
    pub body: Value,
    pub outcome: Outcome,
    pub warnings: Vec<String>,
    pub uid: String,
    /// Namespace and name, as far as they are known.
    pub pod: String,
    pub dry_run: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Request {
    uid: String,
    kind: Kind,
    sub_resource: String,
    name: String,
    namespace: String,
    operation: String,
    dry_run: bool,
    object: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Kind {
    group: String,
    version: String,
    kind: String,
}

/// Answers a review. It decides by the request alone, so that a dry run needs no care.
///
/// # Errors
/// When it is no review.
pub(super) fn answer(body: &[u8], options: &Options, strict: bool) -> Result<Answer, ReviewError> {
    let Review { api_version, kind, request } = serde_json::from_slice(body)?;
    if api_version != VERSION || kind != "AdmissionReview" {
        return Err(ReviewError::Version { api_version, kind });
    }
    let request = request.ok_or(ReviewError::NoRequest)?;
    if request.uid.is_empty() {
        return Err(ReviewError::NoUid);
    }
    let mut response = json!({"uid": request.uid, "allowed": true});
    let (outcome, mut warnings) = decide(&request, options, &mut response);
    if let Outcome::Refused(refusal) = &outcome {
        if strict {
            response["allowed"] = json!(false);
            response["status"] = json!({"code": 422, "message": format!("Outrigger: {refusal}")});
        } else {
            // In parts: the API server cuts a warning after 256 characters.
            let mut refusal = refusal.clone();
            let fix = refusal.fix.take();
            warnings.push(format!("Outrigger was not injected: {refusal}"));
            warnings.extend(fix.map(|fix| format!("Outrigger was not injected: {fix}")));
        }
    }
    if !warnings.is_empty() {
        response["warnings"] = json!(warnings);
    }
    Ok(Answer {
        body: json!({"apiVersion": VERSION, "kind": "AdmissionReview", "response": response}),
        outcome,
        warnings,
        pod: describe(&request),
        uid: request.uid,
        dry_run: request.dry_run,
    })
}

fn decide(request: &Request, options: &Options, response: &mut Value) -> (Outcome, Vec<String>) {
    let Kind { group, version, kind } = &request.kind;
    let is_pod = (group.as_str(), version.as_str(), kind.as_str()) == ("", "v1", "Pod");
    if !is_pod || request.operation != "CREATE" || !request.sub_resource.is_empty() {
        return (Outcome::NotAsked, Vec::new());
    }
    match choice(&request.object) {
        Ok(Choice::Asked) => {}
        Ok(Choice::Declined | Choice::Silent) => return (Outcome::NotAsked, Vec::new()),
        Err(refusal) => return (Outcome::Refused(refusal), Vec::new()),
    }
    match inject(&request.object, options) {
        Err(refusal) => (Outcome::Refused(refusal), Vec::new()),
        Ok(injection) => {
            let patch = diff(&request.object, &injection.pod);
            if patch.is_empty() {
                return (Outcome::Unchanged, injection.warnings);
            }
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(STANDARD.encode(Value::Array(patch).to_string()));
            (Outcome::Injected, injection.warnings)
        }
    }
}

/// A pod of a workload has no name yet, but the beginning of one.
fn describe(request: &Request) -> String {
    let of_object = |field: &str| {
        let found = request.object.pointer(&format!("/metadata/{field}"));
        found.and_then(Value::as_str).filter(|name| !name.is_empty())
    };
    let given = Some(request.name.as_str()).filter(|name| !name.is_empty());
    let name = given.or_else(|| of_object("name")).or_else(|| of_object("generateName"));
    format!("{}/{}", request.namespace, name.unwrap_or("(no name)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InjectionConfig, LABEL};

    fn review(change: impl FnOnce(&mut Value)) -> Value {
        let pod = json!({
            "metadata": {"generateName": "cart-", "labels": {LABEL: "true"}},
            "spec": {"containers": [{"name": "app"}]},
        });
        let mut review = json!({
            "apiVersion": VERSION,
            "kind": "AdmissionReview",
            "request": {
                "uid": "u-1",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "namespace": "shop",
                "operation": "CREATE",
                "object": pod,
            },
        });
        change(&mut review);
        review
    }

    fn ask(review: &Value, strict: bool) -> Result<Answer, ReviewError> {
        let options = InjectionConfig::default().options("test").unwrap();
        answer(review.to_string().as_bytes(), &options, strict)
    }

    #[test]
    fn a_pod_that_asks_gets_a_patch() {
        let answer = ask(&review(|_| {}), false).unwrap();
        assert_eq!((answer.outcome, answer.pod.as_str()), (Outcome::Injected, "shop/cart-"));
        let response = &answer.body["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("u-1"), &json!(true)));
        assert_eq!(response["patchType"], "JSONPatch");
        let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
        let added = patch.iter().find(|op| op["path"] == "/spec/containers/1").unwrap();
        assert_eq!((&added["op"], &added["value"]["name"]), (&json!("add"), &json!("outrigger")));
    }

    #[test]
    fn what_does_not_ask_is_let_through() {
        let not_asked: [fn(&mut Value); 6] = [
            |review| review["request"]["operation"] = json!("UPDATE"),
            |review| review["request"]["subResource"] = json!("ephemeralcontainers"),
            |review| review["request"]["kind"]["kind"] = json!("Service"),
            |review| review["request"]["kind"]["group"] = json!("other"),
            |review| review["request"]["object"]["metadata"]["labels"] = json!({}),
            |review| review["request"]["object"]["metadata"]["labels"][LABEL] = json!("false"),
        ];
        for change in not_asked {
            let answer = ask(&review(change), true).unwrap();
            assert_eq!(answer.outcome, Outcome::NotAsked);
            assert_eq!(answer.body["response"], json!({"uid": "u-1", "allowed": true}));
        }
    }

    #[test]
    fn a_refusal_lets_the_pod_start_unless_it_is_strict() {
        let host =
            |review: &mut Value| review["request"]["object"]["spec"]["hostNetwork"] = json!(true);
        let answer = ask(&review(host), false).unwrap();
        let response = &answer.body["response"];
        assert!(matches!(answer.outcome, Outcome::Refused(_)));
        assert!(response["allowed"] == true && response.get("patch").is_none());
        let warnings = response["warnings"].as_array().unwrap();
        assert!(warnings[0].as_str().unwrap().contains("spec.hostNetwork"), "{warnings:?}");
        assert!(warnings.iter().all(|warning| warning.as_str().unwrap().len() <= 256));

        let answer = ask(&review(host), true).unwrap();
        let response = &answer.body["response"];
        assert!(response["allowed"] == false && response["status"]["code"] == 422);
        assert!(response["status"]["message"].as_str().unwrap().contains("spec.hostNetwork"));
    }

    #[test]
    fn what_is_no_review_is_refused_with_a_reason() {
        type Change = fn(&mut Value);
        let wrong: [(Change, &str); 4] = [
            (|review| *review = json!([]), "the body is no AdmissionReview"),
            (|review| review["apiVersion"] = json!("admission.k8s.io/v1beta1"), "v1beta1"),
            (|review| review["request"] = json!(null), "the review has no request"),
            (|review| review["request"]["uid"] = json!(""), "the request has no uid"),
        ];
        for (change, expected) in wrong {
            let error = ask(&review(change), false).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
