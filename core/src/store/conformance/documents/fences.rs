//! Fenced writes: after one with a token none with a lower token of the same lock, whatever happened to the document.

use bson::doc;

use super::super::{Bench, Calls, cases};
use super::{filter, refused, tables, unwrap, update};
use crate::error::Code;
use crate::protocol::document::{Action, Fence};
use crate::store::documents::{ManyAction, WriteMany};

cases![
    a_stale_holder_is_fenced,
    a_deleted_document_stays_fenced,
    a_document_made_anew_stays_fenced,
    locks_do_not_fence_each_other,
    a_strict_write_needs_the_hold,
    a_refused_write_raises_no_fence,
    many_are_fenced_one_by_one,
    fences_do_not_show,
];

/// Two holds of one lock, the older of which has ended.
async fn stale_and_current(bench: &Bench, name: &str) -> (Fence, Fence) {
    let (stale, lock, holder) = bench.fence(name, false).await;
    bench.first.release(&lock, holder).await;
    let (current, ..) = bench.fence(name, false).await;
    assert!(current.token > stale.token);
    (stale, current)
}

fn all_actions() -> [Action; 6] {
    [
        Action::Insert(doc! { "by": "stale" }),
        Action::Put(doc! { "by": "stale" }),
        Action::Replace(doc! { "by": "stale" }),
        Action::Update(update(doc! { "$set": { "by": "stale" } })),
        Action::Upsert(update(doc! { "$set": { "by": "stale" } })),
        Action::Delete,
    ]
}

async fn a_stale_holder_is_fenced(bench: &Bench) {
    let tables = tables!(bench, "stale");
    let (stale, current) = stale_and_current(bench, "stale").await;
    let writes = [
        Action::Insert(doc! { "by": "current" }),
        Action::Put(doc! { "by": "current", "n": 1 }),
        Action::Replace(doc! { "by": "current", "n": 2 }),
        Action::Update(update(doc! { "$inc": { "n": 1 } })),
        Action::Upsert(update(doc! { "$inc": { "n": 1 } })),
    ];
    for write in writes {
        unwrap("a fenced write", tables.write_fenced("a", write, &current).await);
        for action in all_actions() {
            refused(tables.write_fenced("a", action, &stale).await, Code::Fenced);
        }
    }
    assert_eq!(tables.read("a").await, Some(doc! { "by": "current", "n": 4 }));
    tables.drop_table().await;
}

async fn a_deleted_document_stays_fenced(bench: &Bench) {
    let tables = tables!(bench, "deleted");
    let (stale, current) = stale_and_current(bench, "deleted").await;
    // Deleted under the fence, and by somebody who knows of none.
    for unfenced in [false, true] {
        unwrap("upsert", tables.write_fenced("a", Action::Put(doc! { "n": 1 }), &current).await);
        match unfenced {
            false => unwrap("delete", tables.write_fenced("a", Action::Delete, &current).await),
            true => unwrap("delete", tables.write("a", Action::Delete).await),
        };
        for action in all_actions() {
            refused(tables.write_fenced("a", action, &stale).await, Code::Fenced);
            assert_eq!(tables.read("a").await, None, "nobody brings it back");
        }
    }
    unwrap("delete many", tables.write_fenced("b", Action::Insert(doc! { "n": 1 }), &current).await);
    let many = WriteMany { filter: filter(doc! { "n": 1 }), action: ManyAction::Delete, fence: None, source: None };
    assert_eq!(unwrap("delete many", tables.first.write_many(&tables.name, many).await).count, 1);
    refused(tables.write_fenced("b", Action::Put(doc! { "by": "stale" }), &stale).await, Code::Fenced);
    tables.drop_table().await;
}

async fn a_document_made_anew_stays_fenced(bench: &Bench) {
    let tables = tables!(bench, "anew");
    let (stale, current) = stale_and_current(bench, "anew").await;
    unwrap("insert", tables.write_fenced("a", Action::Insert(doc! { "n": 1 }), &current).await);
    unwrap("delete", tables.write_fenced("a", Action::Delete, &current).await);
    // By somebody who knows of no fence.
    tables.insert("a", doc! { "n": 2 }).await;
    for action in all_actions().into_iter().skip(1) {
        refused(tables.write_fenced("a", action, &stale).await, Code::Fenced);
    }
    unwrap("replace", tables.write("a", Action::Replace(doc! { "n": 3 })).await);
    unwrap("put", tables.write("a", Action::Put(doc! { "n": 4 })).await);
    refused(tables.write_fenced("a", Action::Replace(doc! { "by": "stale" }), &stale).await, Code::Fenced);
    unwrap("update", tables.write_fenced("a", Action::Update(update(doc! { "$inc": { "n": 1 } })), &current).await);
    assert_eq!(tables.read("a").await, Some(doc! { "n": 5 }));
    tables.drop_table().await;
}

async fn locks_do_not_fence_each_other(bench: &Bench) {
    let tables = tables!(bench, "locks");
    let mut holds = Vec::new();
    for n in 0..9 {
        holds.push(bench.fence(&format!("locks{n}"), false).await.0);
    }
    // In the reverse order of their tokens.
    for fence in holds.iter().rev().take(8) {
        let write = Action::Upsert(update(doc! { "$inc": { "n": 1 } }));
        unwrap("a fenced write", tables.write_fenced("a", write, fence).await);
    }
    let one_more = Action::Update(update(doc! { "$inc": { "n": 1 } }));
    refused(tables.write_fenced("a", one_more, &holds[0]).await, Code::InvalidArgument);
    assert_eq!(tables.read("a").await, Some(doc! { "n": 8 }));
    tables.drop_table().await;
}

async fn a_strict_write_needs_the_hold(bench: &Bench) {
    let tables = tables!(bench, "strict");
    let (fence, lock, holder) = bench.fence("strict", true).await;
    for action in all_actions() {
        match &action {
            Action::Insert(_) | Action::Put(_) | Action::Upsert(_) => {
                unwrap("a strict write", tables.write_fenced("a", action, &fence).await);
                unwrap("delete", tables.write_fenced("a", Action::Delete, &fence).await);
            }
            _ => refused(tables.write_fenced("a", action, &fence).await, Code::NotFound),
        }
    }
    bench.first.release(&lock, holder).await;
    // Nobody has written since, and yet.
    for action in all_actions() {
        refused(tables.write_fenced("a", action, &fence).await, Code::Fenced);
    }
    assert_eq!(tables.read("a").await, None);
    tables.drop_table().await;
}

async fn a_refused_write_raises_no_fence(bench: &Bench) {
    let tables = tables!(bench, "refused");
    let (first, ..) = bench.fence("refused", false).await;
    let higher = Fence { token: first.token + 1, strict: true, ..first.clone() };
    refused(tables.write_fenced("a", Action::Put(doc! {}), &higher).await, Code::Fenced);
    unwrap("insert", tables.write_fenced("a", Action::Insert(doc! { "n": 1 }), &first).await);
    refused(tables.write_fenced("a", Action::Insert(doc! { "n": 2 }), &first).await, Code::AlreadyExists);
    refused(tables.write_fenced("b", Action::Delete, &first).await, Code::NotFound);
    refused(tables.write_fenced("b", Action::Replace(doc! {}), &first).await, Code::NotFound);
    unwrap("put", tables.write_fenced("b", Action::Put(doc! { "n": 3 }), &first).await);
    assert_eq!(tables.read("a").await, Some(doc! { "n": 1 }));
    tables.drop_table().await;
}

async fn many_are_fenced_one_by_one(bench: &Bench) {
    let tables = tables!(bench, "fenced-many");
    let (stale, current) = stale_and_current(bench, "many").await;
    for n in 0..6_i64 {
        tables.insert(n, doc! { "n": n, "by": "nobody" }).await;
    }
    let by = |by: &str| ManyAction::Update(update(doc! { "$set": { "by": by } }));
    let many = |which, action, fence: &Fence| {
        let write = WriteMany { filter: filter(which), action, fence: Some(fence.clone()), source: None };
        tables.first.write_many(&tables.name, write)
    };
    let done = unwrap("update", many(doc! { "n": { "$lt": 2 } }, by("current"), &current).await);
    assert_eq!(done.count, 2);
    let strict = Fence { strict: true, ..stale.clone() };
    let ended = many(doc! { "n": 3 }, by("stale"), &strict).await.unwrap_err();
    assert!(ended.code() == Code::Fenced && ended.message().contains("the hold has ended"), "{ended}");
    refused(many(doc! {}, by("stale"), &stale).await, Code::Fenced);
    refused(many(doc! {}, ManyAction::Delete, &stale).await, Code::Fenced);
    for n in 0..2_i64 {
        assert_eq!(tables.read(n).await, Some(doc! { "n": n, "by": "current" }));
    }
    let done = unwrap("update", many(doc! { "n": { "$lt": 2 } }, by("again"), &current).await);
    assert_eq!(done.count, 2);
    assert_eq!(unwrap("delete", many(doc! { "n": 0 }, ManyAction::Delete, &current).await).count, 1);
    refused(tables.write_fenced(0_i64, Action::Put(doc! { "by": "stale" }), &stale).await, Code::Fenced);
    tables.drop_table().await;
}

async fn fences_do_not_show(bench: &Bench) {
    let tables = tables!(bench, "hidden");
    let (fence, ..) = bench.fence("hidden", false).await;
    let written = unwrap("insert", tables.write_fenced("a", Action::Insert(doc! { "n": 1 }), &fence).await);
    assert_eq!(written.document, doc! { "_id": "a", "n": 1 });
    let written =
        unwrap("update", tables.write_fenced("a", Action::Update(update(doc! { "$inc": { "n": 1 } })), &fence).await);
    assert_eq!(written.document, doc! { "_id": "a", "n": 2 });
    assert_eq!(tables.read("a").await, Some(doc! { "n": 2 }));
    tables.drop_table().await;
}
