//! An election by its name, and who leads.

use std::sync::Arc;

use coord_core::election::{
    CampaignOptions, Candidacy as CoreCandidacy, CandidacyOptions, Candidate, Election as CoreElection, Leader,
    LeaderEvent,
};
use coord_core::error::Code;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::answer::{Answer, make};
use crate::args;
use crate::call::Call;
use crate::candidacy::Candidacy;
use crate::error::raised;
use crate::feed::Feed;
use crate::ours::Ours;
use crate::term::Term;

/// An election of the core.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Election(Ours<CoreElection>);

impl Election {
    pub(crate) fn new(election: CoreElection) -> Self {
        Self(Ours::new(election))
    }

    fn get(&self, py: Python<'_>) -> PyResult<CoreElection> {
        raised(py, self.0.get()).cloned()
    }
}

#[pymethods]
impl Election {
    fn name(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.name().to_string())
    }

    fn campaign(
        &self,
        py: Python<'_>,
        value: &Bound<'_, PyAny>,
        priority: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Call> {
        let (election, value) = (self.get(py)?, args::text("value", value)?);
        let (priority, timeout) = (args::small("priority", priority)?, args::seconds_or_none("timeout", timeout)?);
        let options = CampaignOptions { priority, timeout };
        Ok(Call::new(async move { election.campaign_with(&value, options).await.map(Term::answer) }))
    }

    /// Describes one attempt, which brings None when somebody else leads.
    fn try_campaign(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (election, value) = (self.get(py)?, args::text("value", value)?);
        Ok(Call::new(async move {
            match election.try_campaign(&value).await {
                Err(error) if error.code() == Code::Contended => Ok(Answer::Nothing),
                term => term.map(Term::answer),
            }
        }))
    }

    /// Whether this client leads now; not in a forked child.
    fn is_leader(&self) -> bool {
        self.0.get().is_ok_and(CoreElection::is_leader)
    }

    fn leader(&self, py: Python<'_>) -> PyResult<Call> {
        let election = self.get(py)?;
        Ok(Call::new(async move { election.leader().await.map(leader) }))
    }

    fn candidates(&self, py: Python<'_>) -> PyResult<Call> {
        let election = self.get(py)?;
        Ok(Call::new(async move {
            let candidates = election.candidates().await?;
            Ok(Answer::made(candidates, |py, candidates| {
                let made: Vec<_> = candidates.iter().map(|one| make_candidate(py, one)).collect::<PyResult<_>>()?;
                made.into_py_any(py)
            }))
        }))
    }

    fn observe(&self, py: Python<'_>) -> PyResult<Call> {
        let election = self.get(py)?;
        Ok(Call::new(async move {
            let watch = Arc::new(election.observe().await?);
            let feed = Feed::new("the watch", move || {
                let watch = watch.clone();
                async move {
                    let now = match watch.next().await? {
                        LeaderEvent::Leader(leader) => Some(leader),
                        // No leader; and what this version does not know of is none, either.
                        _ => None,
                    };
                    Ok(leader(now))
                }
            });
            Ok(Answer::made(feed, |py, feed| feed.into_py_any(py)))
        }))
    }

    fn when_elected(
        &self,
        py: Python<'_>,
        value: &Bound<'_, PyAny>,
        priority: &Bound<'_, PyAny>,
        keep_on_error: bool,
        backoff: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Candidacy> {
        let (election, value) = (self.get(py)?, args::text("value", value)?);
        let priority = args::small("priority", priority)?;
        let mut options = CandidacyOptions { priority, keep_on_error, ..Default::default() };
        if let Some(backoff) = backoff {
            (options.min_backoff, options.max_backoff) = args::range("backoff", backoff)?;
        }
        let candidacy: CoreCandidacy = raised(py, election.when_elected(&value, options))?;
        Ok(Candidacy::new(candidacy))
    }
}

fn leader(leader: Option<Leader>) -> Answer {
    Answer::made(leader, |py, leader| match leader {
        None => Ok(py.None()),
        Some(leader) => Ok(make_leader(py, &leader)?.unbind()),
    })
}

fn make_leader<'py>(py: Python<'py>, leader: &Leader) -> PyResult<Bound<'py, PyAny>> {
    let facts = (
        &leader.session,
        &leader.name,
        &leader.host,
        leader.pid,
        &leader.labels,
        &leader.value,
        leader.token,
        leader.since_ms,
        leader.is_self,
    );
    make(py, "coord._election", "_leader", facts)
}

fn make_candidate<'py>(py: Python<'py>, candidate: &Candidate) -> PyResult<Bound<'py, PyAny>> {
    let facts =
        (&candidate.session, &candidate.name, &candidate.host, candidate.pid, candidate.priority, candidate.is_self);
    make(py, "coord._election", "Candidate", facts)
}
