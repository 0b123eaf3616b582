//! Who provides what, as this process sees it.

use coord_core::observer::{Observer as CoreObserver, ObserverEvent, ProviderInfo};
use pyo3::prelude::*;

use crate::answer::{Answer, make};
use crate::args;
use crate::call::Call;
use crate::error::raised;
use crate::feed::Feed;
use crate::ours::Ours;

/// An observer of the core.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Observer(Ours<CoreObserver>);

impl Observer {
    pub(crate) fn new(observer: CoreObserver) -> Self {
        Self(Ours::new(observer))
    }

    fn get(&self, py: Python<'_>) -> PyResult<CoreObserver> {
        raised(py, self.0.get()).cloned()
    }
}

#[pymethods]
impl Observer {
    fn pattern(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.pattern().to_owned())
    }

    fn is_available(&self, py: Python<'_>, service: &Bound<'_, PyAny>) -> PyResult<bool> {
        let (observer, service) = (self.get(py)?, args::text("service", service)?);
        raised(py, observer.is_available(&service))
    }

    fn services(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        raised(py, self.get(py)?.services())
    }

    fn providers<'py>(&self, py: Python<'py>, service: &Bound<'_, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let (observer, service) = (self.get(py)?, args::text("service", service)?);
        let providers = raised(py, observer.providers(&service))?;
        providers.iter().map(|provider| make_provider(py, provider)).collect()
    }

    fn wait_available(
        &self,
        py: Python<'_>,
        service: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Call> {
        let (observer, service) = (self.get(py)?, args::text("service", service)?);
        let timeout = args::seconds_or_none("timeout", timeout)?;
        Ok(Call::new(async move { observer.wait_available(&service, timeout).await.map(|()| Answer::Nothing) }))
    }

    fn wait_unavailable(
        &self,
        py: Python<'_>,
        service: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Call> {
        let (observer, service) = (self.get(py)?, args::text("service", service)?);
        let timeout = args::seconds_or_none("timeout", timeout)?;
        Ok(Call::new(async move { observer.wait_unavailable(&service, timeout).await.map(|()| Answer::Nothing) }))
    }

    /// Whether the view follows the store; in a forked child it does not.
    fn synced(&self) -> bool {
        self.0.get().is_ok_and(CoreObserver::synced)
    }

    fn events(&self, py: Python<'_>) -> PyResult<Feed> {
        let observer = self.get(py)?;
        Ok(Feed::new("the observer", move || {
            let observer = observer.clone();
            async move { observer.next().await.map(|event| Answer::made(event, event_into_python)) }
        }))
    }

    fn close(&self) {
        // Nothing is to be ended in a forked child.
        if let Ok(observer) = self.0.get() {
            observer.close();
        }
    }
}

fn event_into_python(py: Python<'_>, event: ObserverEvent) -> PyResult<Py<PyAny>> {
    let (kind, service, provider) = match event {
        ObserverEvent::SnapshotStart => ("snapshot_start", None, None),
        ObserverEvent::SnapshotEnd => ("snapshot_end", None, None),
        ObserverEvent::FirstUp(provider) => ("first_up", Some(provider.service.clone()), Some(provider)),
        ObserverEvent::LastDown { service } => ("last_down", Some(service), None),
        ObserverEvent::Joined(provider) => ("joined", Some(provider.service.clone()), Some(provider)),
        ObserverEvent::Left(provider) => ("left", Some(provider.service.clone()), Some(provider)),
        ObserverEvent::Changed(provider) => ("changed", Some(provider.service.clone()), Some(provider)),
    };
    let provider = provider.map(|provider| make_provider(py, &provider)).transpose()?;
    Ok(make(py, "coord._observer", "_observer_event", (kind, service, provider))?.unbind())
}

fn make_provider<'py>(py: Python<'py>, provider: &ProviderInfo) -> PyResult<Bound<'py, PyAny>> {
    let facts = (
        &provider.service,
        &provider.instance_id,
        &provider.session,
        &provider.name,
        &provider.host,
        provider.pid,
        &provider.labels,
        &provider.metadata,
    );
    make(py, "coord._observer", "ProviderInfo", facts)
}
