//! Watching a table: its rows of the log, one after the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use rusqlite::OptionalExtension;

use super::super::log::{Log, Read, Subscription, Topic};
use super::super::places;
use super::super::reader::Reader;
use super::work::{decode_change, topic};
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::protocol::document::{Position, TableName};
use crate::store::documents::{Change, Changes, Event, From, WatchOptions, compacted};

/// How soon reading is tried again after a failure.
const PAUSE: Duration = Duration::from_millis(100);

struct Watch {
    env: Env,
    reader: Arc<Reader>,
    subscription: Subscription,
    previous: bool,
    /// Up to which row all is taken in.
    seq: i64,
    ready: VecDeque<Event>,
    interrupted: bool,
}

/// Opens the stream. It listens first and looks where it stands then, so that nothing falls between. The reader is one that
/// may be kept for long, if a date is to be found.
pub(super) async fn open(
    env: Env,
    log: &Arc<Log>,
    reader: &Arc<Reader>,
    table: &TableName,
    options: WatchOptions,
) -> Result<Changes> {
    let topic = topic(table.as_str());
    let subscription = log.subscribe(vec![Topic::new(topic.clone(), "")]).await?;
    let from = options.from;
    let few = !matches!(from, From::Time(_));
    let (seq, ready) = reader
        .read(few, move |db| {
            let last = places::last(db)?;
            Ok(match from {
                From::Now => (last, VecDeque::from([Event::Gap(Position(last.cast_unsigned()))])),
                From::After(place) => {
                    let place = i64::try_from(place.0).unwrap_or(i64::MAX);
                    if !places::is_known(db, place)? {
                        return Err(compacted().into());
                    }
                    if place > last {
                        let message = format!("the position {place} lies beyond the end of the history, {last}");
                        return Err(Error::invalid(message).into());
                    }
                    (place, VecDeque::new())
                }
                From::Time(time) => {
                    // By no index: as many rows may have to be looked at as the log has.
                    let oldest = || {
                        let mut statement = db.prepare_cached("SELECT min(at) FROM log")?;
                        statement.query_row([], |row| row.get::<_, Option<i64>>(0))
                    };
                    if places::trimmed(db)? > 0 && oldest()?.is_none_or(|oldest| oldest > time.0) {
                        return Err(compacted().into());
                    }
                    // Dates in the log need not ascend: begin with the first that is as late.
                    let first: Option<i64> = db
                        .prepare_cached("SELECT seq FROM log WHERE topic = ?1 AND at >= ?2 ORDER BY seq LIMIT 1")?
                        .query_row(rusqlite::params![topic, time.0], |row| row.get(0))
                        .optional()?;
                    (first.map_or(last, |first| first - 1), VecDeque::new())
                }
            })
        })
        .await?;
    let watch =
        Watch { env, reader: reader.clone(), subscription, previous: options.previous, seq, ready, interrupted: false };
    Ok(stream::unfold(watch, async |mut watch| watch.next().await.map(|event| (event, watch))).boxed())
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            match self.read_more().await {
                Ok(()) => self.interrupted = false,
                Err(error) if error.code() == Code::Closed => return None,
                // Who follows is told, and does not take what it has for what is there.
                Err(error) if matches!(error.code(), Code::CorruptState | Code::Lost) => return Some(Err(error)),
                Err(error) => {
                    if !std::mem::replace(&mut self.interrupted, true) {
                        tracing::warn!(%error, "the log of changes cannot be read; trying again");
                    }
                    self.env.sleep(self.env.jittered(PAUSE)).await;
                }
            }
        }
    }

    async fn read_more(&mut self) -> Result<()> {
        match self.subscription.next(self.seq).await? {
            Read::Rows { rows, upto, .. } => {
                for row in rows {
                    let event = match decode_change(&row) {
                        None => Event::Gap(Position(row.seq.cast_unsigned())),
                        Some(change) => {
                            let change = change?;
                            let previous = change.previous.clone().filter(|_| self.previous);
                            Event::Change(Box::new(Change { previous, ..change }))
                        }
                    };
                    self.seq = row.seq;
                    self.ready.push_back(event);
                }
                // So that who keeps the place need not fear for what is removed of other topics meanwhile.
                if upto > self.seq {
                    self.ready.push_back(Event::Progress(Position(upto.cast_unsigned())));
                    self.seq = upto;
                }
            }
            Read::Gone => {
                let last = self.reader.read(true, |db| Ok(places::last(db)?)).await?;
                self.seq = last;
                self.ready.push_back(Event::Gap(Position(last.cast_unsigned())));
            }
        }
        Ok(())
    }
}
