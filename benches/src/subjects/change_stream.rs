//! A plain lock on MongoDB, as programs write it for themselves: insert a document; if it is there, wait for a change
//! stream to tell that it was deleted, and try again. Every waiter tries.

use std::sync::Arc;

use coord_bench_worker::{Result, Subject};
use futures::StreamExt;
use mongodb::bson::{Document, doc};
use mongodb::error::{ErrorKind, WriteFailure};
use mongodb::{Client, Collection};
use tokio::sync::watch;

pub(super) struct Plain {
    locks: Collection<Document>,
    /// Counts the deletions that the stream has told of.
    deletions: watch::Receiver<u64>,
    _client: Arc<Client>,
}

pub(super) async fn connect(uri: &str) -> Result<Plain> {
    let client = super::mongodb::client(uri).await?;
    let locks: Collection<Document> = client.database("bench").collection("plain");
    let mut stream = locks.watch().pipeline([doc! { "$match": { "operationType": "delete" } }]).await?;
    let (tell, deletions) = watch::channel(0);
    tokio::spawn(async move {
        while let Some(Ok(_)) = stream.next().await {
            tell.send_modify(|count| *count += 1);
        }
    });
    Ok(Plain { locks, deletions, _client: Arc::new(client) })
}

impl Subject for Plain {
    type Lock = String;
    type Held = String;

    fn lock(&self, name: &str) -> Result<String> {
        Ok(name.to_owned())
    }

    async fn acquire(&self, lock: &String) -> Result<String> {
        let mut deletions = self.deletions.clone();
        loop {
            deletions.mark_unchanged();
            match self.locks.insert_one(doc! { "_id": lock }).await {
                Ok(_) => return Ok(lock.clone()),
                Err(error) if is_duplicate(&error.kind) => deletions.changed().await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn release(&self, held: String) -> Result<()> {
        self.locks.delete_one(doc! { "_id": held }).await?;
        Ok(())
    }
}

const DUPLICATE_KEY: i32 = 11_000;

fn is_duplicate(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Write(WriteFailure::WriteError(error)) if error.code == DUPLICATE_KEY)
}
