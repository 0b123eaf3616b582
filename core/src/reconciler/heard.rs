//! What the client's hub tells, as a stream: for tasks that take their time.

use tokio::sync::mpsc;

use crate::client::Core;
use crate::error::{Error, Result};
use crate::session::changes::Attached;
use crate::store::changes::{Change, Interest};

/// Changes as they come; as many as come are kept until they are taken.
pub(super) struct Heard {
    changes: mpsc::UnboundedReceiver<Change>,
    _attached: Attached,
}

impl Heard {
    /// Begins with a snapshot of what is of interest.
    pub(super) async fn of(core: &Core, interest: Interest) -> Result<Self> {
        let (sender, changes) = mpsc::unbounded_channel();
        let mut sender = Some(sender);
        let sink = move |change: Option<&Change>| match (change, &sender) {
            (Some(change), Some(open)) => {
                // Whoever drops the stream detaches it, too.
                let _ = open.send(change.clone());
            }
            _ => sender = None,
        };
        let attached = core.changes().attach(interest, Box::new(sink)).await?;
        Ok(Self { changes, _attached: attached })
    }

    /// The next one; waits for it. May be dropped at any time.
    ///
    /// # Errors
    /// `Closed` when the client is.
    pub(super) async fn next(&mut self) -> Result<Change> {
        self.changes.recv().await.ok_or_else(|| Error::closed("the client"))
    }
}
