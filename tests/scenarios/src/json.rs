//! Documents and keys in answers: Extended JSON in whatever form an agent's language writes it, brought into one form so
//! that they can be compared.

use coord_core::bson::Bson;
use serde_json::Value;

/// The values of answers that are Extended JSON.
const NAMES: &[&str] = &["document", "documents", "previous", "key", "keys"];

/// The text of a value of this name in its one form: relaxed Extended JSON, fields in the order of their names, no
/// spaces. Other values stay as they are.
///
/// # Errors
/// If it should be Extended JSON and is not.
pub fn normal(name: &str, text: String) -> Result<String, String> {
    if !NAMES.contains(&name) {
        return Ok(text);
    }
    let wrong = |error: &dyn std::fmt::Display| format!("{name} is no Extended JSON: {error}: {text}");
    let value: Value = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    let value = Bson::try_from(value).map_err(|error| wrong(&error))?;
    Ok(sorted(value.into_relaxed_extjson()).to_string())
}

/// Whatever order serde_json keeps fields in.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(String, Value)> =
                fields.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            fields.sort_by(|(left, _), (right, _)| left.cmp(right));
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_for_all() {
        let forms = [
            r#"{"b": [{"z": 1, "a": 1.5}], "a": {"$date": {"$numberLong": "1500"}}}"#,
            r#"{"a":{"$date":"1970-01-01T00:00:01.500Z"},"b":[{"a":{"$numberDouble":"1.5"},"z":{"$numberInt":"1"}}]}"#,
        ];
        let [left, right] = forms.map(|form| normal("document", form.to_owned()).unwrap());
        assert_eq!(left, right);
        assert_ne!(left, normal("document", forms[0].replace("1.5", "1.25")).unwrap());
        assert_eq!(normal("key", r#" "ann" "#.to_owned()).unwrap(), r#""ann""#);
        assert_eq!(normal("lock", "{".to_owned()).unwrap(), "{");
        assert!(normal("document", "{".to_owned()).is_err());
    }
}
