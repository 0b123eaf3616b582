//! What goes wrong in a history, and that it stops to.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use coord_core::error::Code;
use coord_core::mutants::{self, Mutant};
use coord_core::protocol::claim::{ClaimKey, ClaimStep};
use coord_core::store::Store;
use coord_core::store::faulty::Faults;
use tokio::time::Instant;

use super::{LOCKS, PROCESSES, QUIET_TTL, Story, TTL, connect_plainly};
use crate::report::Mode;

impl Story {
    /// One fault after another, until everything heals.
    pub(super) async fn go_wrong(self: Arc<Self>) {
        while !self.healed() {
            tokio::time::sleep(self.random.up_to(Duration::from_secs(8))).await;
            let victim = self.random.below(PROCESSES as u64) as usize;
            match self.random.below(12) {
                0..=2 => self.stop_for_a_while(victim, TTL * 2).await,
                3 | 4 => self.stop_for_a_while(victim, Duration::from_millis(700)).await,
                5 | 6 => self.clone().crash(victim).await,
                7 | 8 => self.cut_off(victim).await,
                9 => self.fail_over().await,
                10 => self.lag().await,
                _ => self.break_something().await,
            }
        }
    }

    async fn stop_for_a_while(&self, victim: usize, longest: Duration) {
        self.count(if longest > TTL { "long stop" } else { "short stop" }, Some(victim));
        let found = self.process(victim, |process| (process.gate.clone(), process.clock.clone()));
        let Some((gate, clock)) = found else { return };
        gate.stop();
        let stopped = Instant::now();
        tokio::time::sleep(self.random.up_to(longest)).await;
        if mutants::on(Mutant::ClockStandsStill) && gate.is_stopped() {
            clock.stand_still(stopped.elapsed());
        }
        gate.resume();
        // Before any task of the process has run.
        self.checks.look(&self.server);
    }

    /// The process is gone in the middle of whatever it did; another takes its place. What it has sent is on its way still.
    async fn crash(self: Arc<Self>, victim: usize) {
        // Whoever is dead already has a successor coming.
        if self.process(victim, |process| process.gate.is_dead()).unwrap_or(true) {
            return;
        }
        self.count("crash", Some(victim));
        self.checks.forget_process(victim);
        self.forget_services_of(victim);
        self.process(victim, |process| {
            process.gate.kill();
            for worker in &process.workers {
                worker.abort();
            }
        });
        tokio::time::sleep(self.random.up_to(Duration::from_millis(500))).await;
        self.start_process(victim);
    }

    async fn cut_off(&self, victim: usize) {
        self.count("partition", Some(victim));
        let store = self.process(victim, |process| process.store.clone());
        let Some(store) = store else { return };
        store.set_cut(true);
        tokio::time::sleep(self.random.up_to(TTL * 2)).await;
        store.set_cut(false);
    }

    async fn fail_over(&self) {
        self.count("fail-over", None);
        // The new primary's date may be a day off.
        let day = 86_400_000;
        self.server.fail_over(self.random.below(2 * day as u64) as i64 - day);
        tokio::time::sleep(self.random.up_to(Duration::from_secs(1))).await;
    }

    /// No majority for a while: writes are applied and not acknowledged, and then lost.
    async fn lag(&self) {
        self.count("no majority", None);
        self.server.set_commit_lag(Duration::from_secs(3600));
        tokio::time::sleep(self.random.up_to(TTL * 2)).await;
        self.server.set_commit_lag(Duration::from_millis(4));
        self.server.fail_over(0);
    }

    /// A janitor deletes the records of free locks, so that tokens have to grow across that.
    pub(super) async fn collect(&self) {
        while !self.healed() {
            tokio::time::sleep(self.random.up_to(Duration::from_millis(600))).await;
            let name = self.random.below(LOCKS);
            let key = match self.mode {
                Mode::Elections => format!("election/default/default/e{name}"),
                _ => format!("lock/default/default/l{name}"),
            };
            let key = ClaimKey::new(key);
            // Refused as a rule, or lost in a fail-over.
            let _ = tokio::time::timeout(TTL, self.server.apply_claim(key, ClaimStep::Collect)).await;
        }
    }

    /// Operators break locks, and nothing else is wrong.
    pub(super) async fn operate(&self) {
        while !self.healed() {
            tokio::time::sleep(self.random.up_to(QUIET_TTL / 2)).await;
            self.break_something().await;
        }
    }

    /// An operator breaks a lock by its token.
    async fn break_something(&self) {
        self.count("break", None);
        let lock = format!("default/default/l{}", self.random.below(LOCKS));
        let token = self.server.with_committed(|records| {
            records.claims.values().find(|claim| claim.key.name() == lock).map(|claim| claim.token)
        });
        let Some(token) = token else { return };
        let operator = connect_plainly(&self.server, &self.random).await;
        let force = self.random.chance(0.5);
        if force {
            self.checks.forced(&lock, token);
        } else {
            self.checks.asked(&lock, token);
        }
        let broken = operator.break_lock(&lock, token, force).await;
        if let Err(error) = broken
            && self.mode == Mode::Quiet
            && error.code() != Code::Conflict
        {
            self.checks.violation(format!("a holder that can be reached was asked to go: {error}"));
        }
        let _ = operator.close(Duration::from_secs(60)).await;
    }

    /// Everything works again. Returns when that is.
    pub(super) fn heal(&self) -> Instant {
        let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        for process in processes.iter() {
            process.gate.resume();
            process.store.set_cut(false);
            process.store.set_faults(Faults { limit: Duration::from_secs(2), ..Faults::NONE });
        }
        self.server.set_commit_lag(Duration::from_millis(4));
        Instant::now()
    }
}
