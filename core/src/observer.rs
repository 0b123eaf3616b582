//! Observers: who provides a service now, and the moments when the first provider comes and the last one goes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::client::Client;
use crate::driver::Runtime;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::name::check_part;
use crate::protocol::roster::feed::{Event, Feed};
use crate::protocol::roster::view::{Pattern, Present, Roster};
use crate::session::changes::Attached;
use crate::session::shown::{Sessions, Showing};
use crate::store::changes::{Change, Interest};
use crate::time::Timestamp;

/// How services are observed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObserveOptions {
    /// How long a `LastDown` is held back. It is dropped, with the `FirstUp` that would follow it, when a provider is
    /// back in time. Zero by default.
    pub down_grace: Duration,
}

/// A provider as an observer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProviderInfo {
    /// The service's full name.
    pub service: String,
    /// What tells it apart from others of the service in the same session.
    pub instance_id: String,
    /// The id of its session, new at every start of a client.
    pub session: String,
    /// The name that its client was given.
    pub name: String,
    /// Its host.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// The labels that its client was given.
    pub labels: BTreeMap<String, String>,
    /// What it says of itself.
    pub metadata: String,
}

/// What an observer is told.
///
/// The first events are a bracket: `SnapshotStart`, `FirstUp` and `Joined` for what is there, `SnapshotEnd`. After an
/// interruption there is another one, with the difference between what was known and what is true now. Outside of a
/// bracket events are single changes, in the order in which the store made them. One who is slow by thousands of events gets
/// such a bracket in their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObserverEvent {
    /// What follows, up to `SnapshotEnd`, leads from what was known to what is true now.
    SnapshotStart,
    /// The view is complete and up to date.
    SnapshotEnd,
    /// A service has a provider, this one, that had none. Comes before its `Joined`.
    FirstUp(ProviderInfo),
    /// A service has no provider any more. Comes after the last `Left`, or `down_grace` later.
    LastDown {
        /// The service's full name.
        service: String,
    },
    /// A provider has come.
    Joined(ProviderInfo),
    /// A provider has gone: withdrawn, or its session has ended.
    Left(ProviderInfo),
    /// A provider has other metadata.
    Changed(ProviderInfo),
}

/// The providers of some services, as the store has them. All clones are one observer; it ends with the last.
#[derive(Clone)]
pub struct Observer {
    client: Client,
    watched: Arc<Watched>,
    /// Dropped with the last clone.
    attached: Arc<Attached>,
}

/// What the hub keeps up to date.
struct Watched {
    pattern: Pattern,
    env: Env,
    state: Mutex<State>,
    changed: Notify,
    /// Who provides: the client looks after them.
    showing: Showing,
}

struct State {
    roster: Roster,
    feed: Feed,
    /// The first snapshot was there.
    complete: bool,
    synced: bool,
    closed: bool,
}

impl Client {
    /// Observes a service, or all services of a scope: `name`, `scope/name`, `namespace/scope/name`; `*`, `scope/*`,
    /// `namespace/scope/*`. Returns when the first view is complete.
    ///
    /// However many observers a client has, they share one stream of changes from the store.
    ///
    /// # Errors
    /// `InvalidArgument` for the pattern; `Unsupported` on MongoDB before 5.0; `Closed`, `Forked`; those of the store.
    pub async fn observe(&self, pattern: &str, options: ObserveOptions) -> Result<Observer> {
        let core = self.core();
        core.check_open()?;
        let pattern = parse(self, pattern)?;
        let state = State {
            roster: Roster::new(pattern.clone()),
            feed: Feed::new(options.down_grace),
            complete: false,
            synced: false,
            closed: false,
        };
        let env = core.setup().env.clone();
        let showing = core.setup().shown.begin();
        let watched = Arc::new(Watched { pattern, env, state: Mutex::new(state), changed: Notify::new(), showing });
        let (hub, observed) = (core.changes().clone(), watched.clone());
        let attached = core
            .drive(async move {
                let told = observed.clone();
                let sink = Box::new(move |change: Option<&Change>| told.take_in(change));
                let attached = hub.attach(Interest { claims: Vec::new(), sessions: true }, sink).await?;
                observed.wait_for(|state| state.complete).await?;
                Ok(attached)
            })
            .await?;
        Ok(Observer { client: self.clone(), watched, attached: Arc::new(attached) })
    }
}

impl Observer {
    /// What is observed, in full: `namespace/scope/name` or `namespace/scope/*`.
    pub fn pattern(&self) -> String {
        match &self.watched.pattern {
            Pattern::One(name) => name.clone(),
            Pattern::Under(prefix) => format!("{prefix}*"),
        }
    }

    /// Whether the service has a provider now, by the latest view (`down_grace` is not waited for). No I/O. An empty
    /// name is the one service that is observed.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is wrong or not observed; `Closed`; `Forked`.
    pub fn is_available(&self, service: &str) -> Result<bool> {
        let service = self.full_name(service)?;
        Ok(self.open_state()?.roster.is_provided(&service))
    }

    /// The full names of the services that have a provider now, in order. No I/O.
    ///
    /// # Errors
    /// `Closed`; `Forked`.
    pub fn services(&self) -> Result<Vec<String>> {
        Ok(self.open_state()?.roster.services().map(str::to_owned).collect())
    }

    /// The providers of a service now, in the order of their sessions and instances. No I/O. An empty name is the one
    /// service that is observed.
    ///
    /// # Errors
    /// As [`Observer::is_available`].
    pub fn providers(&self, service: &str) -> Result<Vec<ProviderInfo>> {
        let service = self.full_name(service)?;
        Ok(self.open_state()?.roster.providers(&service).map(|present| ProviderInfo::of(present)).collect())
    }

    /// Waits until the service has a provider; for ever without a timeout.
    ///
    /// # Errors
    /// `Timeout`; as [`Observer::is_available`].
    pub async fn wait_available(&self, service: &str, timeout: Option<Duration>) -> Result<()> {
        self.wait(service, timeout, true).await
    }

    /// Waits until the service has no provider; for ever without a timeout.
    ///
    /// # Errors
    /// `Timeout`; as [`Observer::is_available`].
    pub async fn wait_unavailable(&self, service: &str, timeout: Option<Duration>) -> Result<()> {
        self.wait(service, timeout, false).await
    }

    /// Whether the view follows the store at this moment; false during an interruption, when it shows what was true
    /// before it. No I/O.
    pub fn synced(&self) -> bool {
        Runtime::is_ours() && self.watched.state().synced
    }

    /// The next event; waits for it. Dropping the future loses none. Of a service with more than 128 that nobody has
    /// taken, what leads to what is true when it is taken comes instead; of all services, where more than 4,096 wait (more
    /// where thousands of services are there), as a bracket. Never two `FirstUp` or two `LastDown` of one service in a row.
    ///
    /// # Errors
    /// `Closed` after [`Observer::close`] or when the client is closed; `Forked`.
    pub async fn next(&self) -> Result<ObserverEvent> {
        loop {
            // Taken here and not in the task that waits, so that none is lost with a future that is dropped.
            let due = {
                let mut state = self.open_state()?;
                let State { roster, feed, .. } = &mut *state;
                if let Some(event) = feed.take(roster, self.watched.env.now()) {
                    return Ok(event.into());
                }
                feed.next_due()
            };
            let watched = self.watched.clone();
            self.client.core().drive(async move { watched.news(due).await }).await?;
        }
    }

    /// Ends the observer: waits of all its clones end with `Closed`. Closing twice is no error.
    pub fn close(&self) {
        if Runtime::is_ours() {
            self.watched.take_in(None);
            self.attached.detach();
        }
    }

    async fn wait(&self, service: &str, timeout: Option<Duration>, provided: bool) -> Result<()> {
        let service = self.full_name(service)?;
        drop(self.open_state()?);
        let watched = self.watched.clone();
        let waited = async move {
            let is_so = |state: &State| state.roster.is_provided(&service) == provided;
            let Some(timeout) = timeout else { return watched.wait_for(is_so).await };
            let deadline = watched.env.now() + timeout;
            tokio::select! {
                biased;
                done = watched.wait_for(is_so) => done,
                () = watched.env.sleep_until(deadline) => Err(Error::new(
                    Code::Timeout,
                    format!(
                        "'{service}' {} within {} s",
                        if provided { "was not provided" } else { "was not without providers" },
                        timeout.as_secs_f64()
                    ),
                )),
            }
        };
        self.client.core().drive(waited).await
    }

    fn open_state(&self) -> Result<MutexGuard<'_, State>> {
        if !Runtime::is_ours() {
            return Err(Error::forked());
        }
        let state = self.watched.state();
        if state.closed { Err(Error::closed("the observer")) } else { Ok(state) }
    }

    fn full_name(&self, service: &str) -> Result<String> {
        if let (Pattern::One(name), "") = (&self.watched.pattern, service) {
            return Ok(name.clone());
        }
        let name = self.client.name(service)?;
        if !self.watched.pattern.covers(name.as_str()) {
            return Err(Error::invalid(format!("this observer observes '{}', not '{name}'", self.pattern())));
        }
        Ok(name.as_str().to_owned())
    }
}

impl Watched {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, change: Option<&Change>) {
        let now = self.env.now();
        let mut state = self.state();
        if state.closed {
            // What was on its way when it was closed.
            return;
        }
        let State { roster, feed, .. } = &mut *state;
        match change {
            None => {
                self.showing.set(Sessions::new());
                // Clones may live on for long.
                (*roster, *feed) = (Roster::new(self.pattern.clone()), Feed::default());
                (state.closed, state.synced) = (true, false);
            }
            Some(Change::Interrupted) => state.synced = false,
            Some(Change::Snapshot(snapshot)) => {
                feed.bracket(roster.replace(&snapshot.sessions), now);
                self.showing.set(roster.sessions().map(|(id, info)| (id, info.clone())).collect());
                (state.complete, state.synced) = (true, true);
            }
            Some(Change::Session(session)) => {
                let steps = roster.apply(session);
                if steps.is_empty() {
                    return;
                }
                feed.extend(steps, now);
                match roster.session(session.id) {
                    Some(info) => self.showing.add(session.id, info),
                    None => self.showing.remove(session.id),
                }
            }
            Some(Change::Claim(_)) => return,
        }
        drop(state);
        self.changed.notify_waiters();
    }

    async fn wait_for(&self, wanted: impl Fn(&State) -> bool) -> Result<()> {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.state();
                if state.closed {
                    return Err(Error::closed("the observer"));
                }
                if wanted(&state) {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    /// Waits until there may be another event.
    async fn news(&self, due: Option<Timestamp>) -> Result<()> {
        let changed = self.changed.notified();
        {
            // What came since the caller has looked.
            let state = self.state();
            if state.closed || state.feed.has_any() || state.feed.next_due() != due {
                return Ok(());
            }
        }
        match due {
            None => changed.await,
            Some(due) => {
                tokio::select! {
                    biased;
                    () = changed => {}
                    () = self.env.sleep_until(due) => {}
                }
            }
        }
        Ok(())
    }
}

impl ProviderInfo {
    fn of(present: &Present) -> Self {
        Self {
            service: present.provider.service.clone(),
            instance_id: present.provider.instance().to_owned(),
            session: present.session.to_string(),
            name: present.info.name.clone(),
            host: present.info.host.clone(),
            pid: present.info.pid,
            labels: present.info.labels.clone(),
            metadata: present.provider.metadata.clone(),
        }
    }
}

impl From<Event> for ObserverEvent {
    fn from(event: Event) -> Self {
        match event {
            Event::SnapshotStart => Self::SnapshotStart,
            Event::SnapshotEnd => Self::SnapshotEnd,
            Event::FirstUp(present) => Self::FirstUp(ProviderInfo::of(&present)),
            Event::LastDown(service) => Self::LastDown { service },
            Event::Joined(present) => Self::Joined(ProviderInfo::of(&present)),
            Event::Left(present) => Self::Left(ProviderInfo::of(&present)),
            Event::Changed(present) => Self::Changed(ProviderInfo::of(&present)),
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observer({})", self.pattern())
    }
}

/// What a pattern means to this client.
fn parse(client: &Client, text: &str) -> Result<Pattern> {
    if text != "*" && !text.ends_with("/*") {
        return client.name(text).map(|name| Pattern::One(name.as_str().to_owned()));
    }
    let options = client.core().options();
    let parts: Vec<&str> = text.split('/').collect();
    let (namespace, scope) = match parts[..] {
        [_] => (options.namespace.as_str(), options.scope.as_str()),
        [scope, _] => (options.namespace.as_str(), scope),
        [namespace, scope, _] => (namespace, scope),
        _ => {
            return Err(Error::invalid(format!(
                "a pattern is a name, or '*', 'scope/*' or 'namespace/scope/*'; '{}' has {} parts",
                text.escape_debug(),
                parts.len()
            )));
        }
    };
    check_part(namespace)?;
    check_part(scope)?;
    Ok(Pattern::Under(format!("{namespace}/{scope}/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::connect;
    use crate::provider::ProvideOptions;
    use crate::store::changes::Snapshot;
    use crate::store::{SessionQuery, Store};

    #[tokio::test]
    async fn a_closed_one_keeps_nothing() {
        let client = connect("memory:").await.unwrap();
        let _provider = client.provide("a", "", ProvideOptions::default()).await.unwrap();
        let observer = client.observe("*", ObserveOptions::default()).await.unwrap();
        observer.wait_available("a", None).await.unwrap();
        let late = Change::Snapshot(Snapshot {
            claims: Vec::new(),
            sessions: client.core().setup().store.sessions(SessionQuery::Roster).await.unwrap(),
        });
        observer.close();
        observer.watched.take_in(Some(&late));
        {
            let state = observer.watched.state();
            assert_eq!(state.roster.sessions().count(), 0);
            assert!(!state.feed.has_any() && !state.synced);
        }
        assert!(client.core().setup().shown.sessions(9).is_empty(), "and has nobody looked after");
    }
}
