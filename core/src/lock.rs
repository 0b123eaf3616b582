//! Locks: at most one holder at a time, waiters served in order, and a token that tells an old holder from a new one.
//!
//! A lock is not re-entrant: a second acquire by the same client waits like anyone's.
//!
//! What a lock promises and what it cannot: [`Held::check`] says whether the hold is valid *now*, by a deadline that
//! was counted from before the renewal was sent. A process that is stopped right after the check can still act after
//! its lease has ended; only a resource that compares the token ([`Held::token`]) with the highest it has seen is safe
//! from that (Kleppmann's fencing, Chubby's sequencer).

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::acquire;
use crate::claims::{Hold, Want};
use crate::client::{Client, Core, claim_key};
use crate::error::{Code, Error, Holder, HolderState, LossReason, Result};
use crate::mutants::{self, Mutant};
use crate::name::Name;
use crate::protocol::claim::{ClaimKey, ClaimRecord, ClaimStep, Entry, Priority, Step};
use crate::protocol::document::Fence;
use crate::protocol::session::{SessionId, SessionInfo, SessionRecord};
use crate::session::Session;
use crate::store::{ClaimQuery, SessionQuery, Store};

/// The kind of claim that a lock is, first part of its key in the store.
const KIND: &str = "lock";

/// What the keys of all locks begin with whose full name begins with this.
pub(crate) fn claim_prefix(prefix: &str) -> String {
    format!("{KIND}/{prefix}")
}

/// A lock by its name. Cheap to clone; nothing is held or asked for before it is acquired.
#[derive(Clone)]
pub struct Lock {
    client: Client,
    name: Name,
    key: ClaimKey,
}

impl Lock {
    pub(crate) fn new(client: Client, name: Name) -> Self {
        let key = claim_key(KIND, &name);
        Self { client, name, key }
    }

    /// Its full name, `namespace/scope/name`.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Acquires the lock; waits for as long as it takes, also through outages of the store. One write if it is free.
    ///
    /// Dropping the future gives up the place in the queue, and the lock if it was granted in that moment.
    ///
    /// # Errors
    /// `QueueFull`, `Lost` (the session died while waiting; the next call uses a new one), `Closed`, `Forked`, and
    /// those of the store that waiting cannot cure.
    pub async fn acquire(&self) -> Result<Held> {
        self.acquire_within(None).await
    }

    /// Acquires the lock, but waits no longer than `timeout`. With a timeout of zero, [`Lock::try_acquire`].
    ///
    /// # Errors
    /// `Timeout`, and as [`Lock::acquire`].
    pub async fn acquire_timeout(&self, timeout: Duration) -> Result<Held> {
        self.acquire_within(Some(timeout)).await
    }

    async fn acquire_within(&self, timeout: Option<Duration>) -> Result<Held> {
        if timeout == Some(Duration::ZERO) {
            return self.try_acquire().await;
        }
        let lock = self.clone();
        self.client
            .core()
            .drive(async move {
                let (core, want) = (lock.client.core(), lock.want(true));
                let granted = pin!(acquire::wait(core, &lock.key, &want));
                let hold = acquire::within(core, &lock.key, timeout, granted).await?;
                Ok(lock.held(hold))
            })
            .await
    }

    /// Acquires the lock if it is free and nobody waits for it. Does not wait.
    ///
    /// A holder that is known to be dead, or whose death can be proven at once, does not count.
    ///
    /// # Errors
    /// `Contended` with the holder; `Unavailable` while the store cannot be reached; as [`Lock::acquire`] otherwise.
    pub async fn try_acquire(&self) -> Result<Held> {
        let lock = self.clone();
        self.client
            .core()
            .drive(async move {
                let hold = acquire::try_now(lock.client.core(), &lock.key, &lock.want(false)).await?;
                Ok(lock.held(hold))
            })
            .await
    }

    fn want(&self, wait: bool) -> Want {
        Want { wait, max_queue: self.client.core().options().max_queue, priority: Priority::default() }
    }

    fn held(&self, hold: Hold) -> Held {
        Held { client: self.client.clone(), name: self.name.clone(), hold: Arc::new(hold) }
    }

    /// Acquires the lock, runs `f` under it, and releases it when f's future has ended.
    ///
    /// f gets the hold: its [`Held::lost`] tells when to stop. When it is lost, f is not interrupted but waited for,
    /// and the store keeps the lock for this session until f has returned, unless the session dies. Closing the
    /// client waits for f, too.
    ///
    /// # Errors
    /// `Lost` if the hold was lost before f had ended; as [`Lock::acquire`].
    pub async fn run<T, F, Fut>(&self, f: F) -> Result<T>
    where
        F: FnOnce(Arc<Held>) -> Fut,
        Fut: Future<Output = T>,
    {
        let held = Arc::new(self.acquire().await?);
        held.manage();
        let result = f(held.clone()).await;
        match held.release().await {
            // f released it itself.
            Err(error) if error.code() != Code::NotHeld => Err(error),
            _ => Ok(result),
        }
    }

    /// Who holds this lock and who waits for it, in order; none if it was never used, or not for a day
    /// (see [`Client::lock_info`]). One or two reads.
    ///
    /// # Errors
    /// Those of the store; `Closed`.
    pub async fn info(&self) -> Result<Option<LockInfo>> {
        let lock = self.clone();
        self.client
            .core()
            .drive(async move {
                let core = lock.client.core();
                core.check_open()?;
                let records = core.setup().store.claims(ClaimQuery::Keys(vec![lock.key.clone()])).await?;
                Ok(describe_all(core, records).await?.pop())
            })
            .await
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lock({})", self.name)
    }
}

/// A lock that is held. Dropping it releases in the background.
pub struct Held {
    client: Client,
    name: Name,
    hold: Arc<Hold>,
}

impl Held {
    /// The lock's full name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The fencing token: grows with every grant of this lock, and never falls. Give it to the resource that the lock
    /// protects, so that it can refuse a holder from before. Tokens of different locks are not comparable.
    pub fn token(&self) -> i64 {
        self.hold.token()
    }

    /// This hold as the condition of writes to tables ([`WriteOptions::fence`](crate::table::WriteOptions)): after one, no
    /// write under an older hold of this lock touches the document. Also that of a hold which is lost: then the write is
    /// refused once a later holder has written.
    ///
    /// # Errors
    /// `NotHeld` after a release.
    pub fn fence(&self) -> Result<Fence> {
        self.hold.fence()
    }

    /// How long the hold stays valid without another renewal; zero when it is lost. No I/O.
    pub fn remaining(&self) -> Duration {
        if self.hold.is_released() { Duration::ZERO } else { self.hold.remaining() }
    }

    /// Checks that the hold is valid now. Reads a clock, no I/O: call it before each effect.
    ///
    /// # Errors
    /// `Lost` with the reason; `NotHeld` after a release; `Forked`.
    pub fn check(&self) -> Result<()> {
        if !crate::driver::Runtime::is_ours() {
            return Err(Error::forked());
        }
        if self.hold.is_released() {
            return Err(Error::new(Code::NotHeld, format!("lock '{}' was released", self.name)));
        }
        match self.hold.loss() {
            None => Ok(()),
            Some(reason) => Err(Error::lost(&format!("lock '{}'", self.name), reason)),
        }
    }

    /// Makes sure that the hold stays valid for `duration` from now, by a renewal if that is needed.
    ///
    /// # Errors
    /// `InvalidArgument` if that is more than a renewal can give (ttl less margin); `Lost`, `NotHeld`; those of the
    /// store.
    pub async fn ensure(&self, duration: Duration) -> Result<()> {
        self.check()?;
        let hold = self.hold.clone();
        self.client.core().drive(async move { hold.session().ensure(duration).await }).await?;
        self.check()
    }

    /// Waits until the hold is lost, and returns the reason. After a release, it never returns by itself.
    pub async fn lost(&self) -> LossReason {
        let hold = self.hold.clone();
        let lost = self.client.core().drive(async move { Ok(hold.lost().await) }).await;
        // Only the end of the runtime ends the wait with an error, and with it the session ends.
        lost.unwrap_or(LossReason::Closed)
    }

    /// Whether the hold was lost, and why. No I/O.
    pub fn loss(&self) -> Option<LossReason> {
        self.hold.loss()
    }

    /// Releases the lock and hands it to the next waiter, in one write. Goes on in the background when the future is
    /// dropped; while the store cannot be reached, it waits and asks again.
    ///
    /// # Errors
    /// `Lost` if the hold was lost before; then nothing of a later holder is touched. `NotHeld` when it was released
    /// before.
    pub async fn release(&self) -> Result<()> {
        if !crate::driver::Runtime::is_ours() {
            return Err(Error::forked());
        }
        let hold = self.hold.clone();
        self.client.core().drive(async move { hold.release().await }).await
    }

    /// Says that code runs under this hold, which ends with its release and not before: when the hold is lost, the
    /// store keeps the lock for this session until then, and closing the client waits for it. [`Lock::run`] does this
    /// by itself; it is for other languages' `run`.
    pub fn manage(&self) {
        self.hold.set_managed();
    }

    /// The client that holds it.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("name", &self.name)
            .field("token", &self.token())
            .field("remaining", &self.remaining())
            .finish()
    }
}

/// Who holds a lock and who waits for it, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockInfo {
    /// The lock's full name.
    pub name: String,
    /// The token of the latest grant; 0 if there was none.
    pub token: i64,
    /// The holder, or none if the lock is free.
    pub holder: Option<Holder>,
    /// The waiters, next first.
    pub waiters: Vec<Waiter>,
    /// Whether an operator has asked the holder to go.
    pub breaking: bool,
}

/// Who waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiter {
    /// The name that its client was given.
    pub name: String,
    /// Its session's id.
    pub session: String,
    /// Its host.
    pub host: String,
    /// Its process id.
    pub pid: u32,
}

impl Client {
    /// Every lock of this client's namespace whose name begins with `prefix` (of the full name; empty for all), with
    /// holders and waiters. Two reads.
    ///
    /// # Errors
    /// Those of the store; `Closed`.
    pub async fn locks(&self, prefix: &str) -> Result<Vec<LockInfo>> {
        let prefix =
            if prefix.is_empty() { format!("{}/", self.core().options().namespace) } else { prefix.to_owned() };
        let prefix = claim_prefix(&prefix);
        let client = self.clone();
        self.core()
            .drive(async move {
                let core = client.core();
                core.check_open()?;
                let records = core.setup().store.claims(ClaimQuery::Prefix(prefix)).await?;
                describe_all(core, records).await
            })
            .await
    }

    /// Who holds this lock and who waits for it; none if it was never used. A free lock that was granted more than a day
    /// ago is forgotten; its tokens go on all the same.
    ///
    /// # Errors
    /// `InvalidArgument` for the name; those of the store; `Closed`.
    pub async fn lock_info(&self, name: &str) -> Result<Option<LockInfo>> {
        self.lock(name)?.info().await
    }

    /// Ends somebody's hold, if it is still the one with this token. For operators.
    ///
    /// The holder is asked: its client declares the hold lost at once, and gives the lock up when the code under it has
    /// ended, or after its ttl if that does not end. So nobody ever holds while the old holder still believes. A
    /// holder that cannot be reached loses its session, and the lock with it. This waits until the lock has left the
    /// holder, for up to two of its ttls.
    ///
    /// With `force` the holder is removed right away. Until it learns of that (a third of its ttl as a rule, all of it
    /// when it is cut off) it may believe in its hold beside the next one, and only its token tells them apart.
    ///
    /// # Errors
    /// `Conflict` if the token is not that of the present hold; nothing is broken then. `Timeout` if the holder renews
    /// its session but has not given the lock up in time; it has been asked, and may still. Those of the store.
    pub async fn break_lock(&self, name: &str, token: i64, force: bool) -> Result<()> {
        let lock = self.lock(name)?;
        self.core().drive(async move { break_hold(lock, token, force).await }).await
    }
}

async fn break_hold(lock: Lock, token: i64, force: bool) -> Result<()> {
    let core = lock.client.core();
    core.check_open()?;
    let store = &core.setup().store;
    let conflict = || {
        Error::new(
            Code::Conflict,
            format!("token {token} is not that of the present hold of lock '{}'; nothing was broken", lock.name),
        )
    };
    let announced = store.apply_claim(lock.key.clone(), ClaimStep::AnnounceBreak { token }).await?;
    let holder = announced.and_then(|view| view.holder).ok_or_else(conflict)?;
    if mutants::on(Mutant::BreakEvicts) {
        core.setup().env.sleep(Duration::from_secs(1)).await;
    }
    if force || mutants::on(Mutant::BreakEvicts) {
        // No match means that it went by itself since the announcement, which is what was wanted.
        store.apply_claim(lock.key.clone(), ClaimStep::Step(Step::evict(holder, token))).await?;
        return Ok(());
    }
    let ttl = store.sessions(SessionQuery::Ids(vec![holder.session])).await?.pop().map(|record| record.ttl);
    let patience = ttl.unwrap_or_else(|| core.setup().timing.ttl) * 2;
    let until = core.setup().env.now() + patience;
    while core.setup().env.now() < until {
        core.setup().env.sleep(BREAK_POLL).await;
        let record = store.claims(ClaimQuery::Keys(vec![lock.key.clone()])).await?.pop();
        if record.is_none_or(|record| record.token != token || record.holder != Some(holder)) {
            return Ok(());
        }
    }
    Err(Error::new(
        Code::Timeout,
        format!(
            "the holder of lock '{}' was asked to go and is alive, but has not gone within {} s; breaking with force \
             removes it",
            lock.name,
            patience.as_secs_f64()
        ),
    ))
}

/// How often a break looks whether the holder has gone.
const BREAK_POLL: Duration = Duration::from_millis(100);

/// Puts names, hosts and pids to the entries of some claims, with one more read.
async fn describe_all(core: &Core, records: Vec<ClaimRecord>) -> Result<Vec<LockInfo>> {
    let mut ids: Vec<SessionId> =
        records.iter().flat_map(|r| r.holder.iter().chain(&r.waiters)).map(|entry| entry.session).collect();
    ids.sort_unstable();
    ids.dedup();
    let sessions =
        if ids.is_empty() { Vec::new() } else { core.setup().store.sessions(SessionQuery::Ids(ids)).await? };
    let own = core.current_session();
    let mut infos = Vec::with_capacity(records.len());
    for record in records {
        let holder = match &record.holder {
            Some(entry) => Some(describe_holder(&own, entry, &record, &sessions).await?),
            None => None,
        };
        let waiters = record.waiters.iter().map(|entry| describe_waiter(entry, &sessions)).collect();
        infos.push(LockInfo {
            name: record.key.name().to_owned(),
            token: record.token,
            holder,
            waiters,
            breaking: record.breaking.is_some(),
        });
    }
    Ok(infos)
}

fn info_of(entry: &Entry, sessions: &[SessionRecord]) -> SessionInfo {
    sessions.iter().find(|s| s.id == entry.session).map(|s| s.info.clone()).unwrap_or_default()
}

async fn describe_holder(
    own: &Arc<Session>,
    entry: &Entry,
    record: &ClaimRecord,
    sessions: &[SessionRecord],
) -> Result<Holder> {
    let (state, silent_for) = if entry.session == own.id() {
        (HolderState::Live, Duration::ZERO)
    } else {
        let (_, state, silent_for) = own.look_at(entry.session).await?;
        (state, silent_for)
    };
    let info = info_of(entry, sessions);
    Ok(acquire::holder(entry, record.token, record.granted_at, &info, state, silent_for, own.id()))
}

fn describe_waiter(entry: &Entry, sessions: &[SessionRecord]) -> Waiter {
    let info = info_of(entry, sessions);
    Waiter { name: info.name, session: entry.session.to_string(), host: info.host, pid: info.pid }
}

#[cfg(test)]
mod tests;
