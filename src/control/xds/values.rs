//! Conversion between protobuf's `Struct` and JSON.

#[cfg(test)]
use prost_types::ListValue;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use serde_json::{Map, Number};

/// Whole numbers up to here are exact in a double.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Deeper documents are refused before they are walked.
pub(crate) const DEPTH_MAX: usize = 64;

/// The JSON object of a `Struct`; `None` if it is nested too deeply.
///
/// A `Struct` knows doubles only. Whole ones become integers again, as they were written.
pub(crate) fn to_json(value: &Struct) -> Option<serde_json::Value> {
    object(value, DEPTH_MAX)
}

fn object(value: &Struct, depth: usize) -> Option<serde_json::Value> {
    let fields = value.fields.iter();
    let fields = fields.map(|(name, value)| Some((name.clone(), json(value, depth)?)));
    Some(serde_json::Value::Object(fields.collect::<Option<Map<_, _>>>()?))
}

fn json(value: &Value, depth: usize) -> Option<serde_json::Value> {
    let depth = depth.checked_sub(1)?;
    Some(match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(flag)) => serde_json::Value::Bool(*flag),
        Some(Kind::StringValue(text)) => serde_json::Value::String(text.clone()),
        Some(Kind::NumberValue(number)) => number_to_json(*number),
        Some(Kind::StructValue(inner)) => object(inner, depth)?,
        Some(Kind::ListValue(list)) => {
            let values = list.values.iter().map(|value| json(value, depth));
            serde_json::Value::Array(values.collect::<Option<_>>()?)
        }
    })
}

#[expect(clippy::cast_possible_truncation, reason = "checked to be whole and exact")]
fn number_to_json(number: f64) -> serde_json::Value {
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        return (number as i64).into();
    }
    Number::from_f64(number).map_or(serde_json::Value::Null, serde_json::Value::Number)
}

/// A `Struct` of texts and structs.
pub(crate) fn to_struct<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

/// A text as a value.
pub(crate) fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

/// A struct as a value.
pub(crate) fn nested(inner: Struct) -> Value {
    Value { kind: Some(Kind::StructValue(inner)) }
}

/// The value of a JSON value, for tests.
#[cfg(test)]
pub(crate) fn from_json(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(flag) => Kind::BoolValue(*flag),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(list) => {
            Kind::ListValue(ListValue { values: list.iter().map(from_json).collect() })
        }
        Json::Object(map) => Kind::StructValue(Struct {
            fields: map.iter().map(|(name, value)| (name.clone(), from_json(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn through(value: serde_json::Value) -> Option<serde_json::Value> {
        match from_json(&value).kind {
            Some(Kind::StructValue(inner)) => to_json(&inner),
            _ => None,
        }
    }

    #[test]
    fn what_was_written_comes_out() {
        let document = json!({
            "routes": [{"name": "a", "cache": {"enabled": true, "ttl": {"default": "30s"}}}],
            "n": [0, -1, 1.5, 502, 9_007_199_254_740_992_i64],
            "nothing": null,
        });
        assert_eq!(through(document.clone()), Some(document));
    }

    #[test]
    fn what_is_nested_too_deeply_is_refused() {
        let nest = |depth| (0..depth).fold(json!({}), |inner, _| json!({"a": inner}));
        assert!(through(nest(DEPTH_MAX - 1)).is_some());
        assert!(through(nest(DEPTH_MAX + 1)).is_none());
    }

    #[test]
    fn numbers_that_json_lacks_are_nothing() {
        assert_eq!(number_to_json(f64::NAN), serde_json::Value::Null);
        assert_eq!(number_to_json(f64::INFINITY), serde_json::Value::Null);
        assert_eq!(number_to_json(1e300), json!(1e300));
    }
}
