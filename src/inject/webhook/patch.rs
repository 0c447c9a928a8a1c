//! The difference between two JSON values as a JSON Patch (RFC 6902).

use serde_json::{Value, json};

/// The operations that make `after` of `before`.
pub(super) fn diff(before: &Value, after: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    walk("", before, after, &mut operations);
    operations
}

fn walk(path: &str, before: &Value, after: &Value, operations: &mut Vec<Value>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                operations.push(json!({"op": "remove", "path": join(path, key)}));
            }
            for (key, value) in new {
                match old.get(key) {
                    Some(old) => walk(&join(path, key), old, value, operations),
                    None => {
                        operations
                            .push(json!({"op": "add", "path": join(path, key), "value": value}));
                    }
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => match additions(path, old, new) {
            Some(added) => operations.extend(added),
            None => operations.push(json!({"op": "replace", "path": path, "value": after})),
        },
        _ => operations.push(json!({"op": "replace", "path": path, "value": after})),
    }
}

/// A list that only has more elements now, or others of the same name: what came, place by place.
fn additions(path: &str, old: &[Value], new: &[Value]) -> Option<Vec<Value>> {
    let mut operations = Vec::new();
    let mut rest = old.iter().peekable();
    for (i, value) in new.iter().enumerate() {
        let place = format!("{path}/{i}");
        match rest.next_if(|old| is_same(old, value)) {
            Some(old) => walk(&place, old, value, &mut operations),
            None => operations.push(json!({"op": "add", "path": place, "value": value})),
        }
    }
    rest.peek().is_none().then_some(operations)
}

fn is_same(old: &Value, new: &Value) -> bool {
    old == new || (old.get("name").is_some() && old.get("name") == new.get("name"))
}

fn join(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Applies `add`, `remove` and `replace`.
    fn apply(operations: &[Value], mut value: Value) -> Value {
        for operation in operations {
            let path = operation["path"].as_str().unwrap();
            let Some((parent, last)) = path.rsplit_once('/') else {
                value = operation["value"].clone();
                continue;
            };
            let last = last.replace("~1", "/").replace("~0", "~");
            match (value.pointer_mut(parent).unwrap(), operation["op"].as_str().unwrap()) {
                (Value::Object(map), "remove") => assert!(map.remove(&last).is_some()),
                (Value::Object(map), _) => {
                    map.insert(last, operation["value"].clone());
                }
                (Value::Array(items), "add") => {
                    items.insert(last.parse().unwrap(), operation["value"].clone());
                }
                (Value::Array(items), "replace") => {
                    items[last.parse::<usize>().unwrap()] = operation["value"].clone();
                }
                other => panic!("{other:?}"),
            }
        }
        value
    }

    #[test]
    fn a_longer_list_is_patched_element_by_element() {
        let before = json!({"c": [{"name": "a", "x": 1}, {"name": "b"}], "v": []});
        let after = json!({"c": [{"name": "z"}, {"name": "a", "x": 2}, {"name": "b"}], "v": [1]});
        assert_eq!(
            diff(&before, &after),
            [
                json!({"op": "add", "path": "/c/0", "value": {"name": "z"}}),
                json!({"op": "replace", "path": "/c/1/x", "value": 2}),
                json!({"op": "add", "path": "/v/0", "value": 1}),
            ]
        );
        assert_eq!(diff(&after, &after), Vec::<Value>::new());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(null)), any::<u8>().prop_map(|n| json!(n))];
        leaf.prop_recursive(4, 30, 4, |inner| {
            let key = prop::sample::select(vec!["name", "a", "b/c", "d~e"]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..4).prop_map(|pairs| {
                    Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_patch_makes_one_of_the_other(before in any_json(), after in any_json()) {
            prop_assert_eq!(apply(&diff(&before, &after), before), after);
        }
    }
}
