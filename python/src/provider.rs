//! A service that this process provides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coord_core::provider::{Provider as CoreProvider, ProviderEvent};
use pyo3::prelude::*;

use crate::answer::{Answer, make};
use crate::args;
use crate::call::Call;
use crate::error::raised;
use crate::feed::Feed;
use crate::ours::Ours;

/// A provider of the core. Dropping it, and its events, withdraws it in the background.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Provider {
    provider: Ours<Arc<CoreProvider>>,
    closing: AtomicBool,
}

impl Provider {
    pub(crate) fn new(provider: CoreProvider) -> Self {
        Self { provider: Ours::new(Arc::new(provider)), closing: AtomicBool::new(false) }
    }

    fn get(&self, py: Python<'_>) -> PyResult<Arc<CoreProvider>> {
        raised(py, self.provider.get()).cloned()
    }
}

#[pymethods]
impl Provider {
    fn service(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.service().to_owned())
    }

    fn instance_id(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.instance_id().to_owned())
    }

    fn metadata(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.metadata())
    }

    /// Whether observers see it; in a forked child, where it is the parent's, not.
    fn is_registered(&self) -> bool {
        self.provider.get().is_ok_and(|provider| provider.is_registered())
    }

    fn update(&self, py: Python<'_>, metadata: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (provider, metadata) = (self.get(py)?, args::text("metadata", metadata)?);
        Ok(Call::new(async move { provider.update(&metadata).await.map(|()| Answer::Nothing) }))
    }

    /// What happens to it. Keeps it registered: to be kept together with it, and no longer.
    fn events(&self, py: Python<'_>) -> PyResult<Feed> {
        let provider = self.get(py)?;
        Ok(Feed::new("the provider", move || {
            let provider = provider.clone();
            async move { provider.next().await.map(|event| Answer::made(event, event_into_python)) }
        }))
    }

    /// Whether closing it has begun.
    fn closed(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    fn close(&self, py: Python<'_>) -> PyResult<Call> {
        let provider = self.get(py)?;
        self.closing.store(true, Ordering::Relaxed);
        Ok(Call::new(async move { provider.close().await.map(|()| Answer::Nothing) }))
    }

    fn give_back(&self, py: Python<'_>) -> PyResult<Call> {
        self.close(py)
    }
}

fn event_into_python(py: Python<'_>, event: ProviderEvent) -> PyResult<Py<PyAny>> {
    let (kind, reason) = match event {
        ProviderEvent::Registered => ("registered", None),
        ProviderEvent::Lost(reason) => ("lost", Some(reason as i32)),
        ProviderEvent::Reregistered => ("reregistered", None),
        ProviderEvent::Closed => ("closed", None),
    };
    Ok(make(py, "coord._provider", "_provider_event", (kind, reason))?.unbind())
}
