//! Floors that are not a lock: how fast a store's own event follows a write.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use coord_bench_worker::{Result, now};
use futures::StreamExt;
use mongodb::bson::{Document, doc};
use rusqlite::Connection;

use crate::rows::Round;
use crate::subjects;

/// From before one write until a change stream of another client has told of it.
pub(crate) fn change_event(round: &mut Round<'_>, members: usize) -> Result<Vec<u64>> {
    let uri = round.stage.mongodb(members)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let samples = runtime.block_on(async {
        let (writer, reader) = (subjects::mongodb_client(&uri).await?, subjects::mongodb_client(&uri).await?);
        let name = ("bench", "events");
        let writes = writer.database(name.0).collection::<Document>(name.1);
        // A change stream begins at a moment when the collection exists.
        writes.insert_one(doc! {}).await?;
        let mut events = reader.database(name.0).collection::<Document>(name.1).watch().await?;
        let mut samples = Vec::new();
        for _ in 0..EVENTS {
            let before = now();
            let event = async { events.next().await.ok_or("the change stream ended") };
            let (written, event) =
                tokio::time::timeout(PATIENCE, futures::future::join(writes.insert_one(doc! {}).into_future(), event))
                    .await?;
            written?;
            event??;
            samples.push(now() - before);
        }
        Ok::<_, coord_bench_worker::Error>(samples)
    });
    runtime.shutdown_background();
    samples
}

/// From before one commit until a thread that sleeps has been told of it by a datagram and has read the row. With
/// `synchronous` as SQLite calls it: what users write is synced always.
pub(crate) fn sqlite_wake(round: &mut Round<'_>, synchronous: &str) -> Result<Vec<u64>> {
    let file = round.stage.folder().join("wake.db");
    let open = || -> Result<Connection> {
        let connection = Connection::open(&file)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.busy_timeout(PATIENCE)?;
        Ok(connection)
    };
    let writer = open()?;
    writer.execute_batch("create table if not exists bare (n integer primary key)")?;
    let (tell, told) = UnixDatagram::pair()?;
    told.set_read_timeout(Some(PATIENCE))?;
    let reader = open()?;
    let (send, seen) = std::sync::mpsc::channel();
    let listener = std::thread::spawn(move || -> Result<()> {
        let mut select = reader.prepare("select max(n) from bare")?;
        for _ in 0..EVENTS {
            told.recv(&mut [0; 8])?;
            select.query_row([], |row| row.get::<_, i64>(0))?;
            send.send(now())?;
        }
        Ok(())
    });
    let mut insert = writer.prepare("insert into bare default values")?;
    let mut samples = Vec::new();
    for _ in 0..EVENTS {
        // The listener is to be asleep, as a waiter is.
        std::thread::sleep(Duration::from_millis(2));
        let before = now();
        insert.execute([])?;
        tell.send(&[1])?;
        samples.push(seen.recv_timeout(PATIENCE)? - before);
    }
    listener.join().map_err(|_| "the listener panicked")??;
    Ok(samples)
}

const EVENTS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(30);
