//! Tables: for stores that keep documents.

use bson::{Bson, Document};
use futures::TryStreamExt;

use super::{Bench, Calls, ClaimKey, Entry, unwrap};
use crate::error::{Code, Result};
use crate::protocol::document::{Action, Condition, Fence, Filter, Key, Sort, TableName, Update, Write};
use crate::store::documents::{Documents, Query, Written};

pub(super) mod fences;
pub(super) mod indexes;
pub(super) mod reads;
pub(super) mod watching;
pub(super) mod writes;

/// A table of one case, as two users of the store see it.
struct Tables<'a> {
    name: TableName,
    first: &'a dyn Documents,
    second: &'a dyn Documents,
}

impl Bench {
    /// The table of this name, new for this case. None if the store keeps no documents.
    fn tables(&self, name: &str) -> Option<Tables<'_>> {
        let name = TableName::parse(&format!("{name}-{}", self.mark)).expect("the name of a table");
        Some(Tables { name, first: self.first.documents()?, second: self.second.documents()? })
    }

    /// A hold, as the condition of a write.
    async fn fence(&self, name: &str, strict: bool) -> (Fence, ClaimKey, Entry) {
        let (lock, holder) = (self.key(name), self.stranger());
        let token = self.first.acquire(&lock, holder).await.token;
        (Fence { lock: lock.clone(), holder, token, strict }, lock, holder)
    }
}

impl Tables<'_> {
    async fn write(&self, key: impl Into<Bson>, action: Action) -> Result<Written> {
        self.first.write(&self.name, Write::new(Key::new(key).expect("a key"), action)).await
    }

    async fn write_if(&self, key: impl Into<Bson>, action: Action, condition: Condition) -> Result<Written> {
        let write = Write { condition, ..Write::new(Key::new(key).expect("a key"), action) };
        self.first.write(&self.name, write).await
    }

    async fn write_fenced(&self, key: impl Into<Bson>, action: Action, fence: &Fence) -> Result<Written> {
        let write = Write { fence: Some(fence.clone()), ..Write::new(Key::new(key).expect("a key"), action) };
        self.first.write(&self.name, write).await
    }

    async fn insert(&self, key: impl Into<Bson>, document: Document) -> Written {
        unwrap("insert", self.write(key, Action::Insert(document)).await)
    }

    /// The document of a key as the second user reads it, without the key.
    async fn read(&self, key: impl Into<Bson>) -> Option<Document> {
        let filter = Filter::key(&Key::new(key).expect("a key"));
        let mut found = self.find(Query { filter, ..Query::default() }).await;
        assert!(found.len() <= 1, "one key was asked for");
        found.pop()
    }

    /// What the second user finds, without the keys.
    async fn find(&self, query: Query) -> Vec<Document> {
        let found = unwrap("find", self.second.find(&self.name, query).await);
        let found: Vec<_> = unwrap("find", found.try_collect().await);
        let without = |mut document: Document| {
            document.remove("_id");
            document
        };
        found.into_iter().map(|stored| without(stored.document)).collect()
    }

    async fn drop_table(&self) {
        unwrap("drop_table", self.first.drop_table(&self.name).await);
    }
}

fn filter(document: Document) -> Filter {
    unwrap("a filter", Filter::parse(document))
}

fn update(document: Document) -> Update {
    unwrap("an update", Update::parse(document))
}

fn sort(document: Document) -> Option<Sort> {
    Some(unwrap("an order", Sort::parse(document)))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, code: Code) {
    match result {
        Ok(done) => panic!("{code:?} was expected, but it was done: {done:?}"),
        Err(error) => assert_eq!(error.code(), code, "{error}"),
    }
}

/// The store that keeps no documents passes, too.
macro_rules! tables {
    ($bench:expr, $name:expr) => {
        match $bench.tables($name) {
            Some(tables) => tables,
            None => return,
        }
    };
}
use tables;
