//! etcd's lock as its own client gives it: one lease for the process, kept alive in the background.

use std::time::Duration;

use coord_bench_worker::{Result, Subject, serve};
use etcd_client::{Client, LockOptions};

/// Seconds. The lease's time to live, which is how long others wait after a crash.
const TTL: i64 = 10;

struct Etcd {
    client: Client,
    lease: i64,
}

fn main() -> Result<()> {
    let endpoints = std::env::args().nth(1).ok_or("usage: coord-bench-etcd ENDPOINT,…")?;
    serve(connect(endpoints))
}

async fn connect(endpoints: String) -> Result<Etcd> {
    let endpoints: Vec<&str> = endpoints.split(',').collect();
    let mut client = Client::connect(endpoints, None).await?;
    let lease = client.lease_grant(TTL, None).await?.id();
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
    tokio::spawn(async move {
        while keeper.keep_alive().await.is_ok() && matches!(answers.message().await, Ok(Some(_))) {
            tokio::time::sleep(Duration::from_secs(TTL as u64 / 3)).await;
        }
    });
    Ok(Etcd { client, lease })
}

impl Subject for Etcd {
    type Lock = String;
    type Held = Vec<u8>;

    fn lock(&self, name: &str) -> Result<String> {
        Ok(name.to_owned())
    }

    // One lease is one owner in etcd, so tasks that want the same lock at once each need a process of their own.
    async fn acquire(&self, lock: &String) -> Result<Vec<u8>> {
        let options = LockOptions::new().with_lease(self.lease);
        Ok(self.client.clone().lock(lock.as_str(), Some(options)).await?.key().to_vec())
    }

    async fn release(&self, held: Vec<u8>) -> Result<()> {
        self.client.clone().unlock(held).await?;
        Ok(())
    }
}
