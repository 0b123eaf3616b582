//! By which right a replica runs a key: none is needed in mode `All`; else the leadership, or the key's shard.
//!
//! Both are ordinary claims. A part (the whole, or one shard) is granted, and then its keys are listed and each is run
//! once, because nobody knows what the holder before did not get to; so are the deletions that this replica has heard of,
//! however long ago. Before a part is given up its keys are not begun any more, and those that run are waited for, so that
//! the next holder never begins beside them; when it is lost, the results of what still runs do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::engine::Engine;
use super::heard::Heard;
use crate::acquire;
use crate::claims::{Hold, Want};
use crate::client::Core;
use crate::driver::{CancelToken, Watched};
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};
use crate::protocol::claim::{ClaimKey, Priority};
use crate::protocol::document::{Fence, Key};
use crate::protocol::session::{SessionId, Vitality};
use crate::protocol::shards::{MOVES, View, Wish};
use crate::protocol::work_queue::Gate;
use crate::store::changes::{Change, ClaimState, Interest};
use crate::time::Timestamp;

/// A part that this replica holds.
pub(super) struct Right {
    hold: Hold,
    running: Watched<usize>,
    /// Whoever still runs under it is to stop.
    revoked: CancelToken,
}

impl Right {
    fn new(hold: Hold) -> Self {
        // The store keeps the claim for this session until what runs under it has ended, also when it is broken.
        hold.set_managed();
        Self { hold, running: Watched::new(0), revoked: CancelToken::new() }
    }

    pub(super) fn token(&self) -> i64 {
        self.hold.token()
    }

    /// # Errors
    /// `NotHeld` when it is given up: [`Right::is_lost`] says so before.
    pub(super) fn fence(&self) -> Result<Fence> {
        self.hold.fence()
    }

    /// Whether it is lost. Reads a clock.
    pub(super) fn is_lost(&self) -> bool {
        self.hold.loss().is_some() || self.hold.is_released()
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.revoked.is_fired()
    }

    /// Waits until it is lost.
    pub(super) async fn lost(&self) {
        self.hold.lost().await;
    }

    /// A run begins under it.
    pub(super) fn enter(&self) {
        self.running.modify(|running| *running += 1);
    }

    /// A run has ended.
    pub(super) fn leave(&self) {
        self.running.modify(|running| *running = running.saturating_sub(1));
    }

    async fn idle(&self) {
        self.running.wait_for(|running| *running == 0).await;
    }

    pub(super) fn fenced(&self, key: &Key) -> Error {
        Error::new(
            Code::Fenced,
            format!("{} is lost, so the run of {key} does not count; the next holder runs it", self.hold.describe()),
        )
    }
}

/// Campaigns, and runs everything while it leads. Ends with the reconciler.
pub(super) async fn lead(engine: Arc<Engine>, claim: ClaimKey) {
    let core = engine.core().clone();
    loop {
        let won = tokio::select! {
            biased;
            () = engine.stopped() => return,
            won = win(&core, &claim) => won,
        };
        match won {
            Ok(hold) => {
                let end = std::future::pending();
                let goes_on = serve(&engine, 0, hold, end).await;
                if !goes_on {
                    return;
                }
            }
            Err(error) if error.code() == Code::Closed => return,
            Err(error) => {
                tracing::warn!(%claim, %error, "the leadership could not be had; trying again");
                pause(&engine).await;
            }
        }
    }
}

async fn win(core: &Core, claim: &ClaimKey) -> Result<Hold> {
    let want = Want { wait: true, max_queue: core.options().max_queue, priority: Priority::default() };
    let hold = acquire::wait(core, claim, &want).await?;
    hold.publish(&core.options().name).await?;
    Ok(hold)
}

/// Who the replicas are, and what a replica may give up now.
pub(super) struct Replicas {
    view: Watched<View>,
    moves: std::sync::Mutex<Gate>,
}

impl Replicas {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { view: Watched::new(View::empty(now)), moves: std::sync::Mutex::new(Gate::new(Some(MOVES))) }
    }

    /// The sessions of the live replicas are these now.
    pub(super) fn update(&self, replicas: Vec<String>, now: Timestamp) {
        self.view.modify(|view| view.update(replicas, now));
    }

    pub(super) fn view(&self) -> View {
        self.view.get()
    }

    async fn until(&self, wanted: impl Fn(&View) -> bool) {
        self.view.wait_for(wanted).await;
    }
}

/// Holds a claim that nobody else wants, which says that this replica lives: it is gone when the session is.
pub(super) async fn be_member(engine: Arc<Engine>, claim: ClaimKey) {
    let core = engine.core().clone();
    let want = Want { wait: true, max_queue: core.options().max_queue, priority: Priority::default() };
    loop {
        let held = tokio::select! {
            biased;
            () = engine.stopped() => return,
            held = acquire::wait(&core, &claim, &want) => held,
        };
        match held {
            Ok(hold) => {
                let over = tokio::select! {
                    biased;
                    () = engine.stopped() => true,
                    _ = hold.lost() => false,
                };
                if over {
                    // The shards are released by their own tasks; who waits for them need not be a member to get them.
                    if let Err(error) = hold.release().await {
                        tracing::debug!(%claim, %error, "a replica's claim was gone before it left");
                    }
                    return;
                }
            }
            Err(error) if error.code() == Code::Closed => return,
            Err(error) => {
                tracing::warn!(%claim, %error, "a replica cannot say that it lives; trying again");
                pause(&engine).await;
            }
        }
    }
}

/// Keeps the view of the live replicas: the holders of members' claims whose sessions are not known to be dead.
pub(super) async fn follow_members(engine: Arc<Engine>, replicas: Arc<Replicas>, prefix: ClaimKey) {
    let core = engine.core().clone();
    let interest = Interest { claims: vec![prefix.as_str().to_owned()], sessions: true };
    let mut changes = loop {
        let subscribed = tokio::select! {
            biased;
            () = engine.stopped() => return,
            subscribed = Heard::of(&core, interest.clone()) => subscribed,
        };
        match subscribed {
            Ok(changes) => break changes,
            Err(error) if error.code() == Code::Closed => return,
            Err(error) => {
                tracing::warn!(%error, "the replicas of a reconciler cannot be followed; trying again");
                pause(&engine).await;
            }
        }
    };
    let mut members: BTreeMap<ClaimKey, SessionId> = BTreeMap::new();
    loop {
        let change = tokio::select! {
            biased;
            () = engine.stopped() => return,
            change = changes.next() => change,
        };
        let Ok(change) = change else { return };
        match change {
            // Nothing is known of the replicas until the snapshot; the view stays, and is only a wish.
            Change::Interrupted => continue,
            Change::Snapshot(snapshot) => {
                let live: BTreeSet<SessionId> = snapshot.sessions.iter().map(|session| session.id).collect();
                let holder = |claim: ClaimState| Some((claim.key, claim.holder?.session));
                members = snapshot.claims.into_iter().filter_map(holder).filter(|(_, id)| live.contains(id)).collect();
            }
            Change::Claim(ClaimState { key, holder: Some(holder), .. }) => {
                members.insert(key, holder.session);
            }
            Change::Claim(ClaimState { key, .. }) => {
                members.remove(&key);
            }
            Change::Session(session) if session.vitality == Vitality::Dead => {
                members.retain(|_, member| *member != session.id);
            }
            Change::Session(_) => continue,
        }
        replicas.update(members.values().map(SessionId::to_string).collect(), core.setup().env.now());
    }
}

/// Holds a shard or stands by as long as the view says so. Ends with the reconciler.
pub(super) async fn keep_shard(engine: Arc<Engine>, replicas: Arc<Replicas>, shard: u32, claim: ClaimKey) {
    let core = engine.core().clone();
    // A session that was lost and replaced is another replica, whose own claim changes the view.
    let wish = |view: &View| view.wish(&core.current_session().id().to_string(), shard);
    loop {
        let want = Want { wait: true, max_queue: core.options().max_queue, priority: Priority::default() };
        let held = async {
            replicas.until(|view| wish(view) != Wish::Nothing).await;
            tokio::select! {
                biased;
                () = replicas.until(|view| wish(view) == Wish::Nothing) => None,
                held = acquire::wait(&core, &claim, &want) => Some(held),
            }
        };
        let held = tokio::select! {
            biased;
            () = engine.stopped() => return,
            held = held => held,
        };
        match held {
            None => {}
            Some(Ok(hold)) => {
                let goes_on = serve(&engine, shard, hold, due_to_move(&engine, &replicas, wish)).await;
                if !goes_on {
                    return;
                }
            }
            Some(Err(error)) if error.code() == Code::Closed => return,
            Some(Err(error)) => {
                tracing::debug!(%claim, %error, "a shard could not be had; trying again");
                pause(&engine).await;
            }
        }
    }
}

/// Waits until the shard is to be given up: another replica is first, in a view that has been the same for a while.
async fn due_to_move(engine: &Engine, replicas: &Replicas, wish: impl Fn(&View) -> Wish) {
    let env = &engine.core().setup().env;
    loop {
        replicas.until(|view| wish(view) != Wish::First).await;
        let view = replicas.view();
        env.sleep_until(view.stable_at()).await;
        let opens = {
            let mut moves = replicas.moves.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let now = env.now();
            match replicas.view() == view && wish(&view) != Wish::First {
                true if moves.pass(now) => return,
                true => moves.opens(now),
                false => now,
            }
        };
        env.sleep_until(opens).await;
    }
}

/// Runs the keys of a part until it is lost, or to be given up. Returns whether the reconciler goes on.
async fn serve(engine: &Arc<Engine>, part: u32, hold: Hold, give_up: impl Future<Output = ()>) -> bool {
    let right = Arc::new(Right::new(hold));
    tracing::debug!(part, token = right.token(), reconciler = engine.name(), "a part is granted");
    failpoints::at(Point::PartGranted);
    engine.grant(part, right.clone());
    let list = async {
        if let Err(error) = engine.list_part(part, &right).await {
            engine.fail(error);
        }
        failpoints::at(Point::PartListed);
        std::future::pending::<()>().await;
    };
    let (goes_on, lost) = tokio::select! {
        biased;
        () = engine.stopped() => (false, false),
        () = right.lost() => (true, true),
        () = give_up => (true, false),
        () = list => (true, false),
    };
    let env = &engine.core().setup().env;
    if goes_on && !lost {
        tokio::select! {
            biased;
            () = engine.deletions_run(part) => {}
            () = engine.stopped() => {}
            () = right.lost() => {}
            () = env.sleep(engine.options().move_grace) => {}
        }
    }
    engine.revoke(part);
    failpoints::at(Point::PartRevoked);
    if lost || !goes_on {
        right.revoked.fire();
        engine.cancels().notify_waiters();
    } else {
        tokio::select! {
            biased;
            () = right.idle() => {}
            () = engine.stopped() => {}
            () = right.lost() => {}
            () = env.sleep(engine.options().move_grace) => {}
        }
        right.revoked.fire();
        engine.cancels().notify_waiters();
    }
    // Whatever happens, the part is not another's before what runs under it here has ended.
    right.idle().await;
    failpoints::at(Point::PartIdle);
    tracing::debug!(part, token = right.token(), lost, reconciler = engine.name(), "a part is given up");
    if let Err(error) = right.hold.release().await {
        tracing::debug!(part, %error, "a part was gone before it was given up");
    }
    goes_on
}

/// A while between tries, or until the reconciler ends.
async fn pause(engine: &Engine) {
    let env = &engine.core().setup().env;
    tokio::select! {
        biased;
        () = engine.stopped() => {}
        () = env.sleep(env.jittered(RETRY)) => {}
    }
}

/// Between tries that failed for a reason that does not pass by waiting in the queue.
const RETRY: Duration = Duration::from_millis(500);
