//! For tests of users' code: power over a store in memory.

use coord_core::testing::Control as CoreControl;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::args;
use crate::call::Call;
use crate::error::raised;
use crate::ours::Ours;

/// A control of the core.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Control(Ours<CoreControl>);

impl Control {
    pub(crate) fn new(control: CoreControl) -> Self {
        Self(Ours::new(control))
    }

    fn get(&self, py: Python<'_>) -> PyResult<CoreControl> {
        raised(py, self.0.get()).cloned()
    }
}

#[pymethods]
impl Control {
    fn force_leader(&self, py: Python<'_>, election: &Bound<'_, PyAny>, session: &Bound<'_, PyAny>) -> PyResult<Call> {
        let control = self.get(py)?;
        let (election, session) = (args::text("the name of an election", election)?, args::text("session", session)?);
        Ok(Call::new(async move {
            let token = control.force_leader(&election, &session).await?;
            Ok(Answer::made(token, |py, token| token.into_py_any(py)))
        }))
    }

    fn expire_session(&self, py: Python<'_>, session: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (control, session) = (self.get(py)?, args::text("session", session)?);
        Ok(Call::new(async move { control.expire_session(&session).await.map(|()| Answer::Nothing) }))
    }

    fn advance(&self, py: Python<'_>, seconds: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (control, by) = (self.get(py)?, args::seconds("seconds", seconds)?);
        Ok(Call::new(async move { control.advance(by).await.map(|()| Answer::Nothing) }))
    }

    fn jump(&self, py: Python<'_>, seconds: &Bound<'_, PyAny>) -> PyResult<()> {
        let (control, by) = (self.get(py)?, args::seconds("seconds", seconds)?);
        raised(py, control.jump(by))
    }

    /// The date that the manual clock shows, in milliseconds since 1970.
    fn date(&self, py: Python<'_>) -> PyResult<i64> {
        let control = self.get(py)?;
        Ok(raised(py, control.date())?.0)
    }
}
