//! What a store and the driver need of the outside world, real or simulated: a clock, random bits, and a place to
//! run tasks. They receive it when they are opened, so that a simulation decides all three.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::session::{Nonce, SessionId};
use crate::time::{Clock, SystemClock, Timestamp};

/// A source of random bits.
pub trait Rng: Send + Sync + fmt::Debug {
    /// 64 random bits.
    fn bits(&self) -> u64;
}

/// The operating system's random numbers: session ids must be unguessable and never repeat.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn bits(&self) -> u64 {
        let mut bytes = [0; 8];
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
                Ok(n) => filled += n,
                Err(rustix::io::Errno::INTR) => {}
                // Without random numbers two sessions could share an id; there is nothing safe to go on with.
                Err(error) => panic!("the operating system gives no random numbers: {error}"),
            }
        }
        u64::from_ne_bytes(bytes)
    }
}

/// A future that a task runs to its end.
pub type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A running task. Dropping it lets the task go on; [`Task::abort`] ends it at its next await.
#[derive(Debug)]
pub struct Task(tokio::task::AbortHandle);

impl Task {
    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// Where tasks run. A simulation gives a handle of its own single-threaded runtime with paused time.
pub trait Spawn: Send + Sync + fmt::Debug {
    /// Runs the future as a task of its own.
    fn spawn(&self, future: TaskFuture) -> Task;

    /// The runtime behind it: timers and sockets need its context.
    fn runtime(&self) -> &tokio::runtime::Handle;
}

impl Spawn for tokio::runtime::Handle {
    fn spawn(&self, future: TaskFuture) -> Task {
        Task(Self::spawn(self, future).abort_handle())
    }

    fn runtime(&self) -> &tokio::runtime::Handle {
        self
    }
}

/// The outside world as one value.
#[derive(Clone, Debug)]
pub struct Env {
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where random bits come from.
    pub rng: Arc<dyn Rng>,
    /// Where tasks run.
    pub tasks: Arc<dyn Spawn>,
}

impl Env {
    /// The real world, with tasks on this runtime.
    pub fn system(runtime: tokio::runtime::Handle) -> Self {
        Self { clock: Arc::new(SystemClock), rng: Arc::new(SystemRng), tasks: Arc::new(runtime) }
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A new session id.
    pub fn session_id(&self) -> SessionId {
        SessionId::from_random(u128::from(self.rng.bits()) << 64 | u128::from(self.rng.bits()))
    }

    /// A new nonce.
    pub fn nonce(&self) -> Nonce {
        Nonce::from_random(self.rng.bits())
    }

    /// A time between `duration` and 1.25 times that, so that clients do not act in step.
    pub fn jittered(&self, duration: Duration) -> Duration {
        duration + duration.mul_f64(0.25 * (self.rng.bits() >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// Runs the future as a task of its own.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Task {
        self.tasks.spawn(Box::pin(future))
    }

    /// Waits until the clock shows this moment. Timers only wake; the clock decides, so a timer that was too early
    /// (it stands still during suspend, or runs at another rate) sleeps on.
    pub async fn sleep_until(&self, moment: Timestamp) {
        if let Some(clock) = self.clock.as_manual() {
            return clock.reached(moment).await;
        }
        loop {
            let now = self.now();
            if now >= moment {
                return;
            }
            // At least the timers' own resolution, so that a rounded-down wait does not spin.
            tokio::time::sleep(moment.since(now).max(Duration::from_millis(1))).await;
        }
    }

    /// Waits for this long.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now() + duration).await;
    }
}
