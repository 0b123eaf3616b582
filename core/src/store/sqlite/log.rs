//! The log: what has changed, in the order of the commits, for those who listen in this process and in others.
//!
//! A row is written in the transaction that makes the change ([`append`]), so that the log and the records never differ. After
//! the commit each process that listens to its topic gets one datagram on a socket in the run directory. It says
//! nothing but "look": the listener reads the rows after the last that it has seen, so a datagram that is late, doubled or
//! forged does no harm, and one that is lost costs until the next look, a second at most.
//!
//! Who listens to what stands in the table `listener`, so a writer can tell, inside its transaction, whether anybody
//! would read a row ([`Listeners`]): claims and sessions are logged only then. Invariant: whoever has subscribed finds
//! every change that was committed after the subscription, or is told that some are missing. The rows of a process that is
//! gone are removed by the first to find its socket deserted: by telling it something, or by opening the file. A socket
//! that is not there proves nothing (whatever cleans up directories may have removed it), so each look also asks whether
//! one's own rows are still there. If not, changes may not have been logged: the listener goes on under another name with
//! another socket, and is told that there is a gap. A name that was taken off is never used again, so its row is there only
//! if it was there all the time.
//!
//! Rows are kept for [`KEPT`]. Who comes later is told so ([`Read::Gone`]), and has to begin with the records.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};
use tokio::sync::{Notify, oneshot};

use super::fault::Fault;
use super::file::DatabaseFile;
use super::places;
use super::reader::Reader;
use super::run::RunDirectory;
use super::writer::{Done, Work, Writer};
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::protocol::session::SessionId;
use crate::time::WallTime;

/// The topic of claims; the key is the claim's.
pub(super) const CLAIMS: &str = "claim";

/// The topic of sessions; the key is the session's id.
pub(super) const SESSIONS: &str = "session";

/// How long a row is kept at least, by the machine's date.
const KEPT: Duration = Duration::from_secs(3_600);

/// As many rows are kept at most.
const MOST_ROWS: i64 = 1_000_000;

/// As many rows are removed, and read, at a time.
const PART: usize = 512;

/// With as many bytes of bodies reading stops before that.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// How often a listener looks although nobody has told it to.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What somebody listens to: the rows of a topic whose key begins with a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Topic {
    pub(super) topic: String,
    pub(super) prefix: String,
}

impl Topic {
    pub(super) fn new(topic: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self { topic: topic.into(), prefix: prefix.into() }
    }

    /// Whether all changes are logged, also while nobody listens.
    fn is_always_logged(&self) -> bool {
        self.topic != CLAIMS && self.topic != SESSIONS
    }

    fn covers(&self, topic: &str, key: &str) -> bool {
        self.topic == topic && key.starts_with(&self.prefix)
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Its number: grows with the commits, and is never used again.
    pub(super) seq: i64,
    pub(super) topic: String,
    pub(super) key: String,
    pub(super) body: Vec<u8>,
    /// Who made the change, as far as the topic says so.
    pub(super) source: String,
    /// When, by the machine's date.
    pub(super) at: WallTime,
}

/// What a look at the log has found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Read {
    /// The next rows, in order; up to which number there are no others of these topics; and whether some are left.
    Rows { rows: Vec<Row>, upto: i64, more: bool },
    /// Rows that would have come next have been removed, or were not written.
    Gone,
}

/// Writes a row, inside a transaction that the caller has begun.
pub(super) fn append(
    db: &Connection,
    topic: &str,
    key: &str,
    body: &[u8],
    source: &str,
    at: WallTime,
) -> std::result::Result<(), Fault> {
    db.prepare_cached("INSERT INTO log(topic, key, body, source, at) VALUES(?1, ?2, ?3, ?4, ?5)")?
        .execute(params![topic, key, body, source, at.0])?;
    Ok(())
}

/// The topic of the row that says that a name is among the listeners, whatever it listens to. Nothing is logged under it.
const PRESENT: &str = "";

/// The next rows of these topics after this number.
pub(super) fn read_after(db: &Connection, seq: i64, topics: &[Topic]) -> std::result::Result<Read, Fault> {
    if seq < places::trimmed(db)? {
        return Ok(Read::Gone);
    }
    let mut names: Vec<&str> = topics.iter().map(|topic| topic.topic.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let places = vec!["?"; names.len()].join(", ");
    let mut statement = db.prepare_cached(&format!(
        "SELECT seq, topic, key, body, source, at FROM log WHERE topic IN ({places}) AND seq > ? ORDER BY seq LIMIT {PART} + 1"
    ))?;
    let arguments = names.into_iter().map(|name| Value::from(name.to_owned())).chain([Value::from(seq)]);
    let mut rows = statement.query(params_from_iter(arguments))?;
    let (mut found, mut size) = (Vec::new(), 0);
    while found.len() < PART
        && size < MOST_BYTES
        && let Some(row) = rows.next()?
    {
        let row = Row {
            seq: row.get(0)?,
            topic: row.get(1)?,
            key: row.get(2)?,
            body: row.get(3)?,
            source: row.get(4)?,
            at: WallTime(row.get(5)?),
        };
        size += row.body.len();
        found.push(row);
    }
    let more = rows.next()?.is_some();
    // With nothing left, what other topics have is passed, too, and may be removed.
    let upto = if more { found.last().map_or(seq, |row| row.seq) } else { places::last(db)?.max(seq) };
    Ok(Read::Rows { rows: found, upto, more })
}

/// Removes old rows, some at a time. Whether more may be left.
pub(super) fn trim(db: &Connection, now: WallTime) -> std::result::Result<bool, Fault> {
    let kept = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
    let old: Option<i64> = db
        .prepare_cached(&format!(
            "SELECT max(seq) FROM (SELECT seq, at, (SELECT coalesce(sum(upto - after), 0) FROM lost WHERE after >= seq) AS lost \
             FROM log ORDER BY seq LIMIT {PART}) \
             WHERE at < ?1 OR seq + lost < (SELECT max(seq) FROM log) - {MOST_ROWS}"
        ))?
        .query_row([now.0.saturating_sub(kept)], |row| row.get(0))?;
    let Some(old) = old else { return Ok(false) };
    let removed = db.prepare_cached("DELETE FROM log WHERE seq <= ?1")?.execute([old])?;
    db.prepare_cached("UPDATE meta SET trimmed = max(trimmed, ?1) WHERE id = 1")?.execute([old])?;
    db.prepare_cached("DELETE FROM lost WHERE upto <= ?1")?.execute([old])?;
    Ok(removed == PART)
}

/// Adds what somebody listens to, under a name that is new or still among the listeners. False, and nothing is done, if
/// others have taken it off.
pub(super) fn listen(
    db: &Connection,
    id: SessionId,
    topics: &[Topic],
    is_new: bool,
) -> std::result::Result<bool, Fault> {
    let mut add = db.prepare_cached("INSERT OR IGNORE INTO listener(id, topic, prefix) VALUES(?1, ?2, ?3)")?;
    if is_new {
        add.execute(params![id.to_string(), PRESENT, ""])?;
    } else if !is_listener(db, id)? {
        return Ok(false);
    }
    for Topic { topic, prefix } in topics {
        add.execute(params![id.to_string(), topic, prefix])?;
    }
    count(db)?;
    Ok(true)
}

/// Whether this name is among the listeners, and has been since it first was.
fn is_listener(db: &Connection, id: SessionId) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM listener WHERE id = ?1 AND topic = ?2 AND prefix = ''")?
        .exists(params![id.to_string(), PRESENT])
}

/// Everybody who is among the listeners.
pub(super) fn listeners(db: &Connection) -> rusqlite::Result<Vec<SessionId>> {
    let mut statement = db.prepare_cached("SELECT DISTINCT id FROM listener")?;
    let ids = statement.query_map([], |row| row.get::<_, String>(0))?;
    ids.filter_map(|id| id.map(|id| id.parse().ok()).transpose()).collect()
}

/// Removes some of what a process listens to, or all.
pub(super) fn unlisten(db: &Connection, id: SessionId, topics: Option<&[Topic]>) -> std::result::Result<(), Fault> {
    match topics {
        None => {
            db.prepare_cached("DELETE FROM listener WHERE id = ?1")?.execute([id.to_string()])?;
        }
        Some(topics) => {
            for Topic { topic, prefix } in topics {
                db.prepare_cached("DELETE FROM listener WHERE id = ?1 AND topic = ?2 AND prefix = ?3")?
                    .execute(params![id.to_string(), topic, prefix])?;
            }
        }
    }
    count(db)
}

fn count(db: &Connection) -> std::result::Result<(), Fault> {
    db.prepare_cached("UPDATE meta SET listeners = listeners + 1 WHERE id = 1")?.execute([])?;
    Ok(())
}

/// The number that is another one whenever the listeners are others.
pub(super) fn generation(db: &Connection) -> rusqlite::Result<i64> {
    db.prepare_cached("SELECT listeners FROM meta WHERE id = 1")?.query_row([], |row| row.get(0))
}

/// Who listens to what, as a writer knows it.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    generation: i64,
    rows: Vec<(SessionId, Topic)>,
}

impl Listeners {
    /// Who listens to this key, by the file in this transaction, whose generation of listeners is given.
    pub(super) fn to(
        &mut self,
        db: &Connection,
        generation: i64,
        topic: &str,
        key: &str,
    ) -> std::result::Result<Vec<SessionId>, Fault> {
        if generation != self.generation {
            let mut statement = db.prepare_cached("SELECT id, topic, prefix FROM listener")?;
            let rows = statement.query_map([], |row| {
                let id: String = row.get(0)?;
                Ok((id, Topic { topic: row.get(1)?, prefix: row.get(2)? }))
            })?;
            let mut known = Vec::new();
            for row in rows {
                let (id, topic) = row?;
                // What is not an id was not written by us, and cannot be told.
                known.extend(id.parse().ok().map(|id| (id, topic)));
            }
            self.rows = known;
            self.generation = generation;
        }
        let mut found: Vec<SessionId> =
            self.rows.iter().filter(|(_, wanted)| wanted.covers(topic, key)).map(|(id, _)| *id).collect();
        found.dedup();
        Ok(found)
    }

    /// What was read in a transaction that did not come to its end may not be so.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// One store value's ears: its socket, and those in it who listen.
#[derive(Debug)]
pub(super) struct Log {
    env: Env,
    file: Arc<DatabaseFile>,
    run: Arc<RunDirectory>,
    reader: Arc<Reader>,
    /// Set once, right after the writer was made.
    writer: OnceLock<Weak<Writer>>,
    sender: UnixDatagram,
    state: Mutex<State>,
    /// Held by whoever adds to the listeners, one after the other: so the first under a name is known to be that.
    listening: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    closed: bool,
    /// The name among the listeners, and that of the socket.
    id: SessionId,
    /// It is among them, as far as is known here.
    listed: bool,
    subscriptions: BTreeMap<u64, Subscribed>,
    next: u64,
    /// The task at the socket: ends when this is dropped, and tells that it has.
    ear: Option<Ear>,
}

/// One who listens here.
#[derive(Debug)]
struct Subscribed {
    /// Under this name.
    id: SessionId,
    topics: Vec<Topic>,
    wake: Arc<Notify>,
}

#[derive(Debug)]
struct Ear {
    _stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Log {
    /// Nobody listens yet.
    pub(super) fn new(
        env: Env,
        file: Arc<DatabaseFile>,
        run: Arc<RunDirectory>,
        reader: Arc<Reader>,
    ) -> io::Result<Self> {
        let sender = UnixDatagram::unbound()?;
        sender.set_nonblocking(true)?;
        let state = State {
            closed: false,
            id: env.session_id(),
            listed: false,
            subscriptions: BTreeMap::new(),
            next: 0,
            ear: None,
        };
        let (writer, listening) = (OnceLock::new(), tokio::sync::Mutex::default());
        Ok(Self { env, file, run, reader, writer, sender, state: Mutex::new(state), listening })
    }

    /// Says who writes.
    pub(super) fn set_writer(&self, writer: &Arc<Writer>) {
        // Called once.
        let _ = self.writer.set(Arc::downgrade(writer));
    }

    /// Listens to these topics. Whatever is committed after this has returned will be found in the log.
    ///
    /// # Errors
    /// `Closed`; `Unavailable` if no socket can be had, or the file cannot be written.
    pub(super) async fn subscribe(self: &Arc<Self>, topics: Vec<Topic>) -> Result<Subscription> {
        let mut subscription = {
            let mut state = self.state();
            let (number, id, wake) = (state.next, state.id, Arc::new(Notify::new()));
            state.next += 1;
            state.subscriptions.insert(number, Subscribed { id, topics: topics.clone(), wake: wake.clone() });
            Subscription { log: self.clone(), number, id, topics, wake, at_end: false }
        };
        subscription.listen().await?;
        Ok(subscription)
    }

    /// Adds a subscription to the listeners, under the name that is good now: says which.
    async fn listen(self: &Arc<Self>, number: u64, topics: &[Topic]) -> Result<SessionId> {
        let closed = || Error::closed("the store");
        let writer = self.writer.get().and_then(Weak::upgrade).ok_or_else(closed)?;
        let _one_at_a_time = self.listening.lock().await;
        loop {
            let (id, is_new) = {
                let mut state = self.state();
                if state.closed {
                    return Err(closed());
                }
                if state.ear.is_none() {
                    state.ear = Some(self.open_ear(state.id)?);
                }
                let (id, is_new) = (state.id, !state.listed);
                if let Some(subscribed) = state.subscriptions.get_mut(&number) {
                    subscribed.id = id;
                }
                (id, is_new)
            };
            match writer.run(Work::Listen { id, topics: topics.to_vec(), is_new }).await? {
                Done::Listens(true) => {
                    self.state().listed = true;
                    return Ok(id);
                }
                Done::Listens(false) => self.take_another_name(),
                other => return Err(super::mismatched(&other)),
            }
        }
    }

    /// Others found the socket deserted, and have taken the name off the listeners.
    fn take_another_name(&self) {
        let mut state = self.state();
        tracing::info!(listener = %state.id, "others took a listener for gone; it listens anew");
        self.run.remove_ear(state.id);
        (state.id, state.listed, state.ear) = (self.env.session_id(), false, None);
    }

    /// Tells those who listen, after the commit. Does not wait.
    pub(super) fn tell(&self, listeners: &[SessionId]) {
        let own = self.state().id;
        for id in listeners {
            if *id == own {
                self.wake_all();
                continue;
            }
            match self.sender.send_to(b"look", self.run.ear(*id)) {
                Ok(_) => {}
                // It has not read the last one yet, which says the same.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                    tracing::debug!(listener = %id, "a listener is gone");
                    self.run.remove_ear(*id);
                    if let Some(writer) = self.writer.get().and_then(Weak::upgrade) {
                        writer.run_later(Work::Unlisten(*id, None));
                    }
                }
                Err(error) => tracing::trace!(listener = %id, %error, "a listener could not be told"),
            }
        }
    }

    /// Ends all subscriptions, and waits until the socket is closed. The rows of `listener` go by `Work::Unlisten`, before.
    pub(super) async fn close(&self) {
        if let Some(ear) = self.stop() {
            // Resolved by an error when the task drops its end.
            let _ = ear.ended.await;
        }
    }

    /// The work that takes this store value out of the listeners, if it has been one.
    pub(super) fn farewell(&self) -> Option<Work> {
        let state = self.state();
        state.ear.is_some().then_some(Work::Unlisten(state.id, None))
    }

    /// The same without waiting.
    pub(super) fn stop(&self) -> Option<StoppedEar> {
        let mut state = self.state();
        state.closed = true;
        for subscribed in state.subscriptions.values() {
            subscribed.wake.notify_one();
        }
        let ear = state.ear.take()?;
        self.run.remove_ear(state.id);
        Some(StoppedEar { ended: ear.ended })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        for subscribed in self.state().subscriptions.values() {
            subscribed.wake.notify_one();
        }
    }

    fn open_ear(self: &Arc<Self>, id: SessionId) -> Result<Ear> {
        let bind = || {
            let socket = UnixDatagram::bind(self.run.ear(id))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = bind().map_err(|error: io::Error| {
            let message = format!("no socket can be opened in '{}': {error}", self.run.path().display());
            Error::with_source(Code::Unavailable, message, error)
        })?;
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let task = hear(Arc::downgrade(self), socket, stopped);
        self.env.spawn(async move {
            task.await;
            drop(end);
        });
        Ok(Ear { _stop: stop, ended })
    }

    fn unsubscribe(&self, number: u64) {
        let mut state = self.state();
        let Some(Subscribed { id, topics, .. }) = state.subscriptions.remove(&number) else { return };
        if state.closed {
            return;
        }
        let others = state.subscriptions.values().filter(|other| other.id == id);
        let still = |topic: &Topic| others.clone().any(|other| other.topics.contains(topic));
        let unheard: Vec<Topic> = topics.into_iter().filter(|topic| !still(topic)).collect();
        // Under the lock: a later subscription to the same must be written after this.
        if !unheard.is_empty()
            && let Some(writer) = self.writer.get().and_then(Weak::upgrade)
        {
            writer.run_later(Work::Unlisten(id, Some(unheard)));
        }
    }
}

/// The end of a task at a socket.
#[derive(Debug)]
pub(super) struct StoppedEar {
    ended: oneshot::Receiver<()>,
}

async fn hear(log: Weak<Log>, bound: UnixDatagram, mut stopped: oneshot::Receiver<()>) {
    let socket = match bound.try_clone().and_then(tokio::net::UnixDatagram::from_std) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "changes are not told; they are looked for every second instead");
            // It stays bound, or others would take us for gone.
            let _ = stopped.await;
            return;
        }
    };
    drop(bound);
    let mut buffer = [0; 16];
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            received = socket.recv(&mut buffer) => {
                if let Err(error) = received {
                    tracing::warn!(%error, "receiving a wake-up failed");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
        let Some(log) = log.upgrade() else { return };
        log.wake_all();
    }
}

/// Listens to some topics until it is dropped.
#[derive(Debug)]
pub(super) struct Subscription {
    log: Arc<Log>,
    number: u64,
    /// The name under which it was added to the listeners.
    id: SessionId,
    topics: Vec<Topic>,
    wake: Arc<Notify>,
    /// The last look has found all that there was: the next one has time until something is told.
    at_end: bool,
}

impl Subscription {
    /// The next rows after this number. Waits until there may be some, which need not be so: each look is told, with how
    /// far it went.
    ///
    /// # Errors
    /// `Closed` when the store is; `Lost` while another file, or none, is in the place of the one that is read; those of
    /// reading.
    pub(super) async fn next(&mut self, seq: i64) -> Result<Read> {
        if std::mem::take(&mut self.at_end) {
            self.wait().await;
        }
        loop {
            match self.read_after(seq).await? {
                Some(found) => {
                    self.at_end = matches!(found, Read::Rows { more: false, .. });
                    return Ok(found);
                }
                None => {
                    self.listen().await?;
                    if !self.topics.iter().all(Topic::is_always_logged) {
                        return Ok(Read::Gone);
                    }
                }
            }
        }
    }

    async fn listen(&mut self) -> Result<()> {
        self.id = self.log.listen(self.number, &self.topics).await?;
        Ok(())
    }

    /// None if others have taken this one off the listeners.
    async fn read_after(&self, seq: i64) -> Result<Option<Read>> {
        if self.log.state().closed {
            return Err(Error::closed("the store"));
        }
        let (id, topics) = (self.id, self.topics.clone());
        let read = move |db: &Connection| {
            if is_listener(db, id)? { read_after(db, seq, &topics).map(Some) } else { Ok(None) }
        };
        let found = self.log.reader.read(true, read).await?;
        self.log.file.check_in_place()?;
        Ok(found)
    }

    async fn wait(&self) {
        tokio::select! {
            () = self.wake.notified() => {}
            () = self.log.env.sleep(LOOK_EVERY) => {}
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.log.unsubscribe(self.number);
    }
}
