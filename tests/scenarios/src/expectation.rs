//! What an answer must be: for each of its values a text that it must equal, or a condition.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::json;

/// Conditions by the name of the value.
pub type Expectations = BTreeMap<String, Expectation>;

/// A condition on one value. The texts may contain references.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Expectation {
    /// It is this text.
    Is(String),
    /// A condition with a name.
    Condition(Condition),
}

/// A condition with a name.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Condition {
    /// It is another text.
    Not(String),
    /// It is one of these.
    OneOf(Vec<String>),
    /// It is this JSON.
    Json(serde_json::Value),
    /// It has this in it.
    Contains(String),
    /// There is such a value, or there is none.
    Present(bool),
    /// As a number, it is greater.
    Above(String),
    /// As a number, it is at least this.
    AtLeast(String),
    /// As a number, it is at most this.
    AtMost(String),
}

/// Compares values with what is expected of them; `resolve` puts values in the place of references.
///
/// # Errors
/// What differs.
pub fn compare(
    expected: &Expectations,
    values: &BTreeMap<String, String>,
    resolve: &dyn Fn(&str) -> Result<String, String>,
) -> Result<(), String> {
    for (name, expectation) in expected {
        let value = values.get(name).map(String::as_str);
        expectation.meets(name, value, resolve).map_err(|what| {
            let found = value.map_or_else(|| "is missing".into(), |value| format!("is '{value}'"));
            format!("{name} {found}, but {what}")
        })?;
    }
    Ok(())
}

impl Expectation {
    fn meets(
        &self,
        name: &str,
        value: Option<&str>,
        resolve: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<(), String> {
        let whole = |text: &str| json::normal(name, resolve(text)?);
        let one_of = |texts: &[String]| {
            let texts = texts.iter().map(|text| whole(text)).collect::<Result<Vec<_>, _>>()?;
            if texts.iter().any(|text| Some(text.as_str()) == value) {
                return Ok(());
            }
            Err(format!("should be '{}'", texts.join("' or '")))
        };
        let condition = match self {
            Self::Is(text) => return one_of(std::slice::from_ref(text)),
            Self::Condition(condition) => condition,
        };
        let compare_numbers = |wanted: &str, words: &str, holds: fn(i64, i64) -> bool| {
            let bound = resolve(wanted)?;
            let numbers = value.and_then(|value| value.parse().ok()).zip(bound.parse().ok());
            if numbers.is_some_and(|(value, bound)| holds(value, bound)) {
                return Ok(());
            }
            Err(format!("should be {words} {bound}"))
        };
        match condition {
            Condition::Present(present) if value.is_some() == *present => Ok(()),
            Condition::Present(true) => Err("should be there".into()),
            Condition::Present(false) => Err("should not be there".into()),
            Condition::Above(bound) => compare_numbers(bound, "above", |value, bound| value > bound),
            Condition::AtLeast(bound) => compare_numbers(bound, "at least", |value, bound| value >= bound),
            Condition::AtMost(bound) => compare_numbers(bound, "at most", |value, bound| value <= bound),
            Condition::Not(text) => match whole(text)? {
                text if value.is_some_and(|value| value != text) => Ok(()),
                text => Err(format!("should be something else than '{text}'")),
            },
            Condition::Contains(text) => match resolve(text)? {
                text if value.is_some_and(|value| value.contains(&text)) => Ok(()),
                text => Err(format!("should contain '{text}'")),
            },
            Condition::Json(json) => one_of(&[json.to_string()]),
            Condition::OneOf(texts) => one_of(texts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meets(expectation: &str, value: Option<&str>) -> bool {
        let expected = [("x".to_owned(), serde_json::from_str(expectation).unwrap())].into();
        let values = value.map(|value| ("x".to_owned(), value.to_owned())).into_iter().collect();
        compare(&expected, &values, &|text| Ok(text.replace("${two}", "2"))).is_ok()
    }

    #[test]
    fn each_condition_can_fail() {
        for (expectation, good, bad) in [
            (r#""2""#, Some("2"), Some("20")),
            (r#""${two}""#, Some("2"), None),
            (r#"{"not": "2"}"#, Some("3"), Some("2")),
            (r#"{"not": "2"}"#, Some("3"), None),
            (r#"{"one_of": ["1", "2"]}"#, Some("2"), Some("3")),
            (r#"{"contains": "b"}"#, Some("abc"), Some("ac")),
            (r#"{"json": [1, "${two}"]}"#, Some(r#"[1,"2"]"#), Some("[1]")),
            (r#"{"present": true}"#, Some(""), None),
            (r#"{"present": false}"#, None, Some("")),
            (r#"{"above": "${two}"}"#, Some("10"), Some("2")),
            (r#"{"at_least": "2"}"#, Some("2"), Some("1")),
            (r#"{"at_most": "2"}"#, Some("2"), Some("3")),
            (r#"{"above": "2"}"#, Some("3"), Some("many")),
        ] {
            assert!(meets(expectation, good), "{expectation} {good:?}");
            assert!(!meets(expectation, bad), "{expectation} {bad:?}");
        }
    }
}
