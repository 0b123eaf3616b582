//! The sessions of a store, and their coming and going.

use std::sync::Arc;

use coord_core::owner::{Owner, OwnerEvent, OwnerWatch};
use pyo3::prelude::*;

use crate::answer::{Answer, make};
use crate::feed::Feed;

/// Owners as an answer.
pub(crate) fn owners(owners: Vec<Owner>) -> Answer {
    Answer::made(owners, |py, owners| {
        let made: Vec<_> = owners.iter().map(|owner| make_owner(py, owner)).collect::<PyResult<_>>()?;
        Ok(made.into_pyobject(py)?.into_any().unbind())
    })
}

/// A watch of owners, as an answer.
pub(crate) fn watch(watch: OwnerWatch) -> Answer {
    let watch = Arc::new(watch);
    let feed = Feed::new("the watch", move || {
        let watch = watch.clone();
        async move { watch.next().await.map(|event| Answer::made(event, event_into_python)) }
    });
    Answer::made(feed, |py, feed| Ok(Py::new(py, feed)?.into_any()))
}

fn event_into_python(py: Python<'_>, event: OwnerEvent) -> PyResult<Py<PyAny>> {
    let (kind, owner) = match event {
        OwnerEvent::SnapshotStart => ("snapshot_start", None),
        OwnerEvent::SnapshotEnd => ("snapshot_end", None),
        OwnerEvent::Joined(owner) => ("joined", Some(owner)),
        OwnerEvent::Left(owner) => ("left", Some(owner)),
        OwnerEvent::Expired(owner) => ("expired", Some(owner)),
    };
    let owner = owner.map(|owner| make_owner(py, &owner)).transpose()?;
    Ok(make(py, "coord._owner", "_owner_event", (kind, owner))?.unbind())
}

fn make_owner<'py>(py: Python<'py>, owner: &Owner) -> PyResult<Bound<'py, PyAny>> {
    let facts = (
        &owner.session,
        &owner.name,
        &owner.host,
        owner.pid,
        &owner.labels,
        owner.since_ms,
        owner.last_renewal_ms,
        owner.state as i32,
        &owner.holds,
        &owner.provides,
    );
    make(py, "coord._owner", "_owner", facts)
}
