//! Owners: the sessions that are alive, who they are, what they hold and what they provide.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::client::{Client, Core};
use crate::driver::Runtime;
use crate::error::{Error, HolderState, Result};
use crate::protocol::session::{SessionId, SessionRecord, Vitality};
use crate::session::Session;
use crate::session::changes::Attached;
use crate::session::shown::{Sessions, Showing};
use crate::store::changes::{Change, Interest};
use crate::store::{ClaimQuery, SessionQuery, Store};

/// A session that is alive, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owner {
    /// Its id, new at every start of a client and after every loss.
    pub session: String,
    /// The name that its client was given.
    pub name: String,
    /// Its host.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// The labels that its client was given.
    pub labels: BTreeMap<String, String>,
    /// When it was opened, in milliseconds since 1970 by the store's clock. For people.
    pub since_ms: i64,
    /// When it was renewed last, as far as this client has read, likewise.
    pub last_renewal_ms: i64,
    /// Whether this client has seen it renew: see [`HolderState`].
    pub state: HolderState,
    /// The full keys of the claims that it holds, `kind/namespace/scope/name`, in order.
    pub holds: Vec<String>,
    /// The full names of the services that it provides, in order, once each.
    pub provides: Vec<String>,
}

/// What a watch of owners tells.
///
/// The first events are a bracket: `SnapshotStart`, a `Joined` for each that is there, `SnapshotEnd`. After an interruption there
/// is another one, with the difference between what was known and what is true now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerEvent {
    /// What follows, up to `SnapshotEnd`, leads from what was known to what is true now.
    SnapshotStart,
    /// The view is complete and up to date.
    SnapshotEnd,
    /// A session is there.
    Joined(Owner),
    /// A session was closed by its owner.
    Left(Owner),
    /// A session is dead: it was declared so by another, who had seen it silent for its ttl or knew that its process
    /// had ended.
    Expired(Owner),
}

/// The sessions of a store as they come and go. Dropping it ends it.
pub struct OwnerWatch {
    client: Client,
    watched: Arc<Watched>,
    /// What sessions held when the watch began.
    holds: BTreeMap<SessionId, Vec<String>>,
    attached: Attached,
}

struct Watched {
    state: Mutex<State>,
    changed: Notify,
    /// Who is there: the client looks after them.
    showing: Showing,
}

#[derive(Default)]
struct State {
    /// The sessions that are there.
    now: BTreeMap<SessionId, Arc<SessionRecord>>,
    /// Those of whom was told that they are there.
    told: BTreeMap<SessionId, Arc<SessionRecord>>,
    queue: VecDeque<Item>,
    /// The queue became too long: what leads to what is true is told instead.
    collapsed: bool,
    /// A bracket's start was taken, and not its end.
    in_bracket: bool,
    closed: bool,
}

enum Item {
    Start,
    End,
    Joined(Arc<SessionRecord>),
    Gone(Arc<SessionRecord>),
}

/// As many events are kept for one who is slow.
const KEPT: usize = 4_096;

impl Client {
    /// The sessions that are alive, in the order of their ids. Two reads.
    ///
    /// # Errors
    /// Those of the store; `Closed`, `Forked`.
    pub async fn owners(&self) -> Result<Vec<Owner>> {
        let core = self.core().clone();
        core.check_open()?;
        let reading = core.clone();
        core.drive(async move { read(&reading).await }).await
    }

    /// Watches sessions come and go. In its events `holds` is what the session held when the watch began: nothing, for
    /// one that has come since. After an outage that was longer than the store's history, whoever went meanwhile is said to
    /// have expired.
    ///
    /// # Errors
    /// `Unsupported` on MongoDB before 5.0; those of the store; `Closed`, `Forked`.
    pub async fn watch_owners(&self) -> Result<OwnerWatch> {
        let core = self.core().clone();
        core.check_open()?;
        let watched =
            Arc::new(Watched { state: Mutex::default(), changed: Notify::new(), showing: core.setup().shown.begin() });
        let (hub, told, reading) = (core.changes().clone(), watched.clone(), core.clone());
        let (holds, attached) = core
            .drive(async move {
                let holds = read_holds(&reading).await?;
                let sink = Box::new(move |change: Option<&Change>| told.take_in(change));
                let attached = hub.attach(Interest { claims: Vec::new(), sessions: true }, sink).await?;
                Ok((holds, attached))
            })
            .await?;
        Ok(OwnerWatch { client: self.clone(), watched, holds, attached })
    }
}

async fn read(core: &Core) -> Result<Vec<Owner>> {
    let store = &core.setup().store;
    let sessions = store.sessions(SessionQuery::Roster).await?;
    let mut holds = read_holds(core).await?;
    let own = core.current_session();
    let mut owners: Vec<(SessionId, Owner)> =
        sessions.iter().map(|s| (s.id, describe(&own, s, holds.remove(&s.id).unwrap_or_default()))).collect();
    owners.sort_by_key(|(id, _)| *id);
    Ok(owners.into_iter().map(|(_, owner)| owner).collect())
}

async fn read_holds(core: &Core) -> Result<BTreeMap<SessionId, Vec<String>>> {
    let mut holds: BTreeMap<SessionId, Vec<String>> = BTreeMap::new();
    for claim in core.setup().store.claims(ClaimQuery::Prefix(String::new())).await? {
        if let Some(holder) = claim.holder {
            holds.entry(holder.session).or_default().push(claim.key.to_string());
        }
    }
    Ok(holds)
}

fn describe(own: &Session, record: &SessionRecord, holds: Vec<String>) -> Owner {
    let dead = record.vitality == Vitality::Dead;
    let state = own.known(record.id).map_or(HolderState::Live, |(_, state, _)| state);
    let mut provides: Vec<String> = record.providers.iter().map(|provider| provider.service.clone()).collect();
    provides.sort_unstable();
    provides.dedup();
    Owner {
        session: record.id.to_string(),
        name: record.info.name.clone(),
        host: record.info.host.clone(),
        pid: record.info.pid,
        labels: record.info.labels.clone(),
        since_ms: record.opened.0,
        last_renewal_ms: record.seen.0,
        state: if dead { HolderState::Dead } else { state },
        holds,
        provides,
    }
}

impl OwnerWatch {
    /// The next event; waits for it. Dropping the future loses none. One who is slower by 4,096 events is told what leads to
    /// what is true then, as one bracket.
    ///
    /// # Errors
    /// `Closed` when the watch or the client is closed; `Forked`.
    pub async fn next(&self) -> Result<OwnerEvent> {
        loop {
            if !Runtime::is_ours() {
                return Err(Error::forked());
            }
            // Taken here and not in the task that waits, so that none is lost with a future that is dropped.
            if let Some(item) = self.watched.state().take()? {
                return Ok(self.event(item));
            }
            let watched = self.watched.clone();
            self.client.core().drive(async move { watched.news().await }).await?;
        }
    }

    /// Ends the watch: a wait for its next event ends with `Closed`.
    pub fn close(&self) {
        if Runtime::is_ours() {
            self.watched.take_in(None);
            self.attached.detach();
        }
    }

    fn event(&self, item: Item) -> OwnerEvent {
        let own = self.client.core().current_session();
        let holds = |record: &SessionRecord| self.holds.get(&record.id).cloned().unwrap_or_default();
        let owner = |record: &SessionRecord| describe(&own, record, holds(record));
        match item {
            Item::Start => OwnerEvent::SnapshotStart,
            Item::End => OwnerEvent::SnapshotEnd,
            Item::Joined(record) => OwnerEvent::Joined(owner(&record)),
            Item::Gone(record) if record.clean => OwnerEvent::Left(owner(&record)),
            Item::Gone(record) => OwnerEvent::Expired(owner(&record)),
        }
    }
}

impl Watched {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, change: Option<&Change>) {
        let mut state = self.state();
        if state.closed {
            // What was on its way when it was closed.
            return;
        }
        state.take_in(change);
        match change {
            None => self.showing.set(Sessions::new()),
            Some(Change::Snapshot(snapshot)) => {
                let live = snapshot.sessions.iter().filter(|session| session.vitality == Vitality::Live);
                self.showing.set(live.map(|session| (session.id, Arc::new(session.info.clone()))).collect());
            }
            Some(Change::Session(session)) if session.vitality == Vitality::Live => {
                self.showing.add(session.id, &Arc::new(session.info.clone()));
            }
            Some(Change::Session(session)) => self.showing.remove(session.id),
            Some(Change::Interrupted | Change::Claim(_)) => {}
        }
        drop(state);
        self.changed.notify_waiters();
    }

    async fn news(&self) -> Result<()> {
        loop {
            let changed = self.changed.notified();
            if self.state().has_news() {
                return Ok(());
            }
            changed.await;
        }
    }
}

impl State {
    fn has_news(&self) -> bool {
        self.closed || self.collapsed || !self.queue.is_empty()
    }

    fn take_in(&mut self, change: Option<&Change>) {
        match change {
            None => *self = Self { closed: true, ..Self::default() },
            Some(Change::Snapshot(snapshot)) => {
                let sessions = snapshot.sessions.iter().map(|session| (session.id, Arc::new(session.clone())));
                let before = std::mem::replace(&mut self.now, sessions.collect());
                let items = bracket(&before, &self.now);
                // An empty one after another says nothing.
                if items.len() > 2 || !matches!(self.queue.back(), Some(Item::End)) {
                    self.push(items);
                }
            }
            Some(Change::Session(session)) => {
                let known = self.now.contains_key(&session.id);
                let record = Arc::new(session.clone());
                match (session.vitality, known) {
                    (Vitality::Live, _) => {
                        self.now.insert(session.id, record.clone());
                        if !known {
                            self.push([Item::Joined(record)]);
                        }
                    }
                    (Vitality::Dead, true) => {
                        let before = self.now.remove(&session.id);
                        // What it provided until then.
                        let providers = before.map(|before| before.providers.clone()).unwrap_or_default();
                        self.push([Item::Gone(Arc::new(SessionRecord { providers, ..session.clone() }))]);
                    }
                    (Vitality::Dead, false) => {}
                }
            }
            Some(Change::Interrupted | Change::Claim(_)) => {}
        }
    }

    fn push(&mut self, items: impl IntoIterator<Item = Item>) {
        if self.collapsed {
            return;
        }
        self.queue.extend(items);
        // What was told first, however much, is what there was.
        if self.queue.len() > KEPT.max(self.now.len() + 2) {
            self.queue.clear();
            self.collapsed = true;
        }
    }

    fn take(&mut self) -> Result<Option<Item>> {
        if self.closed {
            return Err(Error::closed("the watch"));
        }
        if std::mem::take(&mut self.collapsed) {
            let items = bracket(&self.told, &self.now);
            // A bracket that was begun goes on.
            self.queue.extend(items.into_iter().skip(usize::from(self.in_bracket)));
        }
        let item = self.queue.pop_front();
        match &item {
            Some(Item::Start) => self.in_bracket = true,
            Some(Item::End) => self.in_bracket = false,
            Some(Item::Joined(record)) => {
                self.told.insert(record.id, record.clone());
            }
            Some(Item::Gone(record)) => {
                self.told.remove(&record.id);
            }
            None => {}
        }
        Ok(item)
    }
}

/// What leads from these sessions to those.
fn bracket(
    before: &BTreeMap<SessionId, Arc<SessionRecord>>,
    now: &BTreeMap<SessionId, Arc<SessionRecord>>,
) -> Vec<Item> {
    let joined = now.iter().filter(|(id, _)| !before.contains_key(*id)).map(|(_, record)| Item::Joined(record.clone()));
    let gone = before.iter().filter(|(id, _)| !now.contains_key(*id)).map(|(_, record)| {
        Item::Gone(Arc::new(SessionRecord { vitality: Vitality::Dead, clean: false, ..(**record).clone() }))
    });
    std::iter::once(Item::Start).chain(joined).chain(gone).chain([Item::End]).collect()
}

impl fmt::Debug for OwnerWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerWatch({:?})", self.client)
    }
}
