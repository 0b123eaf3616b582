//! The outbox, on every store: what is enqueued arrives, once, in time, and what is known of it can be asked.

use std::collections::BTreeSet;
use std::time::Duration;

use coord_core::Code;
use coord_core::mail::{EnqueueOptions, Mail, MailState, Message, OutboxEvent, Status};
use serde_json::json;

use crate::place::{connect, key, letter, open, places, put, quick, until, until_state};
use crate::support::{PATIENCE, mailer, with_server};

#[test]
fn what_is_enqueued_is_sent_once_per_key() {
    for place in places(false) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick());
            let watch = outbox.watch();
            assert_eq!(watch.next().await.unwrap(), OutboxEvent::Gap);
            let first = outbox.enqueue(&letter("ann@example.org"), key("a")).await.unwrap();
            let again = outbox.enqueue(&letter("bob@example.org"), key("a")).await.unwrap();
            assert!(first.new && !again.new && first.id == again.id);
            let waiting = outbox.get(&first.id).await.unwrap().unwrap();
            assert_eq!((waiting.state, waiting.key.as_str(), waiting.attempts), (MailState::Queued, "a", 0));
            let senders = outbox.start(2).unwrap();
            let sent = until_state(&outbox, &first.id, MailState::Sent).await;
            assert_eq!(sent.recipients[0].address, "ann@example.org");
            assert_eq!((sent.recipients[0].status, sent.attempts), (Status::Accepted, 1));
            assert!(!sent.maybe_sent && sent.finished_ms.is_some() && sent.sender.is_empty());
            let other = put(&outbox, "eve@example.org", "b").await;
            until_state(&outbox, &other, MailState::Sent).await;
            senders.stop().await.unwrap();
            let got = server.messages();
            assert_eq!(got.len(), 2);
            assert_eq!(got[0]["message_id"], json!(sent.message_id));
            assert_eq!(got[0]["text"], json!("Hello.\r\n"));
            let stats = outbox.stats().await.unwrap();
            assert_eq!((stats.of(MailState::Sent), stats.of(MailState::Queued)), (2, 0));
            assert_eq!(outbox.list(Some(MailState::Sent), 10).await.unwrap().len(), 2);
            assert_eq!(outbox.list(None, 1).await.unwrap().len(), 1);
            let mut states = Vec::new();
            while states.last() != Some(&MailState::Sent) {
                let OutboxEvent::Mail(mail) = watch.next().await.unwrap() else { panic!("a mail") };
                if mail.id == other {
                    states.push(mail.state);
                }
            }
            // A store that shows the document as it is now may show a later state.
            assert!(states.len() >= 2, "{states:?}");
            assert_eq!(outbox.purge(Duration::ZERO).await.unwrap(), 2);
            assert!(outbox.enqueue(&letter("ann@example.org"), key("a")).await.unwrap().new);
        });
    }
}

#[test]
fn a_mail_waits_for_its_time_and_not_beyond_it() {
    for place in places(false) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick().with("attempts", "10000").unwrap());
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
            let at = |not_before: i64, expires: Option<i64>| EnqueueOptions {
                not_before_ms: Some(not_before),
                expires_ms: expires,
                ..EnqueueOptions::default()
            };
            let later = outbox.enqueue(&letter("a@example.org"), at(now + 3_600_000, None)).await.unwrap();
            let soon = outbox.enqueue(&letter("b@example.org"), at(now + 300, None)).await.unwrap();
            let error = outbox.enqueue(&letter("c@example.org"), at(now + 10, Some(now))).await.unwrap_err();
            assert!(error.message().starts_with("expires:"), "{error}");
            let over = outbox.enqueue(&letter("d@example.org"), at(now + 200, Some(now + 5_000))).await.unwrap();
            server.rule_for("rcpt", "d@", "450 later", None);
            let senders = outbox.start(1).unwrap();
            until_state(&outbox, &soon.id, MailState::Sent).await;
            until_state(&outbox, &over.id, MailState::Expired).await;
            until_state(&outbox, &later.id, MailState::Queued).await;
            outbox.cancel(&later.id).await.unwrap();
            assert_eq!(outbox.cancel(&later.id).await.unwrap_err().code(), Code::Conflict);
            assert_eq!(outbox.retry(&soon.id).await.unwrap_err().code(), Code::Conflict);
            assert_eq!(outbox.cancel("nobody").await.unwrap_err().code(), Code::NotFound);
            senders.stop().await.unwrap();
            assert_eq!(server.messages().len(), 1);
        });
    }
}

/// Nobody looks for what is too late within the hour: who has chosen a mail does.
#[test]
fn a_mail_whose_time_is_over_when_it_is_chosen_is_not_sent() {
    for place in places(false) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick().with("poll", "1h").unwrap());
            let senders = outbox.start(1).unwrap();
            until_state(&outbox, &put(&outbox, "ann@example.org", "first").await, MailState::Sent).await;
            let now = std::time::SystemTime::now();
            let since = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
            let (not_before_ms, expires_ms) = (Some(since + 200), Some(since + 201));
            let options = EnqueueOptions { not_before_ms, expires_ms, ..EnqueueOptions::default() };
            let late = outbox.enqueue(&letter("bob@example.org"), options).await.unwrap();
            // Time itself is looked at: nothing happens when a mail's time is over before anybody chooses it. All stores of
            // these tests have the date of this machine.
            tokio::time::sleep(Duration::from_millis(300).saturating_sub(now.elapsed().unwrap())).await;
            let next = put(&outbox, "eve@example.org", "next").await;
            until_state(&outbox, &late.id, MailState::Expired).await;
            until_state(&outbox, &next, MailState::Sent).await;
            senders.stop().await.unwrap();
            assert_eq!(server.messages().len(), 2);
        });
    }
}

#[test]
fn results_are_per_recipient_and_only_the_temporary_is_tried_again() {
    for place in places(false) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick().with("attempts", "3").unwrap());
            server.rule_for("rcpt", "bob@", "550 5.1.1 never", None);
            server.rule_for("rcpt", "eve@", "450 4.2.1 later", Some(1));
            server.rule_for("rcpt", "joe@", "450 4.2.1 later", None);
            let message = letter("ann@example.org").cc("bob@example.org").cc("eve@example.org");
            let id = outbox.enqueue(&message, key("all")).await.unwrap().id;
            let failing = put(&outbox, "joe@example.org", "joe").await;
            let refused = put(&outbox, "bob@example.org", "bob").await;
            let senders = outbox.start(1).unwrap();
            let sent = until_state(&outbox, &id, MailState::Sent).await;
            let statuses: Vec<_> = sent.recipients.iter().map(|one| (one.status, one.code)).collect();
            assert_eq!(statuses, [(Status::Accepted, 250), (Status::Rejected, 550), (Status::Accepted, 250)]);
            assert_eq!(sent.attempts, 2);
            assert_eq!(until_state(&outbox, &failing, MailState::Failed).await.attempts, 3);
            assert_eq!(until_state(&outbox, &refused, MailState::Failed).await.attempts, 1);
            let to: Vec<_> = server.messages().iter().map(|one| one["rcpt"].to_string()).collect();
            assert_eq!(to, [r#"["ann@example.org"]"#, r#"["eve@example.org"]"#]);
            server.ask(&json!({"forget": true}));
            for id in [&failing, &refused] {
                outbox.retry(id).await.unwrap();
                until_state(&outbox, id, MailState::Sent).await;
            }
            senders.stop().await.unwrap();
        });
    }
}

#[test]
fn two_replicas_send_each_mail_once() {
    for place in places(false) {
        with_server(|server| async move {
            let (one, two) = (connect(&place).await, connect(&place).await);
            let first = open(&one, &mailer(&server, ""), quick());
            let second = open(&two, &mailer(&server, ""), quick());
            let senders = [first.start(4).unwrap(), second.start(4).unwrap()];
            let mut ids = Vec::new();
            for n in 0..60 {
                ids.push(put(&first, &format!("r{n}@example.org"), &n.to_string()).await);
            }
            for id in &ids {
                let sent = until_state(&second, id, MailState::Sent).await;
                assert_eq!((sent.attempts, sent.maybe_sent), (1, false), "{sent:?}");
            }
            assert_eq!(server.messages().len(), 60);
            for one in senders {
                one.stop().await.unwrap();
            }
        });
    }
}

/// Each looks after the outbox more often than a dialogue takes.
#[test]
fn two_senders_of_one_client_let_each_other_s_mails_be() {
    for place in places(false) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let (first, second) =
                (open(&client, &mailer(&server, ""), quick()), open(&client, &mailer(&server, ""), quick()));
            server.rule("rcpt", "wait 300", None);
            let senders = [first.start(1).unwrap(), second.start(1).unwrap()];
            for n in 0..3 {
                let id = put(&first, "ann@example.org", &n.to_string()).await;
                assert_eq!(until_state(&first, &id, MailState::Sent).await.attempts, 1);
            }
            assert_eq!(server.messages().len(), 3);
            let asked = server.log().iter().filter(|(_, said)| said.starts_with("rcpt")).count();
            assert_eq!(asked, 3, "each was tried once");
            for one in senders {
                one.stop().await.unwrap();
            }
        });
    }
}

#[test]
fn rates_hold_across_replicas() {
    for place in places(false) {
        with_server(|server| async move {
            let (one, two) = (connect(&place).await, connect(&place).await);
            let options = || quick().with("per_domain_rate", "1/h").unwrap();
            let first = open(&one, &mailer(&server, ""), options());
            let second = open(&two, &mailer(&server, ""), options());
            let mut ids = Vec::new();
            for n in 0..4 {
                ids.push(put(&first, &format!("r{n}@example.org"), &n.to_string()).await);
            }
            let other = put(&first, "x@example.net", "other").await;
            let senders = [first.start(2).unwrap(), second.start(2).unwrap()];
            until_state(&first, &other, MailState::Sent).await;
            let mut hours = Vec::new();
            for id in &ids {
                let ended = |mail: &Mail| mail.state == MailState::Sent || mail.last.contains("rate limit");
                let mail = until(&first, id, ended).await;
                if mail.state != MailState::Sent {
                    hours.push(mail.due_ms / 3_600_000);
                }
            }
            for one in senders {
                one.stop().await.unwrap();
            }
            // Two if the hour has just changed.
            let sent = first.stats().await.unwrap().of(MailState::Sent);
            assert!((2..=3).contains(&sent), "{sent} sent");
            let each: BTreeSet<_> = hours.iter().collect();
            assert!(hours.len() >= 2 && each.len() == hours.len(), "each has an hour of its own: {hours:?}");
        });
    }
}

#[test]
fn a_domain_at_its_limit_leaves_the_rate_to_others() {
    for place in places(false) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let options = quick().with("per_domain_rate", "1/h").unwrap().with("rate", "3/h").unwrap();
            let outbox = open(&client, &mailer(&server, ""), options);
            for n in 0..4 {
                put(&outbox, &format!("r{n}@example.org"), &n.to_string()).await;
            }
            let others = [put(&outbox, "x@example.net", "net").await, put(&outbox, "x@example.com", "com").await];
            let senders = outbox.start(1).unwrap();
            for id in &others {
                until_state(&outbox, id, MailState::Sent).await;
            }
            senders.stop().await.unwrap();
        });
    }
}

#[test]
fn what_can_not_be_sent_by_this_mailer_fails_and_says_why() {
    for place in places(false) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick());
            let error = outbox.enqueue(&Message::new(), EnqueueOptions::default()).await.unwrap_err();
            assert!(error.code() == Code::InvalidArgument && error.message().starts_with("to:"), "{error}");
            let id = outbox.enqueue(&letter("ann@example.org").text("x".repeat(9_000)), key("a")).await.unwrap().id;
            let small = open(&client, &mailer(&server, "&max_size=2000"), quick());
            let senders = small.start(1).unwrap();
            let failed = until_state(&outbox, &id, MailState::Failed).await;
            assert!(failed.last.contains("max_size"), "{failed:?}");
            senders.stop().await.unwrap();
        });
    }
}

#[test]
fn senders_whose_mailer_is_closed_end_and_leave_the_mail_to_others() {
    for place in places(false) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let gone = mailer(&server, "");
            let outbox = open(&client, &gone, quick());
            let idle = outbox.start(2).unwrap();
            gone.close().await.unwrap();
            let id = put(&outbox, "ann@example.org", "a").await;
            assert_eq!(idle.stop().await.unwrap_err().code(), Code::Closed);
            assert_eq!(outbox.start(1).unwrap_err().code(), Code::Closed);
            let mail = outbox.get(&id).await.unwrap().unwrap();
            assert_eq!((mail.state, mail.attempts, mail.sender.as_str()), (MailState::Queued, 0, ""));
            let senders = open(&client, &mailer(&server, ""), quick()).start(1).unwrap();
            assert_eq!(until_state(&outbox, &id, MailState::Sent).await.attempts, 1);
            senders.stop().await.unwrap();
        });
    }
}

#[test]
fn a_watch_ends_with_its_client_also_beside_another_session() {
    for place in places(false) {
        for sibling in [false, true] {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = connect(&place).await;
                let other = if sibling { Some(client.open_session().await.unwrap()) } else { None };
                let mailer = client.mailer("smtp://127.0.0.1?tls=none&sender=shop@example.org").unwrap();
                let watch = open(&client, &mailer, quick()).watch();
                assert_eq!(watch.next().await.unwrap(), OutboxEvent::Gap);
                let (told, closed) = tokio::join!(tokio::time::timeout(PATIENCE, watch.next()), client.close(PATIENCE));
                closed.unwrap();
                let why = format!("{}, another session: {sibling}", place.url);
                assert_eq!(told.expect(&why).unwrap_err().code(), Code::Closed, "{why}");
                assert_eq!(watch.next().await.unwrap_err().code(), Code::Closed, "{why}");
                if let Some(other) = other {
                    other.close(PATIENCE).await.unwrap();
                }
            });
        }
    }
}
