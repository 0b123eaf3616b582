//! Addresses, headers, messages in JSON and URLs of mail servers: an error that names what is wrong, or a message that
//! breaks no line on the wire; and the password in no error.

use std::time::Duration;

use coord_core::driver::Runtime;
use coord_core::error::Code;
use coord_core::mail::{Attachment, Mailbox, Mailer, MailerOptions, Message};
use coord_tests::servers::StrictSmtp;
use once_cell::sync::Lazy;

use crate::input::Input;

/// What mails are made of.
pub const WORDS: &[&str] = &[
    "ann@example.org",
    "Ann <ann@example.org>",
    "\"a\\\"b\" <a@b.c>",
    "@[192.0.2.1]",
    "@xn--bcher-kva.example",
    "@bücher.example",
    "анна",
    "=?utf-8?q?x?=",
    "\r\nBcc: x@y.z\r\n",
    "\n.\n",
    "\r",
    "\u{2028}",
    "\0",
    "{\"to\":[\"a@b.c\"],",
    "\"subject\":\"",
    "\"attachments\":[{\"base64\":\"AA==\",\"name\":\"x\"}]",
    "\"headers\":{\"X-Own\":\"1\"}",
    "\"message_id\":\"<a@b>\"",
    "\"date\":0",
    "\"html\":\"<p>\"",
    "smtp://",
    "smtps://",
    "?tls=none&",
    "sender=",
    "password=",
];

/// A password that must not be told.
const PASSWORD: &str = "s3cretPassw0rd";

static SERVER: Lazy<StrictSmtp> = Lazy::new(StrictSmtp::new);

static MAILER: Lazy<Mailer> = Lazy::new(|| {
    let port = SERVER.port();
    let url = format!("smtp://127.0.0.1:{port}?tls=none&sender=shop@example.org&retries=0&idle_timeout=600&timeout=60");
    Mailer::open(&url).expect("a mailer")
});

/// Reads bytes as each of these, and sends the messages that they make.
pub fn play(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(mailbox) = text.parse::<Mailbox>() {
        let again = mailbox.to_string().parse::<Mailbox>().expect("what it writes, it reads");
        assert_eq!(again, mailbox);
    }
    url(&text);
    if let Ok(message) = Message::from_json(&text) {
        // Not the files of this machine.
        if !text.contains("path") {
            send(&message);
        }
    }
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        send(&message(&mut input));
    }
}

/// A URL that begins with a login, and one that begins as it likes.
fn url(text: &str) {
    match MailerOptions::parse(&format!("smtp://user:{PASSWORD}@{text}")) {
        Ok(options) => assert!(!format!("{options:?}").contains(PASSWORD), "{options:?}"),
        Err(error) => {
            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
            assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error:?}");
        }
    }
    if let Err(error) = MailerOptions::parse(text) {
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
}

fn message(input: &mut Input<'_>) -> Message {
    let mut message = Message::new();
    for _ in 0..=input.below(8) {
        message = match input.below(14) {
            0 => message.to(input.text()),
            1 => message.to((&*input.text(), "ann@example.org")),
            2 => message.cc((&*input.text(), &*input.text())),
            3 => message.bcc(input.text()),
            4 => message.from(input.text()),
            5 => message.reply_to(input.text()),
            6 => message.subject(input.text()),
            7 => message.text(input.text()),
            8 => message.html(input.text()),
            9 => message.header("X-Own", &input.text()),
            10 => message.attach(Attachment::bytes(&input.text(), input.piece()).media_type(&input.text())),
            11 => message.attach(Attachment::bytes(&input.text(), input.piece())),
            12 => message.html("x").inline(&input.text(), Attachment::bytes(&input.text(), input.piece())),
            _ => message.message_id(&input.text()).date_ms(input.number()),
        };
    }
    if input.byte() < 192 { message.to("bob@example.org") } else { message }
}

fn send(message: &Message) {
    let again = Message::from_json(&message.to_json()).expect("what it writes, it reads");
    assert_eq!(&again, message);
    let before = SERVER.taken();
    let sent = Runtime::shared().expect("a runtime").wait(
        {
            let message = message.clone();
            async move { MAILER.send(&message).await }
        },
        Some(Duration::from_secs(60)),
        None,
    );
    match sent {
        Ok(report) => assert!(report.all_accepted() && SERVER.taken() == before + 1, "{message:?}: {report:?}"),
        Err(error) => {
            assert_eq!(error.code(), Code::InvalidArgument, "{message:?}: {error}");
            assert!(!error.message().contains(['\r', '\n', '\0']), "{error:?}");
            assert_eq!(SERVER.taken(), before, "{message:?} was sent");
        }
    }
}
