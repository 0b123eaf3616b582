//! The date of the replica set: its primary's, by which replicas agree whose own clocks differ.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bson::doc;
use mongodb::options::{ReadPreference, SelectionCriteria};

use super::super::Inner;
use super::super::errors::Doing;
use crate::error::{Code, Error, Result};
use crate::time::{Timestamp, WallTime};

/// What the server has said its date was, and when its answer had come on our own clock: the date that is told is never
/// ahead of the server's by the time that a request took.
#[derive(Debug, Default)]
pub(in crate::store::mongodb) struct KnownDate(Mutex<Option<(Timestamp, WallTime)>>);

impl KnownDate {
    fn with<T>(&self, f: impl FnOnce(&mut Option<(Timestamp, WallTime)>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the date is at `now`, and for how long nobody was asked.
    fn at(&self, now: Timestamp) -> Option<(WallTime, Duration)> {
        let (answered, date) = self.with(|known| *known)?;
        let passed = now.since(answered);
        let passed_ms = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        Some((WallTime(date.0.saturating_add(passed_ms)), passed))
    }
}

impl Inner {
    pub(super) async fn date(&self) -> Result<WallTime> {
        let known = self.date.at(self.env.now());
        if let Some((date, age)) = known
            && age < GOOD_FOR
        {
            return Ok(date);
        }
        let admin = self.locks.client().database("admin");
        let request = async move {
            let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
            admin.run_command(doc! { "hello": 1 }).selection_criteria(primary).await
        };
        let answer = match (self.tasks.run(self.limits.operation, ASK_DATE, request, "admin").await, known) {
            (Ok(answer), _) => answer,
            // An older answer is better than none while there is no primary.
            (Err(error), Some((date, _))) if error.code() == Code::Unavailable => return Ok(date),
            (Err(error), _) => return Err(error),
        };
        let date = answer.get_datetime("localTime").map_err(|_| Error::unavailable("the server tells no date"))?;
        let date = WallTime(date.timestamp_millis());
        let answered = self.env.now();
        self.date.with(|known| *known = Some((answered, date)));
        Ok(date)
    }
}

/// A clock whose rate is wrong by a thousandth is wrong by 60 ms then.
const GOOD_FOR: Duration = Duration::from_secs(60);

const ASK_DATE: Doing = Doing { what: "ask for the date", rights: "no" };
