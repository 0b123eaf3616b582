//! The campaign that all functions of one client share in one election: wins, lets them run, waits for them, gives the
//! term back, and begins anew, for as long as one of them is here.
//!
//! Whom to call and when is decided by [`crate::protocol::candidacy`]; here is what happens beside that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::publish;
use super::term::Reign;
use crate::acquire;
use crate::claims::{Hold, Want};
use crate::client::Core;
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};
use crate::protocol::candidacy::{MemberId, Plan, Rota, Terms};
use crate::protocol::claim::ClaimKey;

/// The campaigns that run in a client.
#[derive(Default)]
pub(crate) struct Campaigns(Mutex<BTreeMap<ClaimKey, Arc<Campaign>>>);

pub(super) struct Campaign {
    key: ClaimKey,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    rota: Rota,
    /// The term, from its win until it is given back.
    reign: Option<Arc<Reign>>,
    /// What waiting cannot cure, for each function that has not heard of it.
    faults: BTreeMap<MemberId, Error>,
    /// The client is closed: there will be no other term.
    over: bool,
}

/// What a function is to do.
pub(super) enum Turn {
    Call(Arc<Reign>),
    Fault(Error),
    Over,
    Wait,
}

impl Campaigns {
    /// Adds a function to the campaign for this claim, which begins with the first.
    pub(super) fn join(&self, core: &Arc<Core>, key: &ClaimKey, terms: Terms) -> (Arc<Campaign>, MemberId) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(campaign) = running.get(key) {
            let id = campaign.change(|state| state.rota.join(terms));
            return (campaign.clone(), id);
        }
        let campaign = Arc::new(Campaign { key: key.clone(), state: Mutex::default(), changed: Notify::new() });
        let id = campaign.lock().rota.join(terms);
        running.insert(key.clone(), campaign.clone());
        drop(running);
        // Awaited by the client's closing, like the functions themselves.
        drop(core.setup().background.run(run(core.clone(), campaign.clone())));
        (campaign, id)
    }

    /// Ends a campaign in which nobody is left, or whose client is closed. Says whether it did.
    fn end(&self, campaign: &Campaign, closed: bool) -> bool {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = campaign.change(|state| {
            state.over |= closed;
            state.over || state.rota.is_empty()
        });
        if ends {
            running.remove(&campaign.key);
        }
        ends
    }
}

impl Campaign {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_waiters();
        result
    }

    /// Waits until the state gives an answer.
    async fn until<T>(&self, answer: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            if let Some(answer) = answer(&self.lock()) {
                return answer;
            }
            changed.await;
        }
    }

    /// Waits for the turn of this function, and begins its call.
    pub(super) async fn turn(&self, id: MemberId) -> Turn {
        loop {
            let changed = self.changed.notified();
            match self.look(id) {
                Turn::Wait => changed.await,
                turn => return turn,
            }
        }
    }

    fn look(&self, id: MemberId) -> Turn {
        let mut state = self.lock();
        if let Some(fault) = state.faults.remove(&id) {
            return Turn::Fault(fault);
        }
        // A term that has ended, whether or not the campaign has noticed, begins no call.
        let valid = state.reign.clone().filter(|reign| reign.hold.loss().is_none());
        match valid {
            Some(reign) if state.rota.take(id) => Turn::Call(reign),
            _ if state.over || !state.rota.contains(id) => Turn::Over,
            _ => Turn::Wait,
        }
    }

    /// The call was never made: nobody was there to take it.
    pub(super) fn put_back(&self, id: MemberId) {
        self.change(|state| state.rota.put_back(id));
    }

    /// A call has ended.
    pub(super) fn complete(&self, core: &Core, id: MemberId, reign: &Reign, failed: bool) {
        let env = &core.setup().env;
        let over = reign.hold.loss().is_some();
        let resign = self.change(|state| match (over, failed) {
            (true, _) => {
                state.rota.overtaken(id);
                false
            }
            (false, false) => {
                state.rota.succeeded(id);
                false
            }
            (false, true) => state.rota.failed(id, env.now(), |pause| env.jittered(pause)),
        });
        if resign {
            reign.end();
        }
    }

    /// A function goes. The term of the last one ends.
    pub(super) fn leave(&self, id: MemberId) {
        let ends = self.change(|state| {
            state.rota.leave(id);
            state.faults.remove(&id);
            state.reign.clone().filter(|_| state.rota.plan().is_none())
        });
        if let Some(reign) = ends {
            reign.end();
        }
    }

    /// Waits until this function has gone and its last call has ended; if it was the last one, until the term is given
    /// back.
    pub(super) async fn gone(&self, id: MemberId) {
        self.until(|state| {
            let gone = !state.rota.contains(id) && (state.reign.is_none() || state.rota.plan().is_some());
            gone.then_some(())
        })
        .await;
    }
}

async fn run(core: Arc<Core>, campaign: Arc<Campaign>) {
    let mut pause = FIRST_PAUSE;
    loop {
        // Without a plan there may still be members whose calls run; they end before the term is given back.
        let Some(plan) = campaign.lock().rota.plan() else {
            if core.campaigns().end(&campaign, false) {
                return;
            }
            continue;
        };
        match compete(&core, &campaign, plan).await {
            Ok(Some(hold)) => {
                pause = FIRST_PAUSE;
                reign(&campaign, hold).await;
            }
            Ok(None) => {}
            Err(error) if matches!(error.code(), Code::Closed | Code::Forked) => {
                core.campaigns().end(&campaign, true);
                return;
            }
            // The session died while waiting: the client opens another.
            Err(error) if error.code() == Code::Lost => {
                tracing::debug!(claim = %campaign.key, %error, "campaigning again")
            }
            Err(error) => {
                tracing::warn!(claim = %campaign.key, %error, "the campaign failed; it begins again after a pause");
                if !error.retryable() {
                    campaign.change(|state| {
                        for id in state.rota.members() {
                            state.faults.insert(id, error.clone());
                        }
                    });
                }
                let changed = campaign.until(|state| (state.rota.plan() != Some(plan)).then_some(()));
                tokio::select! {
                    biased;
                    () = changed => {}
                    () = core.closing() => {}
                    () = core.setup().env.sleep(core.setup().env.jittered(pause)) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Wins a term as planned; none when the plan changed before that.
async fn compete(core: &Arc<Core>, campaign: &Campaign, plan: Plan) -> Result<Option<Hold>> {
    let changed = campaign.until(|state| (state.rota.plan() != Some(plan)).then_some(()));
    let win = async {
        let pause = core.setup().env.sleep_until(plan.not_before);
        tokio::select! {
            biased;
            () = core.closing() => core.check_open()?,
            () = pause => {}
        }
        let want = Want { wait: true, max_queue: core.options().max_queue, priority: plan.priority };
        let hold = acquire::wait(core, &campaign.key, &want).await?;
        let value = campaign.lock().rota.value().unwrap_or_default().to_owned();
        publish(&hold, &value).await?;
        Ok(Some(hold))
    };
    tokio::select! {
        biased;
        () = changed => Ok(None),
        won = win => won,
    }
}

/// Lets the functions run for as long as the term lasts, waits for them, and gives the term back.
async fn reign(campaign: &Campaign, hold: Hold) {
    let reign = Arc::new(Reign::shared(hold));
    campaign.change(|state| {
        state.rota.begin();
        state.reign = Some(reign.clone());
    });
    // Whoever leaves as the last in this moment finds the term there; before it, there was no plan any more.
    if campaign.lock().rota.plan().is_none() {
        reign.end();
    }
    reign.hold.lost().await;
    campaign.change(|state| state.rota.end());
    campaign.until(|state| (!state.rota.is_running()).then_some(())).await;
    failpoints::at(Point::TermOver);
    if let Err(error) = reign.give_back().await {
        tracing::debug!(claim = %campaign.key, %error, "the term was over in the store already");
    }
    campaign.change(|state| state.reign = None);
}
