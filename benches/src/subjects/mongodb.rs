//! The floor of MongoDB: one insert and one delete, acknowledged by the majority's journals.

use std::time::Duration;

use coord_bench_worker::{Result, Subject};
use mongodb::bson::{Document, doc};
use mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use mongodb::{Client, Collection};

/// As many connections as this project's own default.
const POOL: u32 = 100;

pub(super) struct Bare(Collection<Document>);

pub(super) async fn connect(uri: &str) -> Result<Bare> {
    Ok(Bare(client(uri).await?.database("bench").collection("bare")))
}

/// A client whose writes are as durable as this project's.
pub(crate) async fn client(uri: &str) -> Result<Client> {
    let mut options = ClientOptions::parse(uri).await?;
    options.max_pool_size = Some(POOL);
    options.write_concern = Some(
        WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(Duration::from_secs(30)).build(),
    );
    Ok(Client::with_options(options)?)
}

impl Subject for Bare {
    type Lock = String;
    type Held = String;

    fn lock(&self, name: &str) -> Result<String> {
        Ok(format!("{}-{name}", std::process::id()))
    }

    async fn acquire(&self, lock: &String) -> Result<String> {
        self.0.insert_one(doc! { "_id": lock, "owner": "somebody" }).await?;
        Ok(lock.clone())
    }

    async fn release(&self, held: String) -> Result<()> {
        self.0.delete_one(doc! { "_id": held }).await?;
        Ok(())
    }
}

/// The most that one document can take: all clients write to the same one.
pub(super) struct OneDocument(Collection<Document>);

pub(super) async fn connect_to_one(uri: &str) -> Result<OneDocument> {
    let one = client(uri).await?.database("bench").collection("one");
    one.update_one(doc! { "_id": 0 }, doc! { "$inc": { "n": 1 } }).upsert(true).await?;
    Ok(OneDocument(one))
}

impl Subject for OneDocument {
    type Lock = ();
    type Held = ();

    fn lock(&self, _name: &str) -> Result<()> {
        Ok(())
    }

    async fn acquire(&self, (): &()) -> Result<()> {
        self.0.find_one_and_update(doc! { "_id": 0 }, doc! { "$inc": { "n": 1 } }).await?;
        Ok(())
    }

    async fn release(&self, (): ()) -> Result<()> {
        Ok(())
    }
}
