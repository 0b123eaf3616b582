//! This project's lock, as a Rust program uses it.

use std::sync::{Arc, Mutex};

use coord_bench_worker::{Heard, Result, Subject};
use coord_core::bson::{Document, doc};
use coord_core::client::{self, Client};
use coord_core::lock::{Held, Lock};
use coord_core::reconciler::{Outcome, ReconcileOptions, Source};
use coord_core::table::{Table, TableEvent, WatchOptions, WriteOptions};
use coord_core::{ObserveOptions, ObserverEvent, ProvideOptions, Provider};

pub(super) struct Ours {
    client: Client,
    sessions: Mutex<Vec<Client>>,
    /// What this process provides in order to be observed.
    provider: tokio::sync::Mutex<Option<Provider>>,
}

pub(super) async fn connect(url: &str) -> Result<Ours> {
    Ok(Ours {
        client: client::connect(url).await?,
        sessions: Mutex::default(),
        provider: tokio::sync::Mutex::default(),
    })
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

    async fn listen(&self, kind: &str, name: &str, heard: Arc<Heard>) -> Result<()> {
        match kind {
            "observer" => {
                let observer = self.client.observe(name, ObserveOptions::default()).await?;
                tokio::spawn(async move {
                    while let Ok(event) = observer.next().await {
                        if let ObserverEvent::Joined(one) | ObserverEvent::Changed(one) = event
                            && let Ok(number) = one.metadata.parse()
                        {
                            heard.note(number);
                        }
                    }
                });
            }
            "watch" => {
                let watch = self.client.table(name)?.watch((), WatchOptions::default())?;
                // A watch begins with a snapshot, of nothing here.
                while !matches!(watch.next().await?.take(), TableEvent::InitDone) {}
                tokio::spawn(async move {
                    while let Ok(delivery) = watch.next().await {
                        if let TableEvent::Apply { document, .. } = delivery.take() {
                            note(&heard, &document);
                        }
                    }
                });
            }
            "reconciler" => {
                let source = Source::table(&self.client.table(name)?, ())?;
                let reconciler = self.client.reconcile(name, source, ReconcileOptions::default()).await?;
                tokio::spawn(async move {
                    let run = reconciler.run(|work| {
                        work.document().into_iter().for_each(|document| note(&heard, document));
                        async { Outcome::Done }
                    });
                    run.await
                });
            }
            _ => return Err(format!("nobody listens as '{kind}'").into()),
        }
        Ok(())
    }

    async fn write(&self, kind: &str, name: &str, number: u64) -> Result<()> {
        if kind == "observer" {
            let (mut provider, metadata) = (self.provider.lock().await, number.to_string());
            match &*provider {
                Some(provider) => provider.update(&metadata).await?,
                None => {
                    *provider = Some(self.client.provide(name, &metadata, ProvideOptions::default()).await?);
                }
            }
            return Ok(());
        }
        let table: Table = self.client.table(name)?;
        table.put("written", doc! { "n": i64::try_from(number)? }, WriteOptions::default()).await?;
        Ok(())
    }

    fn stats(&self) -> Result<[u64; 4]> {
        let stats = self.client.stats();
        Ok([stats.store.session_steps, stats.store.claim_steps, stats.store.reads, stats.waiting])
    }
}

fn note(heard: &Heard, document: &Document) {
    if let Some(number) = document.get_i64("n").ok().and_then(|number| u64::try_from(number).ok()) {
        heard.note(number);
    }
}
