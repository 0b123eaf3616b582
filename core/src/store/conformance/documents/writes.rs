//! Writes to one document and to many: what they need, what they leave, and what is kept to the bit.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, Document, Timestamp, doc};

use super::super::{Bench, cases};
use super::{filter, refused, tables, unwrap, update};
use crate::error::Code;
use crate::protocol::document::{Action, Condition, Key, MAX_DOCUMENT, Revision, TableName, Write};
use crate::store::documents::{ManyAction, WriteMany};

cases![
    each_action_needs_what_it_says,
    revisions_name_states,
    values_are_kept_to_the_bit,
    keys_are_texts_integers_and_documents,
    bad_documents_are_refused_untouched,
    concurrent_writes_are_all_applied,
    concurrent_inserts_have_one_winner,
    many_are_updated_and_deleted,
];

async fn each_action_needs_what_it_says(bench: &Bench) {
    let tables = tables!(bench, "actions");
    for action in
        [Action::Replace(doc! { "a": 1 }), Action::Update(update(doc! { "$set": { "a": 1 } })), Action::Delete]
    {
        refused(tables.write("none", action).await, Code::NotFound);
    }
    assert_eq!(tables.read("none").await, None);

    let made = tables.insert("a", doc! { "n": 1 }).await;
    assert!(made.created);
    assert_eq!(made.document, doc! { "_id": "a", "n": 1 });
    refused(tables.write("a", Action::Insert(doc! { "n": 2 })).await, Code::AlreadyExists);
    assert_eq!(tables.read("a").await, Some(doc! { "n": 1 }));

    let written = unwrap("update", tables.write("a", Action::Update(update(doc! { "$inc": { "n": 4 } }))).await);
    assert_eq!((written.document, written.created), (doc! { "_id": "a", "n": 5 }, false));
    assert!(written.position > made.position, "places grow");
    let written = unwrap("replace", tables.write("a", Action::Replace(doc! { "m": true })).await);
    assert_eq!((written.document, written.created), (doc! { "_id": "a", "m": true }, false));
    let written = unwrap("put", tables.write("a", Action::Put(doc! { "p": 1 })).await);
    assert!(!written.created);
    let written = unwrap("put", tables.write("b", Action::Put(doc! { "p": 2 })).await);
    assert!(written.created);
    assert_eq!((tables.read("a").await, tables.read("b").await), (Some(doc! { "p": 1 }), Some(doc! { "p": 2 })));

    let upsert = || Action::Upsert(update(doc! { "$inc": { "n": 1 }, "$setOnInsert": { "new": true } }));
    let written = unwrap("upsert", tables.write("c", upsert()).await);
    assert_eq!((written.document, written.created), (doc! { "_id": "c", "n": 1, "new": true }, true));
    let written = unwrap("upsert", tables.write("c", upsert()).await);
    assert_eq!((written.document, written.created), (doc! { "_id": "c", "n": 2, "new": true }, false));

    let gone = unwrap("delete", tables.write("c", Action::Delete).await);
    assert_eq!((gone.document.get_i32("n").ok(), gone.revision), (Some(2), None));
    assert_eq!(tables.read("c").await, None);
    tables.drop_table().await;
}

async fn revisions_name_states(bench: &Bench) {
    let tables = tables!(bench, "revisions");
    let first = tables.insert(1_i64, doc! { "n": 1 }).await.revision.expect("a revision");
    let replace = |n: i32| Action::Replace(doc! { "n": n });
    refused(tables.write_if(2_i64, replace(2), Condition::Revision(first)).await, Code::NotFound);
    let wrong = Condition::Revision(Revision(first.0 ^ 1));
    refused(tables.write_if(1_i64, replace(2), wrong).await, Code::Conflict);
    let written = unwrap("replace", tables.write_if(1_i64, replace(2), Condition::Revision(first)).await);
    let second = written.revision.expect("a revision");
    refused(tables.write_if(1_i64, replace(3), Condition::Revision(first)).await, Code::Conflict);
    refused(tables.write_if(1_i64, Action::Delete, Condition::Revision(first)).await, Code::Conflict);
    let update = Action::Update(update(doc! { "$inc": { "n": 10 } }));
    let written = unwrap("update", tables.write_if(1_i64, update, Condition::Revision(second)).await);
    assert_eq!(written.document, doc! { "_id": 1_i64, "n": 12 });

    refused(tables.write_if(1_i64, replace(9), Condition::Document(doc! { "n": 2 })).await, Code::Conflict);
    let other_type = Condition::Document(doc! { "n": 12_i64 });
    refused(tables.write_if(1_i64, replace(9), other_type).await, Code::Conflict);
    unwrap("replace", tables.write_if(1_i64, replace(9), Condition::Document(doc! { "n": 12 })).await);
    assert_eq!(tables.read(1_i64).await, Some(doc! { "n": 9 }));
    let known = unwrap("delete", tables.write_if(1_i64, Action::Delete, Condition::Document(doc! { "n": 9 })).await);
    assert_eq!(known.document, doc! { "_id": 1_i64, "n": 9 });
    tables.drop_table().await;
}

async fn values_are_kept_to_the_bit(bench: &Bench) {
    let tables = tables!(bench, "values");
    let document = doc! {
        "nan": f64::NAN, "payload": f64::from_bits(0x7ff8_0000_dead_beef), "minus": -0.0, "least": f64::MIN_POSITIVE,
        "infinite": f64::NEG_INFINITY, "int": i32::MIN, "long": i64::MAX, "text": "a\0b\u{1f980}", "empty": "",
        "decimal": "1.000E-6176".parse::<Decimal128>().expect("a decimal"),
        "decimals": ["NaN".parse::<Decimal128>().expect("a decimal"), "-0".parse::<Decimal128>().expect("a decimal")],
        "date": DateTime::from_millis(-1), "far": DateTime::MAX, "id": ObjectId::from_bytes([9; 12]),
        "binary": Binary { subtype: BinarySubtype::UserDefined(0x81), bytes: vec![0, 255, 7] },
        "uuid": Binary { subtype: BinarySubtype::Uuid, bytes: vec![3; 16] },
        "time": Timestamp { time: u32::MAX, increment: 1 }, "null": Bson::Null, "least of all": Bson::MinKey,
        "nested": { "": [{ "a.b": [[], {}] }, true] }, "z": 1, "a": 2,
    };
    let whole: Document = std::iter::once(("_id".to_owned(), Bson::from("k"))).chain(document.clone()).collect();
    let bytes = whole.to_vec().expect("bytes");
    let written = tables.insert("k", document.clone()).await;
    assert_eq!(written.document.to_vec().expect("bytes"), bytes, "as it was written");
    let kept = |found: Option<Document>| {
        let found = found.expect("the document");
        std::iter::once(("_id".to_owned(), Bson::from("k"))).chain(found).collect::<Document>().to_vec().expect("bytes")
    };
    assert_eq!(kept(tables.read("k").await), bytes, "as it is read");
    unwrap("put", tables.write("k", Action::Put(document.clone())).await);
    assert_eq!(kept(tables.read("k").await), bytes, "as it replaces");
    let (fence, ..) = bench.fence("values", false).await;
    unwrap("put", tables.write_fenced("k", Action::Put(document), &fence).await);
    assert_eq!(kept(tables.read("k").await), bytes, "as it replaces under a fence");
    tables.drop_table().await;
}

async fn keys_are_texts_integers_and_documents(bench: &Bench) {
    let tables = tables!(bench, "keys");
    let keys: Vec<Bson> = vec![
        "1".into(),
        1_i64.into(),
        i64::MIN.into(),
        "".into(),
        "a.b$c/d".into(),
        doc! { "a": 1, "b": "x" }.into(),
        doc! { "b": "x", "a": 1 }.into(),
        doc! {}.into(),
        ObjectId::from_bytes([1; 12]).into(),
        DateTime::from_millis(5).into(),
    ];
    for (n, key) in keys.iter().enumerate() {
        tables.insert(key.clone(), doc! { "n": n as i64 }).await;
    }
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(tables.read(key.clone()).await, Some(doc! { "n": n as i64 }), "{key:?}");
    }
    for same in [Bson::Int32(1), doc! { "a": 1_i64, "b": "x" }.into()] {
        refused(tables.write(same, Action::Insert(doc! {})).await, Code::AlreadyExists);
    }
    for bad in [
        Bson::Null,
        Bson::Double(1.5),
        Bson::Boolean(true),
        Bson::Array(vec![]),
        doc! { "a": 0.5 }.into(),
        doc! { "$a": 1 }.into(),
        doc! { "a": [1] }.into(),
        "k".repeat(2_000).into(),
    ] {
        refused(Key::new(bad), Code::InvalidArgument);
    }
    for bad in ["", "-a", "a b", "a..b", "a/b", "admin.users", "x.system.indexes", "\u{e9}", &"t".repeat(300)] {
        refused(TableName::parse(bad), Code::InvalidArgument);
    }
    tables.drop_table().await;
}

async fn bad_documents_are_refused_untouched(bench: &Bench) {
    let tables = tables!(bench, "bad");
    tables.insert("a", doc! { "n": 1 }).await;
    let large = "x".repeat(MAX_DOCUMENT);
    let bad = [
        doc! { "_id": "b" },
        doc! { "_fence": {} },
        doc! { "_by": "me" },
        doc! { "$set": { "a": 1 } },
        doc! { "large": &large },
    ];
    for document in bad {
        for action in
            [Action::Insert(document.clone()), Action::Put(document.clone()), Action::Replace(document.clone())]
        {
            refused(tables.write("a", action).await, Code::InvalidArgument);
        }
    }
    let whole = "x".repeat(MAX_DOCUMENT - 100);
    tables.insert("large", doc! { "x": &whole }).await;
    let more = update(doc! { "$set": { "more": "y".repeat(200) } });
    refused(tables.write("large", Action::Update(more)).await, Code::InvalidArgument);
    for misfit in [doc! { "$inc": { "t": 1 } }, doc! { "$push": { "t": 1 } }, doc! { "$set": { "t.a": 1 } }] {
        unwrap("put", tables.write("text", Action::Put(doc! { "t": "text" })).await);
        refused(tables.write("text", Action::Update(update(misfit))).await, Code::InvalidArgument);
        assert_eq!(tables.read("text").await, Some(doc! { "t": "text" }));
    }
    assert_eq!(tables.read("a").await, Some(doc! { "n": 1 }));
    tables.drop_table().await;
}

async fn concurrent_writes_are_all_applied(bench: &Bench) {
    let tables = tables!(bench, "concurrent");
    let add = |documents| {
        let write = Write::new(Key::from(1), Action::Upsert(update(doc! { "$inc": { "n": 1 } })));
        let documents: &dyn crate::store::documents::Documents = documents;
        documents.write(&tables.name, write)
    };
    let writes = (0..20).flat_map(|_| [add(tables.first), add(tables.second)]);
    let written: Vec<_> = futures::future::join_all(writes).await;
    let created = written.into_iter().map(|written| unwrap("upsert", written).created);
    assert_eq!(created.filter(|created| *created).count(), 1, "one has made it");
    assert_eq!(tables.read(1_i64).await, Some(doc! { "n": 40 }));
    tables.drop_table().await;
}

async fn concurrent_inserts_have_one_winner(bench: &Bench) {
    let tables = tables!(bench, "winner");
    for key in 0..5_i64 {
        let insert = |documents, who: i32| {
            let documents: &dyn crate::store::documents::Documents = documents;
            documents.write(&tables.name, Write::new(Key::from(key), Action::Insert(doc! { "who": who })))
        };
        let both = futures::future::join(insert(tables.first, 1), insert(tables.second, 2)).await;
        match both {
            (Ok(_), Err(error)) => {
                assert_eq!(error.code(), Code::AlreadyExists, "{error}");
                assert_eq!(tables.read(key).await, Some(doc! { "who": 1 }));
            }
            (Err(error), Ok(_)) => {
                assert_eq!(error.code(), Code::AlreadyExists, "{error}");
                assert_eq!(tables.read(key).await, Some(doc! { "who": 2 }));
            }
            other => panic!("one of two inserts is done, not {other:?}"),
        }
    }
    tables.drop_table().await;
}

async fn many_are_updated_and_deleted(bench: &Bench) {
    let tables = tables!(bench, "many");
    for n in 0..30_i64 {
        tables.insert(n, doc! { "n": n, "even": n % 2 == 0 }).await;
    }
    let many = |which, action| WriteMany { filter: filter(which), action, fence: None, source: None };
    let add = ManyAction::Update(update(doc! { "$inc": { "n": 100_i64 } }));
    let done = unwrap("update", tables.first.write_many(&tables.name, many(doc! { "even": true }, add.clone())).await);
    assert_eq!(done.count, 15);
    let done = tables.first.write_many(&tables.name, many(doc! { "n": { "$lt": 10 } }, ManyAction::Delete)).await;
    assert_eq!(unwrap("delete", done).count, 5);
    let done = unwrap("update", tables.first.write_many(&tables.name, many(doc! { "n": -1 }, add)).await);
    assert_eq!(done.count, 0);
    let count = |which| tables.second.count(&tables.name, filter(which));
    assert_eq!(unwrap("count", count(doc! {}).await), 25);
    assert_eq!(unwrap("count", count(doc! { "n": { "$gte": 100 } }).await), 15);
    tables.drop_table().await;
}
