//! Wake-ups: after a commit, whoever was granted a claim, or is asked to give one up, is told at once.
//!
//! Sessions of the same store value are told through a channel. Those of other processes get one datagram on their
//! socket in the run directory, which is a *hint* and never a grant: the receiver reads the record, and tells its
//! session only what it finds there. So a datagram that is late, doubled or forged does no harm, and one that is lost
//! costs until the session looks by itself, which it does every second or so.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::sync::{mpsc, oneshot};

use super::reader::Reader;
use super::run::RunDirectory;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};
use crate::protocol::claim::{ClaimKey, ClaimRecord, Entry};
use crate::protocol::session::SessionId;
use crate::store::{Notice, Notices};

/// How many hints wait for receivers whose sockets are full. Beyond it the oldest are dropped.
const MAX_UNSENT: usize = 4_096;

/// How often, and how many times, a hint is sent again to a socket that is full.
const RESEND_EVERY: Duration = Duration::from_millis(2);
const RESEND_TIMES: u32 = 1_000;

/// Who listens here, and the way to those who listen elsewhere.
#[derive(Debug)]
pub(super) struct Wakes {
    env: Env,
    run: Arc<RunDirectory>,
    reader: Arc<Reader>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// None once it is closed.
    sender: Option<UnixDatagram>,
    listeners: BTreeMap<SessionId, Listener>,
    subscriptions: u64,
    unsent: VecDeque<(SessionId, Vec<u8>)>,
    resending: bool,
    /// One for each task, resolved when it has ended.
    tasks: Vec<oneshot::Receiver<()>>,
}

/// A session that listens here. Dropping it stops its task.
#[derive(Debug)]
struct Listener {
    subscribers: Vec<(u64, mpsc::UnboundedSender<Notice>)>,
    _stop: oneshot::Sender<()>,
}

impl Wakes {
    /// No listeners yet.
    pub(super) fn new(env: Env, run: Arc<RunDirectory>, reader: Arc<Reader>) -> io::Result<Self> {
        let sender = UnixDatagram::unbound()?;
        sender.set_nonblocking(true)?;
        let state = State {
            sender: Some(sender),
            listeners: BTreeMap::new(),
            subscriptions: 0,
            unsent: VecDeque::new(),
            resending: false,
            tasks: Vec::new(),
        };
        Ok(Self { env, run, reader, state: Mutex::new(state) })
    }

    /// Opens the stream for a session. The first one binds its socket.
    pub(super) fn subscribe(self: &Arc<Self>, session: SessionId) -> Result<Notices> {
        let mut state = self.state();
        if state.sender.is_none() {
            return Err(Error::closed("the store"));
        }
        state.subscriptions += 1;
        let number = state.subscriptions;
        let (sender, notices) = mpsc::unbounded_channel();
        // The receiver is right here, so this cannot fail.
        let _ = sender.send(Notice::Gap);
        if let Some(listener) = state.listeners.get_mut(&session) {
            listener.subscribers.push((number, sender));
        } else {
            let socket = self.bind(session)?;
            let (stop, stopped) = oneshot::channel();
            let listener = Listener { subscribers: vec![(number, sender)], _stop: stop };
            state.listeners.insert(session, listener);
            let ended = state.add_task();
            let task = listen(Arc::downgrade(self), self.reader.clone(), session, socket, stopped);
            self.env.spawn(async move {
                task.await;
                drop(ended);
            });
        }
        Ok(Box::pin(Subscription { wakes: Arc::downgrade(self), session, number, notices }))
    }

    /// Tells a session, wherever it is. Does not wait.
    pub(super) fn tell(self: &Arc<Self>, session: SessionId, notice: Notice) {
        let mut state = self.state();
        if state.tell_here(session, &notice) {
            return;
        }
        let Some(hint) = Hint::of(&notice) else { return };
        if !state.send(&self.run, session, &hint.encode()) {
            state.keep(session, hint.encode());
            self.resend_later(&mut state);
        }
    }

    /// Ends all streams, and waits until their sockets are closed.
    pub(super) async fn close(&self) {
        let tasks = self.stop();
        for task in tasks {
            // Resolved by an error when the task drops its end.
            let _ = task.await;
        }
    }

    /// Ends all streams without waiting.
    pub(super) fn stop(&self) -> Vec<oneshot::Receiver<()>> {
        let mut state = self.state();
        state.sender = None;
        for session in std::mem::take(&mut state.listeners).into_keys() {
            self.run.remove_socket(session);
        }
        state.unsent.clear();
        std::mem::take(&mut state.tasks)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bind(&self, session: SessionId) -> Result<UnixDatagram> {
        // Only a session's own process binds its socket, so what is there was left behind.
        self.run.remove_socket(session);
        let bind = || {
            let socket = UnixDatagram::bind(self.run.socket(session))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        bind().map_err(|error: io::Error| {
            let message = format!("no socket can be opened in '{}': {error}", self.run.path().display());
            Error::with_source(Code::Unavailable, message, error)
        })
    }

    fn unsubscribe(&self, session: SessionId, number: u64) {
        let mut state = self.state();
        let Some(listener) = state.listeners.get_mut(&session) else { return };
        listener.subscribers.retain(|(other, _)| *other != number);
        if listener.subscribers.is_empty() {
            state.listeners.remove(&session);
            // Under the lock, so that it cannot be the socket of the next subscription.
            self.run.remove_socket(session);
        }
    }

    fn resend_later(self: &Arc<Self>, state: &mut State) {
        if state.resending || state.sender.is_none() {
            return;
        }
        state.resending = true;
        let ended = state.add_task();
        let this = Arc::downgrade(self);
        self.env.spawn(async move {
            resend(this).await;
            drop(ended);
        });
    }
}

impl State {
    fn add_task(&mut self) -> oneshot::Sender<()> {
        self.tasks.retain_mut(|task| matches!(task.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        let (ended, task) = oneshot::channel();
        self.tasks.push(task);
        ended
    }

    fn tell_here(&self, session: SessionId, notice: &Notice) -> bool {
        let Some(listener) = self.listeners.get(&session) else { return false };
        for (_, subscriber) in &listener.subscribers {
            // A subscriber that is being dropped no longer wants it.
            let _ = subscriber.send(notice.clone());
        }
        true
    }

    /// Sends a datagram. False if the socket is full, and it is worth trying again.
    fn send(&self, run: &RunDirectory, session: SessionId, hint: &[u8]) -> bool {
        let Some(sender) = &self.sender else { return true };
        match sender.send_to(hint, run.socket(session)) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => false,
            Err(error) => {
                // Mostly that nobody listens: the session is gone, or looks by itself.
                tracing::trace!(%session, %error, "a session could not be woken");
                true
            }
        }
    }

    fn keep(&mut self, session: SessionId, hint: Vec<u8>) {
        if self.unsent.len() == MAX_UNSENT {
            self.unsent.pop_front();
        }
        self.unsent.push_back((session, hint));
    }
}

async fn resend(wakes: Weak<Wakes>) {
    for attempt in 1.. {
        tokio::time::sleep(RESEND_EVERY).await;
        let Some(wakes) = wakes.upgrade() else { return };
        let mut state = wakes.state();
        for (session, hint) in std::mem::take(&mut state.unsent) {
            if !state.send(&wakes.run, session, &hint) {
                state.unsent.push_back((session, hint));
            }
        }
        if attempt == RESEND_TIMES && !state.unsent.is_empty() {
            tracing::debug!(hints = state.unsent.len(), "sessions that do not read their sockets are no longer woken");
            state.unsent.clear();
        }
        if state.unsent.is_empty() {
            state.resending = false;
            return;
        }
    }
}

/// Receives hints until the listener is dropped.
async fn listen(
    wakes: Weak<Wakes>,
    reader: Arc<Reader>,
    session: SessionId,
    socket: UnixDatagram,
    mut stopped: oneshot::Receiver<()>,
) {
    let socket = match tokio::net::UnixDatagram::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%session, %error, "wake-ups are not received; claims are looked at every second instead");
            return;
        }
    };
    let mut buffer = [0; MAX_HINT];
    loop {
        let received = tokio::select! {
            _ = &mut stopped => return,
            received = socket.recv(&mut buffer) => received,
        };
        let notice = match received {
            Ok(length) => match Hint::decode(&buffer[..length]) {
                Some(hint) => {
                    failpoints::at(Point::SqliteHint);
                    hint.verify(&reader, session).await
                }
                None => None,
            },
            Err(error) => {
                tracing::warn!(%session, %error, "receiving a wake-up failed");
                Some(Notice::Gap)
            }
        };
        let Some(wakes) = wakes.upgrade() else { return };
        if let Some(notice) = notice {
            wakes.state().tell_here(session, &notice);
        }
    }
}

/// A session's stream of notices.
struct Subscription {
    wakes: Weak<Wakes>,
    session: SessionId,
    number: u64,
    notices: mpsc::UnboundedReceiver<Notice>,
}

impl Stream for Subscription {
    type Item = Notice;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Notice>> {
        self.notices.poll_recv(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(wakes) = self.wakes.upgrade() {
            wakes.unsubscribe(self.session, self.number);
        }
    }
}

/// What a datagram says. Five lines: a mark with the version, the kind, the key, the entry, the token.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hint {
    kind: Kind,
    key: ClaimKey,
    entry: Entry,
    token: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Granted,
    Breaking,
}

const MARK: &str = "coord1";

/// Longer than any hint: a key has at most some 260 bytes, an entry 60.
const MAX_HINT: usize = 1_024;

impl Hint {
    fn of(notice: &Notice) -> Option<Self> {
        let (kind, key, entry, token) = match notice {
            Notice::Granted { key, entry, token } => (Kind::Granted, key, entry, token),
            Notice::Breaking { key, entry, token } => (Kind::Breaking, key, entry, token),
            Notice::Gap => return None,
        };
        Some(Self { kind, key: key.clone(), entry: *entry, token: *token })
    }

    fn encode(&self) -> Vec<u8> {
        let kind = match self.kind {
            Kind::Granted => "granted",
            Kind::Breaking => "breaking",
        };
        format!("{MARK}\n{kind}\n{}\n{}\n{}", self.key, self.entry, self.token).into_bytes()
    }

    fn decode(datagram: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(datagram).ok()?.split('\n');
        if lines.next()? != MARK {
            return None;
        }
        let kind = match lines.next()? {
            "granted" => Kind::Granted,
            "breaking" => Kind::Breaking,
            _ => return None,
        };
        let (key, entry, token) = (lines.next()?, lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
        lines.next().is_none().then(|| Self { kind, key: ClaimKey::new(key), entry, token })
    }

    /// What this session may be told because of it: only what the record says too.
    async fn verify(self, reader: &Arc<Reader>, session: SessionId) -> Option<Notice> {
        if self.entry.session != session {
            return None;
        }
        match reader.hold(self.key.clone()).await {
            Ok(found) => found.and_then(|record| self.confirmed_by(&record)),
            // It may be true; the session has to look.
            Err(_) => Some(Notice::Gap),
        }
    }

    fn confirmed_by(self, record: &ClaimRecord) -> Option<Notice> {
        let Self { kind, key, entry, token } = self;
        if record.holder != Some(entry) || record.token != token {
            return None;
        }
        match kind {
            Kind::Granted => Some(Notice::Granted { key, entry, token }),
            Kind::Breaking if record.breaking == Some(entry) => Some(Notice::Breaking { key, entry, token }),
            Kind::Breaking => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::claim::Priority;

    fn entry(session: u128) -> Entry {
        Entry { session: SessionId::from_random(session), attempt: 3, priority: Priority::default() }
    }

    fn granted() -> Notice {
        Notice::Granted { key: ClaimKey::new("lock/a/b/c"), entry: entry(1), token: 9 }
    }

    #[test]
    fn hints_survive_the_wire() {
        let Notice::Granted { key, entry, token } = granted() else { unreachable!() };
        for notice in [granted(), Notice::Breaking { key, entry, token }] {
            let hint = Hint::of(&notice).unwrap();
            assert_eq!(Hint::decode(&hint.encode()), Some(hint));
        }
        assert_eq!(Hint::of(&Notice::Gap), None);
        let longest = ClaimKey::new(format!("election/{}", "n".repeat(crate::name::MAX_NAME)));
        let hint = Hint { kind: Kind::Breaking, key: longest, entry, token: i64::MAX };
        assert!(hint.encode().len() < MAX_HINT);
    }

    #[test]
    fn only_what_the_record_says_is_believed() {
        let hint = Hint::of(&granted()).unwrap();
        let mut record = ClaimRecord::new(hint.key.clone());
        assert_eq!(hint.clone().confirmed_by(&record), None);
        record.holder = Some(entry(1));
        record.token = 9;
        assert_eq!(hint.clone().confirmed_by(&record), Some(granted()));
        let breaking = Hint { kind: Kind::Breaking, ..hint.clone() };
        assert_eq!(breaking.clone().confirmed_by(&record), None);
        record.breaking = record.holder;
        assert!(matches!(breaking.confirmed_by(&record), Some(Notice::Breaking { .. })));
        record.token = 10;
        assert_eq!(hint.clone().confirmed_by(&record), None);
        record.token = 9;
        record.holder = Some(entry(2));
        assert_eq!(hint.confirmed_by(&record), None);
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_is_too_strange(bytes: Vec<u8>, lines in "coord1\n(granted|breaking)?\n.*\n[0-9a-f/]*\n-?[0-9]*\n?") {
            let _ = Hint::decode(&bytes);
            let _ = Hint::decode(lines.as_bytes());
        }
    }
}
