//! The stream of changes: a snapshot of the records, then what the log has after it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::log::{self, Log, Read, Row, Subscription, Topic};
use super::reader::{Reader, find_snapshot};
use super::sessions::Shown;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::protocol::claim::{ClaimKey, Entry};
use crate::protocol::session::SessionId;
use crate::store::changes::{Change, Changes, ClaimState, Interest, Mirror};
use crate::time::WallTime;

/// How soon reading is tried again after a failure.
const PAUSE: Duration = Duration::from_millis(100);

/// Opens the stream. It listens first and reads then, so that nothing falls between.
pub(super) async fn open(env: Env, log: &Arc<Log>, reader: &Arc<Reader>, interest: Interest) -> Result<Changes> {
    let mut topics: Vec<Topic> = interest.claims.iter().map(|prefix| Topic::new(log::CLAIMS, prefix.clone())).collect();
    if interest.sessions {
        topics.push(Topic::new(log::SESSIONS, ""));
    }
    let subscription = log.subscribe(topics).await?;
    let mut follower = Follower {
        env,
        reader: reader.clone(),
        subscription,
        interest,
        mirror: Mirror::default(),
        seq: 0,
        missed: false,
        ready: VecDeque::new(),
        interrupted: false,
    };
    follower.begin().await?;
    Ok(Box::pin(stream::unfold(follower, async |mut follower| follower.next().await.map(|change| (change, follower)))))
}

struct Follower {
    env: Env,
    reader: Arc<Reader>,
    subscription: Subscription,
    interest: Interest,
    mirror: Mirror,
    /// Up to which row all is taken in.
    seq: i64,
    /// Changes after it are missing in the log: the records have to be read.
    missed: bool,
    ready: VecDeque<Change>,
    interrupted: bool,
}

impl Follower {
    async fn begin(&mut self) -> Result<()> {
        let interest = self.interest.clone();
        let (snapshot, seq) = self.reader.read(false, move |db| find_snapshot(db, &interest)).await?;
        self.seq = seq;
        (self.missed, self.interrupted) = (false, false);
        self.push(Change::Snapshot(snapshot));
        Ok(())
    }

    fn push(&mut self, change: Change) {
        self.mirror.apply(&change);
        self.ready.push_back(change);
    }

    async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(change);
            }
            match self.read_more().await {
                Ok(()) => {}
                Err(error) if error.code() == Code::Closed => return None,
                Err(error) => {
                    if !self.interrupted {
                        tracing::warn!(%error, "the log of changes cannot be read; trying again");
                        self.interrupted = true;
                        return Some(Change::Interrupted);
                    }
                    self.env.sleep(self.env.jittered(PAUSE)).await;
                }
            }
        }
    }

    async fn read_more(&mut self) -> Result<()> {
        if self.missed {
            return self.begin().await;
        }
        match self.subscription.next(self.seq).await? {
            Read::Rows { rows, upto, .. } => {
                if std::mem::take(&mut self.interrupted) {
                    self.ready.push_back(Change::Snapshot(self.mirror.snapshot(&self.interest)));
                }
                for row in rows {
                    if let Some(change) = self.understand(&row) {
                        self.push(change);
                    }
                }
                self.seq = upto;
                Ok(())
            }
            Read::Gone => {
                tracing::warn!("changes are missing in the log after what was read of it; beginning anew");
                if !std::mem::replace(&mut self.interrupted, true) {
                    self.ready.push_back(Change::Interrupted);
                }
                self.missed = true;
                self.begin().await
            }
        }
    }

    fn understand(&self, row: &Row) -> Option<Change> {
        let change = match row.topic.as_str() {
            log::CLAIMS => {
                let key = ClaimKey::new(row.key.as_str());
                if !self.interest.in_claim(&key) {
                    return None;
                }
                decode_claim(key, &row.body).map(Change::Claim)
            }
            log::SESSIONS => row.key.parse().ok().and_then(|id: SessionId| {
                let shown: Shown = serde_json::from_slice(&row.body).ok()?;
                shown.apply(id, self.mirror.sessions.get(&id)).map(Change::Session)
            }),
            _ => None,
        };
        if change.is_none() {
            tracing::warn!(topic = row.topic, key = row.key, "a row of the log that coord cannot have written");
        }
        change
    }
}

/// A claim in the log.
#[derive(Serialize, Deserialize)]
struct LoggedClaim {
    own: Option<String>,
    tok: i64,
    at: i64,
    val: Option<String>,
}

/// What the log says of a claim as it is now, inside a transaction.
pub(super) fn encode_claim(db: &Connection, key: &ClaimKey) -> std::result::Result<Option<Vec<u8>>, Fault> {
    let Some(state) = super::claims::state(db, key)? else { return Ok(None) };
    let logged = LoggedClaim {
        own: state.holder.map(|holder| holder.to_string()),
        tok: state.token,
        at: state.granted_at.0,
        val: state.value,
    };
    encode(&logged).map(Some)
}

/// What the log says of a session.
pub(super) fn encode(value: &impl Serialize) -> std::result::Result<Vec<u8>, Fault> {
    serde_json::to_vec(value)
        .map_err(|error| Error::new(Code::Unknown, format!("a change cannot be written: {error}")).into())
}

fn decode_claim(key: ClaimKey, body: &[u8]) -> Option<ClaimState> {
    let logged: LoggedClaim = serde_json::from_slice(body).ok()?;
    let holder: Option<Entry> = match logged.own {
        Some(own) => Some(own.parse().ok()?),
        None => None,
    };
    Some(ClaimState { key, holder, token: logged.tok, granted_at: WallTime(logged.at), value: logged.val })
}
