//! The steps around a message: the greeting, STARTTLS, the login, RSET and QUIT. A server that breaks off, says nothing or
//! refuses there: the documented result, in time, and nothing sent twice.

use coord_core::mail::{Mailer, Message, Report};
use coord_core::{Code, Error};
use coord_tests::servers::Smtp;
use serde_json::json;

use crate::security::{LOGIN, World, with_tls};
use crate::support::{PATIENCE, hello, mailer, with_server};

/// Options that make all that is waited for short: one more try, at once.
const QUICK: &str = "&step_timeout=1s&connect_timeout=5s&retries=1&retry_min=10ms";

/// One message by a mailer of its own, beside one rule: what became of it, and how many connections that took.
async fn sent(world: &World, more: &str, at: &str, action: &str, times: Option<u32>) -> (Result<Report, Error>, u64) {
    world.server.ask(&json!({"forget": true}));
    let before = world.server.connections();
    world.server.rule(at, action, times);
    let mailer = Mailer::open(&world.url(LOGIN, &format!("{QUICK}{more}"))).unwrap();
    let sent = tokio::time::timeout(PATIENCE, mailer.send(&hello())).await.expect("it ends in time");
    let arrived = world.server.messages().len();
    assert_eq!(arrived, usize::from(sent.is_ok()), "{at}, {action}: {sent:?}");
    (sent, world.server.connections() - before)
}

/// What is only for now is tried again: it arrives once where that helps, and is `Unavailable` where it does not.
async fn is_temporary(world: &World, more: &str, at: &str, action: &str, said: &str) {
    let (report, connections) = sent(world, more, at, action, Some(1)).await;
    let report = report.unwrap_or_else(|error| panic!("{at}, {action}: {error}"));
    assert!(report.all_accepted() && report.attempts == 2, "{at}, {action}: {report:?}");
    assert_eq!(connections, 2, "{at}, {action}");
    let (result, connections) = sent(world, more, at, action, None).await;
    let error = result.unwrap_err();
    assert!(error.code() == Code::Unavailable && error.message().contains(said), "{at}, {action}: {error}");
    assert_eq!(connections, 2, "{at}, {action}: {error}");
}

async fn is_permanent(world: &World, more: &str, at: &str, action: &str, code: Code, said: &str) {
    let (result, connections) = sent(world, more, at, action, None).await;
    let error = result.unwrap_err();
    assert!(error.code() == code && error.message().contains(said), "{at}, {action}: {error}");
    assert_eq!(connections, 1, "{at}, {action}: it is not asked again");
}

#[test]
fn the_greeting_and_what_comes_before_the_login() {
    with_tls(&[], |world| async move {
        for at in ["connect", "ehlo", "starttls"] {
            is_temporary(&world, "", at, "454 4.7.0 later", "454 4.7.0 later").await;
            is_temporary(&world, "", at, "421 4.3.2 closing", "421 4.3.2 closing").await;
            is_permanent(&world, "", at, "554 5.7.1 not you", Code::Unavailable, "554 5.7.1 not you").await;
        }
        for at in ["starttls", "tls"] {
            is_temporary(&world, "", at, "drop", "STARTTLS").await;
            is_temporary(&world, "", at, "stall", "1 s: STARTTLS").await;
            assert!(!world.server.log().iter().any(|(_, command)| command.starts_with("auth")), "{at}");
        }
    });
}

#[test]
fn the_login() {
    with_tls(&[], |world| async move {
        for (at, auth) in [("auth", "plain"), ("auth", "login"), ("auth", "xoauth2"), ("challenge", "login")] {
            let more = format!("&auth={auth}");
            is_temporary(&world, &more, at, "drop", "the login").await;
            is_temporary(&world, &more, at, "stall", "1 s: the login").await;
            is_temporary(&world, &more, at, "454 4.7.0 later", "454 4.7.0 later").await;
            is_temporary(&world, &more, at, "421 4.3.2 closing", "421 4.3.2 closing").await;
            is_permanent(&world, &more, at, "535 5.7.8 no", Code::Unauthorized, "535 5.7.8 no").await;
        }
        // Who refuses, and is then not to be talked to, has refused.
        world.server.rule("quit", "stall", None);
        let mailer = Mailer::open(&world.url("shop:wrong", &format!("{QUICK}&auth=login"))).unwrap();
        assert_eq!(mailer.send(&hello()).await.unwrap_err().code(), Code::Unauthorized);
        // Neither user nor password is what it asks for.
        for (auth, asked) in [("plain", "334 dXNlcm5hbWU="), ("xoauth2", "334 "), ("login", "334 Y29sb3Vy")] {
            is_permanent(&world, &format!("&auth={auth}"), "auth", asked, Code::Unauthorized, "it asks for more").await;
        }
    });
}

#[test]
fn what_comes_in_clear_behind_the_agreement_to_starttls_is_not_read() {
    with_tls(&[], |world| async move {
        // Answers to all of the dialogue, by somebody on the way who wants it to be refused.
        let forged = "inject 250-a\r\n250 AUTH PLAIN\r\n235 b\r\n250 c\r\n250 d\r\n354 e\r\n550 5.7.1 forged";
        let (result, connections) = sent(&world, "", "tls", forged, None).await;
        let error = result.unwrap_err();
        assert_eq!((error.code(), connections), (Code::Unavailable, 2), "{error}");
        assert!(!world.server.log().iter().any(|(_, command)| command.starts_with("auth")));
    });
}

const WRONG: [&str; 5] = ["drop", "stall", "450 4.2.0 later", "550 5.7.1 never", "421 4.3.2 closing"];

fn commands(server: &Smtp, wanted: &str) -> usize {
    server.log().iter().filter(|(_, command)| command == wanted).count()
}

#[test]
fn a_reset_that_goes_wrong_costs_a_connection_and_no_message() {
    with_server(|server| async move {
        server.rule_for("rcpt", "bob@", "550 5.1.1 no such user", None);
        for action in WRONG {
            let mailer = mailer(&server, "&step_timeout=1s");
            let (before, resets, arrived) = (server.connections(), commands(&server, "rset"), server.messages().len());
            server.rule("rset", action, Some(1));
            let refused = tokio::time::timeout(PATIENCE, mailer.send(&Message::new().to("bob@example.org"))).await;
            let refused = refused.expect("it ends in time").unwrap();
            assert_eq!((refused.recipients[0].code, refused.attempts), (550, 1), "{action}");
            let report = mailer.send(&hello().to("bob@example.org")).await.unwrap();
            let codes: Vec<_> = report.recipients.iter().map(|one| one.code).collect();
            assert_eq!((codes, report.attempts), (vec![250, 550], 1), "{action}");
            mailer.send(&hello()).await.unwrap();
            assert_eq!(server.messages().len() - arrived, 2, "{action}");
            assert_eq!(server.connections() - before, 2, "{action}");
            assert_eq!(commands(&server, "rset") - resets, 1, "only after a refusal: {action}");
        }
    });
}

#[test]
fn a_goodbye_that_goes_wrong_is_nobody_s_loss() {
    with_server(|server| async move {
        for action in WRONG {
            let mailer = mailer(&server, "&step_timeout=1s");
            let (quits, arrived) = (commands(&server, "quit"), server.messages().len());
            server.rule("quit", action, Some(2));
            let all = async {
                mailer.health().await.unwrap();
                assert!(mailer.send(&hello()).await.unwrap().all_accepted(), "{action}");
                mailer.close().await.unwrap();
            };
            tokio::time::timeout(PATIENCE, all).await.expect("it ends in time");
            assert_eq!(server.messages().len() - arrived, 1, "{action}");
            assert_eq!(commands(&server, "quit") - quits, 2, "{action}");
        }
    });
}
