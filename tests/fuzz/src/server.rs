//! Servers that are not what they say: random bytes in the place of a MongoDB server's answers. An error in time, and
//! nothing is left behind.

use std::time::Duration;

use coord_core::env::Env;
use coord_core::store::mongodb::MongoStore;
use mongodb::bson::{Document, doc};
use once_cell::sync::Lazy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::documents;
use crate::input::Input;

/// What answers are made of.
pub const WORDS: &[&str] =
    &["ok", "isWritablePrimary", "maxWireVersion", "setName", "hosts", "cursor", "firstBatch", "errmsg", "code"];

static RUNTIME: Lazy<Runtime> = Lazy::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});

/// How long a client tries: longer than what it takes to come to the first answers.
const PATIENCE: Duration = Duration::from_millis(300);

/// Several servers at once, since each is mostly waited for.
const AT_ONCE: usize = 8;

/// Lets clients connect to servers that answer with parts of the input.
pub fn play(bytes: &[u8]) {
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
    let server = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, address.port(), answers.clone()));
        }
    });
    let uri = format!("mongodb://localhost:{}/?replicaSet=rs", address.port());
    let env = Env::system(tokio::runtime::Handle::current());
    let opening = MongoStore::open(&uri, "f_", 4, Duration::from_secs(3), env);
    if let Ok(Ok(store)) = tokio::time::timeout(PATIENCE, opening).await {
        use coord_core::store::Store;
        store.close().await;
    }
    server.abort();
}

/// Answers each request: at first as a primary would, then with what the input says.
async fn serve(mut stream: TcpStream, port: u16, answers: Vec<u8>) {
    let mut input = Input::new(&answers);
    let mut honest = input.below(4);
    loop {
        let mut header = [0; 16];
        if stream.read_exact(&mut header).await.is_err() {
            return;
        }
        let word = |at: usize| i32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let mut body = vec![0; usize::try_from(word(0)).unwrap_or(16).saturating_sub(16).min(1 << 20)];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        if input.is_empty() && honest == 0 {
            return;
        }
        let hello = doc! {
            "ok": 1, "isWritablePrimary": true, "setName": "rs", "setVersion": 1, "minWireVersion": 0, "maxWireVersion": 17,
            "hosts": [format!("localhost:{port}")], "me": format!("localhost:{port}"), "primary": format!("localhost:{port}"),
            "maxBsonObjectSize": 1 << 24, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
            "logicalSessionTimeoutMinutes": 30,
        };
        let kind = if honest > 0 { 0 } else { input.below(5) };
        honest = honest.saturating_sub(1);
        let answer = match kind {
            0 => message(word(4), &hello),
            1 => input.piece().to_vec(),
            2 => message(word(4), &strange(&mut input)),
            3 => {
                let mut message = message(word(4), &hello);
                for _ in 0..input.below(6) {
                    let at = input.below(message.len());
                    message[at] = input.byte();
                }
                message
            }
            _ => message(word(4), &doc! { "ok": 0, "code": input.number() as i32, "errmsg": input.text() }),
        };
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// An answer whose fields are of any type.
fn strange(input: &mut Input<'_>) -> Document {
    let mut answer = doc! { "ok": 1 };
    for name in WORDS {
        if input.byte() < 128 {
            answer.insert(*name, documents::value(input, 0));
        }
    }
    answer
}

/// An OP_MSG with one document.
fn message(to: i32, document: &Document) -> Vec<u8> {
    let mut body = Vec::new();
    document.to_writer(&mut body).expect("a document");
    let mut message = Vec::new();
    for word in [body.len() as i32 + 21, 1, to, 2013, 0] {
        message.extend_from_slice(&word.to_le_bytes());
    }
    message.push(0);
    message.extend_from_slice(&body);
    message
}
