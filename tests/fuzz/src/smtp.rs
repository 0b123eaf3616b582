//! A mail server that answers nonsense: an error, or a report, within the time that was given; and the password is told
//! to nobody but the server.

use std::time::{Duration, Instant};

use coord_core::error::Code;
use coord_core::mail::{Mailer, Message, Status};
use once_cell::sync::Lazy;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::input::Input;

/// What answers are made of.
pub const WORDS: &[&str] = &[
    "220 hello\r\n",
    "250-here\r\n",
    "250 ok\r\n",
    "250-STARTTLS\r\n",
    "250-AUTH PLAIN LOGIN XOAUTH2\r\n",
    "250-SMTPUTF8\r\n",
    "235 in\r\n",
    "334 VXNlcm5hbWU6\r\n",
    "354 go on\r\n",
    "421 bye\r\n",
    "450 later\r\n",
    "550 never\r\n",
    "999 what\r\n",
    "\r\n",
    "-",
    PASSWORD,
    "AHVzZXIAczNjcmV0UGFzc3cwcmQ=",
];

/// A password that must not be told.
const PASSWORD: &str = "s3cretPassw0rd";

static RUNTIME: Lazy<Runtime> = Lazy::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});

/// Keeps the library's own threads: one that is just about to end looks like a leak.
static KEPT: Lazy<Mailer> = Lazy::new(|| Mailer::open("smtp://localhost:1").expect("a mailer"));

/// The time of a whole send.
const LIMIT: Duration = Duration::from_millis(250);
/// What a busy machine may add.
const MORE: Duration = Duration::from_secs(60);

/// Several servers at once, since each is mostly waited for.
const AT_ONCE: usize = 8;

/// Lets mailers send by servers that answer with parts of the input.
pub fn play(bytes: &[u8]) {
    Lazy::force(&KEPT);
    RUNTIME.block_on(async {
        let share = bytes.len().div_ceil(AT_ONCE).max(1);
        let meetings: Vec<_> = bytes.chunks(share).map(|part| tokio::spawn(meet(part.to_vec()))).collect();
        for meeting in meetings {
            meeting.await.expect("no panic");
        }
    });
}

async fn meet(answers: Vec<u8>) {
    let Ok(listener) = TcpListener::bind(("127.0.0.1", 0)).await else { return };
    let Ok(address) = listener.local_addr() else { return };
    let mut input = Input::new(&answers);
    let tls = ["none", "none", "none", "required", "implicit"][input.below(5)];
    let auth = ["auto", "plain", "login", "xoauth2"][input.below(4)];
    let login = if input.byte() < 128 { format!("user:{PASSWORD}@") } else { String::new() };
    let answers = input.rest().to_vec();
    let server = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, answers.clone()));
        }
    });
    let url = format!(
        "smtp://{login}localhost:{}?tls={tls}&auth={auth}&sender=a@example.org&timeout={}ms&step_timeout=100ms&\
         connect_timeout=100ms&retries=1&retry_min=1ms&retry_max=2ms",
        address.port(),
        LIMIT.as_millis()
    );
    let mailer = Mailer::open(&url).expect("a mailer");
    let begun = Instant::now();
    let message = Message::new().to("ann@example.org").to("bob@example.org").to("анна@example.org").text("Hello");
    let seen = match mailer.send(&message).await {
        Ok(report) => {
            assert_eq!(report.recipients.len(), 3);
            for one in &report.recipients {
                assert!(one.status != Status::Accepted || (200..300).contains(&one.code), "{one:?}");
            }
            format!("{report:?}")
        }
        Err(error) => {
            use Code::{OutcomeUnknown, Timeout, Unauthorized, Unavailable, Unsupported};
            assert!(
                matches!(error.code(), OutcomeUnknown | Timeout | Unauthorized | Unavailable | Unsupported),
                "{error:?}"
            );
            assert!(!error.message().contains(['\r', '\n', '\0']), "{error:?}");
            format!("{error} {error:?}")
        }
    };
    assert!(begun.elapsed() < LIMIT + MORE, "it took {:?}", begun.elapsed());
    // Without a login the mailer does not know that this text, which the server happens to say, is a password.
    if !login.is_empty() {
        assert!(!seen.contains(PASSWORD) && !seen.contains("AHVzZXIAczNjcmV0UGFzc3cwcmQ"), "{seen}");
    }
    server.abort();
}

/// Answers each line: at first as a server would, then with what the input says.
async fn serve(stream: TcpStream, answers: Vec<u8>) {
    let mut input = Input::new(&answers);
    let mut honest = input.below(10);
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    let mut in_content = false;
    let mut line = b"CONNECT".to_vec();
    loop {
        let proper = match line.get(..4).map(<[u8]>::to_ascii_uppercase).as_deref() {
            Some(b"CONN") => "220 hello\r\n",
            Some(b"EHLO") => "250-here\r\n250-SMTPUTF8\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN XOAUTH2\r\n",
            Some(b"AUTH") => "235 in\r\n",
            Some(b"DATA") => "354 go on\r\n",
            _ => "250 ok\r\n",
        };
        let kind = if honest > 0 { 0 } else { input.below(6) };
        honest = honest.saturating_sub(1);
        let answer = match kind {
            _ if input.is_empty() && honest == 0 => return,
            0 => proper.as_bytes().to_vec(),
            1 => input.piece().to_vec(),
            2 => format!("{} {}\r\n", 200 + 2 * usize::from(input.byte()), input.text()).into_bytes(),
            3 => format!("{}-{}\r\n", 200 + 2 * usize::from(input.byte()), input.text()).into_bytes(),
            4 => [proper.as_bytes(), input.piece()].concat(),
            // A line without an end.
            _ => vec![b'2'; input.below(256) << input.below(14)],
        };
        if writing.write_all(&answer).await.is_err() {
            return;
        }
        in_content |= answer.starts_with(b"354");
        loop {
            line.clear();
            let read = (&mut reading).take(1 << 20).read_until(b'\n', &mut line).await;
            if !read.is_ok_and(|count| count > 0) {
                return;
            }
            if !in_content || line == b".\r\n" {
                break;
            }
        }
        in_content = false;
    }
}
