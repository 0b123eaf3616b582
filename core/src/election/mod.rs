//! Elections: one leader at a time, who publishes a value, and whoever wants to know who leads.
//!
//! A term is a lock that tells who holds it: the same claim in a name space of its own, granted to the waiting
//! candidate of the highest priority, with a value beside it and with a successor of the leader's choice. So everything
//! that [`crate::lock`] says about validity and fencing holds for a term.
//!
//! Three ways to take part:
//! - [`Election::campaign`] waits for one [`Term`];
//! - [`Election::when_elected`] calls a function in every term, for as long as the client lives ([`Candidacy`]);
//! - [`Election::observe`] only looks on ([`LeaderWatch`]).
//!
//! The words are those of etcd's elections (campaign, proclaim, resign, observe); that a call *is* the leadership and
//! its return the end of it is Curator's leader selector.

mod campaign;
mod candidacy;
mod term;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::time::Duration;

use crate::acquire;
use crate::claims::{Hold, Want};
use crate::client::{Client, Core, claim_key};
use crate::error::{Error, Result};
use crate::mutants::{self, Mutant};
use crate::name::Name;
use crate::protocol::claim::{ClaimKey, Entry, Priority};
use crate::protocol::leadership::Tenure;
use crate::protocol::session::{SessionId, SessionInfo, Vitality};
use crate::store::{ClaimQuery, SessionQuery, Store};
pub(crate) use campaign::Campaigns;
pub use candidacy::{Candidacy, CandidacyOptions, Elected};
pub use term::Term;
pub use watch::{LeaderEvent, LeaderWatch};

/// The kind of claim that a term is, first part of its key in the store.
pub(crate) const KIND: &str = "election";

/// The most bytes of a value.
pub const MAX_VALUE: usize = 64 * 1024;

/// An election by its name. Cheap to clone; nothing is asked for before somebody campaigns or observes.
#[derive(Clone)]
pub struct Election {
    client: Client,
    name: Name,
    key: ClaimKey,
}

/// How to campaign.
#[derive(Clone, Copy, Debug, Default)]
pub struct CampaignOptions {
    /// -2048 to 2047: of those who wait, the highest wins the next term. A leader is not pushed out by a higher priority,
    /// and a low one can wait for ever. 0 by default.
    pub priority: i32,
    /// How long to wait, the publication of the value included; for ever by default. Zero asks without waiting, as
    /// [`Election::try_campaign`] does.
    pub timeout: Option<Duration>,
}

/// Who leads, as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// The id of its session: 32 hexadecimal digits, new at every start of a client and after every loss.
    pub session: String,
    /// The name that its client was given, or an empty text.
    pub name: String,
    /// Its host.
    pub host: String,
    /// Its process id on that host.
    pub pid: u32,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it has published; none in the moment between its win and that.
    pub value: Option<String>,
    /// The fencing token of its term.
    pub token: i64,
    /// When its term began, in milliseconds since 1970 by the store's clock. For people, never for decisions.
    pub since_ms: i64,
    /// Whether it is this very client.
    pub is_self: bool,
}

/// Who waits to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// The id of its session; [`Term::transfer_to`] takes it.
    pub session: String,
    /// The name that its client was given, or an empty text.
    pub name: String,
    /// Its host.
    pub host: String,
    /// Its process id on that host.
    pub pid: u32,
    /// Its priority.
    pub priority: i32,
    /// Whether it is this very client.
    pub is_self: bool,
}

impl Election {
    pub(crate) fn new(client: Client, name: Name) -> Self {
        let key = claim_key(KIND, &name);
        Self { client, name, key }
    }

    /// Its full name, `namespace/scope/name`.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Campaigns until this client leads; waits for as long as it takes, also through outages of the store. Returns when
    /// the value is published.
    ///
    /// Dropping the future gives up the candidacy, and the term if it was won in that moment.
    ///
    /// # Errors
    /// `InvalidArgument` for a value of more than 64 KiB; `QueueFull`, `Lost` (the session died while waiting; the next
    /// call uses a new one), `Closed`, `Forked`, and those of the store that waiting cannot cure.
    pub async fn campaign(&self, value: &str) -> Result<Term> {
        self.campaign_with(value, CampaignOptions::default()).await
    }

    /// Campaigns with a priority, or for a limited time.
    ///
    /// # Errors
    /// `InvalidArgument` for a priority out of range; `Timeout`, with the leader where it is known; `Contended` with a
    /// timeout of zero; as [`Election::campaign`].
    pub async fn campaign_with(&self, value: &str, options: CampaignOptions) -> Result<Term> {
        let wait = options.timeout != Some(Duration::ZERO);
        let want = self.want(wait, options.priority)?;
        check_value(value)?;
        let (election, value) = (self.clone(), value.to_owned());
        self.client
            .core()
            .drive(async move {
                let core = election.client.core();
                if wait {
                    let win = pin!(election.win(&want, &value));
                    acquire::within(core, &election.key, options.timeout, win).await
                } else {
                    let hold = acquire::try_now(core, &election.key, &want).await?;
                    publish(&hold, &value).await?;
                    Ok(Term::new(election.client.clone(), election.name.clone(), hold))
                }
            })
            .await
    }

    /// Wins if nobody leads and nobody waits. Does not wait.
    ///
    /// A leader that is known to be dead, or whose death can be proven at once, does not count.
    ///
    /// # Errors
    /// `Contended` with the leader; `Unavailable` while the store cannot be reached; as [`Election::campaign`] otherwise.
    pub async fn try_campaign(&self, value: &str) -> Result<Term> {
        self.campaign_with(value, CampaignOptions { timeout: Some(Duration::ZERO), ..Default::default() }).await
    }

    async fn win(&self, want: &Want, value: &str) -> Result<Term> {
        loop {
            let hold = acquire::wait(self.client.core(), &self.key, want).await?;
            if mutants::on(Mutant::LeadsUnpublished) {
                return Ok(Term::new(self.client.clone(), self.name.clone(), hold));
            }
            match publish(&hold, value).await {
                Ok(()) => return Ok(Term::new(self.client.clone(), self.name.clone(), hold)),
                // Lost before it was told to anybody.
                Err(error) if error.loss().is_some() => tracing::debug!(%error, "campaigning again"),
                Err(error) => return Err(error),
            }
        }
    }

    fn want(&self, wait: bool, priority: i32) -> Result<Want> {
        let max_queue = self.client.core().options().max_queue;
        Ok(Want { wait, max_queue, priority: parse_priority(priority)? })
    }

    /// Whether this client leads now: it has a term that is valid at this moment. Reads a clock, no I/O. False in a forked
    /// child, and after the client was closed.
    pub fn is_leader(&self) -> bool {
        let core = self.client.core();
        if !crate::driver::Runtime::is_ours() {
            return false;
        }
        let session = core.current_session();
        session.claims().has_valid(&session, &self.key)
    }

    /// Who leads at this moment, or none. One or two reads, which may be a moment old: what a leader itself goes by is
    /// [`Term::check`].
    ///
    /// # Errors
    /// Those of the store; `Closed`.
    pub async fn leader(&self) -> Result<Option<Leader>> {
        let election = self.clone();
        self.client
            .core()
            .drive(async move {
                let core = election.client.core();
                core.check_open()?;
                let record = core.setup().store.claims(ClaimQuery::Keys(vec![election.key.clone()])).await?.pop();
                let Some(tenure) = record.as_ref().and_then(Tenure::of) else { return Ok(None) };
                describe_leader(core, tenure).await
            })
            .await
    }

    /// Who waits to lead, in the order in which they would win. One or two reads.
    ///
    /// # Errors
    /// Those of the store; `Closed`.
    pub async fn candidates(&self) -> Result<Vec<Candidate>> {
        let election = self.clone();
        self.client
            .core()
            .drive(async move {
                let core = election.client.core();
                core.check_open()?;
                let record = core.setup().store.claims(ClaimQuery::Keys(vec![election.key.clone()])).await?.pop();
                describe_candidates(core, &record.map(|record| record.waiters).unwrap_or_default()).await
            })
            .await
    }

    /// The client whose election it is.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl fmt::Debug for Election {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Election({})", self.name)
    }
}

impl Client {
    /// The election of this name: `name`, `scope/name` or `namespace/scope/name`. No I/O.
    ///
    /// # Errors
    /// `InvalidArgument` if the name is not valid (see [`Name`]).
    pub fn election(&self, name: &str) -> Result<Election> {
        let name = self.name(name)?;
        Ok(Election::new(self.clone(), name))
    }
}

/// Publishes the value of a term that nobody has been told of yet; that takes time, in which it can be lost.
async fn publish(hold: &Hold, value: &str) -> Result<()> {
    hold.publish(value).await?;
    hold.loss().map_or(Ok(()), |reason| Err(Error::lost(&hold.describe(), reason)))
}

fn check_value(value: &str) -> Result<()> {
    if value.len() > MAX_VALUE {
        let message = format!("a value has at most {MAX_VALUE} bytes; this one has {}", value.len());
        return Err(Error::invalid(message));
    }
    Ok(())
}

fn parse_priority(priority: i32) -> Result<Priority> {
    Priority::new(priority).ok_or_else(|| {
        let (min, max) = (Priority::MIN.value(), Priority::MAX.value());
        Error::invalid(format!("a priority is a number from {min} to {max}, not {priority}"))
    })
}

/// Puts name, host and pid to a leader; none if its session is dead: then nobody leads, whatever the claim still says.
async fn describe_leader(core: &Core, tenure: Tenure) -> Result<Option<Leader>> {
    let own = core.current_session();
    let id = tenure.holder.session;
    let info = if id == own.id() {
        own.info().clone()
    } else {
        match core.setup().store.sessions(SessionQuery::Ids(vec![id])).await?.pop() {
            Some(record) if record.vitality == Vitality::Dead => return Ok(None),
            record => record.map(|record| record.info).unwrap_or_default(),
        }
    };
    Ok(Some(leader(tenure, info, own.id())))
}

fn leader(tenure: Tenure, info: SessionInfo, own: SessionId) -> Leader {
    let id = tenure.holder.session;
    Leader {
        session: id.to_string(),
        name: info.name,
        host: info.host,
        pid: info.pid,
        labels: info.labels,
        value: tenure.value,
        token: tenure.token,
        since_ms: tenure.since.0,
        is_self: id == own,
    }
}

async fn describe_candidates(core: &Core, waiters: &[Entry]) -> Result<Vec<Candidate>> {
    let own = core.current_session();
    let ids: Vec<SessionId> = waiters.iter().map(|entry| entry.session).collect();
    let sessions =
        if ids.is_empty() { Vec::new() } else { core.setup().store.sessions(SessionQuery::Ids(ids.clone())).await? };
    // Observed from now on, so that a hand-over to one of them finds that it is alive.
    own.observe(ids);
    let candidate = |entry: &Entry| {
        let info = sessions.iter().find(|s| s.id == entry.session).map(|s| s.info.clone()).unwrap_or_default();
        Candidate {
            session: entry.session.to_string(),
            name: info.name,
            host: info.host,
            pid: info.pid,
            priority: i32::from(entry.priority.value()),
            is_self: entry.session == own.id(),
        }
    };
    Ok(waiters.iter().map(candidate).collect())
}
