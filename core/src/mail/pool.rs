//! The connections of a mailer: at most so many, checked before they are used again, closed when nobody needs them.

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{OwnedRwLockReadGuard, OwnedSemaphorePermit, RwLock, Semaphore};

use super::options::MailerOptions;
use super::smtp::{self, Connection, Failure};
use crate::driver::{self, Runtime};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::time::Timestamp;

pub(super) struct Pool {
    options: Arc<MailerOptions>,
    env: Env,
    permits: Arc<Semaphore>,
    /// Read by each message that was taken on and has not asked for a permit yet.
    begun: Arc<RwLock<()>>,
    /// No more is begun; what has asked before is still served.
    closing: AtomicBool,
    /// Not dropped by itself: in a forked child the connections are the parent's.
    idle: ManuallyDrop<Mutex<Idle>>,
}

#[derive(Default)]
struct Idle {
    /// Oldest first.
    connections: VecDeque<Connection>,
    /// A task waits until the oldest is too old: one for all of them.
    looked_after: bool,
}

/// The right to have one connection open.
pub(super) struct Permit(#[allow(dead_code, reason = "given back when it is dropped")] OwnedSemaphorePermit);

/// The right to ask for a permit, also while the pool is being closed.
pub(super) struct Begun(#[allow(dead_code, reason = "given back when it is dropped")] OwnedRwLockReadGuard<()>);

impl Pool {
    pub(super) fn new(options: Arc<MailerOptions>, env: Env) -> Arc<Self> {
        driver::connections_may_break();
        let permits = Arc::new(Semaphore::new(options.pool as usize));
        let (begun, closing) = (Arc::default(), AtomicBool::new(false));
        Arc::new(Self { options, env, permits, begun, closing, idle: ManuallyDrop::default() })
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with a message: the mailer is not closed before it has asked for a permit, and dropped what this returns.
    ///
    /// # Errors
    /// `Closed`.
    pub(super) fn begin(&self) -> Result<Begun> {
        self.begun.clone().try_read_owned().map(Begun).map_err(|_| Error::closed("the mailer"))
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
            let Some(mut connection) = self.idle().connections.pop_back() else { return self.fresh().await };
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
        let mut idle = self.idle();
        idle.connections.push_back(connection);
        if !std::mem::replace(&mut idle.looked_after, true) {
            self.env.spawn(look_after(Arc::downgrade(self), self.env.clone()));
        }
    }

    /// The oldest connection if it is too old; else when it will be. Nothing if there is none: then nobody looks after them
    /// any more.
    fn take_old(&self) -> Option<Result<Connection, Timestamp>> {
        let mut idle = self.idle();
        let Some(first) = idle.connections.front() else {
            idle.looked_after = false;
            return None;
        };
        let end = first.idle_since + self.options.idle_timeout;
        if self.env.now() < end {
            return Some(Err(end));
        }
        idle.connections.pop_front().map(Ok)
    }

    /// Gives out no more permits, waits until all connections are back, and says goodbye on them.
    pub(super) async fn close(&self) {
        self.closing.store(true, SeqCst);
        let all = self.options.pool;
        drop(self.begun.write().await);
        // Whoever has asked before is served first.
        let last = self.permits.acquire_many(all).await;
        self.permits.close();
        drop(last);
        let idle = std::mem::take(&mut self.idle().connections);
        join_all(idle.into_iter().map(|connection| connection.quit(&self.options, &self.env))).await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closing.load(SeqCst)
    }
}

/// Says goodbye on connections that nobody has used for too long, for as long as there are any. It does not keep the pool.
async fn look_after(pool: Weak<Pool>, env: Env) {
    loop {
        let Some(alive) = pool.upgrade() else { return };
        let Some(old) = alive.take_old() else { return };
        match old {
            Ok(connection) => connection.quit(&alive.options, &env).await,
            Err(end) => {
                drop(alive);
                env.sleep_until(end).await;
            }
        }
    }
}

async fn goodbye(connection: Connection, options: Arc<MailerOptions>, env: Env) {
    connection.quit(&options, &env).await;
}

/// How long an idle connection may take to show that it is still there: another one is made sooner.
const CHECK: Duration = Duration::from_secs(5);

impl Drop for Pool {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut self.idle().connections);
        if !Runtime::is_ours() {
            // Taking a socket out of the parent's epoll set would silence it there.
            std::mem::forget(idle);
        }
    }
}
