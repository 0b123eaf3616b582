//! What became of a message, recipient by recipient.

use serde_json::json;

/// What a server said about each recipient of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The message's id, the same in every attempt.
    pub message_id: String,
    /// How often it was tried: connected for, and begun.
    pub attempts: u32,
    /// Everybody who was to get it, once each, in the order to, cc, bcc.
    pub recipients: Vec<Recipient>,
}

/// One recipient, and what became of the message for them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recipient {
    /// The address, its domain in ASCII.
    pub address: String,
    /// Whether the server has taken the message for them.
    pub status: Status,
    /// The server's code, such as 250, 450 or 550; 0 where it gave none.
    pub code: u16,
    /// The server's text, or what went wrong.
    pub text: String,
    /// Whether it is useless to try again: the server said so.
    pub permanent: bool,
}

/// Whether the server has taken a message for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// It has: from now on the message is the server's.
    Accepted,
    /// It has not.
    Rejected,
    /// The connection broke after all of the message was sent and before the server had answered. It may have it, so
    /// nothing is sent again by itself.
    Unknown,
}

impl Status {
    /// The name in JSON, in Go and in Python: `accepted`, `rejected` or `unknown`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Accepted, Self::Rejected, Self::Unknown].into_iter().find(|status| status.name() == name)
    }
}

impl Report {
    /// Whether every recipient was accepted.
    pub fn all_accepted(&self) -> bool {
        self.recipients.iter().all(|recipient| recipient.status == Status::Accepted)
    }

    /// The report as JSON: `message_id`, `attempts`, and `recipients` with `address`, `status`, `code`, `text` and
    /// `permanent` each.
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    /// The same as a value.
    pub fn to_value(&self) -> serde_json::Value {
        let recipients: Vec<_> = self.recipients.iter().map(Recipient::to_value).collect();
        json!({"message_id": self.message_id, "attempts": self.attempts, "recipients": recipients})
    }
}

impl Recipient {
    pub(super) fn to_value(&self) -> serde_json::Value {
        json!({
            "address": self.address,
            "status": self.status.name(),
            "code": self.code,
            "text": self.text,
            "permanent": self.permanent,
        })
    }
}
