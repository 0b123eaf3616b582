//! Laws that hold whatever the documents are; that MongoDB says the same is tested on the server.

use std::cmp::Ordering;

use bson::{Binary, Bson, DateTime, Decimal128, Document, doc, spec::BinarySubtype};
use proptest::prelude::*;

use super::order::{compare, encode};
use super::*;

fn scalar() -> impl Strategy<Value = Bson> {
    let doubles = [0.0, -0.0, 1.0, 1.5, f64::NAN, f64::INFINITY, 9_007_199_254_740_992.0, -1e300];
    let decimals = ["0", "1.00", "1.5", "NaN", "-Infinity", "9007199254740993", "1E+300"];
    prop_oneof![
        Just(Bson::Null),
        any::<bool>().prop_map(Bson::Boolean),
        (-2..3_i32).prop_map(Bson::Int32),
        prop_oneof![-2..3_i64, Just(i64::MAX), Just(9_007_199_254_740_993)].prop_map(Bson::Int64),
        proptest::sample::select(doubles.to_vec()).prop_map(Bson::Double),
        proptest::sample::select(decimals.to_vec()).prop_map(|t| Bson::Decimal128(t.parse::<Decimal128>().unwrap())),
        "[ab]{0,2}".prop_map(Bson::String),
        (-1..2_i64).prop_map(|millis| Bson::DateTime(DateTime::from_millis(millis))),
        proptest::collection::vec(any::<u8>(), 0..2)
            .prop_map(|bytes| Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes })),
    ]
}

fn value() -> impl Strategy<Value = Bson> {
    scalar().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Bson::Array),
            fields(inner).prop_map(Bson::Document),
        ]
    })
}

fn fields(values: impl Strategy<Value = Bson>) -> impl Strategy<Value = Document> {
    proptest::collection::vec((proptest::sample::select(vec!["a", "b", "c", "0"]), values), 0..3)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn document() -> impl Strategy<Value = Document> {
    fields(value())
}

fn path() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["a", "b", "a.b", "a.0", "b.a.0", "c", "a.b.c"]).prop_map(str::to_owned)
}

fn matches(filter: Document, document: &Document) -> bool {
    let filter = Filter::parse(filter).unwrap();
    assert!(filter.is_shared());
    filter.matches(document).unwrap()
}

#[test]
fn a_filter_meets_every_kind_of_value() {
    for kind in [Bson::MinKey, Bson::MaxKey, Bson::Undefined, Bson::Null] {
        let document = doc! { "a": kind.clone() };
        for other in [Bson::Int32(1), Bson::Boolean(true), Bson::DateTime(DateTime::from_millis(0))] {
            assert!(!matches(doc! { "a": other.clone() }, &document), "{kind} is not {other}");
            assert!(!matches(doc! { "a": { "$gt": other } }, &document), "{kind}");
        }
        let is_null = matches!(kind, Bson::Undefined | Bson::Null);
        assert_eq!(matches(doc! { "a": Bson::Null }, &document), is_null, "{kind}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_condition_or_its_negation_holds(document in document(), path in path(), value in value()) {
        for (operator, opposite) in [("$eq", "$ne"), ("$gt", ""), ("$gte", ""), ("$lt", ""), ("$lte", "")] {
            let test = doc! { operator: value.clone() };
            let holds = matches(doc! { &path: test.clone() }, &document);
            prop_assert_ne!(holds, matches(doc! { &path: { "$not": test.clone() } }, &document));
            prop_assert_ne!(holds, matches(doc! { "$nor": [{ &path: test }] }, &document));
            if !opposite.is_empty() {
                prop_assert_ne!(holds, matches(doc! { &path: { opposite: value.clone() } }, &document));
            }
        }
        let exists = matches(doc! { &path: { "$exists": true } }, &document);
        prop_assert_ne!(exists, matches(doc! { &path: { "$exists": false } }, &document));
    }

    #[test]
    fn one_of_several_is_any_of_them(document in document(), path in path(), values in proptest::collection::vec(value(), 1..4)) {
        let each: Vec<Document> = values.iter().map(|value| doc! { &path: { "$eq": value } }).collect();
        let any = matches(doc! { "$or": each }, &document);
        prop_assert_eq!(matches(doc! { &path: { "$in": values.clone() } }, &document), any);
        prop_assert_eq!(matches(doc! { &path: { "$nin": values } }, &document), !any);
    }

    #[test]
    fn what_is_equal_is_not_beyond(document in document(), path in path(), value in value()) {
        let holds = |operator: &str| matches(doc! { &path: { operator: value.clone() } }, &document);
        prop_assert!(!holds("$eq") || (holds("$gte") && holds("$lte")));
        prop_assert!(!holds("$gt") || holds("$gte"));
        prop_assert!(!holds("$lt") || holds("$lte"));
    }

    #[test]
    fn a_beginning_is_a_range_of_texts(document in document(), path in path()) {
        let begins = matches(doc! { &path: { "$regex": "^a" } }, &document);
        let follows = matches(doc! { &path: { "$gte": "a" } }, &document);
        prop_assert!(!begins || follows);
    }

    #[test]
    fn the_order_is_total(a in value(), b in value(), c in value()) {
        prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        prop_assert_eq!(compare(&a, &a), Ordering::Equal);
        if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
            prop_assert!(compare(&a, &c).is_le());
        }
    }

    #[test]
    fn bytes_are_equal_for_what_is(a in value(), b in value()) {
        let bytes = |value: &Bson| { let mut out = Vec::new(); encode(value, &mut out); out };
        prop_assert_eq!(bytes(&a) == bytes(&b), compare(&a, &b).is_eq());
    }

    #[test]
    fn what_is_wanted_and_what_is_not_make_the_whole(document in document(), path in path()) {
        let part = |wanted: i32| Projection::parse(doc! { &path: wanted }).unwrap().apply(document.clone()).unwrap();
        let (with, without) = (part(1), part(0));
        prop_assert!(with.keys().chain(without.keys()).all(|name| document.contains_key(name)));
        prop_assert!(document.keys().all(|name| with.contains_key(name) || without.contains_key(name)));
    }

    #[test]
    fn a_set_value_is_found(document in document(), value in value()) {
        let update = Update::parse(doc! { "$set": { "z.y": value.clone() } }).unwrap();
        let after = update.apply(document, false).unwrap();
        let found = matches(doc! { "z.y": { "$eq": value } }, &after);
        prop_assert!(found);
        let after = Update::parse(doc! { "$unset": { "z.y": "" } }).unwrap().apply(after, false).unwrap();
        let found = matches(doc! { "z.y": { "$exists": true } }, &after);
        prop_assert!(!found);
    }

    #[test]
    fn nothing_panics(document in document(), any in proptest::collection::vec(("[$a-c.0_]{0,6}", value()), 0..4)) {
        let any: Document = any.into_iter().collect();
        if let Ok(filter) = Filter::parse(any.clone()) {
            let _ = filter.matches(&document);
        }
        if let Ok(sort) = Sort::parse(any.clone()) {
            let _ = sort.key(&document);
        }
        if let Ok(projection) = Projection::parse(any.clone()) {
            let _ = projection.apply(document.clone());
        }
        for operator in ["$set", "$inc", "$push", "$unset", "$pull", "$addToSet", "$min"] {
            if let Ok(update) = Update::parse(doc! { operator: any.clone() }) {
                let _ = update.apply(document.clone(), true);
            }
        }
        let _ = Key::new(any).map(|key| Key::from_bytes(key.bytes()));
    }
}

#[test]
fn what_others_must_answer_is_said_at_once() {
    for beyond in [
        doc! { "$where": "true" },
        doc! { "a": { "$elemMatch": { "b": 1 } } },
        doc! { "a": { "$regex": "b" } },
        doc! { "a": { "$regex": "^a.*" } },
        doc! { "a": { "$gt": Bson::MinKey } },
        doc! { "$and": [{ "a": 1 }, { "$text": { "$search": "x" } }] },
        doc! { "a": { "$not": { "$size": 1 } } },
    ] {
        let filter = Filter::parse(beyond.clone()).unwrap();
        assert!(!filter.is_shared(), "{beyond}");
        assert_eq!(filter.matches(&doc! {}).unwrap_err().code(), crate::error::Code::Unsupported);
    }
}

#[test]
fn keys_are_one_form_of_what_is_equal() {
    let key = |value: Bson| Key::new(value).unwrap();
    assert_eq!(key(Bson::Int32(1)), Key::from(1));
    assert_eq!(Key::stored(Bson::Double(1.0)), Key::from(1));
    assert_ne!(key("1".into()), Key::from(1));
    let (ab, ba) = (key(doc! { "a": 1, "b": 2 }.into()), key(doc! { "b": 2, "a": 1 }.into()));
    assert_ne!(ab, ba);
    assert_eq!(Key::from_bytes(ab.bytes()).unwrap(), ab);
    assert!(Key::from_bytes(&[1, 2, 3]).is_err());
}
