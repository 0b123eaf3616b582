//! A server that misbehaves, at every step of the dialogue: the documented result, in time, and nothing sent twice.

use std::sync::Arc;
use std::time::Duration;

use coord_core::Code;
use coord_core::client::Client;
use coord_core::config::Options;
use coord_core::driver::CancelToken;
use coord_core::env::Env;
use coord_core::mail::{Attachment, Message, Status};
use coord_core::store::memory::MemoryStore;
use coord_tests::servers::Smtp;
use serde_json::json;

use crate::place::{arrived, asked, unique};
use crate::support::{PATIENCE, hello, mailer, with_server};

/// The steps before the final dot, in order.
const BEFORE: [&str; 6] = ["connect", "ehlo", "mail", "rcpt", "data", "content"];

fn count(server: &Smtp) -> usize {
    server.messages().len()
}

/// So large that its end cannot have left while the server has not read its beginning.
fn large() -> Message {
    hello().attach(Attachment::bytes("large", vec![7; 12 << 20]))
}

/// What is sent to a server that misbehaves at this step.
fn message_for(step: &str) -> Message {
    if step == "content" { large() } else { hello() }
}

#[test]
fn a_connection_that_breaks_before_the_dot_is_tried_again() {
    with_server(|server| async move {
        for step in BEFORE {
            let mailer = mailer(&server, "");
            server.ask(&json!({"forget": true}));
            server.rule(step, "drop", Some(2));
            let report = mailer.send(&message_for(step)).await.unwrap_or_else(|error| panic!("{step}: {error}"));
            assert!(report.all_accepted(), "{step}: {report:?}");
            assert_eq!(report.attempts, 3, "{step}: {report:?}");
            assert_eq!(count(&server), 1, "{step}");
        }
    });
}

#[test]
fn a_server_that_always_breaks_off_is_unavailable() {
    with_server(|server| async move {
        for step in BEFORE {
            let mailer = mailer(&server, "&retries=2");
            server.ask(&json!({"forget": true}));
            server.rule(step, "drop", None);
            let error = mailer.send(&message_for(step)).await.unwrap_err();
            assert_eq!(error.code(), Code::Unavailable, "{step}: {error}");
            assert_eq!(count(&server), 0, "{step}");
        }
    });
}

#[test]
fn a_connection_that_breaks_after_the_dot_is_unknown_and_not_tried_again() {
    with_server(|server| async move {
        let mailer = mailer(&server, "");
        for (action, arrived) in [("drop", 0), ("taken drop", 1)] {
            server.ask(&json!({"forget": true}));
            server.rule("dot", action, Some(1));
            let error = mailer.send(&hello()).await.unwrap_err();
            assert_eq!(error.code(), Code::OutcomeUnknown, "{error}");
            assert_eq!(count(&server), arrived);
            assert_eq!(server.log().iter().filter(|(_, command)| command == "data").count(), 1);
        }
    });
}

#[test]
fn a_server_that_says_nothing_is_left_in_time() {
    with_server(|server| async move {
        let quick = || mailer(&server, "&step_timeout=200ms&connect_timeout=200ms&retries=1");
        for step in BEFORE {
            server.ask(&json!({"forget": true}));
            server.rule(step, "stall", None);
            let error = tokio::time::timeout(PATIENCE, quick().send(&large())).await.unwrap().unwrap_err();
            assert_eq!(error.code(), Code::Unavailable, "{step}: {error}");
            assert!(error.message().contains("0.2 s"), "{step}: {error}");
            assert_eq!(count(&server), 0, "{step}");
        }
        server.ask(&json!({"forget": true}));
        server.rule("dot", "stall", None);
        assert_eq!(quick().send(&hello()).await.unwrap_err().code(), Code::OutcomeUnknown);
    });
}

#[test]
fn the_whole_send_has_a_time_too() {
    with_server(|server| async move {
        let mailer = mailer(&server, "&timeout=300ms");
        server.rule("rcpt", "stall", None);
        let error = tokio::time::timeout(PATIENCE, mailer.send(&hello())).await.unwrap().unwrap_err();
        assert_eq!(error.code(), Code::Timeout, "{error}");
        server.ask(&json!({"forget": true}));
        server.rule("dot", "stall", None);
        let error = tokio::time::timeout(PATIENCE, mailer.send(&hello())).await.unwrap().unwrap_err();
        assert_eq!(error.code(), Code::OutcomeUnknown, "{error}");
    });
}

#[test]
fn one_of_three_is_refused() {
    with_server(|server| async move {
        server.rule_for("rcpt", "bob@", "550 5.1.1 no such user", None);
        let message = hello().to("bob@example.org").cc("eve@example.org");
        let report = mailer(&server, "").send(&message).await.unwrap();
        let statuses: Vec<_> = report.recipients.iter().map(|one| one.status).collect();
        assert_eq!(statuses, [Status::Accepted, Status::Rejected, Status::Accepted]);
        let bob = &report.recipients[1];
        assert_eq!((bob.code, bob.text.as_str(), bob.permanent), (550, "5.1.1 no such user", true));
        assert_eq!(report.attempts, 1);
        assert!(!report.all_accepted());
        assert_eq!(server.messages()[0]["rcpt"], json!(["ann@example.org", "eve@example.org"]));
    });
}

#[test]
fn a_temporary_refusal_is_tried_again_for_whom_it_concerns() {
    with_server(|server| async move {
        server.rule_for("rcpt", "bob@", "450 4.2.1 later", Some(2));
        let report = mailer(&server, "").send(&hello().to("bob@example.org")).await.unwrap();
        assert!(report.all_accepted(), "{report:?}");
        assert_eq!(report.attempts, 3);
        let got = server.messages();
        let everybody: Vec<_> = got.iter().map(|one| one["rcpt"].to_string()).collect();
        assert_eq!(everybody, [r#"["ann@example.org"]"#, r#"["bob@example.org"]"#]);
        assert_eq!(got[0]["message_id"], got[1]["message_id"]);
    });
}

#[test]
fn a_bound_ends_the_tries() {
    with_server(|server| async move {
        server.rule_for("rcpt", "bob@", "450 4.2.1 later", None);
        let report = mailer(&server, "&retries=2").send(&hello().to("bob@example.org")).await.unwrap();
        assert_eq!(report.attempts, 3);
        let bob = &report.recipients[1];
        assert_eq!((bob.status, bob.code, bob.permanent), (Status::Rejected, 450, false));
        assert_eq!(count(&server), 1);
    });
}

#[test]
fn answers_of_every_kind_at_every_step() {
    with_server(|server| async move {
        let mailer = mailer(&server, "&retries=1");
        for step in ["mail", "rcpt", "data", "dot"] {
            for (reply, permanent) in [("550 5.7.1 never", true), ("451 4.3.0 later", false)] {
                server.ask(&json!({"forget": true}));
                server.rule(step, reply, None);
                let report = mailer.send(&hello()).await.unwrap_or_else(|error| panic!("{step}: {error}"));
                let ann = &report.recipients[0];
                assert_eq!((ann.status, ann.permanent), (Status::Rejected, permanent), "{step}");
                assert_eq!(format!("{} {}", ann.code, ann.text), reply, "{step}");
                assert_eq!(report.attempts, if permanent { 1 } else { 2 }, "{step}");
                assert_eq!(count(&server), 0, "{step}");
            }
        }
    });
}

#[test]
fn an_answer_that_settles_nothing_is_no_yes() {
    with_server(|server| async move {
        for (step, code) in [("mail", Code::Unavailable), ("rcpt", Code::Unavailable), ("dot", Code::OutcomeUnknown)] {
            server.ask(&json!({"forget": true}));
            server.rule(step, "354 go on", None);
            let error = mailer(&server, "&retries=1").send(&hello()).await.unwrap_err();
            assert!(error.code() == code && error.message().contains("354"), "{step}: {error}");
        }
        assert_eq!(count(&server), 0);
    });
}

#[test]
fn a_server_that_says_goodbye_is_called_again() {
    with_server(|server| async move {
        for step in ["connect", "ehlo", "mail", "rcpt", "data"] {
            let mailer = mailer(&server, "");
            server.ask(&json!({"forget": true}));
            server.rule(step, "421 4.3.2 closing", Some(1));
            let report = mailer.send(&hello()).await.unwrap_or_else(|error| panic!("{step}: {error}"));
            assert!(report.all_accepted(), "{step}: {report:?}");
            assert_eq!(count(&server), 1, "{step}");
        }
        server.ask(&json!({"forget": true}));
        server.rule("connect", "421 4.3.2 closing", None);
        let error = mailer(&server, "").send(&hello()).await.unwrap_err();
        assert!(error.code() == Code::Unavailable && error.message().contains("421"), "{error}");
    });
}

#[test]
fn connections_are_used_again_and_replaced() {
    with_server(|server| async move {
        let mailer = mailer(&server, "");
        for _ in 0..3 {
            mailer.send(&hello()).await.unwrap();
        }
        assert_eq!(server.connections(), 1);
        // The server closed it meanwhile: the check finds that.
        server.rule("noop", "drop", Some(1));
        assert_eq!(mailer.send(&hello()).await.unwrap().attempts, 1);
        // It closes it right after the check.
        server.rule("mail", "drop", Some(1));
        assert_eq!(mailer.send(&hello()).await.unwrap().attempts, 1);
        assert_eq!(server.connections(), 3);
        assert_eq!(count(&server), 5);
    });
}

#[test]
fn an_idle_connection_is_given_back() {
    with_server(|server| async move {
        let mailer = mailer(&server, "&idle_timeout=50ms");
        mailer.send(&hello()).await.unwrap();
        asked(&server, "quit", 1).await;
    });
}

#[test]
fn one_task_looks_after_all_idle_connections() {
    with_server(|server| async move {
        // With a client whose tasks are those of this test.
        let env = Env::system(tokio::runtime::Handle::current());
        let store = Arc::new(MemoryStore::open(&unique(), env.clone()));
        let client = Client::with_store(store, Options::parse("memory:").unwrap(), env).await.unwrap();
        let url = format!("smtp://127.0.0.1:{}?tls=none&sender=shop@example.org&idle_timeout=1h", server.port());
        let mailer = client.mailer(&url).unwrap();
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        mailer.send(&hello()).await.unwrap();
        let before = tasks();
        for _ in 0..20 {
            mailer.send(&hello()).await.unwrap();
        }
        assert!(tasks() < before + 10, "{} tasks more", tasks() - before);
    });
}

#[test]
fn a_closed_mailer_says_goodbye_and_sends_nothing() {
    with_server(|server| async move {
        let mailer = mailer(&server, "");
        mailer.health().await.unwrap();
        mailer.send(&hello()).await.unwrap();
        mailer.close().await.unwrap();
        mailer.close().await.unwrap();
        assert_eq!(mailer.send(&hello()).await.unwrap_err().code(), Code::Closed);
        assert_eq!(mailer.health().await.unwrap_err().code(), Code::Closed);
        assert_eq!(server.log().iter().filter(|(_, command)| command == "quit").count(), 2);
    });
}

#[test]
fn nobody_listens() {
    let ports = coord_tests::servers::scratch::free_ports(1).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let url = format!("smtp://127.0.0.1:{}?tls=none&sender=a@example.org&retries=1&retry_min=10ms", ports[0]);
    let mailer = coord_core::mail::Mailer::open(&url).unwrap();
    runtime.block_on(async {
        assert_eq!(mailer.send(&hello()).await.unwrap_err().code(), Code::Unavailable);
        assert_eq!(mailer.health().await.unwrap_err().code(), Code::Unavailable);
    });
}

#[test]
fn a_send_that_is_given_up_leaves_the_mailer_usable() {
    with_server(|server| async move {
        let mailer = mailer(&server, "&pool=1");
        server.rule("rcpt", "stall", Some(1));
        let stalled = tokio::time::timeout(Duration::from_millis(300), mailer.send(&hello())).await;
        assert!(stalled.is_err());
        mailer.send(&hello()).await.unwrap();
        assert_eq!(count(&server), 1);
    });
}

/// The caller's limit and cancel go through what is known of the message, as the mailer's own time does.
#[test]
fn a_send_that_is_given_up_before_the_dot_has_sent_nothing() {
    with_server(|server| async move {
        let mailer = mailer(&server, "");
        let fired = CancelToken::new();
        fired.fire();
        let error = mailer.send_within(&hello(), None, Some(&fired)).await.unwrap_err();
        assert_eq!(error.code(), Code::Cancelled, "{error}");
        assert_eq!(server.connections(), 0, "nothing was begun");
        server.rule("rcpt", "stall", None);
        let error = mailer.send_within(&hello(), Some(SOON), None).await.unwrap_err();
        assert_eq!(error.code(), Code::Timeout, "{error}");
        assert!(error.message().contains("0.3 s"), "{error}");
        let cancel = CancelToken::new();
        let giving_up = async {
            asked(&server, "rcpt TO:<ann@example.org>", 1).await;
            cancel.fire();
        };
        let message = hello();
        let (sent, ()) = tokio::join!(mailer.send_within(&message, None, Some(&cancel)), giving_up);
        assert_eq!(sent.unwrap_err().code(), Code::Cancelled);
        assert_eq!(count(&server), 0);
    });
}

#[test]
fn a_send_that_is_given_up_after_the_dot_is_unknown() {
    with_server(|server| async move {
        let mailer = mailer(&server, "");
        server.rule("dot", "taken stall", None);
        let error = mailer.send_within(&hello(), Some(SOON), None).await.unwrap_err();
        assert_eq!(error.code(), Code::OutcomeUnknown, "{error}");
        assert_eq!(count(&server), 1);
        let cancel = CancelToken::new();
        let giving_up = async {
            arrived(&server, 2).await;
            cancel.fire();
        };
        let message = hello();
        let (sent, ()) = tokio::join!(mailer.send_within(&message, None, Some(&cancel)), giving_up);
        assert_eq!(sent.unwrap_err().code(), Code::OutcomeUnknown);
        assert_eq!(count(&server), 2, "nothing was sent twice");
    });
}

#[test]
fn who_has_accepted_is_told_also_of_a_send_that_is_given_up() {
    with_server(|server| async move {
        let mailer = mailer(&server, "");
        server.rule_for("rcpt", "bob@", "450 4.2.1 later", Some(1));
        server.rule_for("rcpt", "bob@", "stall", None);
        let cancel = CancelToken::new();
        let giving_up = async {
            asked(&server, "rcpt TO:<bob@example.org>", 2).await;
            cancel.fire();
        };
        let message = hello().to("bob@example.org");
        let (sent, ()) = tokio::join!(mailer.send_within(&message, None, Some(&cancel)), giving_up);
        let statuses: Vec<_> = sent.unwrap().recipients.iter().map(|one| (one.status, one.code)).collect();
        assert_eq!(statuses, [(Status::Accepted, 250), (Status::Rejected, 0)]);
        assert_eq!(count(&server), 1);
    });
}

#[test]
fn a_send_is_given_up_between_its_attempts() {
    with_server(|server| async move {
        let mailer = mailer(&server, "&retry_min=100&retry_max=100&timeout=300");
        server.rule("mail", "drop", None);
        let cancel = CancelToken::new();
        let giving_up = async {
            asked(&server, "mail FROM:<shop@example.org>", 1).await;
            // Nobody tells that the attempt is over; before that, the cancel would end it as well.
            tokio::time::sleep(SOON).await;
            cancel.fire();
        };
        let message = hello();
        let sending = tokio::time::timeout(PATIENCE, mailer.send_within(&message, None, Some(&cancel)));
        let (sent, ()) = tokio::join!(sending, giving_up);
        assert_eq!(sent.expect("not the pause").unwrap_err().code(), Code::Cancelled);
    });
}

/// Later than a message that nothing keeps has reached the server.
const SOON: Duration = Duration::from_millis(300);
