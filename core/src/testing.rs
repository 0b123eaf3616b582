//! For tests of users' code, on the memory store: who leads, whose session dies, and what time it is.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> coord_core::Result<()> {
//! use std::time::Duration;
//! let client = coord_core::connect("memory:?coord.clock=manual").await?;
//! let control = coord_core::testing::Control::of(&client)?;
//! let term = client.election("e")?.campaign("me").await?;
//! control.advance(Duration::from_secs(3600)).await?; // its session is renewed all the while
//! term.check()?;
//! control.jump(Duration::from_secs(3600))?; // as if the machine had slept
//! assert!(term.check().is_err());
//! # Ok(())
//! # }
//! ```
//!
//! It is part of every build: a test of a program runs against the library that the program runs with. It reaches
//! clients of this process only, which are all that a store in memory has.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use once_cell::sync::Lazy;
use tokio::sync::oneshot;

use crate::client::{Client, claim_key};
use crate::config::Location;
use crate::election;
use crate::env::Task;
use crate::error::{Code, Error, Result};
use crate::protocol::claim::{ClaimKey, ClaimStep, Entry, Step};
use crate::protocol::session::{KillProof, SessionId, SessionState, SessionStep, Vitality};
use crate::session::Session;
use crate::store::{ClaimQuery, SessionQuery, Store};
use crate::time::{Clock, ManualClock, SystemClock, Timestamp, WallTime};

/// Power over a store in memory and its clients.
#[derive(Clone, Debug)]
pub struct Control {
    client: Client,
}

impl Control {
    /// Power over the store of this client.
    ///
    /// # Errors
    /// `Unsupported` unless it is a memory store that was connected to by its URL.
    pub fn of(client: &Client) -> Result<Self> {
        let in_memory = matches!(client.location(), Location::Memory { .. }) && client.runtime().is_some();
        if !in_memory {
            return Err(Error::new(
                Code::Unsupported,
                "only a memory store that was connected to by its URL can be controlled",
            ));
        }
        Ok(Self { client: client.clone() })
    }

    /// Makes a candidate the leader, and returns the token of its term: the one whose session has this id, whatever its
    /// priority. Whoever leads before loses its term at once, with the reason `Broken`.
    ///
    /// Waits for the candidate to campaign, for 30 s of real time at most. One that leads already goes on to.
    ///
    /// # Errors
    /// `InvalidArgument` for the name or the id; `NotFound` if it does not campaign; `Closed`.
    pub async fn force_leader(&self, election: &str, session: &str) -> Result<i64> {
        let key = claim_key(election::KIND, &self.client.name(election)?);
        let to = parse_session(session)?;
        let control = self.clone();
        self.client.core().drive(async move { control.enthrone(&key, to).await }).await
    }

    async fn enthrone(&self, key: &ClaimKey, to: SessionId) -> Result<i64> {
        let store = &self.client.core().setup().store;
        let mut patience = Patience::default();
        loop {
            let record = store.claims(ClaimQuery::Keys(vec![key.clone()])).await?.pop();
            let holder = record.as_ref().and_then(|record| record.holder);
            let token = record.as_ref().map_or(0, |record| record.token);
            if holder.is_some_and(|holder| holder.session == to) {
                return Ok(token);
            }
            let waiter = record.and_then(|record| record.waiters.into_iter().find(|entry| entry.session == to));
            if let (Some(holder), Some(to)) = (holder, waiter)
                && let Some(token) = self.depose(key, holder, token, to).await?
            {
                return Ok(token);
            }
            if patience.is_over().await {
                let message =
                    format!("session {to} does not campaign; it must wait in the election before it can lead");
                return Err(Error::new(Code::NotFound, message));
            }
        }
    }

    /// Takes the claim from its holder, who hears of it first, and gives it to `to`. None if it has moved meanwhile.
    async fn depose(&self, key: &ClaimKey, holder: Entry, token: i64, to: Entry) -> Result<Option<i64>> {
        let deposed = registered(holder.session);
        if let Some(session) = &deposed {
            session.claims().on_breaking(session, &holder, token);
        }
        let step = ClaimStep::Step(Step::transfer(holder, to));
        let moved = self.client.core().setup().store.apply_claim(key.clone(), step).await?;
        if let Some(session) = &deposed {
            // It may have learnt of its own grant only in this moment.
            session.request_audit();
        }
        Ok(moved.map(|view| view.token))
    }

    /// Ends a session as if its process had given no sign of life for its whole ttl: everything that it held is lost, with
    /// the reason `Expired`, and goes to whoever is next; its client opens a new session.
    ///
    /// # Errors
    /// `InvalidArgument` for the id; `NotFound` if this store has no such live session; `Closed`.
    pub async fn expire_session(&self, session: &str) -> Result<()> {
        let id = parse_session(session)?;
        let control = self.clone();
        self.client.core().drive(async move { control.kill(id).await }).await
    }

    async fn kill(&self, id: SessionId) -> Result<()> {
        let core = self.client.core();
        core.check_open()?;
        let store = &core.setup().store;
        let mut found = false;
        loop {
            let record = store.sessions(SessionQuery::Ids(vec![id])).await?.pop();
            let Some(record) = record.filter(|record| found || record.vitality == Vitality::Live) else {
                return Err(Error::new(Code::NotFound, format!("this store has no live session {id}")));
            };
            found = true;
            if let Some(session) = registered(id) {
                session.expire();
            }
            // A renewal that was under way may have come between.
            let killed = store.apply_session(id, SessionStep::Kill(KillProof::Observed(record.nonce))).await?;
            if killed.is_some_and(|record| record.vitality == Vitality::Dead) {
                break;
            }
        }
        for claim in store.claims(ClaimQuery::Of(id)).await? {
            store.apply_claim(claim.key, ClaimStep::Step(Step::sweep(id))).await?;
        }
        Ok(())
    }

    /// Lets time pass for every client of the store: what is due on the way is done at its time, and sessions are renewed.
    /// Returns when the clock shows the new time. Waits of the store's clients begin at the time of their call, so have
    /// them begin first; what takes time by itself (a hand-over, which wants to see the candidate renew) needs time to be
    /// moved while it runs.
    ///
    /// # Errors
    /// `Unsupported` unless the store was opened with `coord.clock=manual`.
    pub async fn advance(&self, by: Duration) -> Result<()> {
        let until = self.clock()?.now() + by;
        let control = self.clone();
        // A task among those that are to run meanwhile: on the caller's thread it would look more often than they can run.
        let passing = async move {
            let env = control.client.core().setup().env.clone();
            let (done, passed) = oneshot::channel();
            let _ends = Ends(env.spawn(async move {
                let _ = done.send(control.pass(until).await);
            }));
            passed.await.unwrap_or_else(|_| Err(Error::new(Code::Panic, "a defect in coord: time stopped on the way")))
        };
        self.client.core().drive(passing).await
    }

    async fn pass(&self, until: Timestamp) -> Result<()> {
        let clock = self.clock()?;
        // Whoever was about to begin a wait has begun it, as a rule.
        tokio::time::sleep(LOOK_EVERY).await;
        loop {
            let mut patience = Patience::default();
            while has_work(clock) && !patience.is_over().await {}
            let now = clock.now();
            if now >= until {
                return Ok(());
            }
            let next = clock.next_wake().filter(|next| *next > now).unwrap_or(until);
            clock.advance(next.min(until).since(now));
        }
    }

    /// Moves the clock at once, as if the machine had slept: nothing happened in between, and what is due is late. Sessions
    /// whose time has passed are suspended, as they would be.
    ///
    /// # Errors
    /// `Unsupported` unless the store was opened with `coord.clock=manual`.
    pub fn jump(&self, by: Duration) -> Result<()> {
        self.clock()?.advance(by);
        Ok(())
    }

    /// The date that the store's manual clock shows.
    ///
    /// # Errors
    /// `Unsupported` unless the store was opened with `coord.clock=manual`.
    pub fn date(&self) -> Result<WallTime> {
        Ok(self.clock()?.wall())
    }

    fn clock(&self) -> Result<&ManualClock> {
        let clock = self.client.core().setup().env.clock.as_manual();
        clock.ok_or_else(|| {
            let message = "the store goes by the machine's clock; connect to memory:NAME?coord.clock=manual to move it";
            Error::new(Code::Unsupported, message)
        })
    }
}

/// Whether somebody who was woken has not run yet, or a session is due for renewal.
fn has_work(clock: &ManualClock) -> bool {
    let now = clock.now();
    let late = |session: &Arc<Session>| {
        let timing = session.timing();
        let usual = timing.ttl - timing.margin - timing.renew_every;
        let same_clock = session.env().clock.as_manual().is_some_and(|other| std::ptr::eq(other, clock));
        same_clock && session.state() == SessionState::Live && session.remaining() <= usual
    };
    clock.next_wake().is_some_and(|next| next <= now) || all_registered().iter().any(late)
}

fn parse_session(text: &str) -> Result<SessionId> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        Error::invalid(format!("'{shown}' is not the id of a session, 32 hexadecimal digits"))
    })
}

/// A task that ends with whoever waits for it.
struct Ends(Task);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A wait of real time, since the store's own may stand still.
#[derive(Default)]
struct Patience {
    looks: u32,
}

impl Patience {
    /// Lets others run; says whether that has gone on for too long.
    async fn is_over(&mut self) -> bool {
        self.looks += 1;
        if self.looks < 100 {
            yield_once().await;
        } else {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.looks > 100 + LOOKS
    }
}

async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

const LOOK_EVERY: Duration = Duration::from_millis(2);
const LOOKS: u32 = 15_000;

/// The sessions of this process that are on a store in memory.
static SESSIONS: Lazy<Mutex<BTreeMap<SessionId, Weak<Session>>>> = Lazy::new(Mutex::default);

/// The manual clocks of named stores.
static CLOCKS: Lazy<Mutex<HashMap<String, Weak<ManualClock>>>> = Lazy::new(Mutex::default);

fn sessions() -> MutexGuard<'static, BTreeMap<SessionId, Weak<Session>>> {
    SESSIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A session of a memory store was opened.
pub(crate) fn register(session: &Arc<Session>) {
    let mut sessions = sessions();
    if sessions.len().is_power_of_two() {
        sessions.retain(|_, session| session.strong_count() > 0);
    }
    sessions.insert(session.id(), Arc::downgrade(session));
}

fn registered(id: SessionId) -> Option<Arc<Session>> {
    sessions().get(&id).and_then(Weak::upgrade)
}

fn all_registered() -> Vec<Arc<Session>> {
    sessions().values().filter_map(Weak::upgrade).collect()
}

/// The manual clock of a store, shared by all its clients; it begins with the machine's time.
pub(crate) fn clock_of(location: &Location) -> Arc<dyn Clock> {
    let new = || Arc::new(ManualClock::new(SystemClock.now(), SystemClock.wall()));
    let Location::Memory { name } = location else { return new() };
    if name.is_empty() {
        return new();
    }
    let mut clocks = CLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    clocks.retain(|_, clock| clock.strong_count() > 0);
    if let Some(clock) = clocks.get(name).and_then(Weak::upgrade) {
        return clock;
    }
    let clock = new();
    clocks.insert(name.clone(), Arc::downgrade(&clock));
    clock
}
