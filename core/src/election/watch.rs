//! Looking on: who leads, and when nobody does.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Notify, OwnedMutexGuard};

use super::{Election, Leader, leader};
use crate::client::{Client, Core};
use crate::error::{Code, Error, Result};
use crate::name::Name;
use crate::protocol::claim::ClaimKey;
use crate::protocol::leadership::{Story, Tenure, Told};
use crate::protocol::session::Vitality;
use crate::session::changes::Attached;
use crate::session::shown::Showing;
use crate::store::changes::{Change, ClaimState, Interest};
use crate::store::{SessionQuery, Store};

/// What an observer of an election is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaderEvent {
    /// Nobody leads: the leader resigned, handed over, was broken, or its session died.
    NoLeader,
    /// This one leads now, or has another value than before.
    Leader(Leader),
}

/// The story of an election, told one event after the other.
///
/// Up to 1024 events wait for whoever does not take them; who falls behind by more goes on with the present state.
pub struct LeaderWatch {
    client: Client,
    name: Name,
    heard: Arc<Heard>,
    _attached: Attached,
}

/// What the stream of changes has told of this election.
struct Heard {
    state: Mutex<State>,
    changed: Notify,
    /// Held while an event is told, so that events come in order.
    telling: Arc<tokio::sync::Mutex<Option<Describing>>>,
    /// Who leads: the client looks after it.
    showing: Showing,
}

#[derive(Default)]
struct State {
    story: Story,
    closed: bool,
}

impl Election {
    /// Observes the election: the present state, then every change, always with [`LeaderEvent::NoLeader`] between two
    /// terms. The stream of changes is shared by everything that this client observes.
    ///
    /// # Errors
    /// Those of the store; `Closed`, `Forked`.
    pub async fn observe(&self) -> Result<LeaderWatch> {
        let election = self.clone();
        self.client
            .core()
            .drive(async move {
                let core = election.client.core();
                core.check_open()?;
                let showing = core.setup().shown.begin();
                let heard = Heard { state: Mutex::default(), changed: Notify::new(), telling: Arc::default(), showing };
                let heard = Arc::new(heard);
                let (key, sink) = (election.key.clone(), heard.clone());
                let interest = Interest { claims: vec![key.as_str().to_owned()], sessions: true };
                let attached = core.changes().attach(interest, Box::new(move |change| sink.hear(&key, change))).await?;
                let Self { client, name, .. } = election;
                Ok(LeaderWatch { client, name, heard, _attached: attached })
            })
            .await
    }
}

impl LeaderWatch {
    /// Waits for the next event. Goes on through outages of the store: then without a gap if the store still has the
    /// history, otherwise with the state of then.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// `Closed` when the client is closed; `Forked`; errors of the store that waiting cannot cure, after which the next
    /// call goes on.
    pub async fn next(&self) -> Result<LeaderEvent> {
        let (client, heard) = (self.client.clone(), self.heard.clone());
        let taken = self.client.core().drive(async move { Taken::next(client.core(), heard).await });
        Ok(taken.await?.tell())
    }

    /// The election's full name.
    pub fn name(&self) -> &Name {
        &self.name
    }
}

impl Heard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, key: &ClaimKey, change: Option<&Change>) {
        let mut state = self.state();
        let story = &mut state.story;
        match change {
            Some(Change::Interrupted) => return,
            Some(Change::Snapshot(snapshot)) => {
                match snapshot.claims.iter().find(|claim| claim.key == *key) {
                    Some(claim) => story.on_claim(claim),
                    None => story.on_free(None),
                }
                story.on_living(|id| snapshot.sessions.iter().any(|session| session.id == id));
            }
            Some(Change::Claim(claim)) if claim.key == *key => story.on_claim(claim),
            Some(Change::Session(session)) if session.vitality == Vitality::Dead => story.on_dead(session.id),
            Some(Change::Claim(_) | Change::Session(_)) => return,
            None => state.closed = true,
        }
        let leader = state.story.leader().filter(|_| !state.closed);
        // Who that is, and where, whoever looks after it will read.
        self.showing.set(leader.map(|leader| (leader.holder.session, Arc::default())).into_iter().collect());
        drop(state);
        self.changed.notify_waiters();
    }
}

impl Story {
    fn on_claim(&mut self, claim: &ClaimState) {
        match claim.holder {
            Some(holder) => self.on_leader(Tenure {
                holder,
                token: claim.token,
                since: claim.granted_at,
                value: claim.value.clone(),
            }),
            None => self.on_free(Some(claim.token)),
        }
    }
}

/// An event on its way to the observer. Dropped before that, it comes again.
struct Taken {
    heard: Arc<Heard>,
    told: Option<(Told, LeaderEvent)>,
    /// Until it is told or put back, nobody takes another.
    turn: OwnedMutexGuard<Option<Describing>>,
}

/// A leader who is being described. A call that is given up early leaves the rest to the next: one that began anew each
/// time would never be ready.
struct Describing {
    tenure: Tenure,
    leader: BoxFuture<'static, Result<Leader>>,
}

impl Taken {
    async fn next(core: &Arc<Core>, heard: Arc<Heard>) -> Result<Self> {
        let turn = heard.telling.clone().lock_owned().await;
        let told = loop {
            let changed = heard.changed.notified();
            core.check_open()?;
            {
                let mut state = heard.state();
                if let Some(told) = state.story.take() {
                    break told;
                }
                if state.closed {
                    return Err(Error::closed("the client"));
                }
            }
            changed.await;
        };
        let mut taken = Self { heard, told: Some((told.clone(), LeaderEvent::NoLeader)), turn };
        if let Told::Leader(tenure) = told.clone() {
            let begun = taken.turn.take().filter(|begun| begun.tenure == tenure);
            let describing = taken.turn.insert(begun.unwrap_or_else(|| {
                let (core, tenure) = (core.clone(), tenure.clone());
                Describing { tenure: tenure.clone(), leader: async move { describe(&core, tenure).await }.boxed() }
            }));
            let described = (&mut describing.leader).await;
            *taken.turn = None;
            taken.told = Some((told, LeaderEvent::Leader(described?)));
        }
        Ok(taken)
    }

    fn tell(mut self) -> LeaderEvent {
        self.told.take().map_or(LeaderEvent::NoLeader, |(_, event)| event)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some((told, _)) = self.told.take() {
            self.heard.state().story.put_back(told);
            self.heard.changed.notify_waiters();
        }
    }
}

/// Puts name, host and pid to a leader; asks again while the store cannot be reached.
async fn describe(core: &Core, tenure: Tenure) -> Result<Leader> {
    let mut pause = FIRST_PAUSE;
    loop {
        let own = core.current_session();
        let id = tenure.holder.session;
        if id == own.id() {
            return Ok(leader(tenure, own.info().clone(), id));
        }
        match core.setup().store.sessions(SessionQuery::Ids(vec![id])).await {
            Ok(mut records) => {
                let info = records.pop().map(|record| record.info).unwrap_or_default();
                return Ok(leader(tenure, info, own.id()));
            }
            Err(error) if !error.retryable() || error.code() == Code::Closed => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "the leader's session could not be read");
                tokio::select! {
                    biased;
                    () = core.closing() => core.check_open()?,
                    () = core.setup().env.sleep(core.setup().env.jittered(pause)) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl fmt::Debug for LeaderWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaderWatch({})", self.name)
    }
}
