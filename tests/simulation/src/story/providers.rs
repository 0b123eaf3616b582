//! Providers in a history: workers that provide services, change what they say and withdraw it, and an observer in each
//! process, whose story must make sense, and in the end be true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use coord_core::client::Client;
use coord_core::error::Code;
use coord_core::observer::{ObserveOptions, Observer, ObserverEvent};
use coord_core::protocol::roster::ProviderRecord;
use coord_core::protocol::session::{SessionId, Vitality};
use coord_core::provider::{ProvideOptions, Provider};
use tokio::time::Instant;

use super::Story;

/// How many services there are.
const SERVICES: u64 = 3;

/// How long after everything has healed, and the dead are buried, an observer may take to know what the store knows.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

/// Who provides: the service, the instance and the metadata.
pub(super) type View = BTreeSet<(String, String, String)>;

/// A provider in the hands of a process.
#[derive(Debug)]
pub(super) struct Offered {
    provider: Provider,
    /// It asked to be registered again after each loss.
    reregister: bool,
}

/// What an observer was told of a service.
#[derive(Debug, Default)]
struct Told {
    up: bool,
    /// By session and instance, with the metadata.
    there: BTreeMap<(String, String), String>,
}

impl Story {
    /// A process in a history of providers. Its observer goes on to the end.
    pub(super) async fn provide(self: Arc<Self>, client: Client, number: usize) {
        let work = (0..super::WORKERS).map(|thread| self.clone().play_providers(client.clone(), number, thread));
        let work = async {
            let mine = futures::future::join_all(work).await.into_iter().flatten().collect();
            self.provided.lock().unwrap_or_else(PoisonError::into_inner).push((number, mine));
        };
        let look_on = self.clone().look_at_services(client.clone(), number);
        tokio::select! {
            biased;
            _ = futures::future::join(work, look_on) => {}
            () = self.watch_session(client.clone()) => {}
        }
    }

    /// What one thread of a process does, again and again. What it provides when everything heals it provides to the end.
    pub(super) async fn play_providers(self: Arc<Self>, client: Client, process: usize, thread: u64) -> Vec<Offered> {
        let mut mine: Vec<Offered> = Vec::new();
        let mut made = 0;
        while !self.healed() {
            tokio::time::sleep(self.random.up_to(Duration::from_millis(800))).await;
            self.expect_withdrawn(process);
            match self.random.below(10) {
                0..=3 => {
                    made += 1;
                    let mut options = ProvideOptions::default();
                    // The same ones again and again, so that one that comes meets one that goes.
                    options.instance_id = Some(format!("i{thread}-{}", made % 4));
                    let reregister = self.random.chance(0.8);
                    options.reregister = reregister;
                    let service = format!("s{}", self.random.below(SERVICES));
                    self.wants_again(process, &service, options.instance_id.as_deref().unwrap_or_default());
                    let patience = self.random.up_to(self.ttl() * 4);
                    match tokio::time::timeout(patience, client.provide(&service, "new", options)).await {
                        Ok(Ok(provider)) => {
                            self.grants.fetch_add(1, Relaxed);
                            self.note("provides", made);
                            self.expect_in_record(&client, process, &provider);
                            mine.push(Offered { provider, reregister });
                        }
                        Ok(Err(error)) => {
                            self.note("refused", error.code().number() as u64);
                            if ![Code::AlreadyExists, Code::Unavailable].contains(&error.code()) {
                                self.checks.violation(format!("a provider was refused with {error:?}"));
                            }
                        }
                        // Changes its mind: the future is dropped.
                        Err(_) => self.note("gives up", made),
                    }
                }
                4 | 5 if !mine.is_empty() => {
                    let chosen = &mine[self.random.below(mine.len() as u64) as usize].provider;
                    made += 1;
                    if let Ok(Ok(())) =
                        tokio::time::timeout(self.ttl() * 2, chosen.update(&format!("{process}-{made}"))).await
                    {
                        self.expect_in_record(&client, process, chosen);
                    }
                }
                6 | 7 if !mine.is_empty() => {
                    let chosen = mine.swap_remove(self.random.below(mine.len() as u64) as usize).provider;
                    let closes = self.random.chance(0.7);
                    // One that ended with its session may have a successor of its name.
                    let there = chosen.is_registered();
                    if closes
                        && let Ok(Ok(())) = tokio::time::timeout(self.ttl() * 2, chosen.close()).await
                        && there
                    {
                        let key = ProviderRecord::new(chosen.service(), chosen.instance_id(), "").key;
                        self.withdrawn().insert((process, client.session().id, key));
                    }
                }
                _ => {}
            }
        }
        mine
    }

    /// What was acknowledged is in the record of the session, unless that is dead, or its client has another one by now.
    fn expect_in_record(&self, client: &Client, process: usize, provider: &Provider) {
        let session = client.session().id;
        if !provider.is_registered() || client.session().id != session {
            return;
        }
        let key = ProviderRecord::new(provider.service(), provider.instance_id(), "").key;
        let metadata = provider.metadata();
        let missing = self.server.with_committed(|records| {
            let record = records.sessions.get(&session).filter(|record| record.vitality == Vitality::Live)?;
            let there = record.providers.iter().any(|p| p.key == key && p.metadata == metadata);
            (!there).then(|| record.providers.clone())
        });
        if let Some(providers) = missing {
            self.checks
                .violation(format!("process {process} provides {key} ({metadata}), and its record has {providers:?}"));
        }
    }

    /// The process is gone, with its observer; it may have come to its end before.
    pub(super) fn forget_services_of(&self, process: usize) {
        self.provided.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _)| *of != process);
        self.observers.lock().unwrap_or_else(PoisonError::into_inner).remove(&process);
        self.views.lock().unwrap_or_else(PoisonError::into_inner).remove(&process);
    }

    fn withdrawn(&self) -> MutexGuard<'_, BTreeSet<(usize, SessionId, String)>> {
        self.withdrawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wants_again(&self, process: usize, service: &str, instance: &str) {
        let key = ProviderRecord::new(&format!("default/default/{service}"), instance, "").key;
        self.withdrawn().retain(|(of, _, withdrawn)| *of != process || *withdrawn != key);
    }

    /// What was withdrawn, and not wanted again, does not come back.
    fn expect_withdrawn(&self, process: usize) {
        let back = self.server.with_committed(|records| {
            let withdrawn = self.withdrawn();
            let mut of_process = withdrawn.iter().filter(|(of, ..)| *of == process);
            of_process.find_map(|(_, session, key)| {
                let record = records.sessions.get(session).filter(|r| r.vitality == Vitality::Live)?;
                record.providers.iter().any(|provider| provider.key == *key).then(|| key.clone())
            })
        });
        if let Some(key) = back {
            self.checks.violation(format!("process {process} has withdrawn {key}, and its record has it"));
        }
    }

    /// One observer of everything: what it is told must make sense.
    pub(super) async fn look_at_services(self: Arc<Self>, client: Client, process: usize) {
        let observer = loop {
            match client.observe("*", ObserveOptions::default()).await {
                Ok(observer) => break observer,
                Err(error) if error.code() == Code::Closed => return,
                Err(_) => tokio::time::sleep(self.random.up_to(Duration::from_secs(1))).await,
            }
        };
        self.observers.lock().unwrap_or_else(PoisonError::into_inner).insert(process, observer.clone());
        let mut told: BTreeMap<String, Told> = BTreeMap::new();
        while let Ok(event) = observer.next().await {
            if let Err(nonsense) = take_in(&mut told, &event) {
                self.checks.violation(format!("the observer of process {process} was told {nonsense}: {event:?}"));
            }
            let now = told.iter().flat_map(|(service, told)| {
                told.there.iter().map(|((_, instance), said)| (service.clone(), instance.clone(), said.clone()))
            });
            let now: View = now.collect();
            self.note("told", now.len() as u64);
            self.views.lock().unwrap_or_else(PoisonError::into_inner).insert(process, now);
        }
    }

    /// After healing: what processes still provide is in the store, and every observer shows it and has told it; and
    /// when everybody has withdrawn what was his, nothing is left.
    pub(super) async fn expect_services_agree(&self) {
        tokio::time::sleep(super::CLEARED_WITHIN).await;
        self.expect_views("after everything has healed").await;
        let mine: Vec<Offered> =
            self.provided.lock().unwrap_or_else(PoisonError::into_inner).drain(..).flat_map(|(_, mine)| mine).collect();
        let closing = futures::future::join_all(mine.iter().map(|offered| offered.provider.close()));
        if tokio::time::timeout(super::SERVED_WITHIN, closing).await.is_err() {
            self.checks.violation("a provider cannot be withdrawn although everything has healed".into());
        }
        self.expect_views("after everybody has withdrawn what was his").await;
        let left = self.in_store();
        // What a dropped provider withdraws in the background is withdrawn by now.
        if !left.is_empty() {
            self.checks.violation(format!("provided after everybody has withdrawn what was his: {left:?}"));
        }
    }

    fn in_store(&self) -> View {
        self.server.with_committed(|records| {
            let live = records.sessions.values().filter(|session| session.vitality == Vitality::Live);
            let all = live.flat_map(|session| &session.providers);
            all.map(|p| (p.service.clone(), p.instance().to_owned(), p.metadata.clone())).collect()
        })
    }

    /// What must be in the store: what says that it is, and what is to come back however often it is lost.
    fn in_hand(&self) -> View {
        let provided = self.provided.lock().unwrap_or_else(PoisonError::into_inner);
        let all = provided.iter().flat_map(|(_, mine)| mine);
        all.filter(|offered| offered.reregister || offered.provider.is_registered())
            .map(|Offered { provider: p, .. }| (p.service().to_owned(), p.instance_id().to_owned(), p.metadata()))
            .collect()
    }

    async fn expect_views(&self, when: &str) {
        let until = Instant::now() + TOLD_WITHIN;
        loop {
            let mut wrong = Vec::new();
            let (store, hand) = (self.in_store(), self.in_hand());
            if !hand.is_subset(&store) {
                wrong.push(format!("{when} the store has {store:?}, and processes provide {hand:?}"));
            }
            let views = self.views.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for (process, observer) in self.observers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let shown = shown(observer);
                if shown != store || views.get(process) != Some(&store) {
                    let told = views.get(process);
                    wrong.push(format!(
                        "{when} the observer of process {process} shows {shown:?} and has told {told:?}, not {store:?}"
                    ));
                }
            }
            if wrong.is_empty() {
                return;
            }
            if Instant::now() > until {
                wrong.into_iter().for_each(|message| self.checks.violation(message));
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn shown(observer: &Observer) -> View {
    let services = observer.services().unwrap_or_default();
    let all = services.iter().flat_map(|service| observer.providers(service).unwrap_or_default());
    all.map(|p| (p.service, p.instance_id, p.metadata)).collect()
}

/// Takes in an event, or says what is wrong with it.
fn take_in(told: &mut BTreeMap<String, Told>, event: &ObserverEvent) -> Result<(), &'static str> {
    let good = match event {
        ObserverEvent::SnapshotStart | ObserverEvent::SnapshotEnd => true,
        ObserverEvent::FirstUp(provider) => {
            let told = told.entry(provider.service.clone()).or_default();
            let news = !told.up && told.there.is_empty();
            told.up = true;
            news
        }
        ObserverEvent::LastDown { service } => {
            let told = told.entry(service.clone()).or_default();
            let news = told.up && told.there.is_empty();
            told.up = false;
            news
        }
        ObserverEvent::Joined(provider) => {
            let told = told.entry(provider.service.clone()).or_default();
            let id = (provider.session.clone(), provider.instance_id.clone());
            told.up && told.there.insert(id, provider.metadata.clone()).is_none()
        }
        ObserverEvent::Left(provider) => {
            let told = told.entry(provider.service.clone()).or_default();
            told.up && told.there.remove(&(provider.session.clone(), provider.instance_id.clone())).is_some()
        }
        ObserverEvent::Changed(provider) => {
            let told = told.entry(provider.service.clone()).or_default();
            let id = (provider.session.clone(), provider.instance_id.clone());
            told.there.insert(id, provider.metadata.clone()).is_some()
        }
    };
    if good { Ok(()) } else { Err("what cannot be") }
}
