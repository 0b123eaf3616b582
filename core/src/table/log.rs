//! The change log of a table: who has changed what and when, from a given moment on, for as long as the store keeps it.
//!
//! On MongoDB the log is the oplog, so it also has what other programs wrote (without their names), and reaches back as
//! far as that. On SQLite and memory it is the table's history, which is trimmed by age.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::follow::Read;
use super::{Key, Operation, Position, Revision, Table, documents};
use crate::client::{Client, Core};
use crate::driver::CancelToken;
use crate::error::{Code, Error, Result};
use crate::protocol::document::TableName;
use crate::store::documents::{Changes, Event, From, WatchOptions};
use crate::time::WallTime;

/// Where to begin to read a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFrom {
    /// With the changes to come.
    #[default]
    Now,
    /// With the change after this position: of a write, or of an entry ([`LogEntry::position`]). One that is still to come
    /// is `InvalidArgument` in memory and on SQLite; on MongoDB the log waits for it.
    After(Position),
    /// With the first change at this date or after it, in milliseconds since 1970 by the store's clock.
    Time(i64),
}

/// One change of a document.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LogEntry {
    /// The name of the client that wrote; none if that is not known: another program, a client without a name, and any
    /// deletion on MongoDB.
    pub source: Option<String>,
    /// What was done.
    pub operation: Operation,
    /// When, in milliseconds since 1970 by the store's clock.
    pub at_ms: i64,
    /// Whose document.
    pub key: Key,
    /// The paths that an update has changed or removed, in order; empty for other operations.
    pub changed_fields: Vec<String>,
    /// The state of the document after it; none after a deletion. On MongoDB of an update perhaps a later state, and none
    /// if the document was gone when the log was read.
    pub revision: Option<Revision>,
    /// Up to where everything has been told with it: a later log may begin after it, and misses nothing. Its place in the
    /// history, or the one before while other changes of its place may follow: the changes of one transaction on MongoDB,
    /// and every change on MongoDB 6.1 or later. Those of its place come again then.
    pub position: Position,
}

/// A log that is being read. Dropping it ends it.
pub struct TableLog {
    client: Client,
    reader: Arc<tokio::sync::Mutex<Reader>>,
    closed: CancelToken,
}

struct Reader {
    core: Arc<Core>,
    table: TableName,
    changes: Option<Changes>,
    /// Where to begin, until something was read.
    from: From,
    read: Read,
    /// Nothing up to here was asked for, or it is older than what is missing. A stream that is opened anew may begin with
    /// all changes of the place that it is to go on after.
    after: Option<Position>,
    pause: Duration,
}

impl Table {
    /// Reads the log from there on.
    ///
    /// # Errors
    /// `Compacted` if the store no longer has it so far back; `Unsupported` if it keeps none; those of the store.
    pub async fn log(&self, from: LogFrom) -> Result<TableLog> {
        let core = self.client().core();
        core.check_open()?;
        let (from, after) = match from {
            LogFrom::Now => (From::Now, None),
            LogFrom::After(position) => (From::After(position), Some(position)),
            LogFrom::Time(ms) => (From::Time(WallTime(ms)), None),
        };
        let table = self.table_name().clone();
        let mut reader =
            Reader { core: core.clone(), table, changes: None, from, read: Read::default(), after, pause: FIRST_PAUSE };
        let reader = core
            .drive(async move {
                reader.open().await?;
                Ok(reader)
            })
            .await?;
        Ok(TableLog {
            client: self.client().clone(),
            reader: Arc::new(tokio::sync::Mutex::new(reader)),
            closed: CancelToken::new(),
        })
    }
}

impl TableLog {
    /// The next entry; waits for it, through outages of the store. Dropping the future loses nothing.
    ///
    /// # Errors
    /// `Compacted` when changes are missing from here on; the next call goes on after them. `Lost` while the file of an
    /// SQLite store is not in its place. `Closed` when the log or the client is closed.
    pub async fn next(&self) -> Result<LogEntry> {
        let (reader, closed, core) = (self.reader.clone(), self.closed.clone(), self.client.core().clone());
        self.client
            .core()
            .drive(async move {
                core.check_open()?;
                let next = async { reader.lock().await.next().await };
                tokio::select! {
                    biased;
                    () = closed.fired() => Err(Error::closed("the log")),
                    () = core.closing() => Err(Error::closed("the client")),
                    entry = next => entry,
                }
            })
            .await
    }

    /// Ends it: a wait for the next entry ends with `Closed`. Closing twice is no error.
    pub fn close(&self) {
        self.closed.fire();
    }
}

impl Reader {
    /// Opens the stream. One from now on has told where it begins when this returns, so that nothing is missed after.
    async fn open(&mut self) -> Result<()> {
        let options = WatchOptions { from: self.from, previous: false };
        let mut changes = documents(&*self.core.setup().store)?.watch(&self.table, options).await?;
        if self.from == From::Now {
            match changes.next().await.transpose()? {
                Some(Event::Gap(position)) => self.begins_after(position),
                _ => return Err(Error::new(Code::CorruptState, "a stream of changes did not tell where it begins")),
            }
        }
        self.read.opened();
        self.changes = Some(changes);
        Ok(())
    }

    fn begins_after(&mut self, position: Position) {
        self.reached(position);
        self.after = Some(position);
    }

    fn reached(&mut self, position: Position) {
        self.read.progress(position);
        self.from = self.read.from();
    }

    async fn next(&mut self) -> Result<LogEntry> {
        loop {
            let event = match &mut self.changes {
                Some(changes) => changes.next().await.unwrap_or_else(|| Err(Error::unavailable("the log has ended"))),
                None => {
                    if let Err(error) = self.open().await {
                        self.recover(error).await?;
                    }
                    continue;
                }
            };
            match event {
                Ok(Event::Progress(position)) => self.reached(position),
                Ok(Event::Gap(position)) => {
                    self.begins_after(position);
                    return Err(gone(&self.table));
                }
                Ok(Event::Change(change)) if self.after.is_some_and(|after| change.position <= after) => {}
                Ok(Event::Change(change)) if self.read.knows(change.position) => {}
                Ok(Event::Change(change)) => {
                    self.pause = FIRST_PAUSE;
                    self.read.change(change.position);
                    self.from = self.read.from();
                    return Ok(LogEntry {
                        position: change.told(),
                        source: change.source,
                        operation: change.operation,
                        at_ms: change.at.0,
                        key: change.key,
                        changed_fields: change.changed,
                        revision: change.revision,
                    });
                }
                Err(error) => self.recover(error).await?,
            }
        }
    }

    async fn recover(&mut self, error: Error) -> Result<()> {
        self.changes = None;
        match error.code() {
            Code::Unavailable | Code::OutcomeUnknown | Code::Timeout => {
                tracing::debug!(table = %self.table, %error, "reading the log again");
                let env = &self.core.setup().env;
                let pause = env.jittered(self.pause);
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                env.sleep(pause).await;
                Ok(())
            }
            Code::Compacted => {
                // Told once; then on with what there is.
                (self.from, self.read) = (From::Now, Read::default());
                Err(error)
            }
            _ => Err(error),
        }
    }
}

fn gone(table: &TableName) -> Error {
    Error::new(
        Code::Compacted,
        format!("the store no longer has all changes of table '{table}'; the log goes on after those that are missing"),
    )
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl fmt::Debug for TableLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableLog").field("client", &self.client).finish_non_exhaustive()
    }
}
