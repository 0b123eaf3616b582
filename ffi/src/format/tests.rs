#![allow(unsafe_code)]

use coord_core::bson::oid::ObjectId;
use coord_core::bson::spec::BinarySubtype;
use coord_core::bson::{Binary, DateTime, Decimal128, Regex, Timestamp};
use coord_core::error::Code;

use super::*;

fn lent(bytes: &[u8]) -> Bytes {
    // SAFETY: the tests keep what they lend.
    unsafe { Bytes::lent(bytes.as_ptr().cast(), bytes.len()) }
}

fn taken(lent: &LentBytes) -> &[u8] {
    // SAFETY: so long is it.
    unsafe { std::slice::from_raw_parts(lent.start().cast(), lent.length()) }
}

fn everything() -> Document {
    let mut document = doc! {
        "text": "a\u{0}b \u{1F600}", "z": 1, "a": i64::MAX, "low": i64::MIN, "half": 0.1, "whole": 5.0, "zero": -0.0,
        "tiny": f64::MIN_POSITIVE / 2.0, "big": 1.797_693_134_862_315_7e308, "inf": f64::INFINITY,
        "-inf": f64::NEG_INFINITY, "yes": true, "none": Bson::Null, "list": [1, "x", { "b": 2, "a": 1 }],
        "date": DateTime::from_millis(1_700_000_000_123), "old": DateTime::from_millis(-1),
        "far": DateTime::from_millis(i64::MAX), "bytes": Binary { subtype: BinarySubtype::Generic, bytes: vec![0, 255] },
        "uuid": Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] },
        "id": ObjectId::parse_str("65a1b2c3d4e5f60718293a4b").unwrap(),
        "stamp": Timestamp { time: 3, increment: 9 },
        "pattern": Regex { pattern: "^a".try_into().unwrap(), options: "i".try_into().unwrap() },
        "least": Bson::MinKey, "most": Bson::MaxKey,
    };
    // Its digits are read by `bitvec`, whose slices Miri does not let pass.
    if !cfg!(miri) {
        document.insert("exact", "0.10".parse::<Decimal128>().unwrap());
    }
    document
}

#[test]
fn documents_come_back_exactly_in_both_formats() {
    for format in [Format::Json, Format::Bson] {
        let document = everything();
        let bytes = format.lend(document.clone()).unwrap();
        assert_eq!(format.document(lent(taken(&bytes)), "document").unwrap(), document, "{format:?}");

        let nan = format.lend(doc! { "x": f64::NAN }).unwrap();
        let nan = format.document(lent(taken(&nan)), "document").unwrap();
        assert!(nan.get_f64("x").unwrap().is_nan(), "{format:?}");
    }
}

#[test]
fn the_order_of_fields_is_kept() {
    let text = br#"{"z":1,"a":{"y":2,"b":3}}"#;
    let document = Format::Json.document(lent(text), "document").unwrap();
    assert_eq!(taken(&Format::Json.lend(document).unwrap()), text);
}

#[test]
fn keys_cross_as_values_or_as_documents() {
    for (text, value) in [
        (&br#""ann""#[..], Bson::from("ann")),
        (b"42", Bson::Int64(42)),
        (br#"{"b":1,"a":"x"}"#, Bson::Document(doc! { "b": 1_i64, "a": "x" })),
        (br#"{"$oid":"65a1b2c3d4e5f60718293a4b"}"#, ObjectId::parse_str("65a1b2c3d4e5f60718293a4b").unwrap().into()),
    ] {
        let key = Format::Json.key(lent(text)).unwrap();
        assert_eq!(*key.value(), value);
        assert_eq!(taken(&Format::Json.lend_key(&key).unwrap()), text);
        let bytes = Format::Bson.lend_key(&key).unwrap();
        assert_eq!(Format::Bson.key(lent(taken(&bytes))).unwrap(), key);
    }
}

#[test]
fn what_is_no_key_is_refused() {
    for text in [&b"1.5"[..], b"null", b"true", b"[1]", b"{\"$a\":1}", b"", b"ann", b"{\"$oid\":\"xyz\"}"] {
        let error = Format::Json.key(lent(text)).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
    for document in [doc! {}, doc! { "_id": 1.5 }, doc! { "_id": 1, "a": 2 }, doc! { "id": 1 }] {
        let error = Format::Bson.key(lent(&document.to_vec().unwrap())).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
}

#[test]
fn what_is_no_document_is_refused() {
    for text in
        [&b"[]"[..], b"1", b"null", b"\"a\"", b"{", b"{} x", b"{\"a\":\xff}", b"{\"a\":{\"$oid\":1}}", b"{\"a\":1e999}"]
    {
        let error = Format::Json.document(lent(text), "document").unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
    let good = doc! { "a": "text", "b": [1] }.to_vec().unwrap();
    for end in 0..good.len() {
        assert_eq!(Format::Bson.document(lent(&good[..end]), "d").unwrap_err().code(), Code::InvalidArgument);
    }
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(Format::Bson.document(lent(&longer), "d").unwrap_err().code(), Code::InvalidArgument);
    // Whatever one byte becomes, it is read or refused.
    for place in 0..good.len() {
        for byte in (0..=u8::MAX).step_by(if cfg!(miri) { 51 } else { 1 }) {
            let mut bad = good.clone();
            bad[place] = byte;
            if let Err(error) = Format::Bson.document(lent(&bad), "d") {
                assert_eq!(error.code(), Code::InvalidArgument);
            }
        }
    }
}

/// The bytes of `{a: {a: {...}}}`.
fn nested(levels: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for level in (1..=levels).rev() {
        // Length, type, name and the closing zero of each level outside of an empty document.
        bytes.extend(i32::try_from(8 * level + 5).unwrap().to_le_bytes());
        bytes.extend([3, b'a', 0]);
    }
    bytes.extend([5, 0, 0, 0, 0]);
    bytes.resize(bytes.len() + levels, 0);
    bytes
}

#[test]
fn a_deep_document_does_not_end_the_stack() {
    Format::Bson.document(lent(&nested(100)), "d").unwrap();
    // An interpreter is slow, and its own stack another one.
    let levels = if cfg!(miri) { 1_000 } else { 1_000_000 };
    let error = Format::Bson.document(lent(&nested(levels)), "d").unwrap_err();
    assert!(error.message().contains("nested"), "{error}");
    let deep = format!("{}1{}", "{\"a\":".repeat(levels / 5), "}".repeat(levels / 5));
    assert_eq!(Format::Json.document(lent(deep.as_bytes()), "d").unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn updates_and_lists_are_read_in_both_formats() {
    let pipeline = doc! { "pipeline": [{ "$set": { "a": 1 } }] };
    assert_eq!(
        Format::Bson.update(lent(&pipeline.to_vec().unwrap()), "update").unwrap(),
        Format::Json.update(lent(br#"[{"$set":{"a":1}}]"#), "update").unwrap()
    );
    let operators = doc! { "$set": { "a": 1 } };
    assert_eq!(
        Format::Bson.update(lent(&operators.to_vec().unwrap()), "update").unwrap(),
        Format::Json.update(lent(br#"{"$set":{"a":1}}"#), "update").unwrap()
    );
    assert_eq!(Format::Json.list(lent(br#"[{"a":1}]"#), "pipeline").unwrap(), [doc! { "a": 1 }]);
    for wrong in [&b"{}"[..], b"[1]", b"3"] {
        assert_eq!(Format::Json.list(lent(wrong), "pipeline").unwrap_err().code(), Code::InvalidArgument);
    }
    let other = doc! { "stages": [] }.to_vec().unwrap();
    assert_eq!(Format::Bson.list(lent(&other), "pipeline").unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn what_json_would_change_silently_is_refused() {
    for (text, said) in [
        (r#"{"a":99999999999999999999}"#, "99999999999999999999"),
        (r#"{"a":[-9223372036854775809]}"#, "-9223372036854775809"),
        (r#"{"a":9223372036854775808}"#, "9223372036854775808"),
        (r#"{"a":1,"b":{},"a":2}"#, "'a' twice"),
        (r#"[{"x":{"\u0061\"":1,"b":[],"a\"":2}}]"#, "'a\"' twice"),
    ] {
        let refused = Format::Json.list(lent(text.as_bytes()), "list").err();
        let refused = refused.or_else(|| Format::Json.document(lent(text.as_bytes()), "document").err());
        let refused = Format::Json.update(lent(text.as_bytes()), "update").err().or(refused).expect(text);
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains(said), "{refused}");
    }
    let fine = r#"{"a": {"a": [{"a": "a", "b": "99999999999999999999\\"}, {"a": "{\"a\": 1, "}]}, "b": 1e300,
        "c": -9223372036854775808, "d": 99999999999999999999.0, "\\": "a", "e": [{}, "b", "b"]}"#;
    Format::Json.document(lent(fine.as_bytes()), "document").unwrap();
}
