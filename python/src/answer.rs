//! What the core answers, as Python objects. Plain data becomes the dataclasses of `coord._types`.

use coord_core::client::{Client as CoreClient, SessionState, SessionStatus};
use coord_core::error::{Holder, LossReason};
use coord_core::lock::{Held as CoreHeld, LockInfo};
use coord_core::stats::StatsSnapshot;
use pyo3::IntoPyObjectExt;
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;

use crate::client::Client;
use crate::held::Held;
use crate::interpreter::Inside;

/// The result of any operation. What nobody fetches is dropped, and gives back what it holds.
pub(crate) enum Answer {
    Nothing,
    Client(CoreClient),
    Held(CoreHeld),
    Session(Box<SessionStatus>),
    Lock(Option<LockInfo>),
    Locks(Vec<LockInfo>),
    Loss(LossReason),
    /// Anything else, with the way to make it a Python object.
    Made(Make),
}

/// Makes a Python object of what it owns.
pub(crate) type Make = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

impl Answer {
    /// A value, and how it becomes a Python object.
    pub(crate) fn made<T: Send + 'static>(
        value: T,
        make: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> Self {
        Self::Made(Box::new(move |py| make(py, value)))
    }

    pub(crate) fn into_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self {
            Self::Nothing => Ok(py.None()),
            Self::Client(client) => Client::new(client).into_py_any(py),
            Self::Held(held) => Held::new(held).into_py_any(py),
            Self::Session(status) => Ok(make_session(py, &status)?.unbind()),
            Self::Lock(None) => Ok(py.None()),
            Self::Lock(Some(info)) => Ok(make_lock(py, &info)?.unbind()),
            Self::Locks(infos) => {
                infos.iter().map(|info| make_lock(py, info)).collect::<PyResult<Vec<_>>>()?.into_py_any(py)
            }
            Self::Loss(reason) => (reason as i32).into_py_any(py),
            Self::Made(make) => make(py),
        }
    }
}

pub(crate) fn make_session<'py>(py: Python<'py>, status: &SessionStatus) -> PyResult<Bound<'py, PyAny>> {
    let (state, reason) = match status.state {
        SessionState::Opening => ("opening", None),
        SessionState::Live => ("live", None),
        SessionState::Suspended => ("suspended", None),
        SessionState::Lost(reason) => ("lost", Some(reason as i32)),
    };
    let (info, timing) = (&status.info, &status.timing);
    make(
        py,
        TYPES,
        "_session",
        (
            status.id.to_string(),
            state,
            reason,
            status.remaining.as_secs_f64(),
            timing.ttl.as_secs_f64(),
            timing.renew_every.as_secs_f64(),
            &info.name,
            &info.labels,
            &info.host,
            info.pid,
        ),
    )
}

pub(crate) fn make_stats<'py>(py: Python<'py>, stats: &StatsSnapshot) -> PyResult<Bound<'py, PyAny>> {
    let counts = [
        ("renewals", stats.renewals),
        ("failed_renewals", stats.failed_renewals),
        ("suspensions", stats.suspensions),
        ("losses", stats.losses),
        ("grants", stats.grants),
        ("unknown_grants", stats.unknown_grants),
        ("timeouts", stats.timeouts),
        ("notice_gaps", stats.notice_gaps),
        ("kills", stats.kills),
        ("held", stats.held),
        ("waiting", stats.waiting),
    ];
    let calls = [
        ("session_steps", stats.store.session_steps),
        ("claim_steps", stats.store.claim_steps),
        ("reads", stats.store.reads),
    ];
    let slack = (stats.last_slack.map(|slack| slack.as_secs_f64()), stats.least_slack.map(|slack| slack.as_secs_f64()));
    make(py, TYPES, "_stats", (counts, calls, slack))
}

pub(crate) fn make_holder<'py>(py: Python<'py>, holder: &Holder) -> PyResult<Bound<'py, PyAny>> {
    make(
        py,
        TYPES,
        "_holder",
        (
            &holder.name,
            &holder.session,
            &holder.host,
            holder.pid,
            holder.token,
            holder.since_ms,
            holder.state as i32,
            holder.silent_for.as_secs_f64(),
            holder.is_self,
        ),
    )
}

fn make_lock<'py>(py: Python<'py>, info: &LockInfo) -> PyResult<Bound<'py, PyAny>> {
    let holder = info.holder.as_ref().map(|holder| make_holder(py, holder)).transpose()?;
    let waiters: Vec<_> =
        info.waiters.iter().map(|waiter| (&waiter.name, &waiter.session, &waiter.host, waiter.pid)).collect();
    make(py, TYPES, "_lock_info", (&info.name, info.token, holder, waiters, info.breaking))
}

/// Where the dataclasses of sessions and locks are.
const TYPES: &str = "coord._types";

/// Calls a factory of a Python module of ours.
pub(crate) fn make<'py>(
    py: Python<'py>,
    module: &str,
    factory: &str,
    arguments: impl PyCallArgs<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let _inside = Inside::enter(py);
    py.import(module)?.getattr(factory)?.call1(arguments)
}
