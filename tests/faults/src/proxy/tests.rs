//! Proxies before a server that answers each byte with itself, and keeps what it was sent.

use std::io::{Read, Write};
use std::net::{TcpListener as Listener, TcpStream as Stream};
use std::sync::mpsc::{self, Receiver};

use bson::doc;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// Long enough for what passes to be there, on a machine that is not too busy: where it is, less is noticed.
const A_WHILE: Duration = Duration::from_millis(300);

#[test]
fn who_connects_is_read_from_its_first_message() {
    let bytes = |message: bson::Document| message.to_vec().expect("a document");
    let of_server = bytes(doc! { "hello": 1, "hostInfo": "some.host:27018", "client": { "driver": "x" } });
    assert_eq!(party_of(&of_server), Some(Party::Server(27018)));
    let of_client = bytes(doc! { "hello": 1, "client": { "application": { "name": "coord-worker-go3" } } });
    assert_eq!(party_of(&of_client), Some(Party::Client("go3".into())));
    assert_eq!(party_of(b"hostInfo\0"), None);
}

/// A client of such a server.
struct Talk {
    weather: Weather,
    client: Stream,
    heard: Receiver<u8>,
    server: u16,
    _runtime: tokio::runtime::Runtime,
}

impl Talk {
    fn begin() -> Self {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let server = listener.local_addr().expect("an address").port();
        let (hear, heard) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut byte = [0];
            while let Ok(1) = stream.read(&mut byte) {
                let _ = hear.send(byte[0]);
                let _ = stream.write_all(&byte);
            }
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (runtime, weather) = (runtime.expect("a runtime"), Weather::default());
        let port = runtime.block_on(start(Ipv4Addr::LOCALHOST, server, weather.clone())).expect("a proxy");
        let client = Stream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection");
        let mut talk = Self { weather, client, heard, server, _runtime: runtime };
        let name = format!("{TAG}c1.");
        talk.say(name.as_bytes());
        assert_eq!(talk.arrive(name.len()), name.as_bytes());
        assert_eq!(talk.answered(name.len(), PATIENCE), name.as_bytes());
        talk
    }

    fn say(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).expect("the connection is open");
    }

    /// What comes to the server next.
    fn arrive(&self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.heard.recv_timeout(PATIENCE).expect("it arrives")).collect()
    }

    /// What comes back, within this time.
    fn answered(&mut self, count: usize, within: Duration) -> Vec<u8> {
        self.client.set_read_timeout(Some(within)).expect("a time");
        let mut answer = vec![0; count];
        let mut there = 0;
        while there < count {
            match self.client.read(&mut answer[there..]) {
                Ok(more @ 1..) => there += more,
                _ => break,
            }
        }
        answer.truncate(there);
        answer
    }

    fn is_not_answered(&mut self) {
        assert_eq!(self.answered(1, A_WHILE), b"");
    }
}

#[test]
fn one_way_can_be_cut_while_the_other_is_open() {
    let mut talk = Talk::begin();
    let (client, server) = (Party::Client("c1".into()), Party::Server(talk.server));
    for (cut, whom) in [(Cut::Received, &client), (Cut::Sent, &server)] {
        talk.weather.cut(whom, Some(cut));
        talk.say(b"x");
        assert_eq!(talk.arrive(1), b"x", "requests arrive");
        talk.is_not_answered();
        talk.weather.cut(whom, None);
        assert_eq!(talk.answered(1, PATIENCE), b"x");
    }
    for (cut, whom) in [(Cut::Sent, &client), (Cut::Received, &server), (Cut::Both, &client), (Cut::Both, &server)] {
        talk.weather.cut(whom, Some(cut));
        talk.say(b"y");
        talk.is_not_answered();
        assert!(talk.heard.try_recv().is_err(), "no request arrives");
        talk.weather.cut(whom, None);
        assert_eq!(talk.answered(1, PATIENCE), b"y");
        assert_eq!(talk.arrive(1), b"y");
    }
    // Of somebody else's.
    talk.weather.cut(&Party::Client("c2".into()), Some(Cut::Both));
    talk.weather.part_server(talk.server, true);
    talk.say(b"z");
    assert_eq!(talk.answered(1, PATIENCE), b"z");
}

#[test]
fn what_is_late_or_sent_again_comes_in_order() {
    let mut talk = Talk::begin();
    talk.weather.set_lossy(true);
    let begun = Instant::now();
    let all: Vec<u8> = (0..200).collect();
    for byte in &all {
        talk.say(&[*byte]);
        assert_eq!(talk.answered(1, PATIENCE), [*byte]);
    }
    assert_eq!(talk.arrive(all.len()), all);
    // Of 400 pieces some twenty are lost; that not even three are happens once in a million times.
    assert!(begun.elapsed() > SENT_AGAIN.0 * 3, "nothing was late: {:?}", begun.elapsed());
    talk.weather.heal();
    let (shortest, longest) = (Duration::from_millis(100), Duration::from_millis(150));
    talk.weather.set_delay(shortest, longest);
    let begun = Instant::now();
    talk.say(b"x");
    assert_eq!(talk.answered(1, PATIENCE), b"x");
    assert!(begun.elapsed() >= shortest * 2, "it was not late: {:?}", begun.elapsed());
}

#[test]
fn a_trouble_ends_with_everything_through() {
    let mut talk = Talk::begin();
    let client = Party::Client("c1".into());
    for kind in TROUBLES {
        let (weather, whom) = (talk.weather.clone(), client.clone());
        let length = if kind == "flaps" { FLAP * 4 } else { A_WHILE * 2 };
        let conditions = talk.weather.0.subscribe();
        let trouble = std::thread::spawn(move || weather.trouble(&whom, kind, length));
        let (mut cuts, mut before) = (0, false);
        while !trouble.is_finished() {
            let now = conditions.borrow().cuts.contains_key(&client);
            cuts += usize::from(now && !before);
            before = now;
            // A look at what is so, not a wait for it: how often it changes is what is counted.
            std::thread::sleep(Duration::from_millis(5));
        }
        trouble.join().expect("it ends");
        assert_eq!(cuts, if kind == "flaps" { 2 } else { 1 }, "{kind}");
        talk.say(b"x");
        assert_eq!(talk.answered(1, PATIENCE), b"x", "{kind}");
        assert_eq!(talk.arrive(1), b"x");
    }
}

#[test]
fn a_reset_closes_the_connections_of_one() {
    let mut talk = Talk::begin();
    talk.weather.reset(&Party::Client("c2".into()));
    talk.say(b"x");
    assert_eq!(talk.answered(1, PATIENCE), b"x");
    talk.weather.reset(&Party::Client("c1".into()));
    talk.client.set_read_timeout(Some(PATIENCE)).expect("a time");
    assert!(matches!(talk.client.read(&mut [0]), Ok(0) | Err(_)));
}
