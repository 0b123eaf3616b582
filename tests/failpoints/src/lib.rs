//! The crash matrix: for each point of [`coord_core::failpoints`] a process plays a story that passes it, and is killed
//! there, or held up for a part of its ttl or for longer. Then somebody else looks at what it has left.
//!
//! - [`said`]: what the processes of a story say, before they go on.
//! - [`story`]: what the process does that is struck; [`victim`]: what another one does for it, which is killed by it.
//! - [`strike`]: counting who passes which point, and striking there.
//! - [`post`]: the mail server; [`place`]: the store.
//! - [`judge`]: what must be so on the store afterwards; [`check`]: what must be so in all that was said.
//! - [`matrix`]: every point in its turn.
//!
//! Deliberately absent: faults of servers and of the network, and languages other than Rust, which `tests/faults` has.
#![deny(unsafe_code)]

pub mod check;
pub mod judge;
pub mod matrix;
pub mod place;
pub mod post;
pub mod said;
pub mod story;
pub mod strike;
pub mod victim;

/// Whether it was so in time. What is asked about here is another process's, or of no interest to those who use the
/// library: nothing tells of it.
pub(crate) async fn until(
    patience: std::time::Duration,
    so: impl AsyncFn() -> coord_core::Result<bool>,
) -> coord_core::Result<bool> {
    let end = std::time::Instant::now() + patience;
    loop {
        if so().await? {
            return Ok(true);
        }
        if std::time::Instant::now() > end {
            return Ok(false);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
