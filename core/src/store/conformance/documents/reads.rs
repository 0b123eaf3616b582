//! Reading: filters, orders, parts; and what only some stores know.

use bson::{Document, doc};
use futures::TryStreamExt;

use super::super::{Bench, cases};
use super::{filter, refused, sort, tables, unwrap};
use crate::error::Code;
use crate::protocol::document::{Filter, Projection, Sort, Update};
use crate::store::documents::Query;

cases![
    filters_orders_and_parts,
    a_table_without_documents_is_empty,
    what_not_all_stores_know_is_never_answered_wrongly,
    what_no_store_knows_is_refused,
];

async fn filters_orders_and_parts(bench: &Bench) {
    let tables = tables!(bench, "queries");
    for n in 0..20_i64 {
        let document = doc! {
            "n": n, "third": n % 3, "name": format!("name{n}"), "in": { "n": n, "m": -n }, "list": [n, n + 1],
        };
        tables.insert(n, document).await;
    }
    let numbers = |found: Vec<Document>| -> Vec<i64> { found.iter().map(|d| d.get_i64("n").expect("n")).collect() };
    let by_n = || sort(doc! { "n": 1 });
    for (which, expected) in [
        (doc! { "n": 7 }, vec![7]),
        (doc! { "n": { "$gt": 16 } }, vec![17, 18, 19]),
        (doc! { "n": { "$in": [3, 5, 99] } }, vec![3, 5]),
        (doc! { "name": { "$regex": "^name1" }, "third": 0 }, vec![12, 15, 18]),
        (doc! { "in.n": { "$lt": 2 } }, vec![0, 1]),
        (doc! { "list": 5 }, vec![4, 5]),
        (doc! { "list.1": 5 }, vec![4]),
        (doc! { "none": { "$exists": true } }, vec![]),
        (doc! { "$or": [{ "n": 1 }, { "n": { "$gte": 19 } }] }, vec![1, 19]),
        (doc! { "$nor": [{ "n": { "$gt": 0 } }] }, vec![0]),
        (doc! { "n": { "$not": { "$lt": 18 } } }, vec![18, 19]),
        (doc! { "none": null, "n": 3 }, vec![3]),
        (doc! { "_id": { "$in": [1, 4] } }, vec![1, 4]),
    ] {
        let query = Query { filter: filter(which.clone()), sort: by_n(), ..Query::default() };
        assert_eq!(numbers(tables.find(query).await), expected, "{which}");
    }
    let query = Query { sort: sort(doc! { "third": -1, "n": 1 }), skip: 5, limit: Some(4), ..Query::default() };
    assert_eq!(numbers(tables.find(query).await), [17, 1, 4, 7]);
    let query = Query { filter: filter(doc! { "n": 3 }), limit: Some(0), ..Query::default() };
    assert!(tables.find(query).await.is_empty());

    let part = |projection| Some(unwrap("a projection", Projection::parse(projection)));
    let query =
        |projection| Query { filter: filter(doc! { "n": 3 }), projection: part(projection), ..Query::default() };
    assert_eq!(tables.find(query(doc! { "in.m": 1 })).await, [doc! { "in": { "m": -3_i64 } }]);
    let without = tables.find(query(doc! { "in": 0, "list": 0, "name": 0 })).await;
    assert_eq!(without, [doc! { "n": 3_i64, "third": 0_i64 }]);
    let found = unwrap("find", tables.second.find(&tables.name, query(doc! { "_id": 0, "n": 1 })).await);
    let found: Vec<_> = unwrap("find", found.try_collect().await);
    assert_eq!((found[0].key.value(), &found[0].document), (&3_i64.into(), &doc! { "n": 3_i64 }));
    tables.drop_table().await;
}

async fn a_table_without_documents_is_empty(bench: &Bench) {
    let tables = tables!(bench, "empty");
    assert!(tables.find(Query::default()).await.is_empty());
    assert_eq!(unwrap("count", tables.first.count(&tables.name, Filter::default()).await), 0);
    tables.drop_table().await;
    tables.drop_table().await;
    let snapshot = unwrap("snapshot", tables.first.snapshot(&tables.name, Filter::default()).await);
    assert!(unwrap("snapshot", snapshot.documents.try_collect::<Vec<_>>().await).is_empty());
}

async fn what_not_all_stores_know_is_never_answered_wrongly(bench: &Bench) {
    let tables = tables!(bench, "beyond");
    for n in 0..4 {
        tables.insert(i64::from(n), doc! { "n": n, "l": ["a", "b"], "t": "Abc" }).await;
    }
    for (which, right) in [
        (doc! { "$expr": { "$gt": ["$n", 2] } }, 1),
        (doc! { "l": { "$size": 2 } }, 4),
        (doc! { "l": { "$all": ["a", "b"] } }, 4),
        (doc! { "t": { "$regex": "b" } }, 4),
        (doc! { "t": { "$regex": "^a", "$options": "i" } }, 4),
        (doc! { "n": { "$type": "int" } }, 4),
        (doc! { "$or": [{ "n": { "$mod": [2, 0] } }, { "n": 1 }] }, 3),
    ] {
        let filter = filter(which.clone());
        assert!(!filter.is_shared(), "{which}");
        match tables.second.count(&tables.name, filter.clone()).await {
            Ok(count) => assert_eq!(count, right, "{which}"),
            Err(error) => {
                assert_eq!(error.code(), Code::Unsupported, "{error}");
                let query = Query { filter: filter.clone(), ..Query::default() };
                refused(tables.second.find(&tables.name, query).await.map(drop), Code::Unsupported);
                refused(tables.second.snapshot(&tables.name, filter).await.map(drop), Code::Unsupported);
            }
        }
    }
    match tables.first.aggregate(&tables.name, vec![doc! { "$match": { "n": { "$gt": 1 } } }]).await {
        Ok(found) => assert_eq!(unwrap("aggregate", found.try_collect::<Vec<_>>().await).len(), 2),
        Err(error) => assert_eq!(error.code(), Code::Unsupported, "{error}"),
    }
    tables.drop_table().await;
}

async fn what_no_store_knows_is_refused(_: &Bench) {
    for bad in [
        doc! { "$and": [] },
        doc! { "$or": { "a": 1 } },
        doc! { "$nor": [1] },
        doc! { "a": { "$in": 1 } },
        doc! { "a": { "$gt": 1, "b": 2 } },
        doc! { "a": { "$not": 1 } },
        doc! { "_fence.x": 1 },
    ] {
        refused(Filter::parse(bad), Code::InvalidArgument);
    }
    for bad in [
        doc! {},
        doc! { "a": 1 },
        doc! { "$set": 1 },
        doc! { "$set": { "_id": 1 } },
        doc! { "$set": { "_by": "me" } },
        doc! { "$set": { "a": 1 }, "$inc": { "a.b": 1 } },
        doc! { "$set": { "a..b": 1 } },
        doc! { "$inc": { "a": "1" } },
        doc! { "$push": { "a": { "$each": 1 } } },
    ] {
        refused(Update::parse(bad), Code::InvalidArgument);
    }
    refused(Sort::parse(doc! { "a": 2 }), Code::InvalidArgument);
    refused(Sort::parse(doc! {}), Code::InvalidArgument);
    refused(Projection::parse(doc! { "a": 1, "b": 0 }), Code::InvalidArgument);
    refused(Projection::parse(doc! { "a": 1, "a.b": 1 }), Code::InvalidArgument);
}
