//! This project's lock, as a Rust program uses it.

use std::sync::Mutex;

use coord_bench_worker::{Result, Subject};
use coord_core::client::{self, Client};
use coord_core::lock::{Held, Lock};

pub(super) struct Ours {
    client: Client,
    sessions: Mutex<Vec<Client>>,
}

pub(super) async fn connect(url: &str) -> Result<Ours> {
    Ok(Ours { client: client::connect(url).await?, sessions: Mutex::default() })
}

impl Subject for Ours {
    type Lock = Lock;
    type Held = Held;

    fn lock(&self, name: &str) -> Result<Lock> {
        Ok(self.client.lock(name)?)
    }

    async fn acquire(&self, lock: &Lock) -> Result<Held> {
        Ok(lock.acquire().await?)
    }

    async fn release(&self, held: Held) -> Result<()> {
        Ok(held.release().await?)
    }

    async fn close(&self) -> Result<()> {
        let sessions = std::mem::take(&mut *self.sessions.lock().expect("no panic holds it"));
        for client in sessions.iter().chain([&self.client]) {
            client.close(client.close_timeout()).await?;
        }
        Ok(())
    }

    async fn open_sessions(&self, count: usize) -> Result<()> {
        for _ in 0..count {
            let session = self.client.open_session().await?;
            self.sessions.lock().expect("no panic holds it").push(session);
        }
        Ok(())
    }

    fn stats(&self) -> Result<[u64; 4]> {
        let stats = self.client.stats();
        Ok([stats.store.session_steps, stats.store.claim_steps, stats.store.reads, stats.waiting])
    }
}
