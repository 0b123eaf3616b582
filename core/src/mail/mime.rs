//! From a message to the bytes on the wire. Pure, but for the files that it reads.
//!
//! Invariants: the bytes are lines that end in CRLF, none longer than 998 characters; no header has a raw line break of
//! the user's; nothing of `bcc` is in them. They are ASCII unless an address is not.

use std::fs::File;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lettre::message::header::{self, ContentDisposition, ContentId, ContentTransferEncoding, ContentType, Headers};
use lettre::message::{Body, Mailboxes, MultiPart, SinglePart};

use super::address::{Mailbox, shown};
use super::message::{Attachment, Checked, Content, Message, at_part, parse_media_type};
use crate::error::{Error, Result};
use crate::time::WallTime;

/// The message as it is sent: who gets it, and the bytes.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) from: Mailbox,
    pub(super) recipients: Vec<Mailbox>,
    pub(super) message_id: String,
    pub(super) utf8: bool,
    pub(super) bytes: Vec<u8>,
}

impl Message {
    /// Reads the files that are named by paths, so that the message needs none any more.
    ///
    /// # Errors
    /// `InvalidArgument` that names the attachment: no such file, not a regular one, or more than `max_size` bytes in
    /// all.
    pub(super) fn load_files(&mut self, max_size: usize) -> Result<()> {
        let mut left = max_size;
        for (index, attachment) in self.attachments.iter_mut().enumerate() {
            let size = attachment.load(left, max_size).map_err(|error| at_part(index, &error))?;
            left -= size;
        }
        Ok(())
    }

    /// Whether it takes no time worth a thread to make the bytes: it has no files to read, and little to encode.
    pub(super) fn is_light(&self) -> bool {
        let attached = self.attachments.iter().map(|part| match &part.content {
            Content::Bytes(bytes) => Some(bytes.len()),
            Content::Path(_) => None,
        });
        let texts = [Some(&self.subject), self.text.as_ref(), self.html.as_ref()];
        let texts = texts.into_iter().flatten().chain(self.headers.iter().map(|(_, value)| value));
        let size = attached.chain(texts.map(|text| Some(text.len()))).sum::<Option<usize>>();
        size.is_some_and(|size| size <= LIGHT)
    }

    /// The message in bytes. Its files must have been read.
    ///
    /// # Errors
    /// `InvalidArgument` when it has more than `max_size` bytes.
    pub(super) fn wire(&self, checked: Checked, message_id: &str, date: WallTime, max_size: usize) -> Result<Wire> {
        let mut bytes = self.head(&checked, message_id, date).into_bytes();
        bytes.extend(self.body());
        if bytes.len() > max_size {
            return Err(Error::invalid(format!(
                "message: it has {} bytes on the wire, more than the {max_size} that max_size allows",
                bytes.len()
            )));
        }
        let utf8 = checked.needs_utf8();
        Ok(Wire { from: checked.from, recipients: checked.recipients, message_id: message_id.to_owned(), utf8, bytes })
    }

    fn head(&self, checked: &Checked, message_id: &str, date: WallTime) -> String {
        let list = |mailboxes: &[Mailbox]| mailboxes.iter().map(Mailbox::lettre).collect::<Mailboxes>();
        let mut headers = Headers::new();
        headers.set(header::Date::new(date.system_time()));
        headers.set(header::From::from(list(std::slice::from_ref(&checked.from))));
        if !checked.reply_to.is_empty() {
            headers.set(header::ReplyTo::from(list(&checked.reply_to)));
        }
        if !checked.to.is_empty() {
            headers.set(header::To::from(list(&checked.to)));
        }
        if !checked.cc.is_empty() {
            headers.set(header::Cc::from(list(&checked.cc)));
        }
        let mut head = headers.to_string();
        if !self.subject.is_empty() {
            head.push_str(&header_line("Subject", &self.subject));
        }
        head.push_str(&format!("Message-ID: {message_id}\r\n"));
        for (name, value) in &self.headers {
            head.push_str(&header_line(name, value));
        }
        head.push_str("MIME-Version: 1.0\r\n");
        head
    }

    /// The content's own headers, an empty line, and the content: text and HTML as alternatives, what the HTML shows
    /// beside it, and around all of that what is attached.
    fn body(&self) -> Vec<u8> {
        let (inline, attached): (Vec<_>, Vec<_>) = self.attachments.iter().partition(|part| part.cid.is_some());
        let text = self.text.as_deref().map(|text| Part::Single(body(ContentType::TEXT_PLAIN, text)));
        let html = self.html.as_deref().map(|html| {
            let html = body(ContentType::TEXT_HTML, html);
            if inline.is_empty() {
                return Part::Single(html);
            }
            let related = MultiPart::related().singlepart(html);
            Part::Multi(inline.iter().fold(related, |all, part| all.singlepart(part.single())))
        });
        let shown = match (text, html) {
            (Some(text), Some(html)) => Part::Multi(html.within(text.within(MultiPart::alternative().build()))),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Part::Single(body(ContentType::TEXT_PLAIN, "")),
        };
        let all = match attached.as_slice() {
            [] => shown,
            files => {
                let mixed = shown.within(MultiPart::mixed().build());
                Part::Multi(files.iter().fold(mixed, |all, part| all.singlepart(part.single())))
            }
        };
        match all {
            Part::Single(part) => {
                let mut bytes = part.formatted();
                // A text that ends its last line needs no further end of line.
                if bytes.ends_with(b"\r\n\r\n") && !part.raw_body().is_empty() {
                    bytes.truncate(bytes.len() - 2);
                }
                bytes
            }
            Part::Multi(part) => part.formatted(),
        }
    }
}

enum Part {
    Single(SinglePart),
    Multi(MultiPart),
}

impl Part {
    fn within(self, all: MultiPart) -> MultiPart {
        match self {
            Self::Single(part) => all.singlepart(part),
            Self::Multi(part) => all.multipart(part),
        }
    }
}

fn body(content_type: ContentType, text: &str) -> SinglePart {
    // One kind of line end, which becomes CRLF: a lone CR or LF would end a line for some servers and not for others.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    SinglePart::builder().header(content_type).body(Body::new(text))
}

impl Attachment {
    /// How many bytes it has, at most `left`; then its content is in memory.
    fn load(&mut self, left: usize, max_size: usize) -> Result<usize> {
        let too_large = |field: &str| {
            Err(Error::invalid(format!("{field}: the attachments have more than the {max_size} bytes of max_size")))
        };
        let path = match &self.content {
            Content::Bytes(bytes) if bytes.len() > left => return too_large("base64"),
            Content::Bytes(bytes) => return Ok(bytes.len()),
            Content::Path(path) => path,
        };
        let refuse = |why: String| Error::invalid(format!("path: '{}' {why}", shown(&path.to_string_lossy())));
        let metadata = std::fs::metadata(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        if !metadata.is_file() {
            return Err(refuse("is not a file".to_owned()));
        }
        if metadata.len() > left as u64 {
            return too_large("path");
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        // It may grow while it is read.
        let read = File::open(path).and_then(|file| file.take(left as u64 + 1).read_to_end(&mut bytes));
        read.map_err(|error| refuse(format!("cannot be read: {error}")))?;
        if bytes.len() > left {
            return too_large("path");
        }
        if self.name.is_none() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.name = Some(name.chars().map(|c| if c.is_control() { '_' } else { c }).collect());
        }
        let size = bytes.len();
        self.content = Content::Bytes(bytes);
        Ok(size)
    }

    fn single(&self) -> SinglePart {
        let Content::Bytes(bytes) = &self.content else { unreachable!("the files have been read") };
        let content_type = match &self.media_type {
            // Checked before.
            Some(text) => parse_media_type(text).unwrap_or(ContentType::TEXT_PLAIN),
            None => self.guessed_type(bytes),
        };
        let mut part = SinglePart::builder().header(content_type);
        part = match (&self.cid, &self.name) {
            (None, name) => part.header(ContentDisposition::attachment(name.as_deref().unwrap_or("attachment"))),
            (Some(cid), name) => {
                part = part.header(ContentId::from(format!("<{cid}>")));
                part.header(match name {
                    Some(name) => ContentDisposition::inline_with_name(name),
                    None => ContentDisposition::inline(),
                })
            }
        };
        // Always base64: whatever the bytes are, they arrive as they were.
        let encoded = Body::new_with_encoding(bytes.clone(), ContentTransferEncoding::Base64);
        part.body(encoded.unwrap_or_else(|bytes| Body::dangerous_pre_encoded(bytes, ContentTransferEncoding::Binary)))
    }

    fn guessed_type(&self, bytes: &[u8]) -> ContentType {
        let guess = self.name.as_deref().and_then(|name| mime_guess::from_path(name).first_raw());
        let text = match guess {
            // A message inside of a message must not be encoded, and what is attached always is.
            None => UNKNOWN_TYPE.to_owned(),
            Some(guess) if guess.starts_with("message/") || guess.starts_with("multipart/") => UNKNOWN_TYPE.to_owned(),
            Some(guess) if guess.starts_with("text/") && std::str::from_utf8(bytes).is_ok() => {
                format!("{guess}; charset=utf-8")
            }
            Some(guess) => guess.to_owned(),
        };
        ContentType::parse(&text).unwrap_or(ContentType::TEXT_PLAIN)
    }
}

/// So many bytes are encoded in about the time in which another thread begins.
pub(super) const LIGHT: usize = 64 << 10;

const UNKNOWN_TYPE: &str = "application/octet-stream";

/// A header with its line end: as it is where that is safe, else all of it in encoded words (RFC 2047), folded. Never
/// folded before its first word: some readers take that for a space.
fn header_line(name: &str, value: &str) -> String {
    let mut line = format!("{name}: ");
    let plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && !value.contains("=?")
        && !value.contains("  ")
        && value.trim() == value
        && value.split(' ').all(|word| word.len() <= MAX_WORD);
    let mut width = line.len();
    let mut put = |index: usize, word: &str| {
        if index > 0 && width + 1 + word.len() > MAX_WIDTH {
            line.push_str("\r\n");
            width = 0;
        }
        if index > 0 {
            line.push(' ');
            width += 1;
        }
        line.push_str(word);
        width += word.len();
    };
    if plain {
        value.split(' ').enumerate().for_each(|(index, word)| put(index, word));
    } else {
        let first = (MAX_WIDTH.saturating_sub(name.len() + 2 + ENCODING) / 4 * 3).clamp(LONGEST_CHAR, BYTES_IN_WORD);
        encoded_words(value, first).enumerate().for_each(|(index, word)| put(index, &word));
    }
    line.push_str("\r\n");
    line
}

/// The text as encoded words, the first of `first` bytes: a reader puts them together without the spaces between them.
fn encoded_words(text: &str, first: usize) -> impl Iterator<Item = String> {
    let mut rest = text;
    let mut room = first;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = rest.len().min(room);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (word, after) = rest.split_at(end);
        (rest, room) = (after, BYTES_IN_WORD);
        Some(format!("=?utf-8?b?{}?=", BASE64.encode(word)))
    })
}

/// Where lines are folded.
const MAX_WIDTH: usize = 76;
/// Longer words would make lines that servers may cut.
const MAX_WORD: usize = 900;
/// What fits into an encoded word of 75 characters.
const BYTES_IN_WORD: usize = 45;
/// What is around the base64 of an encoded word.
const ENCODING: usize = "=?utf-8?b??=".len();
/// The bytes of the longest character: no encoded word ends inside of one.
const LONGEST_CHAR: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::message::Defaults;
    use super::*;

    fn sent(message: &Message) -> String {
        let checked = message.check(&Defaults::default()).unwrap();
        let wire = message.wire(checked, "<id@example.org>", WallTime(1_700_000_000_000), 1 << 20).unwrap();
        String::from_utf8(wire.bytes).unwrap()
    }

    fn good() -> Message {
        Message::new().from("a@example.org").to("b@example.org").subject("Hello").text("Line one\nline two")
    }

    #[test]
    fn a_plain_message() {
        assert_eq!(
            sent(&good()),
            "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\nFrom: a@example.org\r\nTo: b@example.org\r\nSubject: Hello\r\n\
             Message-ID: <id@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: 7bit\r\n\r\nLine one\r\nline two\r\n"
        );
    }

    #[test]
    fn nobody_sees_bcc() {
        let wire = sent(&good().bcc("Hidden <hidden@example.org>"));
        assert!(!wire.to_ascii_lowercase().contains("bcc") && !wire.contains("idden"), "{wire}");
    }

    #[test]
    fn a_subject_that_looks_encoded_is_encoded() {
        assert!(header_line("Subject", "=?utf-8?q?x?=").contains(&BASE64.encode("=?utf-8?q?x?=")));
        assert_eq!(header_line("X", ""), "X: \r\n");
        assert_eq!(header_line("X", "a b"), "X: a b\r\n");
        assert!(header_line("X", "a  b").contains("=?utf-8?b?"));
    }

    #[test]
    fn the_size_is_limited() {
        let message = good().text("x".repeat(2_000));
        let checked = message.check(&Defaults::default()).unwrap();
        let error = message.wire(checked, "<id@example.org>", WallTime(0), 1_000).unwrap_err();
        assert!(error.message().starts_with("message:"), "{error}");
    }

    #[test]
    fn files_are_checked_before_they_are_read() {
        for (path, needle) in
            [("/nowhere/at/all", "cannot be read"), ("/", "not a file"), ("/dev/zero", "not a file"), ("a\0b", "path")]
        {
            let error = good().attach(Attachment::path(path)).load_files(1_000).unwrap_err();
            assert!(error.message().starts_with("attachments[0].path:"), "{error}");
            assert!(error.message().contains(needle), "{error}");
        }
        let error = good().attach(Attachment::path("/proc/self/exe")).load_files(10).unwrap_err();
        assert!(error.message().contains("max_size"), "{error}");
    }

    #[test]
    fn lines_stay_short() {
        let long = "wort ".repeat(300);
        for line in sent(&good().subject(long.trim()).header("X-Long", &"ü".repeat(3_000))).lines() {
            assert!(line.len() <= 78, "{line}");
        }
        for line in sent(&good().text("x".repeat(5_000))).lines() {
            assert!(line.len() <= 998);
        }
    }
}
