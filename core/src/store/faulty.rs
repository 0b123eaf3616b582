//! Any store, behind a bad network: requests and replies are delayed, lost and delivered twice, notices vanish.
//!
//! What a request does to the store does not depend on whether somebody still waits for its reply: as with a real
//! server, a request may be applied after its caller has given up. For tests of this library, of other stores, and
//! of user code.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::channel::mpsc;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::sync::oneshot;

use super::changes::{Change, Changes, Interest};
use super::documents::Documents;
use super::{Applied, Capabilities, ClaimQuery, Notice, Notices, SessionQuery, SharedStore, Store};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::mutants::{self, Mutant};
use crate::protocol::claim::{ClaimKey, ClaimRecord, ClaimStep};
use crate::protocol::session::{SessionId, SessionRecord, SessionStep};

/// How bad the network is. Probabilities are from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// The longest that a request or a reply takes, each way, when nothing is wrong.
    pub delay: Duration,
    /// How likely a message takes up to `slow_delay` instead.
    pub slow: f64,
    /// The longest that a slow message takes.
    pub slow_delay: Duration,
    /// How likely a request is lost.
    pub lost_request: f64,
    /// How likely a reply is lost, after the request was applied.
    pub lost_reply: f64,
    /// How likely a write is applied again later.
    pub duplicate: f64,
    /// How likely a notice is lost, or a change: the stream of changes is interrupted then.
    pub lost_notice: f64,
    /// Whether the stream reports a gap, some time after it has lost a notice.
    pub gaps: bool,
    /// How long a caller waits for a reply.
    pub limit: Duration,
}

impl Faults {
    /// A network without faults or delays.
    pub const NONE: Self = Self {
        delay: Duration::ZERO,
        slow: 0.0,
        slow_delay: Duration::ZERO,
        lost_request: 0.0,
        lost_reply: 0.0,
        duplicate: 0.0,
        lost_notice: 0.0,
        gaps: true,
        limit: Duration::from_secs(5),
    };
}

/// What [`Mutant::NoCallLimit`] waits.
const ENDLESS: Duration = Duration::from_secs(86_400);

/// A store behind a bad network.
#[derive(Debug)]
pub struct FaultyStore {
    inner: SharedStore,
    network: Network,
}

/// The network between one client and the store. `env` is the network's own: it goes on when the client is stopped.
#[derive(Clone, Debug)]
struct Network {
    env: Env,
    faults: Arc<Mutex<Faults>>,
    cut: Arc<AtomicBool>,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug)]
struct Fate {
    request: Duration,
    lose_request: bool,
    reply: Duration,
    lose_reply: bool,
    again_after: Option<Duration>,
}

impl FaultyStore {
    /// Puts a network with these faults before a store.
    pub fn new(inner: SharedStore, env: Env, faults: Faults) -> Self {
        let network = Network { env, faults: Arc::new(Mutex::new(faults)), cut: Arc::default() };
        Self { inner, network }
    }

    /// Changes the faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        *self.network.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// Cuts the network, or heals it: while it is cut every message is lost.
    pub fn set_cut(&self, cut: bool) {
        self.network.cut.store(cut, Relaxed);
    }

    fn call<T: Send + 'static>(
        &self,
        writes: bool,
        request: impl Fn(SharedStore) -> BoxFuture<'static, Result<T>> + Send + Sync + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        let faults = self.network.faults();
        let fate = self.network.fate(&faults, writes);
        let network = self.network.clone();
        let inner = self.inner.clone();
        let (reply, answer) = oneshot::channel();
        // A task of the network's: what was sent takes its way, whatever becomes of the sender.
        self.network.env.spawn(async move {
            network.env.sleep(fate.request).await;
            if fate.lose_request || network.cut.load(Relaxed) {
                return;
            }
            let once = async {
                let result = request(inner.clone()).await;
                network.env.sleep(fate.reply).await;
                if !fate.lose_reply && !network.cut.load(Relaxed) {
                    // A caller that has given up does not hear it.
                    let _ = reply.send(result);
                }
            };
            // However long the store takes for its answer, which can be for ever while it has no majority.
            let again = async {
                if let Some(delay) = fate.again_after {
                    network.env.sleep(delay).await;
                    let _ = request(inner.clone()).await;
                }
            };
            futures::future::join(once, again).await;
        });
        let network = self.network.clone();
        let limit = if mutants::on(Mutant::NoCallLimit) { ENDLESS } else { faults.limit };
        async move {
            tokio::select! {
                biased;
                Ok(result) = answer => result,
                () = network.env.sleep(limit) => Err(Error::unavailable("the store did not answer in time")),
            }
        }
        .boxed()
    }
}

impl Network {
    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && ((self.env.rng.bits() >> 11) as f64 / (1u64 << 53) as f64) < probability
    }

    fn up_to(&self, longest: Duration) -> Duration {
        longest.mul_f64((self.env.rng.bits() >> 11) as f64 / (1u64 << 53) as f64)
    }

    fn delay(&self, faults: &Faults) -> Duration {
        let longest = if self.chance(faults.slow) { faults.slow_delay } else { faults.delay };
        self.up_to(longest)
    }

    fn fate(&self, faults: &Faults, writes: bool) -> Fate {
        let again = writes && self.chance(faults.duplicate);
        Fate {
            request: self.delay(faults),
            lose_request: self.chance(faults.lost_request),
            reply: self.delay(faults),
            lose_reply: self.chance(faults.lost_reply),
            again_after: again.then(|| self.up_to(faults.limit * 2)),
        }
    }
}

/// Forwards changes in their order, each late. One that is lost takes the stream with it: the next begins anew.
async fn forward_changes(
    network: Network,
    inner: SharedStore,
    interest: Interest,
    mut source: Changes,
    sender: mpsc::UnboundedSender<Change>,
) {
    while let Some(mut change) = source.next().await {
        let faults = network.faults();
        network.env.sleep(network.delay(&faults)).await;
        if network.chance(faults.lost_notice) || network.cut.load(Relaxed) {
            network.env.sleep(faults.limit).await;
            while network.cut.load(Relaxed) {
                network.env.sleep(faults.limit).await;
            }
            let Ok(next) = inner.changes(interest.clone()).await else { return };
            source = next;
            change = Change::Interrupted;
        }
        if sender.unbounded_send(change).is_err() {
            return;
        }
    }
}

impl Store for FaultyStore {
    fn apply_session(&self, id: SessionId, step: SessionStep) -> BoxFuture<'_, Result<Option<SessionRecord>>> {
        self.call(true, move |store| {
            let step = step.clone();
            async move { store.apply_session(id, step).await }.boxed()
        })
    }

    fn apply_claim(&self, key: ClaimKey, step: ClaimStep) -> BoxFuture<'_, Result<Applied>> {
        self.call(true, move |store| {
            let (key, step) = (key.clone(), step.clone());
            async move { store.apply_claim(key, step).await }.boxed()
        })
    }

    fn sessions(&self, query: SessionQuery) -> BoxFuture<'_, Result<Vec<SessionRecord>>> {
        self.call(false, move |store| {
            let query = query.clone();
            async move { store.sessions(query).await }.boxed()
        })
    }

    fn claims(&self, query: ClaimQuery) -> BoxFuture<'_, Result<Vec<ClaimRecord>>> {
        self.call(false, move |store| {
            let query = query.clone();
            async move { store.claims(query).await }.boxed()
        })
    }

    fn notices(&self, id: SessionId) -> BoxFuture<'_, Result<Notices>> {
        let network = self.network.clone();
        async move {
            let mut source = self.inner.notices(id).await?;
            let (sender, receiver) = mpsc::unbounded();
            network.env.clone().spawn(async move {
                while let Some(notice) = source.next().await {
                    let faults = network.faults();
                    network.env.sleep(network.delay(&faults)).await;
                    let lost = network.chance(faults.lost_notice) || network.cut.load(Relaxed);
                    // A stream that lost something is noticed by its silence, reopened, and begins with a gap.
                    let notice = if lost {
                        if !faults.gaps {
                            continue;
                        }
                        network.env.sleep(faults.limit).await;
                        Notice::Gap
                    } else {
                        notice
                    };
                    if sender.unbounded_send(notice).is_err() {
                        return;
                    }
                }
            });
            Ok(Box::pin(receiver) as Notices)
        }
        .boxed()
    }

    fn changes(&self, interest: Interest) -> BoxFuture<'_, Result<Changes>> {
        let (network, inner) = (self.network.clone(), self.inner.clone());
        async move {
            let source = inner.changes(interest.clone()).await?;
            let (sender, receiver) = mpsc::unbounded();
            network.env.clone().spawn(forward_changes(network, inner, interest, source, sender));
            Ok(Box::pin(receiver) as Changes)
        }
        .boxed()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn run_directory(&self) -> Option<std::path::PathBuf> {
        self.inner.run_directory()
    }

    fn documents(&self) -> Option<&dyn Documents> {
        self.inner.documents()
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.call(false, |store| async move { store.health().await }.boxed())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}
