//! Functions that run while this client leads.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::campaign::{Campaign, Turn};
use super::term::{Reign, Term};
use super::{Election, check_value, parse_priority};
use crate::client::Client;
use crate::driver::{Runtime, Watched};
use crate::error::{Code, Error, Result};
use crate::name::Name;
use crate::protocol::candidacy::{MemberId, Terms};

/// How a function wants to be called.
#[derive(Clone, Copy, Debug)]
pub struct CandidacyOptions {
    /// As [`super::CampaignOptions::priority`]. Several functions of one client campaign with the highest of theirs.
    pub priority: i32,
    /// A call that fails does not end the term. Off by default.
    pub keep_on_error: bool,
    /// After a call that failed this client does not campaign for this long; twice as long after the next, and so on.
    /// 1 s by default.
    pub min_backoff: Duration,
    /// The longest such pause. 1 min by default.
    pub max_backoff: Duration,
}

impl Default for CandidacyOptions {
    fn default() -> Self {
        Self {
            priority: 0,
            keep_on_error: false,
            min_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
        }
    }
}

/// A function that is called in every term of this client: here in the form of calls that are taken one after the other.
///
/// Campaigns by itself for as long as it lives: again after every term, through lost sessions and outages of the store.
/// All candidacies of one election in one client share one campaign, hence one place in the queue and one term; the value
/// that is published is that of the oldest of them. Dropping it closes it.
pub struct Candidacy {
    client: Client,
    name: Name,
    seat: Arc<Seat>,
}

/// One function's place in the shared campaign.
struct Seat {
    campaign: Arc<Campaign>,
    id: MemberId,
    dismissed: Arc<Watched<bool>>,
}

impl Election {
    /// Registers a function that is to run whenever this client leads; the calls come from [`Candidacy::next`]. One that is
    /// registered while this client leads by such a campaign already is called at once. No I/O.
    ///
    /// # Errors
    /// `InvalidArgument` for a value of more than 64 KiB, a priority out of range, or a back-off that does not grow;
    /// `Closed`, `Forked`.
    pub fn when_elected(&self, value: &str, options: CandidacyOptions) -> Result<Candidacy> {
        check_value(value)?;
        if options.min_backoff > options.max_backoff {
            return Err(Error::invalid("the shortest back-off is longer than the longest"));
        }
        let core = self.client.core();
        core.check_open()?;
        let terms = Terms {
            value: value.to_owned(),
            priority: parse_priority(options.priority)?,
            keep_on_error: options.keep_on_error,
            min_pause: options.min_backoff,
            max_pause: options.max_backoff,
        };
        let (campaign, id) = core.campaigns().join(core, &self.key, terms);
        let seat = Arc::new(Seat { campaign, id, dismissed: Arc::new(Watched::new(false)) });
        Ok(Candidacy { client: self.client.clone(), name: self.name.clone(), seat })
    }

    /// Campaigns, and runs `f` in every term, until `f` returns Ok during one: then resigns and returns.
    ///
    /// `f` gets the term; when it is over ([`Term::lost`]), `f` is not interrupted but waited for, and called again in the
    /// next term. An error of `f` is logged, ends the term, and is followed by a growing pause. Dropping the future drops
    /// that of `f`, and resigns.
    ///
    /// # Errors
    /// As [`Election::when_elected`] and [`Candidacy::next`].
    pub async fn run<F, Fut, E>(&self, value: &str, options: CandidacyOptions, mut f: F) -> Result<()>
    where
        F: FnMut(Arc<Term>) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        let candidacy = self.when_elected(value, options)?;
        loop {
            let elected = candidacy.next().await?;
            let term = elected.term().clone();
            match f(term.clone()).await {
                Ok(()) if term.loss().is_none_or(|reason| reason == crate::error::LossReason::Resigned) => {
                    candidacy.close();
                    elected.complete(Ok(()))?;
                    candidacy.closed().await;
                    return Ok(());
                }
                Ok(()) => elected.complete(Ok(()))?,
                Err(error) => elected.complete(Err(error.to_string()))?,
            }
        }
    }
}

impl Candidacy {
    /// Waits for the next term and begins this function's call in it. The next call comes only after this one is
    /// [completed](Elected::complete), in a later term.
    ///
    /// Dropping the future loses nothing: the call then comes with the next `next`.
    ///
    /// # Errors
    /// `Closed` when the candidacy or the client is closed; `Forked`. Errors of the store that waiting cannot cure
    /// (`Unauthorized`, `Forbidden`, `CorruptState`) are reported here once each time; the campaign goes on, and so may
    /// the caller, with the next `next`.
    pub async fn next(&self) -> Result<Elected> {
        let seat = self.seat.clone();
        let taken = self.client.core().drive(async move {
            match seat.campaign.turn(seat.id).await {
                Turn::Call(reign) => Ok(Taken(Some((seat, reign)))),
                Turn::Fault(error) => Err(error),
                Turn::Over | Turn::Wait => Err(Error::closed("the candidacy")),
            }
        });
        let (seat, reign) = taken.await?.begin().ok_or_else(|| Error::closed("the candidacy"))?;
        let view = Term::view(self.client.clone(), self.name.clone(), reign.clone(), seat.dismissed.clone());
        Ok(Elected { seat, reign, term: Arc::new(view), completed: AtomicBool::new(false) })
    }

    /// Stops: no other call begins, a call that runs is told that its term is over, and when it was the last of this
    /// client's, the term is resigned as soon as that call is completed. Does not wait. Closing twice is no error.
    pub fn close(&self) {
        if Runtime::is_ours() {
            self.seat.dismissed.replace(true);
            self.seat.campaign.leave(self.seat.id);
        }
    }

    /// Waits until its last call is completed after [`Candidacy::close`], and until the term is given back if it was the
    /// last of this client's. Never returns inside a call that it waits for.
    pub async fn closed(&self) {
        let seat = self.seat.clone();
        let gone = self.client.core().drive(async move {
            seat.campaign.gone(seat.id).await;
            Ok(())
        });
        if let Err(error) = gone.await {
            tracing::debug!(%error, "the wait for the end of a candidacy ended early");
        }
    }

    /// The election's full name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The client that campaigns.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Drop for Candidacy {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Candidacy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Candidacy({})", self.name)
    }
}

/// A call that nobody has received yet. Dropped, it was never made.
struct Taken(Option<(Arc<Seat>, Arc<Reign>)>);

impl Taken {
    fn begin(mut self) -> Option<(Arc<Seat>, Arc<Reign>)> {
        self.0.take()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some((seat, _)) = self.0.take() {
            seat.campaign.put_back(seat.id);
        }
    }
}

/// One call of the function: this client leads. Until it is completed, the store keeps the term for this client's session,
/// even when it was lost for this client, and no other call begins. Dropping it completes it with an error.
pub struct Elected {
    seat: Arc<Seat>,
    reign: Arc<Reign>,
    term: Arc<Term>,
    completed: AtomicBool,
}

impl Elected {
    /// The term, which other functions of this client may share. Its end is the call's duty to stop.
    pub fn term(&self) -> &Arc<Term> {
        &self.term
    }

    /// The function has returned. Ok keeps the term; whoever is done with it resigns ([`Term::resign`]). An error, given by
    /// its text, is logged; it ends the term, unless the candidacy keeps terms on errors, and this client pauses
    /// before it campaigns again. After the end of the term an error says nothing, and is logged only.
    ///
    /// # Errors
    /// `NotHeld` when it was completed before; `Forked`.
    pub fn complete(&self, outcome: std::result::Result<(), String>) -> Result<()> {
        if !Runtime::is_ours() {
            return Err(Error::forked());
        }
        if self.completed.swap(true, Relaxed) {
            return Err(Error::new(Code::NotHeld, "this call was completed before"));
        }
        if let Err(error) = &outcome {
            let (election, token) = (self.term.name(), self.term.token());
            tracing::error!(%election, token, %error, "a function that ran as leader has failed");
        }
        self.seat.campaign.complete(self.term.client().core(), self.seat.id, &self.reign, outcome.is_err());
        Ok(())
    }
}

impl Drop for Elected {
    fn drop(&mut self) {
        if Runtime::is_ours() && !self.completed.load(Relaxed) {
            // The only error is that it was completed before.
            let _ = self.complete(Err("the call was dropped without being completed".into()));
        }
    }
}

impl fmt::Debug for Elected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elected").field("term", &self.term).finish()
    }
}
