//! Mailers and outboxes. Messages, reports and mails cross as JSON, which Python reads and writes.

use std::sync::Arc;
use std::time::Duration;

use coord_core::error::Result;
use coord_core::mail::{
    Batch as CoreBatch, EnqueueOptions, MailState, Mailer as CoreMailer, MailerOptions, Message, Outbox as CoreOutbox,
    OutboxEvent, OutboxOptions, Senders as CoreSenders, Sent,
};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::answer::{Answer, make};
use crate::args;
use crate::call::Call;
use crate::client::Client;
use crate::error::{exception, raised};
use crate::feed::Feed;
use crate::ours::Ours;

type Options<'py> = Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>;

fn texts(options: &Options<'_>) -> PyResult<Vec<(String, String)>> {
    let text = |(key, value): &(Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        let key = args::text("the name of an option", key)?;
        let value = args::text(&key, value)?;
        Ok((key, value))
    };
    options.iter().map(text).collect()
}

/// A text as the answer of an operation; None where there is none.
fn text(value: Option<String>) -> Answer {
    Answer::made(value, |py, value| value.into_py_any(py))
}

/// A mailer for the server at this URL, of a client if there is one; options by their names in a URL.
#[pyfunction]
pub(crate) fn mailer(
    py: Python<'_>,
    client: Option<&Client>,
    url: &Bound<'_, PyAny>,
    options: Options<'_>,
) -> PyResult<Mailer> {
    let (url, options) = (args::text("url", url)?, texts(&options)?);
    let client = client.map(|client| client.get(py)).transpose()?;
    let made = || -> Result<CoreMailer> {
        let mut parsed = MailerOptions::parse(&url)?;
        for (key, value) in &options {
            parsed.set(key, value)?;
        }
        match &client {
            Some(client) => client.mailer_with(parsed),
            None => CoreMailer::new(parsed),
        }
    };
    Ok(Mailer(Ours::new(raised(py, made())?)))
}

/// A mailer of the core.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Mailer(Ours<CoreMailer>);

impl Mailer {
    fn get(&self, py: Python<'_>) -> PyResult<CoreMailer> {
        raised(py, self.0.get()).cloned()
    }
}

#[pymethods]
impl Mailer {
    fn location(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.location())
    }

    fn send(&self, py: Python<'_>, message: &Bound<'_, PyAny>) -> PyResult<Call> {
        let mailer = self.get(py)?;
        let message = raised(py, Message::from_json(&args::text("message", message)?))?;
        Ok(Call::new(async move { Ok(text(Some(mailer.send(&message).await?.to_json()))) }))
    }

    fn send_many(&self, py: Python<'_>, messages: &Bound<'_, PyAny>) -> PyResult<Batch> {
        let messages = raised(py, Message::list_from_json(&args::text("messages", messages)?))?;
        Ok(Batch(Ours::new(Arc::new(self.get(py)?.send_many(messages)))))
    }

    fn health(&self, py: Python<'_>) -> PyResult<Call> {
        let mailer = self.get(py)?;
        Ok(Call::new(async move { mailer.health().await.map(|()| Answer::Nothing) }))
    }

    fn close(&self, py: Python<'_>) -> PyResult<Call> {
        let mailer = self.get(py)?;
        Ok(Call::new(async move { mailer.close().await.map(|()| Answer::Nothing) }))
    }
}

/// Messages that are being sent.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Batch(Ours<Arc<CoreBatch>>);

#[pymethods]
impl Batch {
    /// Describes waiting for the next that has ended: its place, its report or None, its error or None; None at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Call> {
        let batch = raised(py, self.0.get())?.clone();
        Ok(Call::new(async move { Ok(Answer::made(batch.next().await?, sent)) }))
    }
}

fn sent(py: Python<'_>, sent: Option<Sent>) -> PyResult<Py<PyAny>> {
    let Some(Sent { index, result, .. }) = sent else { return Ok(py.None()) };
    match result {
        Ok(report) => (index, Some(report.to_json()), py.None()).into_py_any(py),
        Err(error) => (index, None::<String>, exception(py, &error).into_value(py)).into_py_any(py),
    }
}

/// The outbox of this name of a client, whose mails go through this mailer.
#[pyfunction]
pub(crate) fn outbox(
    py: Python<'_>,
    client: &Client,
    name: &Bound<'_, PyAny>,
    mailer: &Mailer,
    options: Options<'_>,
) -> PyResult<Outbox> {
    let (name, options) = (args::text("the name of an outbox", name)?, texts(&options)?);
    let (client, mailer) = (client.get(py)?, mailer.get(py)?);
    let made = || -> Result<CoreOutbox> {
        let mut parsed = OutboxOptions::default();
        for (key, value) in &options {
            parsed.set(key, value)?;
        }
        client.outbox(&name, &mailer, parsed)
    };
    Ok(Outbox(Ours::new(raised(py, made())?)))
}

/// An outbox of the core.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Outbox(Ours<CoreOutbox>);

impl Outbox {
    fn get(&self, py: Python<'_>) -> PyResult<CoreOutbox> {
        raised(py, self.0.get()).cloned()
    }
}

#[pymethods]
impl Outbox {
    fn name(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.name().to_string())
    }

    /// Describes enqueuing; dates in milliseconds since 1970.
    fn enqueue(
        &self,
        py: Python<'_>,
        message: &Bound<'_, PyAny>,
        key: Option<&Bound<'_, PyAny>>,
        not_before: Option<i64>,
        expires: Option<i64>,
    ) -> PyResult<Call> {
        let outbox = self.get(py)?;
        let message = raised(py, Message::from_json(&args::text("message", message)?))?;
        let key = key.map(|key| args::text("key", key)).transpose()?;
        let options = EnqueueOptions { key, not_before_ms: not_before, expires_ms: expires };
        Ok(Call::new(async move {
            let enqueued = outbox.enqueue(&message, options).await?;
            Ok(Answer::made((enqueued.id, enqueued.new), |py, answer| answer.into_py_any(py)))
        }))
    }

    fn get_mail(&self, py: Python<'_>, mail_id: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (outbox, id) = (self.get(py)?, args::text("mail_id", mail_id)?);
        Ok(Call::new(async move { Ok(text(outbox.get(&id).await?.map(|mail| mail.to_json()))) }))
    }

    fn list(&self, py: Python<'_>, state: Option<&Bound<'_, PyAny>>, limit: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (outbox, limit) = (self.get(py)?, args::unsigned("limit", limit)?);
        let state = state.map(|state| args::text("state", state)).transpose()?;
        let state = raised(py, state.as_deref().map(MailState::from_name).transpose())?;
        Ok(Call::new(async move {
            let mails: Vec<String> = outbox.list(state, limit).await?.iter().map(|mail| mail.to_json()).collect();
            Ok(Answer::made(mails, |py, mails| mails.into_py_any(py)))
        }))
    }

    fn stats(&self, py: Python<'_>) -> PyResult<Call> {
        let outbox = self.get(py)?;
        Ok(Call::new(async move { Ok(text(Some(outbox.stats().await?.to_json()))) }))
    }

    fn retry(&self, py: Python<'_>, mail_id: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (outbox, id) = (self.get(py)?, args::text("mail_id", mail_id)?);
        Ok(Call::new(async move { outbox.retry(&id).await.map(|()| Answer::Nothing) }))
    }

    fn cancel(&self, py: Python<'_>, mail_id: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (outbox, id) = (self.get(py)?, args::text("mail_id", mail_id)?);
        Ok(Call::new(async move { outbox.cancel(&id).await.map(|()| Answer::Nothing) }))
    }

    fn purge(&self, py: Python<'_>, older_than: &Bound<'_, PyAny>) -> PyResult<Call> {
        let outbox = self.get(py)?;
        let older_than: Duration = args::seconds("older_than", older_than)?;
        Ok(Call::new(
            async move { Ok(Answer::made(outbox.purge(older_than).await?, |py, count| count.into_py_any(py))) },
        ))
    }

    fn watch(&self, py: Python<'_>) -> PyResult<Feed> {
        let watch = Arc::new(self.get(py)?.watch());
        Ok(Feed::new("the watch", move || {
            let watch = watch.clone();
            async move { watch.next().await.map(|event| Answer::made(event, event_into_python)) }
        }))
    }

    fn start(&self, py: Python<'_>, senders: &Bound<'_, PyAny>) -> PyResult<Senders> {
        let senders = usize::try_from(args::count("senders", senders)?).unwrap_or(usize::MAX);
        Ok(Senders(Ours::new(Arc::new(raised(py, self.get(py)?.start(senders))?))))
    }
}

fn event_into_python(py: Python<'_>, event: OutboxEvent) -> PyResult<Py<PyAny>> {
    Ok(make(py, "coord.mail", "_event", (event.to_json(),))?.unbind())
}

/// What sends the mails of an outbox.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Senders(Ours<Arc<CoreSenders>>);

#[pymethods]
impl Senders {
    fn stop(&self, py: Python<'_>) -> PyResult<Call> {
        let senders = raised(py, self.0.get())?.clone();
        Ok(Call::new(async move { senders.stop().await.map(|()| Answer::Nothing) }))
    }
}
