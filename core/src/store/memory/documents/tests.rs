use std::time::Duration;

use bson::doc;

use super::*;
use crate::protocol::claim::{ClaimKey, ClaimStep, Entry, Priority, Step};
use crate::protocol::session::SessionId;
use crate::store::Store;
use crate::time::ManualClock;

#[tokio::test]
async fn an_index_of_several_fields_leads_to_what_has_its_first_values() {
    let store = MemoryStore::open("", Env::system(tokio::runtime::Handle::current()));
    let table = TableName::parse("t").unwrap();
    for n in 0..110 {
        let state = if n < 100 { "sent" } else { "queued" };
        let write = Write::new(Key::from(n), Action::Put(doc! { "box": "b", "st": state, "due": n }));
        store.write(&table, write).await.unwrap();
    }
    let fields = ["box", "st", "due"].map(|field| (field.to_owned(), false)).to_vec();
    store.ensure_indexes(&table, vec![Index { fields, ..Index::default() }]).await.unwrap();
    let due = Filter::parse(doc! { "box": "b", "st": "queued", "due": { "$lte": 105 } }).unwrap();
    let looked_at = store.with(|records| records.tables.table(&table).indexed(&due)).unwrap();
    assert_eq!(looked_at.expect("an index for it").len(), 10);
    assert_eq!(store.count(&table, due).await.unwrap(), 6);
}

#[tokio::test]
async fn fences_of_the_gone_are_forgotten_after_their_time() {
    let clock = Arc::new(ManualClock::new(Timestamp::ZERO, WallTime(1_750_000_000_000)));
    let env = Env { clock: clock.clone(), ..Env::system(tokio::runtime::Handle::current()) };
    let store = MemoryStore::open("", env);
    let table = TableName::parse("t").unwrap();
    let holder = Entry { session: SessionId::from_random(1), attempt: 1, priority: Priority::default() };
    let lock = ClaimKey::new("lock/default/default/a");
    let acquire = ClaimStep::Step(Step::acquire(holder, true, 9, Vec::new()));
    let token = store.apply_claim(lock.clone(), acquire).await.unwrap().unwrap().token;
    let fence = Fence { lock, holder, token, strict: false };
    let write = async |key: i64, action| {
        let write = Write { fence: Some(fence.clone()), ..Write::new(Key::from(key), action) };
        store.write(&table, write).await.unwrap();
    };
    let known = || {
        let kept = |table: &mut Table| (table.tombstones.len(), table.gone.len());
        store.with(|records| kept(records.tables.table(&table))).unwrap()
    };
    for key in 0..100 {
        write(key, Action::Put(doc! {})).await;
        write(key, Action::Delete).await;
    }
    clock.advance(FENCES_KEPT);
    write(0, Action::Put(doc! {})).await;
    write(1, Action::Put(doc! {})).await;
    write(1, Action::Delete).await;
    assert_eq!(known(), (99, 99), "all but that of the document that is there again");
    clock.set_wall(WallTime(0));
    clock.advance(Duration::from_secs(1));
    write(0, Action::Put(doc! {})).await;
    assert_eq!(known(), (1, 1), "the one that was gone once more");
}

#[tokio::test]
async fn a_date_before_what_was_forgotten_is_told_so() {
    let clock = Arc::new(ManualClock::new(Timestamp::ZERO, WallTime(1_000)));
    let env = Env { clock: clock.clone(), ..Env::system(tokio::runtime::Handle::current()) };
    let store = MemoryStore::open("", env);
    let table = TableName::parse("t").unwrap();
    let put = || store.write(&table, Write::new(Key::from(1), Action::Put(doc! {})));
    let watch = |date| store.watch(&table, WatchOptions { from: From::Time(WallTime(date)), previous: false });
    put().await.unwrap();
    clock.set_wall(WallTime(2_000));
    for _ in 1..HISTORY {
        put().await.unwrap();
    }
    let first = watch(0).await.unwrap().next().await.unwrap().unwrap();
    assert!(matches!(first, Event::Change(change) if change.at == WallTime(1_000)), "all is there");
    put().await.unwrap();
    assert_eq!(watch(1_000).await.map(drop).unwrap_err().code(), Code::Compacted);
    store.drop_table(&table).await.unwrap();
    assert_eq!(watch(0).await.map(drop).unwrap_err().code(), Code::Compacted);
    clock.set_wall(WallTime(3_000));
    put().await.unwrap();
    let first = watch(3_000).await.unwrap().next().await.unwrap().unwrap();
    assert!(matches!(first, Event::Change(change) if change.at == WallTime(3_000)));
}
