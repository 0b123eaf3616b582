//! What an outbox keeps of a mail, and what its states mean. Pure.
//!
//! `queued` → `claimed` → `sending` → `sent`, `failed`, `parked`, or `queued` again; `expired` and `cancelled` from
//! `queued`. *Claimed* is certainly not sent. *Sending* is written before the final dot, so a mail in that state whose
//! sender died may be sent. Every change from `claimed` and `sending` is conditional on the claim's name (`by`): the
//! sender's session and the number of its claim, which nobody else ever has.

use bson::{Bson, Document, doc};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::report::{Recipient, Status};
use crate::error::{Code, Error, Result};

/// Where a mail is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MailState {
    /// It waits for its time, or for a sender. Certainly not being sent.
    Queued,
    /// A sender is about to send it, or does.
    Sending,
    /// The server has taken it for everybody who can have it; recipients that were refused are in the list.
    Sent,
    /// Nobody can have it: refused for good, or tried too often.
    Failed,
    /// Whether it was sent is not known, and the outbox sends nothing twice: a person decides, by `retry` or `cancel`.
    Parked,
    /// Its time was over before it could be sent.
    Expired,
    /// A person took it back.
    Cancelled,
}

impl MailState {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Sending, Self::Sent, Self::Failed, Self::Parked, Self::Expired, Self::Cancelled];

    /// The name, as in JSON: `queued`, `sending`, `sent`, `failed`, `parked`, `expired`, `cancelled`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Parked => "parked",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of this name.
    ///
    /// # Errors
    /// `InvalidArgument` that lists the names.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|state| state.name()).collect();
            Error::invalid(format!("a mail's state is one of {}", names.join(", ")))
        })
    }

    /// Whether nothing happens to it any more by itself.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Sent | Self::Failed | Self::Expired | Self::Cancelled)
    }

    /// Its states in the store.
    pub(super) fn stored(self) -> Vec<&'static str> {
        match self {
            Self::Queued => vec![QUEUED, CLAIMED],
            other => vec![other.name()],
        }
    }
}

/// The state of a mail that a sender has chosen and not begun to send: shown as `queued`.
pub(super) const CLAIMED: &str = "claimed";
pub(super) const QUEUED: &str = MailState::Queued.name();
pub(super) const SENDING: &str = MailState::Sending.name();

/// A mail of an outbox, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mail {
    /// Its id in the outbox, made of its key.
    pub id: String,
    /// The key that it was enqueued with.
    pub key: String,
    /// Where it is on its way.
    pub state: MailState,
    /// How often it was begun to be sent.
    pub attempts: u32,
    /// Its Message-ID, the same in every copy.
    pub message_id: String,
    /// When it was enqueued, in milliseconds since 1970 by the store's clock.
    pub created_ms: i64,
    /// When it may be sent, or tried again.
    pub due_ms: i64,
    /// When it is not to be sent any more; none if never.
    pub expires_ms: Option<i64>,
    /// When it came to its last state; none before.
    pub finished_ms: Option<i64>,
    /// Whether a copy may have been sent without anybody knowing: then another one may be a second one.
    pub maybe_sent: bool,
    /// What is known of each recipient so far; empty before the first attempt.
    pub recipients: Vec<Recipient>,
    /// What happened last, in words; empty if nothing did.
    pub last: String,
    /// What senders have found out about it when it was no longer theirs: a copy that was sent beside.
    pub late: Vec<String>,
    /// The session that sends it now; empty if none does.
    pub sender: String,
}

impl Mail {
    /// The mail as JSON: these fields; times in milliseconds since 1970 under `created`, `due`, `expires`, `finished`.
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    /// The same as a value.
    pub fn to_value(&self) -> serde_json::Value {
        json!({
            "id": self.id,
            "key": self.key,
            "state": self.state.name(),
            "attempts": self.attempts,
            "message_id": self.message_id,
            "created": self.created_ms,
            "due": self.due_ms,
            "expires": self.expires_ms,
            "finished": self.finished_ms,
            "maybe_sent": self.maybe_sent,
            "recipients": self.recipients.iter().map(Recipient::to_value).collect::<Vec<_>>(),
            "last": self.last,
            "late": self.late,
            "sender": self.sender,
        })
    }
}

/// A mail's record: the mail, and what only senders need.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) mail: Mail,
    /// The key of the document.
    pub(super) document_id: String,
    pub(super) stored_state: String,
    /// The message in JSON; none any more when it needs no sending, and where it was not read.
    pub(super) message: Option<String>,
    pub(super) by: String,
    /// The stamp of the write that recorded an outcome, so that a sender knows its own again.
    pub(super) stamp: String,
    /// A person wants it sent to those as well who were refused it for good.
    pub(super) again: bool,
}

/// The id of the mail with this key.
pub(super) fn id_of(key: &str) -> String {
    Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Record {
    pub(super) fn read(document: &Document) -> Result<Self> {
        let text = |name: &str| document.get_str(name).unwrap_or_default().to_owned();
        let number = |name: &str| match document.get(name) {
            Some(Bson::Int64(number)) => *number,
            Some(Bson::Int32(number)) => i64::from(*number),
            _ => 0,
        };
        let document_id = text("_id");
        let stored_state = text("st");
        let shown = if stored_state == CLAIMED { QUEUED } else { stored_state.as_str() };
        let corrupt = |_| {
            Error::new(Code::CorruptState, format!("the outbox has a mail in a state that it cannot have: '{shown}'"))
        };
        let some = |number: i64| (number > 0).then_some(number);
        let mail = Mail {
            id: document_id.rsplit('/').next().unwrap_or_default().to_owned(),
            key: text("key"),
            state: MailState::from_name(shown).map_err(corrupt)?,
            attempts: u32::try_from(number("att")).unwrap_or(0),
            message_id: text("mid"),
            created_ms: number("at"),
            due_ms: number("due"),
            expires_ms: some(number("exp")),
            finished_ms: some(number("done")),
            maybe_sent: document.get_bool("maybe").unwrap_or(false),
            recipients: document.get_array("to").map_or_else(|_| Vec::new(), |list| recipients(list)),
            last: text("last"),
            late: document
                .get_array("late")
                .map_or_else(|_| Vec::new(), |list| list.iter().filter_map(Bson::as_str).map(str::to_owned).collect()),
            sender: text("sid"),
        };
        let message = document.get_str("msg").ok().filter(|text| !text.is_empty()).map(str::to_owned);
        Ok(Self {
            mail,
            document_id,
            stored_state,
            message,
            by: text("by"),
            stamp: text("stamp"),
            again: document.get_bool("again").unwrap_or(false),
        })
    }
}

fn recipients(list: &[Bson]) -> Vec<Recipient> {
    list.iter()
        .filter_map(Bson::as_document)
        .filter_map(|one| {
            let permanent = one.get_bool("permanent").unwrap_or(false);
            Some(Recipient {
                address: one.get_str("address").ok()?.to_owned(),
                status: Status::from_name(one.get_str("status").ok()?)?,
                code: u16::try_from(one.get_i64("code").unwrap_or(0)).unwrap_or(0),
                text: one.get_str("text").unwrap_or_default().to_owned(),
                permanent,
            })
        })
        .collect()
}

pub(super) fn recipients_bson(list: &[Recipient]) -> Vec<Bson> {
    list.iter()
        .map(|one| {
            Bson::Document(doc! {
                "address": &one.address,
                "status": one.status.name(),
                "code": i64::from(one.code),
                "text": &one.text,
                "permanent": one.permanent,
            })
        })
        .collect()
}

/// What becomes of a mail after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) state: MailState,
    pub(super) maybe: bool,
}

/// The rule: who is settled is settled; who is in doubt is sent to again or not at all, as `park` says; who was refused
/// for now is tried again unless that was the last attempt.
pub(super) fn next(recipients: &[Recipient], park: bool, last_attempt: bool) -> Next {
    let any = |wanted: fn(&Recipient) -> bool| recipients.iter().any(wanted);
    let doubt = any(|one| one.status == Status::Unknown);
    let again = any(|one| one.status == Status::Rejected && !one.permanent);
    let accepted = any(|one| one.status == Status::Accepted);
    let state = if doubt && (park || last_attempt) {
        MailState::Parked
    } else if doubt || (again && !last_attempt) {
        MailState::Queued
    } else if accepted {
        MailState::Sent
    } else {
        MailState::Failed
    };
    Next { state, maybe: doubt }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(status: Status, permanent: bool) -> Recipient {
        Recipient { address: "a@b.c".into(), status, code: 0, text: String::new(), permanent }
    }

    #[test]
    fn the_rule() {
        let accepted = one(Status::Accepted, false);
        let never = one(Status::Rejected, true);
        let later = one(Status::Rejected, false);
        let doubt = one(Status::Unknown, false);
        for (list, park, last, state) in [
            (vec![&accepted], false, false, MailState::Sent),
            (vec![&accepted, &never], false, false, MailState::Sent),
            (vec![&never], false, false, MailState::Failed),
            (vec![&accepted, &later], false, false, MailState::Queued),
            (vec![&later], false, true, MailState::Failed),
            (vec![&accepted, &later], false, true, MailState::Sent),
            (vec![&doubt], false, false, MailState::Queued),
            (vec![&doubt], true, false, MailState::Parked),
            (vec![&doubt, &accepted], true, false, MailState::Parked),
            (vec![&doubt], false, true, MailState::Parked),
        ] {
            let list: Vec<_> = list.into_iter().cloned().collect();
            let next = next(&list, park, last);
            assert_eq!(next.state, state, "{list:?}");
            assert_eq!(next.maybe, list.iter().any(|one| one.status == Status::Unknown));
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let document = doc! {
            "_id": "default/default/o/abc", "key": "k", "st": "claimed", "att": 2_i64, "mid": "<a@b>", "at": 1_i64,
            "due": 2_i64, "exp": 0_i64, "maybe": true, "to": recipients_bson(&[one(Status::Rejected, true)]),
            "by": "s/1", "sid": "s", "msg": "{}",
        };
        let record = Record::read(&document).unwrap();
        assert_eq!((record.mail.id.as_str(), record.mail.state), ("abc", MailState::Queued));
        assert_eq!(record.mail.recipients, [one(Status::Rejected, true)]);
        assert_eq!((record.mail.expires_ms, record.mail.attempts), (None, 2));
        assert!(Record::read(&doc! { "_id": "x", "st": "odd" }).is_err());
    }

    #[test]
    fn ids_are_those_of_the_keys() {
        assert_eq!(id_of("a").len(), 64);
        assert_ne!(id_of("a"), id_of("b"));
    }
}
