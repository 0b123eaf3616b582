//! A mail server that does as it is asked, and looks at every byte: what it is for is the wire, not the mail.
//!
//! What it must never see: a line that ends in anything but CRLF, a NUL, a command that this library does not send, a
//! line of a header that is none, a header for those whom nobody sees.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// A running one. It serves as many connections as there are, and ends with its process.
#[derive(Debug)]
pub struct StrictSmtp {
    port: u16,
    taken: Arc<AtomicU64>,
    faults: Arc<AtomicU64>,
}

impl StrictSmtp {
    /// Starts one.
    ///
    /// # Panics
    /// Where there is no port or no thread.
    #[expect(clippy::new_without_default, reason = "it starts threads")]
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (taken, faults) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let server = Self { port, taken: taken.clone(), faults: faults.clone() };
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (taken, faults) = (taken.clone(), faults.clone());
                std::thread::spawn(move || {
                    let served = std::panic::catch_unwind(|| serve(&stream, &taken));
                    if served.is_err() {
                        faults.fetch_add(1, SeqCst);
                    }
                });
            }
        });
        server
    }

    /// Where it listens, in clear.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many messages it has taken.
    ///
    /// # Panics
    /// Where it has seen what it must never see.
    pub fn taken(&self) -> u64 {
        assert_eq!(self.faults.load(SeqCst), 0, "something on the wire was wrong; the server has said what");
        self.taken.load(SeqCst)
    }
}

/// Speaks just enough SMTP. Ends with the connection.
fn serve(stream: &TcpStream, taken: &AtomicU64) {
    let mut reader = BufReader::new(stream);
    // Who does not listen any more is not talked to.
    let say = |text: &str| (&*stream).write_all(text.as_bytes()).is_ok();
    say("220 hello\r\n");
    while let Some(line) = whole_line(&mut reader) {
        let verb = line.split(' ').next().unwrap_or("").to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => say("250-here\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n"),
            "DATA" => {
                say("354 go on\r\n");
                if check_message(&mut reader).is_none() {
                    return;
                }
                taken.fetch_add(1, SeqCst);
                say("250 ok\r\n")
            }
            "MAIL" | "RCPT" => {
                // One address in angle brackets, and nothing behind it but what this library adds.
                let rest = line.rsplit_once('>').expect("an address").1;
                assert!(["", " SMTPUTF8 BODY=8BITMIME"].contains(&rest), "{line:?}");
                say("250 ok\r\n")
            }
            "NOOP" | "RSET" => say("250 ok\r\n"),
            "QUIT" => {
                say("221 bye\r\n");
                return;
            }
            _ => panic!("an injected command: {line:?}"),
        };
    }
}

const HEADERS: [&str; 10] = [
    "Date",
    "From",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];

/// The headers of their own that the messages of these tests have: this one, and at most one of another name.
const OWN: &str = "X-Own";

/// None at the end of the connection.
fn check_message(reader: &mut impl BufRead) -> Option<()> {
    let (mut in_head, mut own) = (true, 0);
    loop {
        let line = whole_line(reader)?;
        if line == "." {
            assert!(own <= 1, "{own} headers of unknown names");
            return Some(());
        }
        if line.is_empty() {
            in_head = false;
        }
        if !in_head || line.starts_with(' ') || line.starts_with('\t') {
            continue;
        }
        let (name, _) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?}"));
        assert!(!name.eq_ignore_ascii_case("bcc"), "{line:?}");
        own += usize::from(!HEADERS.contains(&name) && name != OWN);
    }
}

/// A line without its CRLF. None at the end of the connection, which may come in the middle of one.
fn whole_line(reader: &mut impl BufRead) -> Option<String> {
    let mut bytes = Vec::new();
    // A connection that is reset has ended.
    if reader.read_until(b'\n', &mut bytes).is_err() || !bytes.ends_with(b"\n") {
        return None;
    }
    let line = bytes.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("a raw line feed: {bytes:?}"));
    assert!(!line.iter().any(|byte| [b'\r', b'\n', 0].contains(byte)), "{bytes:?}");
    Some(String::from_utf8(line.to_vec()).expect("UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const ENVELOPE: &str = "EHLO me\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n";

    /// What the server counts after this was sent to it, and it has hung up; none where it was wrong.
    fn taken(text: &str) -> Option<u64> {
        let server = StrictSmtp::new();
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("it listens");
        stream.write_all(text.as_bytes()).expect("it reads");
        stream.shutdown(std::net::Shutdown::Write).expect("a connection");
        // One that has seen enough may reset the connection, which ends it as well.
        let _ = stream.read_to_end(&mut Vec::new());
        catch_unwind(AssertUnwindSafe(|| server.taken())).ok()
    }

    #[test]
    fn a_good_dialogue_is_taken() {
        let message = "DATA\r\nFrom: a@example.org\r\nX-Own: 1\r\n\r\nHello\r\n.\r\nQUIT\r\n";
        assert_eq!(taken(&format!("{ENVELOPE}{message}")), Some(1));
    }

    #[test]
    fn each_planted_fault_is_reported() {
        let head = |header: &str| format!("{ENVELOPE}DATA\r\nFrom: a@example.org\r\n{header}\r\nHello\r\n.\r\n");
        let planted = [
            ("a bare LF in a command", "EHLO me\n".to_owned()),
            ("a bare LF in a message", head("Subject: a\nb\r\n")),
            ("a bare CR", head("Subject: a\rb\r\n")),
            ("a NUL", head("Subject: a\0b\r\n")),
            ("a header for those whom nobody sees", head("Bcc: c@example.org\r\n")),
            ("the same in small letters", head("bcc: c@example.org\r\n")),
            ("a line that is no header", head("Hello\r\n")),
            ("two injected headers", head("X-One: 1\r\nX-Two: 2\r\n")),
            ("an unknown command", "EHLO me\r\nVRFY root\r\n".to_owned()),
            ("an injected parameter", "EHLO me\r\nMAIL FROM:<a@example.org> SIZE=1\r\n".to_owned()),
        ];
        for (what, text) in planted {
            assert_eq!(taken(&text), None, "{what}");
        }
    }
}
