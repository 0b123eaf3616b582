//! The connections of a mailer: at most so many, checked before they are used again, closed when nobody needs them.

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::options::MailerOptions;
use super::smtp::{self, Connection, Failure};
use crate::driver::{self, Runtime};
use crate::env::Env;
use crate::error::{Error, Result};

pub(super) struct Pool {
    options: Arc<MailerOptions>,
    env: Env,
    permits: Arc<Semaphore>,
    /// No more is begun; what has asked before is still served.
    closing: AtomicBool,
    /// Oldest first. Not dropped by itself: in a forked child the connections are the parent's.
    idle: ManuallyDrop<Mutex<VecDeque<Connection>>>,
}

/// The right to have one connection open.
pub(super) struct Permit(#[allow(dead_code, reason = "given back when it is dropped")] OwnedSemaphorePermit);

impl Pool {
    pub(super) fn new(options: Arc<MailerOptions>, env: Env) -> Arc<Self> {
        driver::connections_may_break();
        let permits = Arc::new(Semaphore::new(options.pool as usize));
        Arc::new(Self { options, env, permits, closing: AtomicBool::new(false), idle: ManuallyDrop::default() })
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more connection may be open.
    ///
    /// # Errors
    /// `Closed`.
    pub(super) async fn permit(&self) -> Result<Permit> {
        let permit = self.permits.clone().acquire_owned().await;
        permit.map(Permit).map_err(|_| Error::closed("the mailer"))
    }

    /// A connection that answers: an idle one, else a new one.
    pub(super) async fn get(&self, _permit: &Permit) -> Result<Connection, Failure> {
        loop {
            let Some(mut connection) = self.idle().pop_back() else { return self.fresh().await };
            let fresh_enough = self.env.now().since(connection.idle_since) < self.options.idle_timeout;
            if fresh_enough && connection.answers(self.options.step_timeout.min(CHECK), &self.options, &self.env).await
            {
                return Ok(connection);
            }
        }
    }

    /// A new connection.
    pub(super) async fn fresh(&self) -> Result<Connection, Failure> {
        smtp::connect(&self.options, &self.env).await
    }

    /// Keeps a connection for the next message.
    pub(super) fn put(self: &Arc<Self>, connection: Connection) {
        if self.permits.is_closed() || self.options.idle_timeout.is_zero() {
            self.env.spawn(goodbye(connection, self.options.clone(), self.env.clone()));
            return;
        }
        self.idle().push_back(connection);
        let pool = Arc::downgrade(self);
        let (env, idle_timeout) = (self.env.clone(), self.options.idle_timeout);
        self.env.spawn(async move {
            env.sleep(idle_timeout).await;
            while let Some(pool) = pool.upgrade()
                && let Some(connection) = pool.take_old()
            {
                connection.quit(&pool.options, &pool.env).await;
            }
        });
    }

    fn take_old(&self) -> Option<Connection> {
        let now = self.env.now();
        let mut idle = self.idle();
        let old = idle.front().is_some_and(|first| now.since(first.idle_since) >= self.options.idle_timeout);
        if old { idle.pop_front() } else { None }
    }

    /// Gives out no more permits, waits until all connections are back, and says goodbye on them.
    pub(super) async fn close(&self) {
        self.closing.store(true, SeqCst);
        let all = self.options.pool;
        // Whoever has asked before is served first.
        let last = self.permits.acquire_many(all).await;
        self.permits.close();
        drop(last);
        let idle = std::mem::take(&mut *self.idle());
        join_all(idle.into_iter().map(|connection| connection.quit(&self.options, &self.env))).await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closing.load(SeqCst)
    }
}

async fn goodbye(connection: Connection, options: Arc<MailerOptions>, env: Env) {
    connection.quit(&options, &env).await;
}

/// How long an idle connection may take to show that it is still there: another one is made sooner.
const CHECK: Duration = Duration::from_secs(5);

impl Drop for Pool {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut *self.idle());
        if !Runtime::is_ours() {
            // Taking a socket out of the parent's epoll set would silence it there.
            std::mem::forget(idle);
        }
    }
}
