//! Logins and certificates: what is trusted, and that a password shows up nowhere.

use coord_core::Code;
use coord_core::mail::{Mailer, Message};
use coord_tests::servers::scratch::Scratch;
use coord_tests::servers::security::Certificates;
use coord_tests::servers::{Smtp, SmtpOptions};

use crate::support::{hello, with};

pub(crate) struct World {
    pub(crate) server: Smtp,
    certificates: Certificates,
    others: Certificates,
    _folder: Scratch,
}

pub(crate) const LOGIN: &str = "shop:s3cret";

pub(crate) fn with_tls<F: Future<Output = ()>>(more: &[&str], test: impl FnOnce(World) -> F) {
    let folder = Scratch::new().unwrap();
    let certificates = Certificates::make(folder.path(), "good").unwrap();
    let others = Certificates::make(folder.path(), "other").unwrap();
    let options = SmtpOptions {
        certificate: Some(certificates.server.clone()),
        login: Some(LOGIN.to_owned()),
        more: more.iter().map(|&one| one.to_owned()).collect(),
    };
    with(&options, |server| test(World { server, certificates, others, _folder: folder }));
}

impl World {
    pub(crate) fn url(&self, login: &str, more: &str) -> String {
        let (port, ca) = (self.server.port(), self.certificates.ca.display());
        format!("smtp://{login}@localhost:{port}?sender=shop@example.org&ca={ca}&retries=1&retry_min=10ms{more}")
    }
}

async fn outcome(url: &str) -> Result<(), coord_core::Error> {
    let mailer = Mailer::open(url).unwrap();
    let health = mailer.health().await;
    let sent = mailer.send(&hello()).await;
    match (health, sent) {
        (Ok(()), Ok(report)) => {
            assert!(report.all_accepted());
            Ok(())
        }
        (Err(health), Err(sent)) => {
            assert_eq!(health.code(), sent.code(), "{health} / {sent}");
            for error in [&health, &sent] {
                assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
            }
            Err(sent)
        }
        (health, sent) => panic!("{health:?}, but {sent:?}"),
    }
}

#[test]
fn every_way_to_encrypt_and_to_log_in() {
    with_tls(&[], |world| async move {
        for auth in ["auto", "plain", "login", "xoauth2"] {
            outcome(&world.url(LOGIN, &format!("&auth={auth}"))).await.unwrap();
            let url = world.url(LOGIN, &format!("&auth={auth}&tls=implicit&port={}", world.server.implicit_port()));
            outcome(&url).await.unwrap();
            outcome(&world.url(LOGIN, &format!("&auth={auth}&tls=none"))).await.unwrap();
        }
        assert_eq!(world.server.messages().len(), 12);
        assert!(world.server.log().iter().any(|(_, command)| command.starts_with("starttls")));
    });
}

#[test]
fn a_wrong_password_is_unauthorized_and_not_tried_again() {
    with_tls(&[], |world| async move {
        for auth in ["auto", "plain", "login", "xoauth2"] {
            let before = world.server.connections();
            let error = outcome(&world.url("shop:s3cret-but-wrong", &format!("&auth={auth}"))).await.unwrap_err();
            assert_eq!(error.code(), Code::Unauthorized, "{auth}: {error}");
            assert_eq!(world.server.connections(), before + 2, "{auth}: one for health, one for the send");
        }
        assert_eq!(world.server.messages().len(), 0);
    });
}

#[test]
fn a_wrong_certificate_is_unauthorized_and_the_password_is_not_sent() {
    with_tls(&[], |world| async move {
        let other_ca = world.url(LOGIN, &format!("&ca={}", world.others.ca.display()));
        let other_name = world.url(LOGIN, "").replace("localhost", "127.0.0.2");
        let public = format!("smtp://{LOGIN}@localhost:{}?sender=a@example.org", world.server.port());
        for url in [other_ca, other_name, public] {
            for url in [url.clone(), format!("{url}&tls=implicit&port={}", world.server.implicit_port())] {
                let error = outcome(&url).await.unwrap_err();
                // Nothing listens on the second loopback address.
                assert!(matches!(error.code(), Code::Unauthorized | Code::Unavailable), "{url}: {error}");
                assert_eq!(error.code() == Code::Unavailable, url.contains("127.0.0.2"), "{url}: {error}");
            }
        }
        assert!(world.server.log().iter().all(|(_, command)| !command.starts_with("auth")));
        let name = world.url(LOGIN, "").replace("localhost", "127.0.0.1");
        outcome(&name).await.unwrap();
    });
}

#[test]
fn without_starttls_nothing_is_sent() {
    with_tls(&["--no-starttls"], |world| async move {
        let error = outcome(&world.url(LOGIN, "")).await.unwrap_err();
        assert_eq!(error.code(), Code::Unsupported, "{error}");
        assert!(error.message().contains("STARTTLS"), "{error}");
        assert!(world.server.log().iter().all(|(_, command)| command.starts_with("ehlo")));
    });
}

#[test]
fn a_login_or_an_address_that_the_server_does_not_know() {
    with(&SmtpOptions { more: vec!["--no-utf8".into()], ..SmtpOptions::default() }, |server| async move {
        let base = format!("localhost:{}?tls=none&sender=shop@example.org", server.port());
        let error = outcome(&format!("smtp://shop:s3cret@{base}")).await.unwrap_err();
        assert_eq!(error.code(), Code::Unsupported, "{error}");
        let mailer = Mailer::open(&format!("smtp://{base}")).unwrap();
        let error = mailer.send(&Message::new().to("анна@example.org")).await.unwrap_err();
        assert_eq!(error.code(), Code::Unsupported, "{error}");
        assert!(error.message().contains("SMTPUTF8"), "{error}");
    });
}

#[test]
fn a_server_that_repeats_the_password_is_not_repeated() {
    with_tls(&[], |world| async move {
        world.server.rule("auth", "535 no: s3cret AHNob3AAczNjcmV0", None);
        let error = outcome(&world.url(LOGIN, "")).await.unwrap_err();
        assert_eq!(error.code(), Code::Unauthorized);
        assert!(error.message().contains("***") && !error.message().contains("AHNob3A"), "{error}");
    });
}

#[test]
fn a_ca_file_that_is_none_is_named() {
    with_tls(&[], |world| async move {
        for file in ["/nowhere.pem", "/etc/passwd"] {
            let error = outcome(&world.url(LOGIN, &format!("&ca={file}"))).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            assert!(error.message().starts_with("ca:"), "{error}");
        }
    });
}
