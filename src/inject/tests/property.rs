use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{names, options};
use crate::annotations::{CONFIG_MAP, IMAGE, MEMORY, MODE, NATIVE, REDIS_SECRET, UPSTREAM_PORT};
use crate::{Mesh, inject};

fn container() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("app".to_owned()),
        Just("istio-proxy".to_owned()),
        Just("istio-init".to_owned()),
        Just("outrigger".to_owned()),
        "[a-z]{1,6}",
    ];
    let user = prop_oneof![Just(0_u64), Just(1000), Just(15480)];
    let port = prop_oneof![Just(80_u64), Just(8080), Just(15480), Just(15490)];
    let env = prop::collection::vec("[A-Z]{1,3}", 0..3);
    (name, prop::option::of(user), prop::option::of(port), env).prop_map(
        |(name, user, port, env)| {
            let mut container = json!({"name": name, "image": "i"});
            if let Some(user) = user {
                container["securityContext"] = json!({"runAsUser": user});
            }
            if let Some(port) = port {
                container["ports"] = json!([{"containerPort": port}]);
            }
            let env: Vec<Value> =
                env.iter().map(|name| json!({"name": name, "value": "1"})).collect();
            container["env"] = json!(env);
            container
        },
    )
}

fn volume() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("outrigger-run".to_owned()),
        Just("outrigger-config".to_owned()),
        Just("outrigger-token".to_owned()),
        "[a-z]{1,6}",
    ];
    (name, any::<bool>()).prop_map(|(name, empty)| {
        if empty {
            json!({"name": name, "emptyDir": {}})
        } else {
            json!({"name": name, "hostPath": {"path": "/x"}})
        }
    })
}

fn annotations() -> impl Strategy<Value = Value> {
    let one = |key: &'static str, values: &'static [&'static str]| {
        prop::option::weighted(0.3, prop::sample::select(values))
            .prop_map(move |value| value.map(|value| (key.to_owned(), json!(value))))
    };
    (
        one(IMAGE, &["a/b:1", "bad image"]),
        one(MODE, &["inbound", "outbound", "outbound,inbound"]),
        one(NATIVE, &["true", "false"]),
        one(MEMORY, &["64Mi", "1Gi"]),
        one(UPSTREAM_PORT, &["80", "8080"]),
        one(CONFIG_MAP, &["c"]),
        one(REDIS_SECRET, &["a/b"]),
        one("outrigger.io/typo", &["x"]),
    )
        .prop_map(|(a, b, c, d, e, f, g, h)| {
            Value::Object([a, b, c, d, e, f, g, h].into_iter().flatten().collect::<Map<_, _>>())
        })
}

fn pod() -> impl Strategy<Value = Value> {
    (
        prop::collection::vec(container(), 1..4),
        prop::collection::vec(container(), 0..4),
        prop::collection::vec(volume(), 0..3),
        annotations(),
        prop::option::weighted(0.1, any::<bool>()),
    )
        .prop_map(|(containers, init, volumes, annotations, host)| {
            let mut pod = json!({
                "metadata": {"annotations": annotations},
                "spec": {"containers": containers, "initContainers": init, "volumes": volumes},
            });
            if let Some(host) = host {
                pod["spec"]["hostNetwork"] = json!(host);
            }
            pod
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Twice is once; and of what was there, nothing goes and nothing changes its order.
    #[test]
    fn injection_is_idempotent(pod in pod(), standalone: bool, native: bool) {
        let mesh = if standalone { Mesh::None } else { Mesh::Istio };
        let options = options(mesh, native);
        let Ok(once) = inject(&pod, &options) else { return Ok(()) };
        let twice = inject(&once.pod, &options);
        let twice = twice.map_err(|refusal| TestCaseError::fail(refusal.to_string()))?;
        prop_assert_eq!(&twice.pod, &once.pod);
        prop_assert_eq!(&twice.warnings, &once.warnings);
        let mut found = 0;
        for list in ["containers", "initContainers"] {
            let mut after = names(&once.pod, list);
            found += after.iter().filter(|name| *name == "outrigger").count();
            after.retain(|name| name != "outrigger");
            prop_assert_eq!(after, names(&pod, list));
        }
        prop_assert_eq!(found, 1);
        for volume in pod["spec"]["volumes"].as_array().unwrap() {
            prop_assert!(once.pod["spec"]["volumes"].as_array().unwrap().contains(volume));
        }
    }
}
