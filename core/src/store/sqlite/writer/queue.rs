//! What waits for the writer, and what of it is done next.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::super::documents::work;
use super::{Done, Work};
use crate::error::Result;
use crate::time::Timestamp;

#[derive(Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) since: Timestamp,
    pub(super) reply: Option<oneshot::Sender<Result<Done>>>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) sessions: VecDeque<Job>,
    pub(super) others: VecDeque<Job>,
    pub(super) documents: VecDeque<Job>,
    turn_of_documents: bool,
    /// A thread empties it.
    pub(super) served: bool,
    pub(super) closed: bool,
}

impl Queue {
    /// Puts documents that were taken back to the front.
    pub(super) fn put_back(&mut self, jobs: Vec<Job>) {
        for job in jobs.into_iter().rev() {
            self.documents.push_front(job);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.served && !self.closed
    }

    /// The next batch: sessions first, then the others in their order, then tables, which are a batch of their own and
    /// have their turn after each batch of the others. What nobody waits for any more is left out.
    pub(super) fn take(&mut self) -> Vec<Job> {
        let turn = std::mem::replace(&mut self.turn_of_documents, true);
        if self.sessions.is_empty() && (turn || self.others.is_empty()) {
            let batch = self.take_documents();
            if !batch.is_empty() {
                self.turn_of_documents = false;
                return batch;
            }
        }
        let batch = self.take_coordination();
        if batch.is_empty() { self.take_documents() } else { batch }
    }

    fn take_coordination(&mut self) -> Vec<Job> {
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            let Some(job) = self.sessions.pop_front().or_else(|| self.others.pop_front()) else { break };
            if job.is_wanted() {
                batch.push(job);
            }
        }
        batch
    }

    fn take_documents(&mut self) -> Vec<Job> {
        let (mut batch, mut weight) = (Vec::new(), 0);
        while weight < work::MOST {
            let Some(job) = self.documents.pop_front() else { break };
            if let Work::Document(work) = &job.work
                && job.is_wanted()
            {
                weight += work.weight();
                batch.push(job);
            }
        }
        batch
    }
}

impl Job {
    fn is_wanted(&self) -> bool {
        !self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

/// How many steps share a transaction.
const BATCH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn job(token: i64) -> (Job, oneshot::Receiver<Result<Done>>) {
        let (reply, answer) = oneshot::channel();
        (Job { work: Work::RaiseCeiling(token), since: Timestamp::ZERO, reply: Some(reply) }, answer)
    }

    fn taken(queue: &mut Queue) -> Vec<i64> {
        let number = |job: Job| match job.work {
            Work::RaiseCeiling(token) => token,
            other => panic!("{other:?}"),
        };
        queue.take().into_iter().map(number).collect()
    }

    #[test]
    fn sessions_go_first_and_each_class_keeps_its_order() {
        let mut queue = Queue::default();
        let mut answers = Vec::new();
        for token in [1, 2, 3] {
            let ((other, first), (session, second)) = (job(token), job(10 * token));
            queue.others.push_back(other);
            queue.sessions.push_back(session);
            answers.extend([first, second]);
        }
        assert_eq!(taken(&mut queue), [10, 20, 30, 1, 2, 3]);
        assert!(taken(&mut queue).is_empty());
    }

    #[test]
    fn what_its_caller_has_dropped_never_runs() {
        let mut queue = Queue::default();
        let ((first, answer), (second, _waits)) = (job(1), job(2));
        queue.others.extend([first, second]);
        drop(answer);
        assert_eq!(taken(&mut queue), [2]);
    }

    #[test]
    fn a_batch_has_a_limit() {
        let mut queue = Queue::default();
        let answers: Vec<_> = (0..100)
            .map(|token| {
                let (job, answer) = job(token);
                queue.others.push_back(job);
                answer
            })
            .collect();
        assert_eq!(taken(&mut queue).len(), BATCH);
        assert_eq!(taken(&mut queue).len(), answers.len() - BATCH);
    }
}
