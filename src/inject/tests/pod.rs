use serde_json::{Value, json};

use super::{annotated, injected, names, options, ours, pod, variable, with_defaults};
use crate::annotations::{
    CONFIG_MAP, IMAGE, MEMORY, MODE, NATIVE, POLICY_CONFIG_MAP, REDIS_SECRET, STATUS, UPSTREAM_PORT,
};
use crate::{Choice, DEFAULT_IMAGE, LABEL, Mesh, VERSION, choice, inject};

#[test]
fn an_ordinary_container_comes_last_and_has_no_start_up_probe() {
    let after = injected(&pod(json!({})), &options(Mesh::Istio, false));
    assert_eq!(names(&after, "containers"), ["app", "outrigger"]);
    assert!(after["spec"].get("initContainers").is_none());
    let (_, _, container) = ours(&after);
    assert_eq!(container["image"], DEFAULT_IMAGE);
    assert!(container.get("startupProbe").is_none() && container.get("restartPolicy").is_none());
    assert_eq!(variable(container, "OUTRIGGER_MODE")["value"], "inbound");
    assert_eq!(
        variable(container, "OUTRIGGER_XDS")["value"],
        "grpcs://istiod.istio-system.svc:15012"
    );
}

#[test]
fn a_native_sidecar_starts_after_the_network_and_before_the_rest() {
    let cases: [(&[&str], &[&str]); 6] = [
        (&[], &["outrigger"]),
        (&["migrate"], &["outrigger", "migrate"]),
        (&["istio-init", "migrate"], &["istio-init", "outrigger", "migrate"]),
        (&["istio-validation"], &["istio-validation", "outrigger"]),
        (
            &["istio-init", "istio-proxy", "migrate"],
            &["istio-init", "istio-proxy", "outrigger", "migrate"],
        ),
        (&["migrate", "istio-proxy"], &["migrate", "istio-proxy", "outrigger"]),
    ];
    for (before, after) in cases {
        let init: Vec<Value> = before.iter().map(|name| json!({"name": name})).collect();
        let pod = pod(json!({"initContainers": init}));
        let result = injected(&pod, &options(Mesh::Istio, true));
        assert_eq!(names(&result, "initContainers"), after);
        assert_eq!(names(&result, "containers"), ["app"]);
        let (_, _, container) = ours(&result);
        assert_eq!(container["restartPolicy"], "Always");
        assert!(container["startupProbe"]["exec"].is_object());
    }
}

#[test]
fn a_native_sidecar_moves_when_another_injector_came_later() {
    let options = options(Mesh::Istio, true);
    let mut first = injected(&pod(json!({})), &options);
    let init = first["spec"]["initContainers"].as_array_mut().unwrap();
    init.push(json!({"name": "istio-proxy", "restartPolicy": "Always"}));
    let second = injected(&first, &options);
    assert_eq!(names(&second, "initContainers"), ["istio-proxy", "outrigger"]);
    assert_eq!(injected(&second, &options), second);
}

#[test]
fn its_place_is_left_to_other_injectors_where_it_does_not_matter() {
    let ordinary = options(Mesh::Istio, false);
    let mut first = injected(&pod(json!({})), &ordinary);
    first["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "istio-proxy"}));
    let second = injected(&first, &ordinary);
    assert_eq!(names(&second, "containers"), ["app", "outrigger", "istio-proxy"]);

    let native = options(Mesh::Istio, true);
    let mut first = injected(&pod(json!({})), &native);
    let init = first["spec"]["initContainers"].as_array_mut().unwrap();
    init.insert(0, json!({"name": "istio-proxy"}));
    init.insert(1, json!({"name": "vault-agent"}));
    let second = injected(&first, &native);
    assert_eq!(names(&second, "initContainers"), ["istio-proxy", "vault-agent", "outrigger"]);
}

#[test]
fn each_annotation_has_its_effect() {
    let (istio, alone) = (options(Mesh::Istio, false), options(Mesh::None, false));
    let after = injected(&annotated(IMAGE, "r/o:2"), &istio);
    assert_eq!(ours(&after).2["image"], "r/o:2");

    let after = injected(&annotated(MODE, "outbound"), &istio);
    assert_eq!(variable(ours(&after).2, "OUTRIGGER_MODE")["value"], "outbound");

    let after = injected(&annotated(NATIVE, "true"), &istio);
    assert_eq!(ours(&after).0, "initContainers");
    let after = injected(&annotated(NATIVE, "false"), &options(Mesh::Istio, true));
    assert_eq!(ours(&after).0, "containers");

    let after = injected(&annotated(MEMORY, "512Mi"), &istio);
    let resources = &ours(&after).2["resources"];
    assert_eq!(resources["limits"], json!({"memory": "512Mi"}));
    assert_eq!(resources["requests"], json!({"cpu": "50m", "memory": "512Mi"}));

    let after = injected(&annotated(UPSTREAM_PORT, "9000"), &alone);
    assert_eq!(variable(ours(&after).2, "OUTRIGGER_UPSTREAM_PORT")["value"], "9000");

    let after = injected(&annotated(REDIS_SECRET, "redis/url"), &istio);
    assert_eq!(
        variable(ours(&after).2, "OUTRIGGER_REDIS"),
        &json!({
            "name": "OUTRIGGER_REDIS",
            "valueFrom": {"secretKeyRef": {"name": "redis", "key": "url", "optional": true}},
        })
    );
}

#[test]
fn config_maps_are_mounted_and_named() {
    let cases = [
        (CONFIG_MAP, "config", "OUTRIGGER_CONFIG", "outrigger.yaml", Mesh::Istio),
        (CONFIG_MAP, "config", "OUTRIGGER_CONFIG", "outrigger.yaml", Mesh::None),
        (POLICY_CONFIG_MAP, "policy", "OUTRIGGER_POLICY", "policy.yaml", Mesh::None),
    ];
    for (annotation, what, name, file, mesh) in cases {
        let after = injected(&annotated(annotation, "cart-files"), &options(mesh, false));
        let (_, _, container) = ours(&after);
        let folder = format!("/etc/outrigger/{what}");
        assert_eq!(variable(container, name)["value"], format!("{folder}/{file}"));
        let volume = format!("outrigger-{what}");
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(
            mounts.contains(&json!({"name": volume, "mountPath": folder, "readOnly": true})),
            "{mounts:?}"
        );
        let source = json!({"name": "cart-files", "optional": true});
        let volumes = after["spec"]["volumes"].as_array().unwrap();
        assert!(volumes.contains(&json!({"name": volume, "configMap": source})), "{volumes:?}");
    }
}

#[test]
fn without_a_mesh_the_only_port_is_the_upstream() {
    let options = options(Mesh::None, false);
    let after = injected(&pod(json!({})), &options);
    let (_, _, container) = ours(&after);
    // `$(...)` sees only what comes before it.
    assert_eq!(container["env"][0]["name"], "OUTRIGGER_UPSTREAM_PORT");
    assert_eq!(container["env"][0]["value"], "8080");
    let upstream = variable(container, "OUTRIGGER_UPSTREAM");
    assert_eq!(upstream["value"], "http://127.0.0.1:$(OUTRIGGER_UPSTREAM_PORT)");
    assert_eq!(variable(container, "OUTRIGGER_MODE"), &Value::Null);

    let ports = |ports: Value| pod(json!({"containers": [{"name": "app", "ports": ports}]}));
    let udp_too = json!([{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 80}]);
    let after = injected(&ports(udp_too), &options);
    assert_eq!(ours(&after).2["env"][0]["value"], "80");
    for several in [json!([]), json!([{"containerPort": 80}, {"containerPort": 81}])] {
        let refusal = inject(&ports(several), &options).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "metadata.annotations[\"outrigger.io/upstream-port\"]: it is missing, and the pod's \
             containers do not declare exactly one containerPort; write the port of the \
             application, such as \"8080\""
        );
    }
}

#[test]
fn the_status_tells_what_was_injected() {
    let after = injected(&pod(json!({})), &options(Mesh::None, false));
    let status = after["metadata"]["annotations"][STATUS].as_str().unwrap();
    let status: Value = serde_json::from_str(status).unwrap();
    let volumes = ["outrigger-state", "outrigger-run"];
    let expected = json!({"version": VERSION, "container": "outrigger", "volumes": volumes});
    assert_eq!(status, expected);
}

#[test]
fn pods_in_which_it_could_not_work_are_refused() {
    let app = |more: Value| {
        let mut app = json!({"name": "app"});
        app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"containers": [{"name": "side"}, app]})
    };
    let user = json!({"runAsUser": 15480});
    let cases = [
        (json!({"hostNetwork": true}), "spec.hostNetwork: "),
        (json!({"os": {"name": "windows"}}), "spec.os.name: "),
        (json!({"restartPolicy": "OnFailure"}), "spec.restartPolicy: OnFailure: "),
        (json!({"restartPolicy": "Never"}), "spec.restartPolicy: Never: "),
        (
            json!({"containers": [{"name": "app"}, {"name": "outrigger"}]}),
            "spec.containers[1].name: a container named outrigger is there already",
        ),
        (json!({"initContainers": [{"name": "outrigger"}]}), "spec.initContainers[0].name: "),
        (
            json!({"volumes": [{"name": "outrigger-run", "hostPath": {"path": "/run"}}]}),
            "spec.volumes[0]: a volume \"outrigger-run\" is there already",
        ),
        (
            app(json!({"securityContext": user})),
            "spec.containers[1].securityContext.runAsUser: container \"app\" runs as user 15480",
        ),
        (json!({"securityContext": user}), "spec.securityContext.runAsUser: container \"app\""),
        (
            app(json!({"ports": [{"containerPort": 80}, {"containerPort": 15480}]})),
            "spec.containers[1].ports[1].containerPort: Outrigger listens on port 15480 itself",
        ),
        (json!({"containers": []}), "spec.containers: there is none"),
        (json!({"containers": {}}), "spec.containers: not a list"),
        (json!({"volumes": [1]}), "spec.volumes[0]: not a mapping"),
    ];
    for (spec, expected) in cases {
        let refusal = inject(&pod(spec.clone()), &options(Mesh::Istio, false)).unwrap_err();
        let text = refusal.to_string();
        assert!(text.starts_with(expected), "{spec}: {text}");
        // The API server cuts longer warnings.
        let fix = refusal.fix.unwrap();
        assert!(refusal.place.path.len() + refusal.reason.len() < 240 && fix.len() < 240);
    }
}

#[test]
fn what_only_looks_like_a_clash_is_let_in() {
    let cases = [
        json!({"hostNetwork": false}),
        json!({"volumes": [{"name": "outrigger-run", "emptyDir": {}}, {"name": "tmp"}]}),
        json!({
            "securityContext": {"runAsUser": 15480},
            "containers": [{"name": "app", "securityContext": {"runAsUser": 1000}}],
        }),
        json!({"containers": [
            {"name": "app", "ports": [{"containerPort": 15480, "protocol": "UDP"}]},
        ]}),
        json!({"initContainers": null, "volumes": null}),
    ];
    for spec in cases {
        let result = inject(&pod(spec.clone()), &options(Mesh::Istio, false));
        assert!(result.is_ok(), "{spec}: {result:?}");
    }
    let job = pod(json!({"restartPolicy": "Never"}));
    assert!(
        inject(&job, &options(Mesh::Istio, true)).is_ok(),
        "a native sidecar ends with its pod"
    );
    let mut inbound = options(Mesh::Istio, false);
    inbound.sides = "inbound".parse().unwrap();
    let ports = json!({"containers": [{"name": "app", "ports": [{"containerPort": 15481}]}]});
    assert!(inject(&pod(ports), &inbound).is_ok(), "no outbound listener");
}

#[test]
fn the_label_decides() {
    let with = |value: Value| json!({"metadata": {"labels": {LABEL: value}}});
    assert_eq!(choice(&with(json!("true"))), Ok(Choice::Asked));
    assert_eq!(choice(&with(json!("false"))), Ok(Choice::Declined));
    assert_eq!(choice(&json!({})), Ok(Choice::Silent));
    for wrong in [json!("yes"), json!(true), json!("")] {
        assert!(choice(&with(wrong)).is_err());
    }
    let mut declined = pod(json!({}));
    declined["metadata"]["labels"][LABEL] = json!("false");
    let refusal = inject(&declined, &options(Mesh::Istio, false)).unwrap_err().to_string();
    assert!(refusal.contains("the pod declines Outrigger"), "{refusal}");
}

#[test]
fn a_second_injection_changes_nothing_even_with_the_defaults_of_the_api_server() {
    for mesh in [Mesh::Istio, Mesh::None] {
        for native in [false, true] {
            let options = options(mesh, native);
            let mut pod = pod(json!({"initContainers": [{"name": "istio-init"}]}));
            pod["metadata"]["annotations"] =
                json!({CONFIG_MAP: "c", REDIS_SECRET: "a/b", MEMORY: "512Mi"});
            let once = injected(&pod, &options);
            assert_eq!(injected(&once, &options), once);
            let defaulted = with_defaults(&once);
            assert_eq!(injected(&defaulted, &options), defaulted, "{mesh:?} native: {native}");
        }
    }
}

#[test]
fn a_change_of_kind_moves_the_container() {
    let (ordinary, native) = (options(Mesh::Istio, false), options(Mesh::Istio, true));
    let pod = pod(json!({}));
    let moved = injected(&injected(&pod, &ordinary), &native);
    assert_eq!(moved, injected(&pod, &native));
    assert_eq!(injected(&moved, &ordinary), injected(&pod, &ordinary));
}
