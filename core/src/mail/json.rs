//! The one JSON form of a message: what C, Go and Python hand over, and what an outbox keeps. Pure.
//!
//! | field | value |
//! |---|---|
//! | `from` | an address |
//! | `to`, `cc`, `bcc`, `reply_to` | an address or a list of them |
//! | `subject`, `text`, `html` | text |
//! | `attachments` | a list of `{"path": …}` or `{"base64": …, "name": …}`, each with `name`, `type` and `cid` as wanted |
//! | `headers` | `{"name": "value"}`, or a list of `["name", "value"]` to keep an order or repeat a name |
//! | `message_id` | text, `<left@right>` |
//! | `date` | milliseconds since 1970 |
//!
//! An address is a text such as `Ann <ann@example.org>`, or `{"name": "Ann", "address": "ann@example.org"}`. All fields
//! may be left out; `null` is the same. A field of another name is an error.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use super::address::shown;
use super::message::{Address, Attachment, Content, Message, at};
use crate::error::{Error, Result};

impl Message {
    /// Reads the JSON form; see the table in [`crate::mail`]'s documentation of it.
    ///
    /// # Errors
    /// `InvalidArgument` that names the field.
    pub fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| Error::invalid(format!("a message is a JSON document; this is not one: {error}")))?;
        Self::from_value(value)
    }

    /// Reads a list of messages in the JSON form.
    ///
    /// # Errors
    /// `InvalidArgument` that names the message by its place, and the field.
    pub fn list_from_json(text: &str) -> Result<Vec<Self>> {
        let list: Vec<Value> = serde_json::from_str(text)
            .map_err(|error| Error::invalid(format!("messages are a JSON list of objects; this is none: {error}")))?;
        let read = |(index, value)| Self::from_value(value).map_err(|error| at(&format!("messages[{index}]"), &error));
        list.into_iter().enumerate().map(read).collect()
    }

    pub(super) fn from_value(value: Value) -> Result<Self> {
        let Value::Object(fields) = value else {
            return Err(Error::invalid("a message is a JSON object with fields such as to, subject and text"));
        };
        let mut message = Self::new();
        for (name, value) in fields {
            if value.is_null() {
                continue;
            }
            match name.as_str() {
                "from" => message.from = Some(address("from", value)?),
                "to" => message.to = addresses("to", value)?,
                "cc" => message.cc = addresses("cc", value)?,
                "bcc" => message.bcc = addresses("bcc", value)?,
                "reply_to" => message.reply_to = addresses("reply_to", value)?,
                "subject" => message.subject = text("subject", value)?,
                "text" => message.text = Some(text("text", value)?),
                "html" => message.html = Some(text("html", value)?),
                "attachments" => message.attachments = attachments(value)?,
                "headers" => message.headers = headers(value)?,
                "message_id" => message.message_id = Some(text("message_id", value)?),
                "date" => message.date_ms = Some(value.as_i64().ok_or_else(|| wrong("date", "a whole number"))?),
                _ => return Err(unknown("a message", &name)),
            }
        }
        Ok(message)
    }

    /// The JSON form, in one line.
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    pub(super) fn to_value(&self) -> Value {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        };
        let list = |addresses: &[Address]| {
            (!addresses.is_empty()).then(|| addresses.iter().map(address_value).collect::<Value>())
        };
        put("from", self.from.as_ref().map(address_value));
        put("to", list(&self.to));
        put("cc", list(&self.cc));
        put("bcc", list(&self.bcc));
        put("reply_to", list(&self.reply_to));
        put("subject", (!self.subject.is_empty()).then(|| self.subject.clone().into()));
        put("text", self.text.clone().map(Value::from));
        put("html", self.html.clone().map(Value::from));
        put(
            "attachments",
            (!self.attachments.is_empty()).then(|| self.attachments.iter().map(attachment_value).collect::<Value>()),
        );
        put(
            "headers",
            (!self.headers.is_empty())
                .then(|| self.headers.iter().map(|(name, value)| json!([name, value])).collect::<Value>()),
        );
        put("message_id", self.message_id.clone().map(Value::from));
        put("date", self.date_ms.map(Value::from));
        Value::Object(fields)
    }
}

fn address_value(address: &Address) -> Value {
    match address {
        Address::Text(text) => json!(text),
        Address::Parts { name, address } => json!({"name": name, "address": address}),
    }
}

fn attachment_value(attachment: &Attachment) -> Value {
    let mut fields = Map::new();
    match &attachment.content {
        Content::Bytes(bytes) => fields.insert("base64".to_owned(), BASE64.encode(bytes).into()),
        Content::Path(path) => fields.insert("path".to_owned(), path.to_string_lossy().into()),
    };
    let more = [("name", &attachment.name), ("type", &attachment.media_type), ("cid", &attachment.cid)];
    for (name, value) in more {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value.clone().into());
        }
    }
    Value::Object(fields)
}

fn text(field: &str, value: Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(wrong(field, "a text")),
    }
}

fn address(field: &str, value: Value) -> Result<Address> {
    match value {
        Value::String(text) => Ok(Address::Text(text)),
        Value::Object(fields) => {
            let (mut name, mut address) = (String::new(), None);
            for (key, value) in fields {
                match key.as_str() {
                    "name" if value.is_null() => {}
                    "name" => name = text(&format!("{field}.name"), value)?,
                    "address" => address = Some(text(&format!("{field}.address"), value)?),
                    _ => return Err(at(field, &unknown("an address", &key))),
                }
            }
            let address = address.ok_or_else(|| wrong(&format!("{field}.address"), "a text"))?;
            Ok(Address::Parts { name, address })
        }
        _ => Err(wrong(field, "a text such as 'Ann <ann@example.org>', or an object with name and address")),
    }
}

fn addresses(field: &str, value: Value) -> Result<Vec<Address>> {
    match value {
        Value::Array(list) => {
            list.into_iter().enumerate().map(|(index, value)| address(&format!("{field}[{index}]"), value)).collect()
        }
        one => Ok(vec![address(field, one)?]),
    }
}

fn attachments(value: Value) -> Result<Vec<Attachment>> {
    let Value::Array(list) = value else { return Err(wrong("attachments", "a list")) };
    list.into_iter().enumerate().map(|(index, value)| attachment(&format!("attachments[{index}]"), value)).collect()
}

fn attachment(field: &str, value: Value) -> Result<Attachment> {
    let Value::Object(fields) = value else { return Err(wrong(field, "an object with path or base64")) };
    let (mut content, mut name, mut media_type, mut cid) = (None, None, None, None);
    for (key, value) in fields {
        if value.is_null() {
            continue;
        }
        let inner = format!("{field}.{key}");
        let previous = match key.as_str() {
            "path" => content.replace(Content::Path(text(&inner, value)?.into())),
            "base64" => {
                let decoded = BASE64.decode(text(&inner, value)?);
                content.replace(Content::Bytes(decoded.map_err(|_| wrong(&inner, "base64 with its padding"))?))
            }
            _ => {
                let target = match key.as_str() {
                    "name" => &mut name,
                    "type" => &mut media_type,
                    "cid" => &mut cid,
                    _ => return Err(at(field, &unknown("an attachment", &key))),
                };
                *target = Some(text(&inner, value)?);
                None
            }
        };
        if previous.is_some() {
            return Err(Error::invalid(format!("{field}: it has both path and base64")));
        }
    }
    let Some(content) = content else {
        return Err(Error::invalid(format!("{field}: it has neither path nor base64")));
    };
    if matches!(content, Content::Bytes(_)) && name.is_none() && cid.is_none() {
        return Err(wrong(&format!("{field}.name"), "a text: an attachment that is no file needs a name"));
    }
    Ok(Attachment { content, name, media_type, cid })
}

fn headers(value: Value) -> Result<Vec<(String, String)>> {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| text(&format!("headers['{}']", shown(&name)), value).map(|value| (name, value)))
            .collect(),
        Value::Array(list) => list
            .into_iter()
            .enumerate()
            .map(|(index, pair)| match pair {
                Value::Array(pair) => match <[Value; 2]>::try_from(pair) {
                    Ok([Value::String(name), Value::String(value)]) => Ok((name, value)),
                    _ => Err(wrong(&format!("headers[{index}]"), "a list of a name and a value")),
                },
                _ => Err(wrong(&format!("headers[{index}]"), "a list of a name and a value")),
            })
            .collect(),
        _ => Err(wrong("headers", "an object, or a list of names and values")),
    }
}

fn wrong(field: &str, wanted: &str) -> Error {
    Error::invalid(format!("{field}: it is not {wanted}"))
}

fn unknown(what: &str, name: &str) -> Error {
    Error::invalid(format!("{}: {what} has no such field", shown(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_read_and_written() {
        let text = r#"{"from": {"name": "Ann", "address": "ann@example.org"}, "to": "bob@example.org",
            "cc": ["c@example.org", {"address": "d@example.org"}], "subject": "Grüße", "text": "t", "html": null,
            "attachments": [{"path": "/x/y.pdf", "type": "application/pdf"}, {"base64": "AAE=", "cid": "logo"}],
            "headers": {"X-A": "1"}, "message_id": "<a@b>", "date": 1700000000000}"#;
        let message = Message::from_json(text).unwrap();
        assert_eq!(message.from, Some(("Ann", "ann@example.org").into()));
        assert_eq!(message.to, ["bob@example.org".into()]);
        assert_eq!(message.attachments[1].content, Content::Bytes(vec![0, 1]));
        assert_eq!(message.headers, [("X-A".to_owned(), "1".to_owned())]);
        assert_eq!(Message::from_json(&message.to_json()).unwrap(), message);
    }

    #[test]
    fn mistakes_name_their_field() {
        for (text, needle) in [
            ("", "JSON"),
            ("[]", "object"),
            (r#"{"too": 1}"#, "too:"),
            (r#"{"to": 1}"#, "to:"),
            (r#"{"to": ["a@b.c", {"name": "x"}]}"#, "to[1].address:"),
            (r#"{"to": {"adress": "x"}}"#, "to: adress"),
            (r#"{"subject": 1}"#, "subject:"),
            (r#"{"attachments": [{"name": "x"}]}"#, "attachments[0]:"),
            (r#"{"attachments": [{"base64": "%", "name": "x"}]}"#, "attachments[0].base64:"),
            (r#"{"attachments": [{"base64": "AA=="}]}"#, "attachments[0].name:"),
            (r#"{"attachments": [{"base64": "AA==", "path": "x"}]}"#, "attachments[0]: it has both"),
            (r#"{"headers": {"a": 1}}"#, "headers['a']"),
            (r#"{"headers": [["a"]]}"#, "headers[0]"),
            (r#"{"date": "now"}"#, "date:"),
        ] {
            let error = Message::from_json(text).unwrap_err();
            assert!(error.message().contains(needle), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(text in ".*") {
            let _ = Message::from_json(&text);
        }
    }
}
