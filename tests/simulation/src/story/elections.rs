//! Elections in a history: workers that campaign, lead, proclaim, hand over and resign, functions that are called in every
//! term, and an observer in each process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use coord_core::client::Client;
use coord_core::election::{CampaignOptions, Candidacy, CandidacyOptions, Election, LeaderEvent, Term};
use coord_core::error::{Code, Error};
use coord_core::protocol::session::{SessionId, Vitality};
use tokio::time::Instant;

use super::Story;
use crate::checks::Believed;
use crate::host::Gate;

/// How many elections there are.
const ELECTIONS: u64 = 2;

/// How long after everything has healed an observer may take to know what the store knows.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

impl Story {
    /// A process in a history of elections. Its observers go on to the end.
    pub(super) async fn take_part(
        self: Arc<Self>,
        client: Client,
        number: usize,
        gate: Arc<Gate>,
        done: Arc<AtomicBool>,
    ) {
        let work = (0..super::WORKERS).map(|_| self.clone().play_elections(client.clone(), number, gate.clone()));
        let work = async {
            futures::future::join_all(work).await;
            done.store(true, Relaxed);
        };
        let look_on = self.clone().look_on(client.clone(), number);
        tokio::select! {
            biased;
            _ = futures::future::join(work, look_on) => {}
            () = self.watch_session(client.clone()) => {}
        }
        done.store(true, Relaxed);
    }

    /// What one thread of a process does, again and again.
    pub(super) async fn play_elections(self: Arc<Self>, client: Client, process: usize, gate: Arc<Gate>) {
        while !self.healed() {
            tokio::time::sleep(self.random.up_to(Duration::from_millis(800))).await;
            let name = format!("e{}", self.random.below(ELECTIONS));
            let Ok(election) = client.election(&name) else { return };
            let value = format!("{process}-{}", self.random.below(1000));
            let priority = self.random.below(3) as i32 - 1;
            let options = CampaignOptions { priority, timeout: None };
            let term = match self.random.below(10) {
                0 | 1 => election.try_campaign(&value).await,
                2 | 3 => {
                    let timeout = Some(self.random.up_to(self.ttl() * 2));
                    election.campaign_with(&value, CampaignOptions { timeout, ..options }).await
                }
                4 => {
                    // Changes its mind at a random moment: the future is dropped.
                    let patience = self.random.up_to(Duration::from_millis(60));
                    match tokio::time::timeout(patience, election.campaign_with(&value, options)).await {
                        Ok(term) => term,
                        Err(_) => continue,
                    }
                }
                5..=7 => {
                    self.be_called(&election, &value, priority, process, &gate).await;
                    continue;
                }
                _ => election.campaign_with(&value, options).await,
            };
            match term {
                Ok(term) => {
                    self.expect_published(&term, &value);
                    self.lead(&election, Believed::Term(Arc::new(term)), process, &gate).await;
                }
                Err(error) => self.expect_allowed(&error.code()),
            }
        }
    }

    /// A function is called in a few terms.
    async fn be_called(&self, election: &Election, value: &str, priority: i32, process: usize, gate: &Arc<Gate>) {
        let options = CandidacyOptions {
            priority,
            keep_on_error: self.random.chance(0.2),
            min_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
        };
        let candidacy = match election.when_elected(value, options) {
            Ok(candidacy) => candidacy,
            Err(error) => return self.expect_allowed(&error.code()),
        };
        for call in 0..=self.random.below(3) {
            let mut patience = self.random.up_to(self.ttl() * 3);
            // After its first call it may lead all the while, and keep others waiting: not once everything has healed.
            if call > 0 {
                patience = patience.min(self.healed_at.saturating_duration_since(Instant::now()));
            }
            if !self.take_call(election, &candidacy, patience, process, gate).await {
                break;
            }
        }
        candidacy.close();
        if self.random.chance(0.7) {
            candidacy.closed().await;
        }
    }

    async fn take_call(
        &self,
        election: &Election,
        candidacy: &Candidacy,
        patience: Duration,
        process: usize,
        gate: &Arc<Gate>,
    ) -> bool {
        let elected = match tokio::time::timeout(patience, candidacy.next()).await {
            Ok(Ok(elected)) => elected,
            Ok(Err(error)) => {
                self.expect_allowed(&error.code());
                return false;
            }
            Err(_) => return !self.healed(),
        };
        self.lead(election, Believed::Shared(elected.term().clone()), process, gate).await;
        match self.random.below(4) {
            0 => drop(elected),
            1 => drop(elected.complete(Err("now and then".into()))),
            _ => drop(elected.complete(Ok(()))),
        }
        true
    }

    /// A value is there before anybody is told that he leads.
    fn expect_published(&self, term: &Term, value: &str) {
        let key = format!("election/{}", term.name());
        let published = self.server.with_committed(|records| {
            let claim = records.claims.values().find(|claim| claim.key.as_str() == key);
            claim.filter(|claim| claim.token == term.token()).map(|claim| claim.value.clone())
        });
        // With another token in the store, the term is over, and somebody else's value is nobody's business here.
        if let Some(published) = published
            && published.as_deref() != Some(value)
        {
            self.checks.violation(format!("{} leads with the value {published:?} instead of {value}", term.token()));
        }
    }

    async fn lead(&self, election: &Election, believed: Believed, process: usize, gate: &Arc<Gate>) {
        let (Believed::Term(term) | Believed::Shared(term)) = &believed else { return };
        let term = term.clone();
        let shared = matches!(believed, Believed::Shared(_));
        let number = self.checks.granted(process, believed, gate, &self.server);
        self.note("leads", term.token() as u64);
        let longest = if self.random.chance(0.3) { self.ttl() * 2 } else { Duration::from_millis(300) };
        let pause = Duration::from_millis(if self.random.chance(0.3) { 3000 } else { 200 });
        let until = Instant::now() + self.random.up_to(longest);
        // Once everything has healed, whoever waits does so for the core alone.
        while Instant::now() < until && term.check().is_ok() && !self.healed() {
            tokio::time::sleep(self.random.up_to(pause)).await;
            if self.random.chance(0.1) {
                self.expect_over(&term, term.proclaim("another value").await);
            }
        }
        self.note("ends", term.token() as u64);
        // A hand-over keeps the belief until it ends by itself, for that is what must not overlap.
        if self.random.chance(0.3) {
            self.hand_over(election, &term).await;
        }
        self.checks.forget(number);
        if self.random.chance(if shared { 0.4 } else { 0.8 }) {
            self.expect_over(&term, term.resign().await);
        }
    }

    async fn hand_over(&self, election: &Election, term: &Term) {
        let Ok(candidates) = election.candidates().await else { return };
        let others: Vec<_> = candidates.into_iter().filter(|candidate| !candidate.is_self).collect();
        if others.is_empty() {
            return;
        }
        let chosen = &others[self.random.below(others.len() as u64) as usize];
        match term.transfer_to(&chosen.session).await {
            Ok(()) => {
                self.note("handed over", term.token() as u64);
                if term.check().is_ok() {
                    self.checks.violation(format!("{} was handed over and is valid", term.token()));
                }
            }
            // It went away, or does not renew.
            Err(error) if [Code::NotFound, Code::Unavailable].contains(&error.code()) => {}
            Err(error) => self.expect_over(term, Err(error)),
        }
    }

    /// A call on a term fails only when the term is over, or when the store cannot be reached.
    fn expect_over(&self, term: &Term, outcome: Result<(), Error>) {
        let Err(error) = outcome else { return };
        self.note("over", error.code().number() as u64);
        let over = [Code::Lost, Code::NotHeld].contains(&error.code());
        if !over && error.code() != Code::Unavailable {
            self.checks.violation(format!("a call on a term ended with {error:?}"));
        }
        if over && term.check().is_ok() {
            // Others know before this client does only if its session has died, or somebody has taken the claim away.
            let ours = self.server.with_committed(|records| {
                records.claims.values().any(|claim| claim.token == term.token() && claim.holder.is_some())
            });
            if ours {
                self.checks.violation(format!("{error}, and the term of token {} is valid", term.token()));
            }
        }
    }

    /// One observer: what it is told must make sense, and in the end be true.
    pub(super) async fn look_on(self: Arc<Self>, client: Client, process: usize) {
        let observe = (0..ELECTIONS).map(|number| self.clone().follow(client.clone(), process, number));
        futures::future::join_all(observe).await;
    }

    async fn follow(self: Arc<Self>, client: Client, process: usize, number: u64) {
        let Ok(election) = client.election(&format!("e{number}")) else { return };
        let watch = loop {
            match election.observe().await {
                Ok(watch) => break watch,
                Err(error) if error.code() == Code::Closed => return,
                Err(_) => tokio::time::sleep(self.random.up_to(Duration::from_secs(1))).await,
            }
        };
        let mut last: Option<Option<i64>> = None;
        let mut highest = 0;
        while let Ok(event) = watch.next().await {
            let now = match event {
                LeaderEvent::Leader(leader) => Some(leader.token),
                _ => None,
            };
            self.note("told", now.unwrap_or_default() as u64);
            match (last, now) {
                (Some(None), None) => {
                    self.checks.violation(format!("process {process} was told twice that nobody leads"))
                }
                (Some(Some(before)), Some(now)) if before != now => {
                    self.checks
                        .violation(format!("process {process} was told of term {now} without an end of {before}"));
                }
                (Some(None) | None, Some(now)) if now <= highest => {
                    self.checks.violation(format!("process {process} was told of term {now} after {highest}"));
                }
                _ => {}
            }
            highest = highest.max(now.unwrap_or_default());
            last = Some(now);
            let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            told.insert((process, number), now);
        }
    }

    /// After healing: everybody who campaigns is served, everything is given up, and every observer knows it.
    pub(super) async fn expect_elections_over(&self, healed: Instant) {
        let done = async {
            loop {
                let busy = {
                    let processes = self.processes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    processes.iter().any(|process| !process.done.load(Relaxed))
                };
                if !busy {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(super::SERVED_WITHIN, done).await.is_err() {
            let claims = self.server.committed().claims;
            self.checks.violation(format!("somebody waits long after everything has healed: {claims:?}"));
            return;
        }
        self.served(healed);
        // The sessions of crashed processes are buried by those who are left.
        tokio::time::sleep(super::CLEARED_WITHIN + TOLD_WITHIN).await;
        for number in 0..ELECTIONS {
            let key = format!("election/default/default/e{number}");
            let truth = self.server.with_committed(|records| {
                let claim = records.claims.values().find(|claim| claim.key.as_str() == key);
                // Nobody is led by the dead. Whoever buried one may have died before it was taken out, and with nobody
                // who wants the election, nobody does.
                let lives = |id: &SessionId| records.sessions.get(id).is_some_and(|s| s.vitality == Vitality::Live);
                claim.filter(|claim| claim.holder.is_some_and(|holder| lives(&holder.session))).map(|claim| claim.token)
            });
            if let Some(token) = truth {
                self.checks.violation(format!("{key} is led with token {token} after everybody has stopped"));
            }
            let told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            for ((process, _), last) in told.iter().filter(|((_, other), _)| *other == number) {
                if *last != truth {
                    self.checks.violation(format!("process {process} was told {last:?} of {key} last, not {truth:?}"));
                }
            }
        }
        // Whatever the dead have left, whoever comes next leads.
        let next = super::connect_plainly(&self.server, &self.random).await;
        for number in 0..ELECTIONS {
            let election = next.election(&format!("e{number}")).expect("a valid name");
            let options = CampaignOptions { timeout: Some(Duration::from_secs(2)), ..CampaignOptions::default() };
            if let Err(error) = election.campaign_with("next", options).await {
                self.checks.violation(format!("election e{number} after everybody has stopped: {error}"));
            }
        }
    }
}
