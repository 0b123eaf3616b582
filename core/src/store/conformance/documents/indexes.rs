//! Indexes: what they refuse, and that they change no answer.

use bson::{Bson, doc};

use super::super::{Bench, cases};
use super::{filter, refused, tables, unwrap, update};
use crate::error::Code;
use crate::protocol::document::Action;
use crate::store::documents::{Index, Query};

cases![
    unique_is_unique,
    sparse_leaves_out_what_has_no_field,
    answers_are_the_same_with_an_index,
    answers_are_the_same_with_an_index_of_several_fields,
    bad_indexes_are_refused,
];

fn index(fields: &[&str]) -> Index {
    Index { fields: fields.iter().map(|path| ((*path).to_owned(), false)).collect(), ..Index::default() }
}

async fn unique_is_unique(bench: &Bench) {
    let tables = tables!(bench, "unique");
    let unique = Index { unique: true, ..index(&["a", "b"]) };
    unwrap("ensure", tables.first.ensure_indexes(&tables.name, vec![unique.clone()]).await);
    unwrap("again", tables.second.ensure_indexes(&tables.name, vec![unique]).await);
    tables.insert(1_i64, doc! { "a": 1, "b": [1, 2] }).await;
    tables.insert(2_i64, doc! { "a": 1, "b": 3 }).await;
    let twice = doc! { "a": 1_i64, "b": 2.0 };
    refused(tables.write(3_i64, Action::Insert(twice.clone())).await, Code::AlreadyExists);
    refused(tables.write(3_i64, Action::Put(twice.clone())).await, Code::AlreadyExists);
    refused(tables.write(2_i64, Action::Replace(twice)).await, Code::AlreadyExists);
    let change = || Action::Upsert(update(doc! { "$set": { "a": 1, "b": 1 } }));
    refused(tables.write(2_i64, change()).await, Code::AlreadyExists);
    refused(tables.write(3_i64, change()).await, Code::AlreadyExists);
    assert_eq!(tables.read(2_i64).await, Some(doc! { "a": 1, "b": 3 }));
    unwrap("delete", tables.write(1_i64, Action::Delete).await);
    unwrap("upsert", tables.write(3_i64, change()).await);

    let too_late = Index { unique: true, ..index(&["a"]) };
    refused(tables.first.ensure_indexes(&tables.name, vec![too_late]).await, Code::AlreadyExists);
    tables.insert(4_i64, doc! { "a": 1, "b": 4 }).await;
    tables.drop_table().await;
}

async fn sparse_leaves_out_what_has_no_field(bench: &Bench) {
    let tables = tables!(bench, "sparse");
    let sparse = Index { unique: true, sparse: true, ..index(&["a"]) };
    let full = Index { unique: true, fields: vec![("b".into(), true)], ..Index::default() };
    unwrap("ensure", tables.first.ensure_indexes(&tables.name, vec![sparse, full]).await);
    tables.insert(1_i64, doc! { "b": 1 }).await;
    tables.insert(2_i64, doc! { "b": 2 }).await;
    tables.insert(3_i64, doc! { "a": null }).await;
    refused(tables.write(4_i64, Action::Insert(doc! { "a": null, "b": 4 })).await, Code::AlreadyExists);
    refused(tables.write(4_i64, Action::Insert(doc! { "a": 4 })).await, Code::AlreadyExists);
    refused(tables.write(4_i64, Action::Insert(doc! { "a": 4, "b": null })).await, Code::AlreadyExists);
    tables.insert(4_i64, doc! { "a": 4, "b": 4 }).await;
    tables.drop_table().await;
}

async fn answers_are_the_same_with_an_index(bench: &Bench) {
    let tables = tables!(bench, "answers");
    let values = [
        doc! { "a": 1 },
        doc! { "a": 1.0 },
        doc! { "a": [1, 2] },
        doc! { "a": [[1], 3] },
        doc! { "a": [] },
        doc! { "a": null },
        doc! {},
        doc! { "a": "1" },
        doc! { "a": { "b": 1 } },
        doc! { "a": [{ "b": 1 }, { "b": [1, 2] }] },
    ];
    let ask = async |which: Bson, path: &str| {
        let query =
            Query { filter: filter(doc! { path: which }), sort: super::sort(doc! { "_id": 1 }), ..Query::default() };
        tables.find(query).await
    };
    for (n, document) in values.iter().enumerate() {
        tables.insert(n as i64, document.clone()).await;
    }
    let asked: Vec<(Bson, &str)> = vec![
        (1.into(), "a"),
        (2.into(), "a"),
        (Bson::Null, "a"),
        (vec![1].into(), "a"),
        (doc! { "b": 1 }.into(), "a"),
        (1.into(), "a.b"),
        (doc! { "$in": [1, "1"] }.into(), "a"),
        (doc! { "$eq": 1, "$gt": 0 }.into(), "a"),
    ];
    let mut before = Vec::new();
    for (which, path) in &asked {
        before.push(ask(which.clone(), path).await);
    }
    unwrap("ensure", tables.first.ensure_indexes(&tables.name, vec![index(&["a"]), index(&["a.b"])]).await);
    for ((which, path), before) in asked.iter().zip(before) {
        assert_eq!(ask(which.clone(), path).await, before, "{path}: {which}");
    }
    tables.drop_table().await;
}

async fn answers_are_the_same_with_an_index_of_several_fields(bench: &Bench) {
    let tables = tables!(bench, "several");
    let values = [
        doc! { "a": 1, "b": 1 },
        doc! { "a": 1, "b": 12 },
        doc! { "a": 1.0, "b": [1, 2] },
        doc! { "a": [1, 2], "b": 2 },
        doc! { "a": 1 },
        doc! { "b": 1 },
        doc! { "a": "x", "b": "y" },
        doc! { "a": "x", "b": "yy" },
        doc! { "a": "xy", "b": "y" },
        doc! { "c": [{ "x": 1, "y": 1 }, { "x": 2, "y": 2 }] },
        doc! { "c": { "x": 1, "y": 2 } },
    ];
    for (n, document) in values.iter().enumerate() {
        tables.insert(n as i64, document.clone()).await;
    }
    let asked = [
        (doc! { "a": 1, "b": 1 }, 2),
        (doc! { "a": 1 }, 5),
        (doc! { "a": 1, "b": { "$gt": 1 } }, 3),
        (doc! { "b": 1 }, 3),
        (doc! { "a": { "$in": [1, 2, "x"] }, "b": { "$in": [2, "y"] } }, 3),
        (doc! { "a": { "$in": [] }, "b": 1 }, 0),
        (doc! { "a": "x" }, 2),
        (doc! { "a": "x", "b": { "$ne": "y" } }, 1),
        (doc! { "a": 1, "b": null }, 1),
        // Of different elements, too.
        (doc! { "c.x": 1, "c.y": 2 }, 2),
    ];
    let indexes = vec![index(&["a", "b"]), index(&["c.x", "c.y"])];
    for indexes in [Vec::new(), indexes] {
        unwrap("ensure", tables.first.ensure_indexes(&tables.name, indexes).await);
        for (which, count) in &asked {
            let query = Query { filter: filter(which.clone()), ..Query::default() };
            assert_eq!(tables.find(query).await.len(), *count, "{which}");
        }
    }
    tables.drop_table().await;
}

async fn bad_indexes_are_refused(bench: &Bench) {
    let tables = tables!(bench, "indexes");
    unwrap(
        "ensure",
        tables.first.ensure_indexes(&tables.name, vec![Index { name: "x".into(), ..index(&["a"]) }]).await,
    );
    for bad in [
        Index { name: "x".into(), ..index(&["b"]) },
        Index { name: "x".into(), unique: true, ..index(&["a"]) },
        index(&[]),
        index(&["a", "a"]),
        index(&["_fence.x"]),
        index(&["a..b"]),
        index(&["$a"]),
        Index { expire_after: Some(std::time::Duration::from_secs(1)), ..index(&["a", "b"]) },
        Index { expire_after: Some(std::time::Duration::MAX), ..index(&["d"]) },
    ] {
        refused(tables.first.ensure_indexes(&tables.name, vec![bad]).await, Code::InvalidArgument);
    }
    let both = index(&["l", "m"]);
    unwrap("ensure", tables.first.ensure_indexes(&tables.name, vec![both]).await);
    refused(tables.write(1_i64, Action::Insert(doc! { "l": [1], "m": [2] })).await, Code::InvalidArgument);
    assert_eq!(tables.read(1_i64).await, None);
    tables.drop_table().await;
}
