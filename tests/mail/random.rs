//! Random addresses and headers: never a panic, and never a raw line break in a header on the wire.
//!
//! 20,000 of them; as many as the variable `COORD_MAIL_INPUTS` says, to look longer. What the library takes is sent to
//! a server that looks at the bytes ([`StrictSmtp`]). `tests/fuzz` plays the same with inputs that come from elsewhere.

use coord_core::mail::{Attachment, Mailer, Message};
use coord_tests::servers::StrictSmtp;

const INPUTS: u64 = 20_000;

/// xorshift64*: a seed is a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn text(&mut self, most: usize) -> String {
        const GOOD: [&str; 33] = [
            "a",
            "b",
            "Z",
            "0",
            ".",
            "..",
            "@",
            "<",
            ">",
            "\"",
            "\\",
            ",",
            ";",
            ":",
            "(",
            ")",
            "[",
            "]",
            " ",
            "  ",
            "\t",
            "\u{feff}",
            "\u{202e}",
            "=?utf-8?q?",
            "?=",
            "ä",
            "я",
            "文",
            "👍",
            "%",
            "xn--",
            "\u{301}",
            "example.org",
        ];
        const BAD: [&str; 9] =
            ["\r", "\n", "\r\n", "\0", "\u{7f}", "\u{85}", "\u{2028}", "\r\nBcc: x@y.z", "\r\n.\r\n"];
        let piece = |random: &mut Self| match random.below(60) {
            0 => BAD[random.below(BAD.len())],
            _ => GOOD[random.below(GOOD.len())],
        };
        (0..self.below(most + 1)).map(|_| piece(self)).collect()
    }

    fn address(&mut self) -> String {
        match self.below(6) {
            0 => self.text(12),
            1 => format!("{}@{}", self.text(3), self.text(3)),
            2 => format!("{} <{}@example.org>", self.text(6), self.text(2)),
            3 => format!("a{}@example.org", self.text(2)),
            4 => format!("a@{}.org", self.text(2)),
            _ => format!("{} <ann@example.org>", self.text(8)),
        }
    }

    fn message(&mut self) -> Message {
        let mut message = Message::new().text("x");
        message = if self.below(2) == 0 { message.to("ann@example.org") } else { message.to(self.address()) };
        for _ in 0..self.below(2) {
            message = message.cc(self.address()).bcc(self.address());
        }
        if self.below(3) == 0 {
            message = message.from(self.address()).reply_to(self.address());
        }
        if self.below(2) == 0 {
            message = message.subject(self.text(30));
        }
        if self.below(3) == 0 {
            let name = if self.below(2) == 0 { "X-Own".to_owned() } else { self.text(4) };
            message = message.header(&name, &self.text(20));
        }
        if self.below(4) == 0 {
            message = message.html("y").inline(&self.text(2), Attachment::bytes(&self.text(6), *b"z"));
        }
        if self.below(4) == 0 {
            message = message.attach(Attachment::bytes(&self.text(6), *b"z").media_type(&self.text(3)));
        }
        if self.below(8) == 0 {
            message = message.message_id(&self.text(5));
        }
        message
    }
}

#[test]
fn no_input_breaks_a_header() {
    let inputs = std::env::var("COORD_MAIL_INPUTS").map_or(INPUTS, |text| text.parse().expect("a number"));
    let server = StrictSmtp::new();
    let url = format!("smtp://127.0.0.1:{}?tls=none&sender=shop@example.org&retries=0&idle_timeout=600", server.port());
    let mailer = Mailer::open(&url).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut random, mut sent) = (Random(0x5EED), 0);
    for input in 0..inputs {
        let message = random.message();
        let again = Message::from_json(&message.to_json()).expect("what it writes, it reads");
        assert_eq!(again, message);
        match runtime.block_on(mailer.send(&message)) {
            Ok(report) => sent += u64::from(report.all_accepted()),
            Err(error) => {
                assert_eq!(error.code(), coord_core::Code::InvalidArgument, "input {input}: {message:?}: {error}");
                assert!(!error.message().contains(['\r', '\n']), "input {input}: {error:?}");
            }
        }
    }
    runtime.block_on(mailer.close()).unwrap();
    assert_eq!(server.taken(), sent);
    assert!(sent * 20 > inputs, "only {sent} of {inputs} inputs were taken: the test looks at too little");
    eprintln!("{inputs} inputs, of which {sent} were sent");
}
