//! What is to be sent: pure data, checked as a whole before anything of it leaves.

use std::fmt;
use std::path::{Path, PathBuf};

use super::address::{Mailbox, shown};
use crate::error::{Error, Result};

/// A message. Nothing is checked while it is put together: [`super::Mailer::send`] checks all of it first, and its
/// `InvalidArgument` names the field (`to[1]`, `attachments[0].path`).
///
/// ```
/// # use coord_core::mail::{Attachment, Message};
/// let message = Message::new()
///     .to("Ann Lee <ann@example.org>")
///     .subject("Grüße")
///     .text("Hello, Ann.")
///     .html("<p>Hello, <b>Ann</b>. <img src=\"cid:logo\"></p>")
///     .inline("logo", Attachment::bytes("logo.png", [0x89, 0x50]))
///     .attach(Attachment::path("/var/reports/may.pdf"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    pub(super) from: Option<Address>,
    pub(super) to: Vec<Address>,
    pub(super) cc: Vec<Address>,
    pub(super) bcc: Vec<Address>,
    pub(super) reply_to: Vec<Address>,
    pub(super) subject: String,
    pub(super) text: Option<String>,
    pub(super) html: Option<String>,
    pub(super) attachments: Vec<Attachment>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) message_id: Option<String>,
    pub(super) date_ms: Option<i64>,
}

/// An address as the user gave it, not checked yet: a text (`Ann <ann@example.org>`), or a name and an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `ann@example.org` or `Ann <ann@example.org>`.
    Text(String),
    /// A name that need not be quoted, and an address.
    Parts {
        /// The name for people; may be empty.
        name: String,
        /// The address.
        address: String,
    },
}

impl Address {
    /// The mailbox that it names.
    ///
    /// # Errors
    /// `InvalidArgument` that says what is wrong.
    pub fn parse(&self) -> Result<Mailbox> {
        match self {
            Self::Text(text) => text.parse(),
            Self::Parts { name, address } => Mailbox::new(name, address),
        }
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<(&str, &str)> for Address {
    /// From a name and an address.
    fn from((name, address): (&str, &str)) -> Self {
        Self::Parts { name: name.to_owned(), address: address.to_owned() }
    }
}

impl From<Mailbox> for Address {
    fn from(mailbox: Mailbox) -> Self {
        Self::Parts { name: mailbox.name().to_owned(), address: mailbox.address().to_owned() }
    }
}

/// A file that goes with a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Attachment {
    pub(super) content: Content,
    pub(super) name: Option<String>,
    pub(super) media_type: Option<String>,
    /// The id by which the HTML names it: `<img src="cid:…">`.
    pub(super) cid: Option<String>,
}

#[derive(Clone, PartialEq)]
pub(super) enum Content {
    Bytes(Vec<u8>),
    Path(PathBuf),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Attachment {
    /// A file with this name and content.
    pub fn bytes(name: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { content: Content::Bytes(content.into()), name: Some(name.to_owned()), media_type: None, cid: None }
    }

    /// The file at this path, read when the message is sent (or put into an outbox), under its own name.
    pub fn path(path: impl AsRef<Path>) -> Self {
        Self { content: Content::Path(path.as_ref().to_owned()), name: None, media_type: None, cid: None }
    }

    /// Gives it another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Sets its media type, such as `application/pdf`. Without this it is guessed from the name.
    pub fn media_type(mut self, media_type: &str) -> Self {
        self.media_type = Some(media_type.to_owned());
        self
    }
}

impl Message {
    /// A message with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets who it is from. Without this it is the mailer's `sender`.
    pub fn from(mut self, from: impl Into<Address>) -> Self {
        self.from = Some(from.into());
        self
    }

    /// Adds a recipient.
    pub fn to(mut self, to: impl Into<Address>) -> Self {
        self.to.push(to.into());
        self
    }

    /// Adds a recipient of a copy, whom all others see.
    pub fn cc(mut self, cc: impl Into<Address>) -> Self {
        self.cc.push(cc.into());
        self
    }

    /// Adds a recipient whom nobody sees: the address is told to the server, and is nowhere in the message.
    pub fn bcc(mut self, bcc: impl Into<Address>) -> Self {
        self.bcc.push(bcc.into());
        self
    }

    /// Adds where replies should go. Without this it is the mailer's `reply_to`, or the sender.
    pub fn reply_to(mut self, reply_to: impl Into<Address>) -> Self {
        self.reply_to.push(reply_to.into());
        self
    }

    /// Sets the subject: any Unicode, on one line.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Sets the plain text. Its line ends may be of any kind.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Sets the HTML. With a text too, readers show the one that they can.
    pub fn html(mut self, html: impl Into<String>) -> Self {
        self.html = Some(html.into());
        self
    }

    /// Adds an attachment.
    pub fn attach(mut self, attachment: Attachment) -> Self {
        self.attachments.push(Attachment { cid: None, ..attachment });
        self
    }

    /// Adds a file that the HTML shows, by this id: `<img src="cid:logo">`.
    pub fn inline(mut self, cid: &str, attachment: Attachment) -> Self {
        self.attachments.push(Attachment { cid: Some(cid.to_owned()), ..attachment });
        self
    }

    /// Adds a header that has no method of its own here.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the Message-ID, `<left@right>`. Without this each message that is sent gets one of its own, which stays
    /// the same in every attempt to send it.
    pub fn message_id(mut self, id: &str) -> Self {
        self.message_id = Some(id.to_owned());
        self
    }

    /// Sets the date, in milliseconds since 1970. Without this it is when it was sent first.
    pub fn date_ms(mut self, date: i64) -> Self {
        self.date_ms = Some(date);
        self
    }

    /// Checks everything that can be checked without reading a file: what [`super::Mailer::send`] checks first.
    /// `sender` is who it is from when it does not say.
    ///
    /// # Errors
    /// `InvalidArgument` that names the field.
    pub(super) fn check(&self, defaults: &Defaults) -> Result<Checked> {
        let from = match (&self.from, &defaults.sender) {
            (Some(from), _) => from.parse().map_err(|error| at("from", &error))?,
            (None, Some(sender)) => sender.clone(),
            (None, None) => return Err(Error::invalid("from: neither the message nor the mailer says who sends")),
        };
        let all = |field, list: &[Address]| -> Result<Vec<Mailbox>> {
            let parse = |(index, address): (usize, &Address)| {
                address.parse().map_err(|error| at(&format!("{field}[{index}]"), &error))
            };
            list.iter().enumerate().map(parse).collect()
        };
        let (to, cc, bcc) = (all("to", &self.to)?, all("cc", &self.cc)?, all("bcc", &self.bcc)?);
        let mut reply_to = all("reply_to", &self.reply_to)?;
        if reply_to.is_empty() {
            reply_to.extend(defaults.reply_to.clone());
        }
        let mut recipients: Vec<Mailbox> = Vec::new();
        for mailbox in to.iter().chain(&cc).chain(&bcc) {
            if recipients.iter().all(|known| known.address() != mailbox.address()) {
                recipients.push(mailbox.clone());
            }
        }
        if recipients.is_empty() {
            return Err(Error::invalid("to: a message has a recipient, in to, cc or bcc"));
        }
        if recipients.len() > MAX_RECIPIENTS {
            return Err(Error::invalid(format!("to: a message has at most {MAX_RECIPIENTS} recipients")));
        }
        one_line("subject", &self.subject)?;
        for (field, body) in [("text", &self.text), ("html", &self.html)] {
            if body.as_ref().is_some_and(|body| body.contains('\0')) {
                return Err(Error::invalid(format!("{field}: it has a NUL character")));
            }
        }
        for (index, (name, value)) in self.headers.iter().enumerate() {
            check_header(name, value).map_err(|error| at(&format!("headers[{index}]"), &error))?;
        }
        for (index, attachment) in self.attachments.iter().enumerate() {
            attachment.check(self.html.is_some()).map_err(|error| at_part(index, &error))?;
        }
        let message_id = self.message_id.as_deref().map(check_id).transpose().map_err(|e| at("message_id", &e))?;
        if self.date_ms.is_some_and(|date| !(0..MAX_DATE_MS).contains(&date)) {
            return Err(Error::invalid("date: a date is in milliseconds since 1970, before the year 10000"));
        }
        Ok(Checked { from, to, cc, reply_to, recipients, message_id })
    }
}

impl Attachment {
    fn check(&self, has_html: bool) -> Result<()> {
        if let Some(name) = &self.name {
            one_line("name", name)?;
            if name.is_empty() || name.len() > MAX_FILE_NAME {
                return Err(Error::invalid(format!("name: a file name has 1 to {MAX_FILE_NAME} bytes")));
            }
        }
        if let Some(media_type) = &self.media_type {
            parse_media_type(media_type)?;
        }
        let Some(cid) = &self.cid else { return Ok(()) };
        let good = |c: char| c.is_ascii_alphanumeric() || "._-@+=".contains(c);
        if cid.is_empty() || cid.len() > 200 || !cid.chars().all(good) {
            return Err(Error::invalid("cid: an id has 1 to 200 ASCII letters, digits and . _ - @ + ="));
        }
        if !has_html {
            return Err(Error::invalid("cid: only a message with html can show an inline file"));
        }
        Ok(())
    }
}

/// Who sends, and where replies go, when a message does not say.
#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    pub(super) sender: Option<Mailbox>,
    pub(super) reply_to: Option<Mailbox>,
}

/// What [`Message::check`] found.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) from: Mailbox,
    pub(super) to: Vec<Mailbox>,
    pub(super) cc: Vec<Mailbox>,
    pub(super) reply_to: Vec<Mailbox>,
    /// Everybody who gets it, once each, in the order to, cc, bcc.
    pub(super) recipients: Vec<Mailbox>,
    pub(super) message_id: Option<String>,
}

impl Checked {
    /// Whether the servers on its way must know SMTPUTF8.
    pub(super) fn needs_utf8(&self) -> bool {
        let headers = self.to.iter().chain(&self.cc).chain(&self.reply_to).chain([&self.from]);
        headers.chain(&self.recipients).any(Mailbox::needs_utf8)
    }
}

pub(super) fn parse_media_type(text: &str) -> Result<lettre::message::header::ContentType> {
    let refuse = || Error::invalid(format!("type: '{}' is not a media type such as text/plain", shown(text)));
    if text.len() > 200 || !text.is_ascii() || text.chars().any(|c| c.is_control()) {
        return Err(refuse());
    }
    let parsed = lettre::message::header::ContentType::parse(text).map_err(|_| refuse())?;
    // An attachment is one file: its parts would need a boundary, and readers would look inside of a message.
    if text.to_ascii_lowercase().starts_with("multipart/") || !text.contains('/') {
        return Err(refuse());
    }
    Ok(parsed)
}

/// An error with the field in front.
pub(super) fn at(field: &str, error: &Error) -> Error {
    Error::new(error.code(), format!("{field}: {}", error.message()))
}

pub(super) fn at_part(index: usize, error: &Error) -> Error {
    Error::new(error.code(), format!("attachments[{index}].{}", error.message()))
}

fn one_line(field: &str, text: &str) -> Result<()> {
    match text.chars().find(|c| c.is_control() && *c != '\t') {
        Some(bad) => Err(Error::invalid(format!("{field}: it has the control character {bad:?}"))),
        None => Ok(()),
    }
}

fn check_header(name: &str, value: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_graphic() && c != ':';
    if name.is_empty() || name.len() > 76 || !name.chars().all(good) {
        let message = format!("'{}' is not the name of a header: 1 to 76 ASCII characters but ':'", shown(name));
        return Err(Error::invalid(message));
    }
    let lower = name.to_ascii_lowercase();
    let own = OWN_HEADERS.contains(&lower.as_str()) || lower.starts_with("content-") || lower.starts_with("resent-");
    if own {
        return Err(Error::invalid(format!("'{name}' is set from the message's own fields, not as a header")));
    }
    one_line("value", value)
}

fn check_id(id: &str) -> Result<String> {
    let inner = id.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(id);
    let good = |c: char| c.is_ascii_graphic() && !"<>()[]\\,;:\"".contains(c);
    let sides = inner.split('@').collect::<Vec<_>>();
    if sides.len() != 2 || sides.iter().any(|side| side.is_empty()) || inner.len() > 250 || !inner.chars().all(good) {
        return Err(Error::invalid(format!("'{}' is not a Message-ID such as <a1b2@example.org>", shown(id))));
    }
    Ok(format!("<{inner}>"))
}

/// The headers that come from fields, or from servers.
const OWN_HEADERS: [&str; 11] =
    ["from", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id", "mime-version", "return-path", "received"];

const MAX_RECIPIENTS: usize = 1_000;
const MAX_FILE_NAME: usize = 255;
/// The first moment of the year 10000, which a date cannot show.
const MAX_DATE_MS: i64 = 253_402_300_800_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Message {
        Message::new().from("a@example.org").to("b@example.org").subject("s").text("t")
    }

    #[test]
    fn mistakes_name_their_field() {
        for (message, needle) in [
            (Message::new().to("b@example.org"), "from:"),
            (Message::new().from("a@example.org"), "to:"),
            (good().to("nobody"), "to[1]:"),
            (good().cc(("Eve\r\nBcc: x@y.z", "c@example.org")), "cc[0]:"),
            (good().bcc("x@y.z\r\nDATA"), "bcc[0]:"),
            (good().reply_to("?"), "reply_to[0]:"),
            (good().subject("a\r\nBcc: x@y.z"), "subject:"),
            (good().subject("a\nb"), "subject:"),
            (good().text("a\0"), "text:"),
            (good().header("X-A", "a\r\nBcc: x@y.z"), "headers[0]:"),
            (good().header("X-A\r\nBcc", "x@y.z"), "headers[0]:"),
            (good().header("Bcc", "x@y.z"), "headers[0]:"),
            (good().header("", "x"), "headers[0]:"),
            (good().attach(Attachment::bytes("a\n", *b"x")), "attachments[0].name"),
            (good().attach(Attachment::bytes("a", *b"x").media_type("x\r\ny/z")), "attachments[0].type"),
            (good().attach(Attachment::bytes("a", *b"x").media_type("multipart/mixed")), "attachments[0].type"),
            (good().inline("a", Attachment::bytes("a", *b"x")), "attachments[0].cid"),
            (good().html("x").inline("a>\r\n", Attachment::bytes("a", *b"x")), "attachments[0].cid"),
            (good().message_id("<a\r\n@b>"), "message_id:"),
            (good().date_ms(-1), "date:"),
        ] {
            let error = message.check(&Defaults::default()).unwrap_err();
            assert_eq!(error.code(), crate::Code::InvalidArgument);
            assert!(error.message().starts_with(needle), "{needle}: {error}");
            assert!(!error.message().contains(['\r', '\n']), "{error:?}");
        }
    }

    #[test]
    fn everybody_gets_it_once() {
        let message = good().cc("b@example.org").bcc("c@example.org").to("d@example.org");
        let checked = message.check(&Defaults::default()).unwrap();
        let addresses: Vec<_> = checked.recipients.iter().map(Mailbox::address).collect();
        assert_eq!(addresses, ["b@example.org", "d@example.org", "c@example.org"]);
    }
}
