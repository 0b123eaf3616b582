//! Reconcilers: where their keys come from, and what is asked of them. What they want run are `work`'s requests.

use coord_core::error::Error;
use coord_core::reconciler::{
    Backoff, Mode, ParkedKey, Rate, ReconcileOptions, Reconciler as CoreReconciler, ReconcilerStats,
    Source as CoreSource,
};
use coord_core::table::Position;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::answer::{Answer, make};
use crate::args::{self, FOREVER};
use crate::call::Call;
use crate::client::Client;
use crate::error::raised;
use crate::feed::Feed;
use crate::ours::Ours;
use crate::table::Table;
use crate::work::Request;
use crate::{lifted, lowered};

/// Where keys come from: a source of the core.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Source(Ours<CoreSource>);

#[pymethods]
impl Source {
    #[staticmethod]
    fn table(py: Python<'_>, table: &Table, filter: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let (table, filter) = (table.get(py)?, lowered::filter(filter)?);
        Ok(Self(Ours::new(CoreSource::Table { table, filter })))
    }

    #[staticmethod]
    fn observer(pattern: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(Ours::new(CoreSource::Observer(args::text("the pattern of services", pattern)?))))
    }

    #[staticmethod]
    fn released_locks(prefix: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(Ours::new(CoreSource::ReleasedLocks { prefix: args::text("prefix", prefix)? })))
    }

    #[staticmethod]
    fn manual() -> Self {
        Self(Ours::new(CoreSource::Manual))
    }
}

/// Describes starting a reconciler. What is None is left as the core has it.
#[pyfunction]
#[pyo3(signature = (client, name, source, *, workers, mode, shards, backoff, rate, resync, move_grace))]
#[allow(clippy::too_many_arguments, reason = "options by their names")]
pub(crate) fn reconcile(
    py: Python<'_>,
    client: &Client,
    name: &Bound<'_, PyAny>,
    source: &Source,
    workers: &Bound<'_, PyAny>,
    mode: &Bound<'_, PyAny>,
    shards: Option<&Bound<'_, PyAny>>,
    backoff: Option<&Bound<'_, PyAny>>,
    rate: Option<&Bound<'_, PyAny>>,
    resync: Option<&Bound<'_, PyAny>>,
    move_grace: Option<&Bound<'_, PyAny>>,
) -> PyResult<Call> {
    let (client, name) = (client.get(py)?, args::text("the name of a reconciler", name)?);
    let source = raised(py, source.0.get())?.clone();
    let mut options = ReconcileOptions {
        workers: args::count("workers", workers)? as usize,
        mode: given_mode(py, mode, shards)?,
        rate: rate.map(given_rate).transpose()?,
        resync: args::seconds_or_none("resync", resync)?,
        ..ReconcileOptions::default()
    };
    if let Some(backoff) = backoff {
        let (min, max) = args::range("backoff", backoff)?;
        options.backoff = Backoff { min, max };
    }
    if let Some(grace) = args::seconds_or_none("move_grace", move_grace)? {
        options.move_grace = grace;
    }
    Ok(Call::new(async move {
        let reconciler = client.reconcile(&name, source, options).await?;
        Ok(Answer::made(Reconciler(Ours::new(reconciler)), |py, reconciler| reconciler.into_py_any(py)))
    }))
}

fn given_mode(py: Python<'_>, mode: &Bound<'_, PyAny>, shards: Option<&Bound<'_, PyAny>>) -> PyResult<Mode> {
    let name = args::text("mode", mode)?;
    let shards = shards.map(|shards| args::count("shards", shards)).transpose()?;
    let mode = match (name.as_str(), shards) {
        ("all", None) => Ok(Mode::All),
        ("leader", None) => Ok(Mode::Leader),
        ("sharded", None) => Ok(Mode::SHARDED),
        ("sharded", Some(shards)) => Ok(Mode::Sharded { shards }),
        ("all" | "leader", Some(_)) => Err(Error::invalid("only a reconciler of mode 'sharded' has shards")),
        _ => Err(Error::invalid(format!("mode is 'all', 'leader' or 'sharded', not '{name}'"))),
    };
    raised(py, mode)
}

/// Runs in a second, and how many of them may begin at once: the core's names for a rate.
fn given_rate(rate: &Bound<'_, PyAny>) -> PyResult<Rate> {
    let Ok((per_second, burst)) = rate.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>() else {
        return Err(PyTypeError::new_err(format!("a rate is a number, or a pair of a number and an int, not {rate}")));
    };
    Ok(Rate { per_second: args::number("the rate", &per_second)?, burst: args::count("the burst", &burst)? })
}

/// A reconciler of the core. The last handle, the feed's included, ends it.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Reconciler(Ours<CoreReconciler>);

impl Reconciler {
    fn get(&self, py: Python<'_>) -> PyResult<CoreReconciler> {
        raised(py, self.0.get()).cloned()
    }
}

#[pymethods]
impl Reconciler {
    fn name(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.name().to_owned())
    }

    /// The keys that are to be run.
    fn requests(&self, py: Python<'_>) -> PyResult<Feed> {
        let reconciler = self.get(py)?;
        Ok(Feed::new("the reconciler", move || {
            let reconciler = reconciler.clone();
            async move {
                let request = Request::new(reconciler.next().await?);
                Ok(Answer::made(request, |py, request| request.into_py_any(py)))
            }
        }))
    }

    fn add(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let (reconciler, key) = (self.get(py)?, lowered::key(key)?);
        raised(py, reconciler.add(key))
    }

    fn add_after(&self, py: Python<'_>, key: &Bound<'_, PyAny>, seconds: &Bound<'_, PyAny>) -> PyResult<bool> {
        let (reconciler, key) = (self.get(py)?, lowered::key(key)?);
        raised(py, reconciler.add_after(key, args::seconds("seconds", seconds)?))
    }

    fn cancel(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let (reconciler, key) = (self.get(py)?, lowered::key(key)?);
        raised(py, reconciler.cancel(key))
    }

    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        self.get(py)?.pause();
        Ok(())
    }

    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.get(py)?.resume();
        Ok(())
    }

    /// Describes draining; None: however long that takes.
    fn drain(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Call> {
        let (reconciler, timeout) = (self.get(py)?, args::seconds_or_none("timeout", timeout)?);
        Ok(Call::new(async move { reconciler.drain(timeout.unwrap_or(FOREVER)).await.map(|()| Answer::Nothing) }))
    }

    /// Describes closing; None: however long that takes.
    fn close(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Call> {
        let (reconciler, timeout) = (self.get(py)?, args::seconds_or_none("timeout", timeout)?);
        Ok(Call::new(async move { reconciler.close(timeout.unwrap_or(FOREVER)).await.map(|()| Answer::Nothing) }))
    }

    fn give_back(&self, py: Python<'_>) -> PyResult<Call> {
        self.close(py, None)
    }

    /// Describes waiting for a key; None: however long that takes.
    fn wait_until_reconciled(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        position: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Call> {
        let (reconciler, key) = (self.get(py)?, lowered::key(key)?);
        let position = Position(args::unsigned("position", position)?);
        let timeout = args::seconds_or_none("timeout", timeout)?.unwrap_or(FOREVER);
        Ok(Call::new(async move {
            reconciler.wait_until_reconciled(key, position, timeout).await.map(|()| Answer::Nothing)
        }))
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        make_stats(py, self.get(py)?.stats())
    }

    fn parked<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        self.get(py)?.parked().iter().map(|parked| make_parked(py, parked)).collect()
    }
}

fn make_stats(py: Python<'_>, stats: ReconcilerStats) -> PyResult<Bound<'_, PyAny>> {
    let counts = [
        ("ready", stats.ready),
        ("delayed", stats.delayed),
        ("in_flight", stats.in_flight),
        ("parked", stats.parked),
        ("runs", stats.runs),
        ("errors", stats.errors),
        ("retries", stats.retries),
        ("terminal", stats.terminal),
        ("requeued", stats.requeued),
        ("fenced", stats.fenced),
        ("dropped", stats.dropped),
    ];
    let seconds = [
        ("oldest", stats.oldest.as_secs_f64()),
        ("longest_run", stats.longest_run.as_secs_f64()),
        ("run_time", stats.run_time.as_secs_f64()),
        ("longest_ended_run", stats.longest_ended_run.as_secs_f64()),
        ("queue_time", stats.queue_time.as_secs_f64()),
    ];
    make(py, PYTHON, "_stats", (counts, seconds, stats.shards, stats.synced, stats.paused))
}

fn make_parked<'py>(py: Python<'py>, parked: &ParkedKey) -> PyResult<Bound<'py, PyAny>> {
    let facts = (lifted::key(py, &parked.key)?, &parked.reason, parked.parked_for.as_secs_f64());
    make(py, PYTHON, "ParkedKey", facts)
}

/// Where the dataclasses are.
const PYTHON: &str = "coord._reconciler";
