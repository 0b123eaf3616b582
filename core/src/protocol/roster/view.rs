//! Who provides what now, as an observer sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ProviderRecord;
use crate::protocol::session::{SessionId, SessionInfo, SessionRecord, Vitality};

/// Which services somebody observes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// The service of this full name.
    One(String),
    /// All whose full name begins with this text.
    Under(String),
}

impl Pattern {
    /// Whether this service is observed.
    pub fn covers(&self, service: &str) -> bool {
        match self {
            Self::One(name) => name == service,
            Self::Under(prefix) => service.starts_with(prefix.as_str()),
        }
    }
}

/// What tells a provider apart: its session, and its key there.
pub type ProviderId = (SessionId, String);

/// A provider that is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Present {
    /// Its session.
    pub session: SessionId,
    /// Who that is.
    pub info: Arc<SessionInfo>,
    /// What it said.
    pub provider: ProviderRecord,
}

impl Present {
    /// What tells it apart.
    pub fn id(&self) -> ProviderId {
        (self.session, self.provider.key.clone())
    }
}

/// A change of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A provider has come.
    Joined(Arc<Present>),
    /// A provider has other metadata.
    Changed(Arc<Present>),
    /// A provider has gone.
    Left(Arc<Present>),
}

impl Step {
    /// The provider that it is about.
    pub fn present(&self) -> &Arc<Present> {
        match self {
            Self::Joined(present) | Self::Changed(present) | Self::Left(present) => present,
        }
    }
}

/// Who provides what now. Counted are the providers of sessions that are there and live.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Roster {
    pattern: Pattern,
    /// The sessions that have a provider of interest, each with its revision.
    sessions: BTreeMap<SessionId, (i64, Vec<Arc<Present>>)>,
    services: BTreeMap<String, BTreeMap<ProviderId, Arc<Present>>>,
}

impl Roster {
    /// Nobody provides anything yet.
    pub fn new(pattern: Pattern) -> Self {
        Self { pattern, sessions: BTreeMap::new(), services: BTreeMap::new() }
    }

    /// Takes over a complete snapshot: what leads there from what was known. Whoever comes is named before whoever goes, so
    /// that a service that somebody provides before and after is never without.
    pub fn replace(&mut self, sessions: &[SessionRecord]) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut gone: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            gone.retain(|id| *id != session.id);
            steps.extend(self.set(session));
        }
        for id in gone {
            steps.extend(self.set_providers(id, i64::MAX, Vec::new()));
        }
        // Stable: what concerns one provider keeps its order.
        steps.sort_by_key(|step| matches!(step, Step::Left(_)));
        steps
    }

    /// Takes in one session as it is now: what that changes.
    pub fn apply(&mut self, session: &SessionRecord) -> Vec<Step> {
        let known = self.sessions.get(&session.id).map(|(revision, _)| *revision);
        if session.vitality == Vitality::Live && known.is_some_and(|known| session.revision <= known) {
            return Vec::new();
        }
        self.set(session)
    }

    /// The services that somebody provides, in order.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }

    /// The providers of a service, in the order of their ids.
    pub fn providers(&self, service: &str) -> impl Iterator<Item = &Arc<Present>> {
        self.services.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// Whether somebody provides a service.
    pub fn is_provided(&self, service: &str) -> bool {
        self.services.contains_key(service)
    }

    /// Who a session is, if it provides anything of interest.
    pub fn session(&self, id: SessionId) -> Option<&Arc<SessionInfo>> {
        self.sessions.get(&id)?.1.first().map(|present| &present.info)
    }

    /// All sessions that provide anything of interest.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Arc<SessionInfo>)> {
        self.sessions.iter().filter_map(|(id, (_, presents))| Some((*id, &presents.first()?.info)))
    }

    fn set(&mut self, session: &SessionRecord) -> Vec<Step> {
        if session.vitality == Vitality::Dead {
            return self.set_providers(session.id, session.revision, Vec::new());
        }
        let of_interest: Vec<&ProviderRecord> =
            session.providers.iter().filter(|provider| self.pattern.covers(&provider.service)).collect();
        if of_interest.is_empty() && !self.sessions.contains_key(&session.id) {
            return Vec::new();
        }
        let info = Arc::new(session.info.clone());
        let presents = of_interest.into_iter().map(|provider| {
            let (info, provider) = (info.clone(), provider.clone());
            Arc::new(Present { session: session.id, info, provider })
        });
        let presents = presents.collect();
        self.set_providers(session.id, session.revision, presents)
    }

    fn set_providers(&mut self, id: SessionId, revision: i64, now: Vec<Arc<Present>>) -> Vec<Step> {
        let (_, before) = self.sessions.remove(&id).unwrap_or_default();
        let with_key = |list: &[Arc<Present>], key: &str| list.iter().find(|p| p.provider.key == key).cloned();
        let mut steps = Vec::new();
        for present in &now {
            match with_key(&before, &present.provider.key) {
                None => steps.push(Step::Joined(present.clone())),
                Some(old) if old.provider.service != present.provider.service => {
                    steps.push(Step::Joined(present.clone()));
                }
                Some(old) if old.provider != present.provider => steps.push(Step::Changed(present.clone())),
                Some(_) => {}
            }
        }
        for old in &before {
            let still = with_key(&now, &old.provider.key);
            if still.is_none_or(|present| present.provider.service != old.provider.service) {
                steps.push(Step::Left(old.clone()));
            }
        }
        for step in &steps {
            let present = step.present();
            let service = self.services.entry(present.provider.service.clone()).or_default();
            match step {
                Step::Joined(_) | Step::Changed(_) => service.insert(present.id(), present.clone()),
                Step::Left(_) => service.remove(&present.id()),
            };
            if service.is_empty() {
                self.services.remove(&present.provider.service);
            }
        }
        if !now.is_empty() {
            self.sessions.insert(id, (revision, now));
        }
        steps
    }
}
