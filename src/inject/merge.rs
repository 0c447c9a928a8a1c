//! Merging by the rules of Kubernetes' strategic merge patch, for the lists that a container has.

use serde_json::{Map, Value};

/// The name of a list's element; empty if it has none.
pub(crate) fn name_of(value: &Value) -> &str {
    value.get("name").and_then(Value::as_str).unwrap_or("")
}

/// Merges `ours` into a container. Fields that `ours` does not have stay as they are, so that the
/// defaults that the API server has filled in are kept.
pub(crate) fn merge_container(theirs: &mut Map<String, Value>, ours: &Map<String, Value>) {
    for (key, value) in ours {
        match (theirs.get_mut(key), value) {
            (Some(Value::Array(old)), Value::Array(new)) if merge_key(key).is_some() => {
                for item in new {
                    merge_item(key, old, item);
                }
            }
            (Some(old), new) => merge_value(old, new),
            (None, new) => {
                theirs.insert(key.clone(), new.clone());
            }
        }
    }
}

/// What tells the elements of a container's list apart; `None`: the list is replaced as a whole.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "env" => Some("name"),
        "ports" => Some("containerPort"),
        "volumeMounts" => Some("mountPath"),
        _ => None,
    }
}

fn merge_item(list: &str, items: &mut Vec<Value>, new: &Value) {
    let same = |old: &Value| {
        merge_key(list).is_some_and(|key| old.get(key) == new.get(key))
            && (list != "ports" || protocol(old) == protocol(new))
    };
    match items.iter_mut().find(|old| same(old)) {
        // A variable has a value or a source, never both.
        Some(old) if list == "env" && old.get("value").is_some() != new.get("value").is_some() => {
            *old = new.clone();
        }
        Some(old) => merge_value(old, new),
        None => items.push(new.clone()),
    }
}

pub(crate) fn protocol(port: &Value) -> &str {
    port.get("protocol").and_then(Value::as_str).unwrap_or("TCP")
}

fn merge_value(old: &mut Value, new: &Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                match old.get_mut(key) {
                    Some(slot) => merge_value(slot, value),
                    None => {
                        old.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (old, new) => {
            // A list that only has more defaults in it is the same list.
            if !says_all_of(old, new) {
                *old = new.clone();
            }
        }
    }
}

/// Whether `there` says everything that `wanted` says, and perhaps more, as the API server's defaults
/// do. Lists must have the same length.
pub(crate) fn says_all_of(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| there.get(key).is_some_and(|found| says_all_of(found, value))),
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len()
                && there.iter().zip(wanted).all(|(found, value)| says_all_of(found, value))
        }
        (there, wanted) => there == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(theirs: Value, ours: Value) -> Value {
        let Value::Object(mut theirs) = theirs else { panic!("a mapping") };
        merge_container(&mut theirs, ours.as_object().unwrap());
        Value::Object(theirs)
    }

    #[test]
    fn lists_with_a_key_are_merged_and_others_replaced() {
        let theirs = json!({
            "args": ["old"],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"x": 1}}],
            "ports": [{"containerPort": 1, "protocol": "UDP"}, {"containerPort": 1, "name": "p"}],
            "resources": {"limits": {"cpu": "1"}},
            "tty": true,
        });
        let ours = json!({
            "args": ["run"],
            "env": [{"name": "B", "value": "2"}, {"name": "C", "value": "3"}],
            "ports": [{"containerPort": 1, "name": "q", "protocol": "TCP"}],
            "resources": {"limits": {"memory": "1Gi"}},
        });
        let expected = json!({
            "args": ["run"],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "value": "2"},
                {"name": "C", "value": "3"},
            ],
            "ports": [
                {"containerPort": 1, "protocol": "UDP"},
                {"containerPort": 1, "name": "q", "protocol": "TCP"},
            ],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
            "tty": true,
        });
        assert_eq!(merged(theirs, ours), expected);
    }

    #[test]
    fn defaults_of_the_api_server_stay() {
        let ours = json!({
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}],
            "args": ["run"],
        });
        let defaulted = json!({
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "x"}}}],
            "args": ["run"],
            "terminationMessagePath": "/dev/termination-log",
        });
        assert_eq!(merged(defaulted.clone(), ours), defaulted);
    }
}
