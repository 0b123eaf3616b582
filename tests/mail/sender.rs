//! Sends an outbox's mails until it is killed: `mail-sender STORE MAILSERVER OUTBOX [ON_DOUBT HOW]`. Says `ready` when
//! it does. Where HOW is `stop-before-the-dot`, it stops itself there, once.
#![allow(clippy::print_stdout, reason = "its parent reads that")]

mod sys;

use coord_core::mail::{Mailer, OutboxOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> coord_core::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, server, name, more @ ..] = &arguments[..] else { panic!("three arguments or four") };
    if more.get(1).is_some_and(|how| how == "stop-before-the-dot") {
        sys::stop_before_the_dot();
    }
    let (on_doubt, senders) = more.first().map_or(("send", 2), |on_doubt| (on_doubt.as_str(), 1));
    let client = coord_core::connect(store).await?;
    let options = OutboxOptions::default().with("on_doubt", on_doubt)?.with("poll", "50ms")?;
    let outbox = client.outbox(name, &Mailer::open(server)?, options)?;
    let _senders = outbox.start(senders)?;
    println!("ready");
    std::future::pending().await
}
