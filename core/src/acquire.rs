//! How a client, whatever session it has at the moment, comes to hold a claim: what locks and elections have in common.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::claims::{self, Behind, Hold, Outcome, Want};
use crate::client::Core;
use crate::error::{Code, Error, Holder, HolderState, LossReason, Result};
use crate::protocol::claim::{ClaimKey, ClaimView, Entry};
use crate::protocol::session::{SessionId, SessionInfo};
use crate::session::Session;
use crate::time::WallTime;

/// Acquires the claim; waits for as long as it takes, also through outages of the store.
pub(crate) async fn wait(core: &Core, key: &ClaimKey, want: &Want) -> Result<Hold> {
    loop {
        let session = core.live_session().await?;
        match claims::acquire(&session, key, want).await {
            Ok(Outcome::Held(hold)) => return Ok(granted(core, hold)),
            Ok(Outcome::Refused(view)) => return Err(claims::queue_full(key, view.queue_len)),
            // Suspended in the moment of the grant: nothing was held, and the wait begins anew.
            Err(error) if error.loss() == Some(LossReason::Expired) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Acquires the claim if it is free and nobody waits for it. Does not wait. A holder that is known to be dead, or whose
/// death can be proven at once, does not count.
pub(crate) async fn try_now(core: &Core, key: &ClaimKey, want: &Want) -> Result<Hold> {
    // A second round after a death was proven; after that, somebody else was faster.
    let mut rounds = 2;
    loop {
        let session = core.live_session_now()?;
        let view = match claims::acquire(&session, key, want).await? {
            Outcome::Held(hold) => return Ok(granted(core, hold)),
            Outcome::Refused(view) => view,
        };
        rounds -= 1;
        let holder = holder_of(&session, key, &view).await?;
        if holder.state != HolderState::Dead || rounds == 0 {
            return Err(Error::contended(&claims::describe(key), holder));
        }
    }
}

fn granted(core: &Core, hold: Hold) -> Hold {
    core.setup().stats.count_grant();
    hold
}

/// Gives `work`, which is to acquire this claim, so much time. It stays where its owner has it: a future that is handed in
/// takes its room twice in the one that awaits it.
///
/// # Errors
/// `Timeout`, with the holder where it is known; those of `work`.
pub(crate) async fn within<T>(
    core: &Core,
    key: &ClaimKey,
    timeout: Option<Duration>,
    mut work: Pin<&mut impl Future<Output = Result<T>>>,
) -> Result<T> {
    let env = &core.setup().env;
    let Some(timeout) = timeout else { return work.await };
    let deadline = env.now() + timeout;
    tokio::select! {
        biased;
        done = &mut work => done,
        () = env.sleep_until(deadline) => {
            core.setup().stats.count_timeout();
            Err(Error::timeout(&claims::describe(key), timeout, last_known_holder(core, key)))
        }
    }
}

/// Who held the claim when this client last heard of its queue. No I/O.
fn last_known_holder(core: &Core, key: &ClaimKey) -> Option<Holder> {
    let session = core.current_session();
    let Behind { holder: entry, token, granted_at } = session.claims().behind(key)?;
    let (info, state, silent_for) = if entry.session == session.id() {
        (session.info().clone(), HolderState::Live, Duration::ZERO)
    } else {
        let unknown = || (SessionInfo::default(), HolderState::Live, Duration::ZERO);
        session.known(entry.session).unwrap_or_else(unknown)
    };
    Some(holder(&entry, token, granted_at, &info, state, silent_for, session.id()))
}

async fn holder_of(session: &Arc<Session>, key: &ClaimKey, view: &ClaimView) -> Result<Holder> {
    let Some(entry) = view.holder.or_else(|| view.head.first().copied()) else {
        // The step refuses only when somebody holds or waits.
        return Err(Error::new(Code::CorruptState, format!("{} is neither free nor held", claims::describe(key))));
    };
    let (info, state, silent_for) = if entry.session == session.id() {
        (session.info().clone(), HolderState::Live, Duration::ZERO)
    } else {
        session.look_at(entry.session).await?
    };
    Ok(holder(&entry, view.token, view.granted_at, &info, state, silent_for, session.id()))
}

/// A holder in words for people.
pub(crate) fn holder(
    entry: &Entry,
    token: i64,
    granted_at: WallTime,
    info: &SessionInfo,
    state: HolderState,
    silent_for: Duration,
    own: SessionId,
) -> Holder {
    Holder {
        name: info.name.clone(),
        session: entry.session.to_string(),
        host: info.host.clone(),
        pid: info.pid,
        token,
        since_ms: granted_at.0,
        state,
        silent_for,
        is_self: entry.session == own,
    }
}
