//! A mail server that keeps what has arrived. The first copy of one mail it takes without ever saying so, so that its
//! sender can be killed in doubt.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

/// The key of the mail whose first copy is not answered.
pub const STALLED: &str = "stalled";

/// A mail that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Its subject, which is its key.
    pub key: String,
    /// Its Message-ID.
    pub id: String,
}

/// A running server. Ends with the process; its connections end with their clients.
#[derive(Clone, Debug)]
pub struct Post {
    port: u16,
    answers_all: Arc<AtomicBool>,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl Post {
    /// Starts one.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let post = Self { port: listener.local_addr()?.port(), answers_all: Arc::default(), arrived: Arc::default() };
        let served = post.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let served = served.clone();
                // A client that is killed breaks off, which ends its connection.
                std::thread::spawn(move || drop(served.serve(&stream)));
            }
        });
        Ok(post)
    }

    /// The URL by which it is reached.
    pub fn url(port: u16) -> String {
        format!("smtp://127.0.0.1:{port}?tls=none&sender=shop@example.org&retry_min=10ms&retry_max=50ms")
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on it answers whoever sends, also the first copy of that one mail.
    pub fn answer_all(&self) {
        self.answers_all.store(true, SeqCst);
    }

    /// Everything that has arrived.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut writer = stream;
        writer.write_all(b"220 hello\r\n")?;
        let mut line = String::new();
        while {
            line.clear();
            reader.read_line(&mut line)? > 0
        } {
            match line.get(..4).unwrap_or_default() {
                "EHLO" => writer.write_all(b"250-here\r\n250 8BITMIME\r\n")?,
                "DATA" => {
                    writer.write_all(b"354 go on\r\n")?;
                    let Some(mail) = read_mail(&mut reader)? else { return Ok(()) };
                    if self.keep(mail) {
                        writer.write_all(b"250 taken\r\n")?;
                    }
                }
                "QUIT" => return writer.write_all(b"221 bye\r\n"),
                _ => writer.write_all(b"250 ok\r\n")?,
            }
        }
        Ok(())
    }

    /// Keeps it. Whether the client is told.
    fn keep(&self, mail: Arrived) -> bool {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let first = mail.key == STALLED && !arrived.iter().any(|one| one.key == STALLED);
        let tell = !first || self.answers_all.load(SeqCst);
        arrived.push(mail);
        tell
    }
}

/// None where the connection ends before the mail does.
fn read_mail(reader: &mut impl BufRead) -> std::io::Result<Option<Arrived>> {
    let mut mail = Arrived { key: String::new(), id: String::new() };
    let mut line = String::new();
    while {
        line.clear();
        reader.read_line(&mut line)? > 0
    } {
        let text = line.trim_end();
        if text == "." {
            return Ok(Some(mail));
        }
        if let Some(subject) = text.strip_prefix("Subject: ") {
            subject.clone_into(&mut mail.key);
        } else if let Some(id) = text.strip_prefix("Message-ID: ") {
            id.clone_into(&mut mail.id);
        }
    }
    Ok(None)
}
