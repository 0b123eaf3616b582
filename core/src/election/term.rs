//! A term: what a leader has.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::check_value;
use crate::claims::Hold;
use crate::client::Client;
use crate::driver::{Runtime, Watched};
use crate::error::{Code, Error, LossReason, Result};
use crate::failpoints::{self, Point};
use crate::name::Name;
use crate::protocol::claim::Entry;
use crate::protocol::document::Fence;
use crate::protocol::session::SessionId;
use crate::store::{ClaimQuery, Store};

/// A term of this client's. Dropping it resigns in the background, unless functions run under it ([`super::Elected`]).
pub struct Term {
    client: Client,
    name: Name,
    reign: Arc<Reign>,
    /// The function that has this view of the term has been dismissed.
    dismissed: Option<Arc<Watched<bool>>>,
}

/// What all views of one term share.
pub(super) struct Reign {
    pub(super) hold: Hold,
    /// Whom it is handed to when the last function has ended.
    successor: Mutex<Option<Entry>>,
    /// Functions run under it, and it is given back after the last of them.
    shared: bool,
}

impl Reign {
    /// A term that functions share.
    pub(super) fn shared(hold: Hold) -> Self {
        hold.set_managed();
        Self { hold, successor: Mutex::new(None), shared: true }
    }

    /// Gives it back to the store, after it has ended here.
    pub(super) async fn give_back(&self) -> Result<bool> {
        let successor = *self.successor.lock().unwrap_or_else(PoisonError::into_inner);
        self.hold.give_back(successor).await
    }

    /// Ends it for every function under it.
    pub(super) fn end(&self) {
        self.hold.resign();
    }

    async fn resign(&self, to: Option<Entry>) -> Result<()> {
        if self.shared {
            match self.hold.loss() {
                None => {}
                Some(LossReason::Resigned) => return Err(resigned(&self.hold)),
                Some(reason) => return Err(Error::lost(&self.hold.describe(), reason)),
            }
            *self.successor.lock().unwrap_or_else(PoisonError::into_inner) = to;
            self.hold.resign();
            return Ok(());
        }
        self.hold.resign();
        failpoints::at(Point::TermResigned);
        let handed = self.hold.give_back(to).await?;
        if to.is_some() && !handed {
            let message = "the candidate went away in the moment of the hand-over; the term went to whoever was next";
            return Err(Error::new(Code::NotFound, message));
        }
        Ok(())
    }

    /// The candidate's entry, if it waits and is seen to renew its session.
    async fn find(&self, to: SessionId) -> Result<Entry> {
        let session = self.hold.session();
        let record = session.store().claims(ClaimQuery::Keys(vec![self.hold.key().clone()])).await?.pop();
        let waiters = record.map(|record| record.waiters).unwrap_or_default();
        let entry = waiters.into_iter().find(|entry| entry.session == to).ok_or_else(|| {
            Error::new(Code::NotFound, format!("no candidate has the session {to}; `candidates` lists those who wait"))
        })?;
        if !session.renews(to).await? {
            return Err(Error::unavailable(format!(
                "session {to} was not seen to renew within a third of its ttl, so the term is not handed to it"
            )));
        }
        Ok(entry)
    }
}

impl Term {
    pub(super) fn new(client: Client, name: Name, hold: Hold) -> Self {
        let reign = Arc::new(Reign { hold, successor: Mutex::new(None), shared: false });
        Self { client, name, reign, dismissed: None }
    }

    /// What one of several functions under one term sees of it.
    pub(super) fn view(client: Client, name: Name, reign: Arc<Reign>, dismissed: Arc<Watched<bool>>) -> Self {
        Self { client, name, reign, dismissed: Some(dismissed) }
    }

    /// The election's full name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The fencing token: grows with every term of this election, and never falls. Give it to the resource that the
    /// leader works on, so that it can refuse a leader from before. Tokens of different elections are not comparable.
    pub fn token(&self) -> i64 {
        self.reign.hold.token()
    }

    /// This term as the condition of writes to tables ([`WriteOptions::fence`](crate::table::WriteOptions)): after one, no
    /// write of an earlier leader touches the document. Also that of a term which is lost: then the write is refused once
    /// a later leader has written.
    ///
    /// # Errors
    /// `NotHeld` after it was resigned or handed over.
    pub fn fence(&self) -> Result<Fence> {
        self.reign.hold.fence()
    }

    /// What is published: the value that was given, or the one that was proclaimed last.
    pub fn value(&self) -> String {
        self.reign.hold.value()
    }

    /// How long the term stays valid without another renewal; zero when it is over. No I/O.
    pub fn remaining(&self) -> Duration {
        if self.loss().is_some() || self.reign.hold.is_released() {
            Duration::ZERO
        } else {
            self.reign.hold.remaining()
        }
    }

    /// Checks that this client leads now. Reads a clock, no I/O: call it before each effect.
    ///
    /// # Errors
    /// `Lost` with the reason; `NotHeld` after it was resigned or handed over; `Forked`.
    pub fn check(&self) -> Result<()> {
        if !Runtime::is_ours() {
            return Err(Error::forked());
        }
        match self.loss() {
            None => Ok(()),
            Some(LossReason::Resigned) => Err(resigned(&self.reign.hold)),
            Some(reason) => Err(Error::lost(&self.reign.hold.describe(), reason)),
        }
    }

    /// Makes sure that the term stays valid for `duration` from now, by a renewal if that is needed.
    ///
    /// # Errors
    /// `InvalidArgument` if that is more than a renewal can give (ttl less margin); `Lost`, `NotHeld`; those of the
    /// store.
    pub async fn ensure(&self, duration: Duration) -> Result<()> {
        self.check()?;
        let reign = self.reign.clone();
        self.client.core().drive(async move { reign.hold.session().ensure(duration).await }).await?;
        self.check()
    }

    /// Waits until the term is over, for whatever reason: before anybody else can lead. [`LossReason::Resigned`] when it
    /// was this client's own wish.
    pub async fn lost(&self) -> LossReason {
        let (reign, dismissed) = (self.reign.clone(), self.dismissed.clone());
        let lost = self.client.core().drive(async move {
            let dismissal = async {
                match dismissed {
                    Some(dismissed) => dismissed.wait_for(|dismissed| *dismissed).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                reason = reign.hold.lost() => Ok(reason),
                () = dismissal => Ok(LossReason::Resigned),
            }
        });
        // Only a fork, and the end of the runtime and of the session with it, end the wait with an error.
        lost.await.unwrap_or_else(|error| error.loss().unwrap_or(LossReason::Closed))
    }

    /// Whether the term is over, and why. No I/O.
    pub fn loss(&self) -> Option<LossReason> {
        if !Runtime::is_ours() {
            return Some(LossReason::Forked);
        }
        self.reign.hold.loss().or_else(|| self.is_dismissed().then_some(LossReason::Resigned))
    }

    fn is_dismissed(&self) -> bool {
        self.dismissed.as_ref().is_some_and(|dismissed| dismissed.get())
    }

    /// Publishes another value, in one write; waits and asks again while the store cannot be reached. Goes on in the
    /// background when the future is dropped, so that values are published in the order in which they were given.
    ///
    /// # Errors
    /// `InvalidArgument` for more than 64 KiB; `Lost`, `NotHeld`; those of the store that waiting cannot cure.
    pub async fn proclaim(&self, value: &str) -> Result<()> {
        check_value(value)?;
        self.check()?;
        let (reign, value) = (self.reign.clone(), value.to_owned());
        self.client.core().drive(async move { reign.hold.publish(&value).await }).await
    }

    /// Ends the term: here at once, then in the store, where the next candidate wins it in the same write. Goes on in the
    /// background when the future is dropped.
    ///
    /// Under a function of [`super::Election::when_elected`] the term ends for every function under it, and the store
    /// hears of it when all of them have returned; this does not wait for that.
    ///
    /// # Errors
    /// `Lost` if the term was lost before; `NotHeld` when it was resigned before; `Forked`.
    pub async fn resign(&self) -> Result<()> {
        if !Runtime::is_ours() {
            return Err(Error::forked());
        }
        if self.is_dismissed() {
            return Err(resigned(&self.reign.hold));
        }
        let reign = self.reign.clone();
        self.client.core().drive(async move { reign.resign(None).await }).await
    }

    /// Hands the term over to a waiting candidate, given by its session's id (see [`super::Election::candidates`]),
    /// whatever its priority, in one write.
    ///
    /// The candidate must be seen to renew its session, so that the term is not given to a process that has died: that
    /// takes up to a sixth of its ttl, and at most a third. Then the term ends here, before it can begin there. Under a
    /// function of [`super::Election::when_elected`] the store hears of it when all functions have returned.
    ///
    /// # Errors
    /// `InvalidArgument` if that is not the id of a session; `NotFound` if it does not wait, `Unavailable` if it was not
    /// seen to renew: this client still leads then, as [`Term::check`] says, unless the candidate went away in the very
    /// moment of the hand-over. `Lost`, `NotHeld`, `Forked`; those of the store.
    pub async fn transfer_to(&self, candidate: &str) -> Result<()> {
        self.check()?;
        let to: SessionId = candidate.parse().map_err(|_| {
            let shown: String = candidate.chars().take(40).collect();
            Error::invalid(format!("'{shown}' is not the id of a session, 32 hexadecimal digits"))
        })?;
        let (reign, own) = (self.reign.clone(), self.reign.hold.entry().session);
        if to == own {
            return Err(Error::invalid("the candidate is this client itself, which leads already"));
        }
        self.client
            .core()
            .drive(async move {
                let entry = reign.find(to).await?;
                reign.resign(Some(entry)).await
            })
            .await
    }

    /// The client that leads.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

fn resigned(hold: &Hold) -> Error {
    Error::new(Code::NotHeld, format!("{} was resigned or handed over by this client", hold.describe()))
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Term")
            .field("election", &self.name)
            .field("token", &self.token())
            .field("remaining", &self.remaining())
            .finish()
    }
}
