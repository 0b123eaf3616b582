//! Connecting, and what a client offers beside its locks.

use std::sync::{Arc, Mutex, PoisonError};

use coord_core::client::Client as CoreClient;
use coord_core::config::Options;
use coord_core::error::Result;
use coord_core::observer::ObserveOptions;
use coord_core::provider::ProvideOptions;
use coord_core::testing::Control as CoreControl;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::answer::{Answer, make_session, make_stats};
use crate::args;
use crate::call::Call;
use crate::election::Election;
use crate::error::raised;
use crate::feed::Feed;
use crate::lock::Lock;
use crate::observer::Observer;
use crate::ours::Ours;
use crate::owner;
use crate::provider::Provider;
use crate::table::Table;
use crate::testing::Control;

/// Describes a connection: to this URL, or to what the environment says; options by their names in a URL.
#[pyfunction]
pub(crate) fn connect(
    py: Python<'_>,
    url: Option<&Bound<'_, PyAny>>,
    options: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
) -> PyResult<Call> {
    let url = url.map(|url| args::text("url", url)).transpose()?;
    let mut texts = Vec::with_capacity(options.len());
    for (key, value) in &options {
        let key = args::text("the name of an option", key)?;
        let value = args::text(&key, value)?;
        texts.push((key, value));
    }
    let options = raised(py, parse(url.as_deref(), &texts))?;
    Ok(Call::new(async move { CoreClient::connect(options).await.map(Answer::Client) }))
}

fn parse(url: Option<&str>, texts: &[(String, String)]) -> Result<Options> {
    let mut options = url.map_or_else(Options::from_environment, Options::parse)?;
    for (key, value) in texts {
        options.set(key, value)?;
    }
    Ok(options)
}

/// Makes a valid part of a name from any text.
#[pyfunction]
pub(crate) fn sanitize(text: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(coord_core::name::sanitize(&args::text("text", text)?))
}

/// A client of the core.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Client(Ours<CoreClient>);

impl Client {
    pub(crate) fn new(client: CoreClient) -> Self {
        Self(Ours::new(client))
    }

    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<CoreClient> {
        raised(py, self.0.get()).cloned()
    }
}

#[pymethods]
impl Client {
    fn lock(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<Lock> {
        let name = args::text("the name of a lock", name)?;
        Ok(Lock::new(raised(py, self.get(py)?.lock(&name))?))
    }

    fn election(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<Election> {
        let name = args::text("the name of an election", name)?;
        Ok(Election::new(raised(py, self.get(py)?.election(&name))?))
    }

    fn table(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<Table> {
        let name = args::text("the name of a table", name)?;
        Ok(Table::new(raised(py, self.get(py)?.table(&name))?))
    }

    fn locks(&self, py: Python<'_>, prefix: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (client, prefix) = (self.get(py)?, args::text("prefix", prefix)?);
        Ok(Call::new(async move { client.locks(&prefix).await.map(Answer::Locks) }))
    }

    fn break_lock(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        token: &Bound<'_, PyAny>,
        force: bool,
    ) -> PyResult<Call> {
        let client = self.get(py)?;
        let (name, token) = (args::text("the name of a lock", name)?, args::token(token)?);
        Ok(Call::new(async move { client.break_lock(&name, token, force).await.map(|()| Answer::Nothing) }))
    }

    fn session<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        make_session(py, &self.get(py)?.session())
    }

    /// The changes of the session, from the one that is current now.
    fn changes(&self, py: Python<'_>) -> PyResult<Feed> {
        let client = self.get(py)?;
        let seen = Arc::new(Mutex::new(client.session()));
        Ok(Feed::new("the watch", move || {
            let (client, seen) = (client.clone(), seen.clone());
            async move {
                let before = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let now = client.session_changed(&before).await?;
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = now.clone();
                Ok(Answer::Session(Box::new(now)))
            }
        }))
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        make_stats(py, &self.get(py)?.stats())
    }

    fn provide(
        &self,
        py: Python<'_>,
        service: &Bound<'_, PyAny>,
        metadata: &Bound<'_, PyAny>,
        instance_id: Option<&Bound<'_, PyAny>>,
        reregister: bool,
    ) -> PyResult<Call> {
        let client = self.get(py)?;
        let (service, metadata) = (args::text("the name of a service", service)?, args::text("metadata", metadata)?);
        let mut options = ProvideOptions::default();
        options.instance_id = instance_id.map(|id| args::text("instance_id", id)).transpose()?;
        options.reregister = reregister;
        Ok(Call::new(async move {
            let provider = client.provide(&service, &metadata, options).await?;
            Ok(Answer::made(Provider::new(provider), |py, provider| provider.into_py_any(py)))
        }))
    }

    fn observe(&self, py: Python<'_>, pattern: &Bound<'_, PyAny>, down_grace: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (client, pattern) = (self.get(py)?, args::text("the pattern of services", pattern)?);
        let mut options = ObserveOptions::default();
        options.down_grace = args::seconds("down_grace", down_grace)?;
        Ok(Call::new(async move {
            let observer = client.observe(&pattern, options).await?;
            Ok(Answer::made(Observer::new(observer), |py, observer| observer.into_py_any(py)))
        }))
    }

    fn owners(&self, py: Python<'_>) -> PyResult<Call> {
        let client = self.get(py)?;
        Ok(Call::new(async move { client.owners().await.map(owner::owners) }))
    }

    fn watch_owners(&self, py: Python<'_>) -> PyResult<Call> {
        let client = self.get(py)?;
        Ok(Call::new(async move { client.watch_owners().await.map(owner::watch) }))
    }

    fn health(&self, py: Python<'_>) -> PyResult<Call> {
        let client = self.get(py)?;
        Ok(Call::new(async move { client.health().await.map(|()| Answer::Nothing) }))
    }

    fn open_session(&self, py: Python<'_>) -> PyResult<Call> {
        let client = self.get(py)?;
        Ok(Call::new(async move { client.open_session().await.map(Answer::Client) }))
    }

    /// Describes closing, which may take this many seconds; without a number, as long as the options say.
    fn close(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Call> {
        let client = self.get(py)?;
        let timeout = args::seconds_or_none("timeout", timeout)?.unwrap_or_else(|| client.close_timeout());
        Ok(Call::new(async move { client.close(timeout).await.map(|()| Answer::Nothing) }))
    }

    /// Power over the client's store, which must be one in memory.
    fn control(&self, py: Python<'_>) -> PyResult<Control> {
        let client = self.get(py)?;
        Ok(Control::new(raised(py, CoreControl::of(&client))?))
    }

    fn give_back(&self, py: Python<'_>) -> PyResult<Call> {
        self.close(py, None)
    }

    fn location(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.location().to_string())
    }

    fn close_timeout(&self, py: Python<'_>) -> PyResult<f64> {
        Ok(self.get(py)?.close_timeout().as_secs_f64())
    }

    fn is_closed(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.get(py)?.is_closed())
    }
}
