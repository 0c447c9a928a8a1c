//! Conversion between YAML and JSON. A manifest keeps the order of its keys, and is read as Kubernetes
//! reads it.

use serde_json::Value as Json;
use serde_yaml::Value as Yaml;

use super::stream::Part;

/// Reads file modes such as `0644` as Kubernetes does; YAML 1.2 has another form for octal numbers.
pub(super) fn octal(yaml: &mut Yaml) {
    match yaml {
        Yaml::Mapping(map) => {
            for (key, value) in map.iter_mut() {
                let is_mode = matches!(key.as_str(), Some("mode" | "defaultMode"));
                match value.as_str().filter(|text| is_mode && text.starts_with('0')) {
                    Some(text) => {
                        if let Ok(mode) = u32::from_str_radix(text, 8) {
                            *value = Yaml::from(mode);
                        }
                    }
                    None => octal(value),
                }
            }
        }
        Yaml::Sequence(items) => items.iter_mut().for_each(octal),
        _ => {}
    }
}

/// A word that is a boolean in YAML 1.1 and a string in 1.2, written without quotes.
pub(super) fn ambiguous(part: &Part<'_>, pod: &Yaml) -> Option<(usize, &'static str)> {
    const WORDS: [&str; 4] = ["yes", "no", "on", "off"];
    let mut held = Vec::new();
    strings(pod, &mut held);
    part.text.lines().enumerate().find_map(|(i, line)| {
        let line = line.split(" #").next().unwrap_or(line).trim_end();
        let last = line.rsplit([' ', '\t']).next().unwrap_or(line);
        let before = line[..line.len() - last.len()].trim_end();
        let word = WORDS.into_iter().find(|word| last.eq_ignore_ascii_case(word))?;
        let is_value = before.ends_with(':') || before.trim_start() == "-";
        (is_value && held.contains(&last)).then_some((part.line + i + 1, word))
    })
}

fn strings<'a>(yaml: &'a Yaml, found: &mut Vec<&'a str>) {
    match yaml {
        Yaml::String(text) => found.push(text),
        Yaml::Mapping(map) => map.values().for_each(|value| strings(value, found)),
        Yaml::Sequence(items) => items.iter().for_each(|item| strings(item, found)),
        _ => {}
    }
}

/// Gives a YAML value the content of a JSON value, and keeps the order of its keys.
pub(super) fn update(yaml: &mut Yaml, json: &Json) {
    match (&mut *yaml, json) {
        (Yaml::Mapping(map), Json::Object(wanted)) => {
            map.retain(|key, _| key.as_str().is_none_or(|key| wanted.contains_key(key)));
            for (key, value) in wanted {
                match map.get_mut(key.as_str()) {
                    Some(slot) => update(slot, value),
                    None => {
                        map.insert(Yaml::from(key.as_str()), to_yaml(value));
                    }
                }
            }
        }
        (Yaml::Sequence(items), Json::Array(wanted)) => {
            let mut old: Vec<Yaml> = std::mem::take(items);
            for value in wanted {
                let name = value.get("name").and_then(Json::as_str);
                let same = old.iter().position(|item| match name {
                    Some(name) => text_of(item, "name") == name,
                    None => serde_json::to_value(item).is_ok_and(|item| item == *value),
                });
                let mut item = same.map_or_else(|| to_yaml(value), |at| old.remove(at));
                update(&mut item, value);
                items.push(item);
            }
        }
        (_, json) => {
            if serde_json::to_value(&*yaml).ok().as_ref() != Some(json) {
                *yaml = to_yaml(json);
            }
        }
    }
}

fn to_yaml(json: &Json) -> Yaml {
    match json {
        Json::Null => Yaml::Null,
        Json::Bool(flag) => Yaml::from(*flag),
        Json::String(text) => Yaml::from(text.as_str()),
        Json::Array(items) => Yaml::Sequence(items.iter().map(to_yaml).collect()),
        Json::Object(map) => Yaml::Mapping(
            // The name first, as people write it.
            map.iter()
                .filter(|(key, _)| *key == "name")
                .chain(map.iter().filter(|(key, _)| *key != "name"))
                .map(|(key, value)| (Yaml::from(key.as_str()), to_yaml(value)))
                .collect(),
        ),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(n), _) => Yaml::from(n),
            (_, Some(n)) => Yaml::from(n),
            _ => Yaml::from(number.as_f64().unwrap_or(0.0)),
        },
    }
}

pub(super) fn text_of<'a>(yaml: &'a Yaml, key: &str) -> &'a str {
    yaml.get(key).and_then(Yaml::as_str).unwrap_or("")
}
