//! A client: connected to one store, with a session of its own that carries everything it holds.

mod closing;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;

use crate::config::{ClockKind, HostLiveness, Location, Options};
use crate::driver::{Background, Runtime, Watched};
use crate::election::Campaigns;
use crate::env::{Env, Task};
use crate::error::{Code, Error, LossReason, Result};
use crate::lock::Lock;
use crate::name::Name;
use crate::protocol::claim::ClaimKey;
pub use crate::protocol::session::SessionState;
use crate::protocol::session::{SessionId, SessionInfo, Timing};
use crate::session::changes::Hub;
use crate::session::{Session, Setup, kernel_lock};
use crate::stats::{RosterCounts, Stats, StatsSnapshot};
use crate::store::SharedStore;
use crate::store::counted::Counted;
use crate::store::memory::MemoryStore;
use crate::testing;
use closing::StoreUse;

/// Connects to the store at this URL (see [`crate::config`]), with the URL's options.
///
/// Returns when the session is open. Does not block the thread.
///
/// # Errors
/// `InvalidArgument` for the URL, those of the store otherwise: each says what to do.
pub async fn connect(url: &str) -> Result<Client> {
    Client::connect(Options::parse(url)?).await
}

/// A connection to a store, with a session that carries everything that is held through it.
///
/// Cheap to clone; all clones are one client. When the last of them and of what was made from them (locks, holds) is
/// gone, the client is closed in the background. Every method may be called from any thread and any executor.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// What the user's handles share. Its end is the end of the client.
pub(crate) struct Shared {
    core: Arc<Core>,
}

/// What the client's tasks share.
pub(crate) struct Core {
    /// None in a simulation, which brings its own.
    runtime: Option<Runtime>,
    setup: Setup,
    options: Options,
    store: SharedStore,
    store_use: StoreUse,
    current: Watched<Arc<Session>>,
    changes: Arc<Hub>,
    life: Watched<Life>,
    supervisor: Mutex<Option<Task>>,
    session_tasks: Mutex<Vec<Task>>,
    campaigns: Campaigns,
    /// The mails that are being sent, by their claims.
    #[cfg(feature = "mail")]
    mails: crate::driver::Marks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    Closing,
    Closed,
}

impl Client {
    /// Connects with these options.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn connect(options: Options) -> Result<Self> {
        let runtime = Runtime::shared()?;
        let on = runtime.clone();
        on.drive(async move {
            let mut env = Env::system(runtime.handle().clone());
            if options.clock == ClockKind::Manual {
                env.clock = testing::clock_of(options.location());
            }
            let store = open_store(&options, &env).await?;
            Self::start(Some(runtime), store, options, env).await
        })
        .await
    }

    /// Connects through a store that is open already, in a world of the caller's: for stores of third parties, and
    /// for simulations. Runs on the runtime of `env`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn with_store(store: SharedStore, options: Options, env: Env) -> Result<Self> {
        Self::start(None, store, options, env).await
    }

    async fn start(runtime: Option<Runtime>, store: SharedStore, options: Options, env: Env) -> Result<Self> {
        let timing = options.timing()?;
        let capabilities = store.capabilities();
        let run_directory = match options.host_liveness {
            HostLiveness::Auto if capabilities.multi_process => kernel_lock::run_directory(store.run_directory())
                .map_err(|reason| tracing::warn!(%reason, "deaths on this host can only be observed"))
                .ok(),
            _ => None,
        };
        let setup = Setup {
            background: Background::new(env.clone(), Runtime::is_ours),
            store: Arc::new(Counted::new(store.clone())),
            timing,
            name: options.name.clone(),
            labels: options.labels.clone(),
            run_directory,
            stats: Arc::new(Stats::default()),
            providers: Arc::default(),
            shown: Arc::default(),
            env,
        };
        Self::open(runtime, store, StoreUse::first(), options, setup).await
    }

    async fn open(
        runtime: Option<Runtime>,
        store: SharedStore,
        store_use: StoreUse,
        options: Options,
        setup: Setup,
    ) -> Result<Self> {
        // A simulation counts every call; a store on this host fails for reasons that do not pass.
        let patient = runtime.is_some() && store.capabilities().multi_host;
        let session = match first_session(&setup, if patient { OPENING } else { Duration::ZERO }).await {
            Ok(session) => session,
            Err(error) => {
                if store_use.end() {
                    store.close().await;
                }
                return Err(error);
            }
        };
        if runtime.is_some() && matches!(options.location(), Location::Memory { .. }) {
            testing::register(&session);
        }
        let core = Arc::new(Core {
            runtime,
            options,
            store,
            store_use,
            current: Watched::new(session.clone()),
            changes: Hub::new(setup.env.clone(), setup.store.clone()),
            life: Watched::new(Life::Open),
            supervisor: Mutex::new(None),
            session_tasks: Mutex::new(session.start()),
            campaigns: Campaigns::default(),
            #[cfg(feature = "mail")]
            mails: Default::default(),
            setup,
        });
        let supervisor = core.setup.env.spawn(supervise(core.clone(), session));
        *core.supervisor.lock().unwrap_or_else(PoisonError::into_inner) = Some(supervisor);
        Ok(Self { shared: Arc::new(Shared { core }) })
    }

    /// Opens another session on the same store: a client whose holds live and die independently of this one's.
    ///
    /// # Errors
    /// `Closed`; those of the store.
    pub async fn open_session(&self) -> Result<Self> {
        let core = self.core().clone();
        core.check_open()?;
        let setup = Setup {
            store: Arc::new(Counted::new(core.store.clone())),
            stats: Arc::new(Stats::default()),
            providers: Arc::default(),
            shown: Arc::default(),
            background: Background::new(core.setup.env.clone(), Runtime::is_ours),
            ..core.setup.clone()
        };
        let opening = core.clone();
        core.drive(async move {
            let store_use = opening.store_use.another().ok_or_else(|| Error::closed("the client"))?;
            Self::open(opening.runtime.clone(), opening.store.clone(), store_use, opening.options.clone(), setup).await
        })
        .await
    }

    /// The lock of this name: `name`, `scope/name` or `namespace/scope/name`. No I/O.
    ///
    /// # Errors
    /// `InvalidArgument` if the name is not valid (see [`Name`]).
    pub fn lock(&self, name: &str) -> Result<Lock> {
        let name = self.name(name)?;
        Ok(Lock::new(self.clone(), name))
    }

    /// A name with this client's namespace and scope in front of what is missing.
    pub(crate) fn name(&self, text: &str) -> Result<Name> {
        Name::parse(text, &self.core().options.namespace, &self.core().options.scope)
    }

    /// What the full names begin with of those whose name begins with this.
    pub(crate) fn name_prefix(&self, text: &str) -> Result<String> {
        Name::prefix(text, &self.core().options.namespace, &self.core().options.scope)
    }

    /// This client's session as it is now. No I/O.
    pub fn session(&self) -> SessionStatus {
        let session = self.core().current_session();
        SessionStatus {
            id: session.id(),
            state: session.state(),
            remaining: session.remaining(),
            timing: session.timing(),
            info: session.info().clone(),
        }
    }

    /// Waits until the session's state differs from `seen`, and returns it. A session that was lost and replaced by
    /// a new one counts as a change.
    ///
    /// # Errors
    /// `Closed` when the client is closed.
    pub async fn session_changed(&self, seen: &SessionStatus) -> Result<SessionStatus> {
        let client = self.clone();
        let seen = (seen.id, seen.state);
        self.core()
            .drive(async move {
                loop {
                    let replaced = client.core().current.changed();
                    let closed = client.core().life.changed();
                    let session = client.core().current_session();
                    let changed = session.state_changed();
                    client.core().check_open()?;
                    let now = client.session();
                    if (now.id, now.state) != seen {
                        return Ok(now);
                    }
                    tokio::select! {
                        biased;
                        () = closed => {}
                        () = replaced => {}
                        () = changed => {}
                    }
                }
            })
            .await
    }

    /// What this client has done, and how near it came to losing its session. No I/O.
    pub fn stats(&self) -> StatsSnapshot {
        let core = self.core();
        let session = core.current_session();
        let roster = RosterCounts {
            providers: core.setup.providers.registered(session.id()),
            onlookers: core.changes.onlookers(),
        };
        core.setup.stats.snapshot(session.claims().counts(), roster, session.watched(), core.setup.store.calls())
    }

    /// Asks the store whether it could be written to now.
    ///
    /// # Errors
    /// Those of the store; `Closed`.
    pub async fn health(&self) -> Result<()> {
        let core = self.core().clone();
        core.check_open()?;
        self.core().drive(async move { core.store.health().await }).await
    }

    /// Where the store is, without credentials.
    pub fn location(&self) -> &Location {
        self.core().options.location()
    }

    /// How long a close may take that is not told, and one at the exit of the process: for languages that have those.
    pub fn close_timeout(&self) -> Duration {
        self.core().options.close_timeout
    }

    /// Whether the client was closed.
    pub fn is_closed(&self) -> bool {
        self.core().life.get() != Life::Open
    }

    /// Closes the client: refuses new work, ends every wait with `Closed`, releases what is held, waits for functions
    /// that run under a lock, ends the session, and closes the store. Closing twice is no error.
    ///
    /// # Errors
    /// `Timeout` when that takes longer than `timeout`; it goes on in the background. While a function runs under a lock,
    /// its session is renewed, and nobody else gets the lock.
    pub async fn close(&self, timeout: Duration) -> Result<()> {
        let core = self.core().clone();
        self.core().drive(async move { core.close(timeout).await }).await
    }

    /// The runtime that the client's tasks run on; none if it was connected by [`Client::with_store`].
    pub fn runtime(&self) -> Option<&Runtime> {
        self.core().runtime.as_ref()
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.shared.core
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("location", self.location()).field("session", &self.session().id).finish()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let core = self.core.clone();
        if Runtime::is_ours() {
            core.begin_close();
        } else {
            // A forked child: everything belongs to the parent.
            std::mem::forget(core);
        }
    }
}

/// A client's session at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStatus {
    /// Its id, new at every start of a client and after every loss.
    pub id: SessionId,
    /// Whether holds are valid.
    pub state: SessionState,
    /// How long holds stay valid without another renewal; zero unless live.
    pub remaining: Duration,
    /// Its timing.
    pub timing: Timing,
    /// Who it is.
    pub info: SessionInfo,
}

impl Core {
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(crate) fn campaigns(&self) -> &Campaigns {
        &self.campaigns
    }

    #[cfg(feature = "mail")]
    pub(crate) fn mails(&self) -> &crate::driver::Marks {
        &self.mails
    }

    /// What others do, for those in this client who look on.
    pub(crate) fn changes(&self) -> &Arc<Hub> {
        &self.changes
    }

    pub(crate) fn current_session(&self) -> Arc<Session> {
        self.current.get()
    }

    /// Runs a future of this client's: on its runtime, whatever executor awaits it.
    ///
    /// Not itself an `async fn`: the future goes into its box at once, and is not part of every caller's.
    pub(crate) fn drive<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        future: F,
    ) -> impl Future<Output = Result<T>> + Send + use<T, F> {
        match &self.runtime {
            Some(runtime) => runtime.drive(future).left_future(),
            None => future.boxed().right_future(),
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if !Runtime::is_ours() {
            return Err(Error::forked());
        }
        match self.life.get() {
            Life::Open => Ok(()),
            _ => Err(Error::closed("the client")),
        }
    }

    /// Waits until the client is being closed.
    pub(crate) async fn closing(&self) {
        self.life.wait_for(|life| *life != Life::Open).await;
    }

    /// The current session as soon as it is live.
    ///
    /// # Errors
    /// `Closed`, `Forked`.
    pub(crate) async fn live_session(&self) -> Result<Arc<Session>> {
        self.check_open()?;
        let session = self.current_session();
        if session.is_live() {
            return Ok(session);
        }
        loop {
            let closed = self.life.changed();
            let replaced = self.current.changed();
            let session = self.current_session();
            let changed = session.state_changed();
            self.check_open()?;
            if session.is_live() {
                return Ok(session.clone());
            }
            tokio::select! {
                biased;
                () = closed => {}
                () = replaced => {}
                () = changed => {}
            }
        }
    }

    /// The current session if it is live now.
    ///
    /// # Errors
    /// `Unavailable` if it is not; `Closed`, `Forked`.
    pub(crate) fn live_session_now(&self) -> Result<Arc<Session>> {
        self.check_open()?;
        let session = self.current_session();
        if session.is_live() {
            return Ok(session);
        }
        Err(Error::unavailable("the session is suspended: the store could not be reached in time to renew it"))
    }

    /// Makes this the client's session, and starts its tasks; false if the client is being closed.
    fn adopt(&self, session: &Arc<Session>) -> bool {
        let mut tasks = self.session_tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // In the lock in which a close takes what there is to end: it finds this session, or this finds the close.
        if self.check_open().is_err() {
            return false;
        }
        *tasks = session.start();
        self.current.replace(session.clone());
        true
    }
}

/// Opens the client's first session. One that a busy store has not acknowledged in time is left to be buried, and
/// another one is tried.
async fn first_session(setup: &Setup, patience: Duration) -> Result<Arc<Session>> {
    let begun = setup.env.now();
    loop {
        match Session::open(setup.clone()).await {
            Err(error) if error.code() == Code::Unavailable && setup.env.now().since(begun) < patience => {
                tracing::debug!(%error, "a session could not be opened; trying again");
                setup.env.sleep(setup.env.jittered(Duration::from_millis(100))).await;
            }
            done => return done,
        }
    }
}

/// Replaces a lost session by a new one, for as long as the client is open.
async fn supervise(core: Arc<Core>, first: Arc<Session>) {
    let mut session = first;
    loop {
        session.over().await;
        // Where a refusal told it, there are its watches and its lock file still. The reason stays what it is.
        session.end(LossReason::Killed);
        for task in core.session_tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        // What ends with a close is not replaced. The abort of this task may come later than it goes on.
        if core.check_open().is_err() {
            return;
        }
        session = reopen(&core).await;
        if core.runtime.is_some() && matches!(core.options.location(), Location::Memory { .. }) {
            testing::register(&session);
        }
        if !core.adopt(&session) {
            // Not here: this task is aborted. Nothing is held in it, and nobody renews it.
            drop(core.setup().background.run(async move {
                if let Err(error) = session.close().await {
                    tracing::debug!(%error, "the session could not be ended in the store; others will bury it");
                }
            }));
            return;
        }
    }
}

async fn reopen(core: &Arc<Core>) -> Arc<Session> {
    let mut pause = Duration::from_millis(100);
    loop {
        match Session::open(core.setup.clone()).await {
            Ok(session) => return session,
            Err(error) => {
                tracing::warn!(%error, "a new session could not be opened; trying again");
                core.setup.env.sleep(core.setup.env.jittered(pause)).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        }
    }
}

/// The only place that names the backends.
#[cfg_attr(
    not(any(feature = "sqlite", feature = "mongodb")),
    expect(clippy::unused_async, reason = "only the stores that reach out take time and options")
)]
async fn open_store(options: &Options, env: &Env) -> Result<SharedStore> {
    match options.location() {
        Location::Memory { name } => {
            let store = MemoryStore::open(name, env.clone());
            if !store.clocks_agree() {
                return Err(Error::invalid(format!(
                    "memory:{name} is in use with another coord.clock; all its clients go by the same"
                )));
            }
            Ok(Arc::new(store))
        }
        #[cfg(feature = "sqlite")]
        Location::Sqlite { path } => {
            let store = crate::store::sqlite::SqliteStore::open(path, options.durability, env.clone()).await?;
            Ok(Arc::new(store))
        }
        #[cfg(feature = "mongodb")]
        Location::MongoDb { uri } => {
            let (prefix, pool, ttl) = (&options.prefix, options.pool, options.timing()?.ttl);
            crate::driver::connections_may_break();
            let store = crate::store::mongodb::MongoStore::open(uri, prefix, pool, ttl, env.clone()).await?;
            Ok(Arc::new(store))
        }
        #[cfg(not(all(feature = "sqlite", feature = "mongodb")))]
        other => Err(Error::new(Code::Unsupported, format!("this build of coord has no store for {other}"))),
    }
}

/// The key of a claim of this kind.
pub(crate) fn claim_key(kind: &str, name: &Name) -> ClaimKey {
    ClaimKey::new(format!("{kind}/{name}"))
}

/// How long connecting is tried while the store answers but does not acknowledge.
const OPENING: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests;
