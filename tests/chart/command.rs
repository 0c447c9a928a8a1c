//! The chart's configuration for injection, taken by the command that reads it in the cluster; and what
//! the command puts in without any, judged as strictly.

use std::io::Write as _;
use std::process::Stdio;

use outrigger_test_support::outrigger;
use serde_json::{Value, json};

use crate::helm::{NAME, documents, find, objects};
use crate::judge::{NATIVE_RELEASES, RELEASES, all_valid};
use crate::pods::{check, container, variable};

/// A Deployment with one port.
fn application() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "catalog", "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": "catalog"}},
            "template": {
                "metadata": {"labels": {"app": "catalog"}},
                "spec": {"containers": [
                    {"name": "catalog", "image": "catalog:1", "ports": [{"containerPort": 8080}]},
                ]},
            },
        },
    })
}

/// What `outrigger inject` makes of the Deployment.
fn injected(args: &[&str]) -> Value {
    let mut command = outrigger();
    command.args(["inject", "-f", "-"]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let text = application().to_string();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{args:?}: {said}");
    documents(&String::from_utf8(out.stdout).unwrap()).remove(0)
}

fn judged(deployment: &Value, native: bool) {
    all_valid([deployment], if native { &NATIVE_RELEASES } else { &RELEASES });
    check(&deployment["spec"]["template"]["spec"], &["outrigger"]);
}

#[test]
fn the_charts_configuration_is_taken() {
    for (values, native) in [
        (json!({"webhook": {"nativeSidecars": "never"}}), false),
        (json!({"webhook": {"nativeSidecars": "always"}, "mode": "inbound,outbound"}), true),
        (json!({"webhook": {"nativeSidecars": "never"}, "mesh": "none"}), false),
        (
            json!({
                "webhook": {"nativeSidecars": "always"},
                "redis": {"url": "redis://redis.shop.svc:6379"},
                "prometheus": "podMonitor",
            }),
            true,
        ),
    ] {
        let mut values = values;
        values["webhook"]["enabled"] = json!(true);
        let objects = objects(&values);
        let map = find(&objects, "ConfigMap", &format!("{NAME}-webhook"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), map["data"]["injection.yaml"].as_str().unwrap()).unwrap();
        let deployment = injected(&["--config", file.path().to_str().unwrap()]);
        judged(&deployment, native);
        let spec = &deployment["spec"]["template"]["spec"];
        let ours = container(spec, "outrigger");
        assert_eq!(ours["restartPolicy"] == "Always", native, "{ours:#}");
        let mode = variable(ours, "OUTRIGGER_MODE").map(|mode| mode["value"].clone());
        let wanted = values["mode"].as_str().unwrap_or("inbound");
        assert_eq!(mode, (values["mesh"] != "none").then(|| json!(wanted)), "{values}");
    }
}

#[test]
fn without_a_configuration_the_pod_is_as_good() {
    for args in [&[][..], &["--mesh", "none"], &["--native"], &["--mode", "inbound,outbound"]] {
        judged(&injected(args), args.contains(&"--native"));
    }
}

#[test]
fn both_descriptions_agree_on_what_others_rely_on() {
    let ports = |pod: &Value| {
        let ours = container(&pod["spec"]["template"]["spec"], "outrigger");
        let ports = ours["ports"].as_array().unwrap().iter();
        ports.map(|port| (port["name"].clone(), port["containerPort"].clone())).collect::<Vec<_>>()
    };
    for mesh in ["istio", "none"] {
        let values =
            json!({"webhook": {"enabled": true}, "mesh": mesh, "prometheus": "podMonitor"});
        let objects = objects(&values);
        let map = find(&objects, "ConfigMap", &format!("{NAME}-webhook"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), map["data"]["injection.yaml"].as_str().unwrap()).unwrap();
        let by_chart = injected(&["--config", file.path().to_str().unwrap()]);
        let built_in = injected(&["--mesh", mesh]);
        assert_eq!(ports(&by_chart), ports(&built_in), "{mesh}");
    }
}
