//! What the tests share: a server, a mailer for it, and a runtime.

use std::future::Future;
use std::time::Duration;

use coord_core::mail::{Mailer, Message};
use coord_tests::servers::{Smtp, SmtpOptions};

/// The bound of every wait for an event.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test beside a server without TLS and login, where there can be one.
pub(crate) fn with_server<F: Future<Output = ()>>(test: impl FnOnce(Smtp) -> F) {
    with(&SmtpOptions::default(), test);
}

pub(crate) fn with<F: Future<Output = ()>>(options: &SmtpOptions, test: impl FnOnce(Smtp) -> F) {
    let Some(server) = Smtp::start(options) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(120), test(server)).await.expect("the test ends");
    });
}

/// A mailer in clear, with fast retries; `more` are options of the URL.
pub(crate) fn mailer(server: &Smtp, more: &str) -> Mailer {
    let url = format!(
        "smtp://127.0.0.1:{}?tls=none&sender=shop@example.org&retry_min=10ms&retry_max=20ms&timeout=30{more}",
        server.port()
    );
    Mailer::open(&url).unwrap()
}

pub(crate) fn hello() -> Message {
    Message::new().to("ann@example.org").subject("Hello").text("Hello, Ann.\n")
}
