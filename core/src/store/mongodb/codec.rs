//! Records to documents and back. A document that this library cannot have written is `CorruptState`; fields that
//! it does not know are left alone, in reading and in writing.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Bson, Document, doc};

use crate::error::{Code, Error, Result};
use crate::protocol::claim::{ClaimKey, ClaimRecord, ClaimView, Entry};
use crate::protocol::roster::ProviderRecord;
use crate::protocol::session::{LockFile, Nonce, SessionId, SessionInfo, SessionRecord, Vitality};
use crate::store::changes::ClaimState;
use crate::time::WallTime;

/// A claim from its whole document.
pub(super) fn claim(document: &Document) -> Result<ClaimRecord> {
    let fields = Fields::of("lock", document)?;
    Ok(ClaimRecord {
        key: ClaimKey::new(fields.id),
        holder: fields.entry("own")?,
        waiters: fields.entries("q")?,
        token: fields.integer("tok")?.unwrap_or(0),
        granted_at: fields.date("at")?.unwrap_or_default(),
        value: fields.text("val")?.map(str::to_owned),
        breaking: fields.entry("brk")?,
    })
}

/// A claim from the answer to a write (see `pipeline::view_of`), as the entry sees it which that has added.
///
/// A write that the driver has sent twice, since a connection broke or a primary stepped down, and that was applied the
/// first time, is answered with what the server has kept of it: the whole document, whatever fields were asked for.
pub(super) fn view(document: &Document, added: Option<&Entry>) -> Result<ClaimView> {
    if !document.contains_key("len") {
        return Ok(claim(document)?.view(added));
    }
    let fields = Fields::of("lock", document)?;
    Ok(ClaimView {
        holder: fields.entry("own")?,
        token: fields.integer("tok")?.unwrap_or(0),
        granted_at: fields.date("at")?.unwrap_or_default(),
        waiting: matches!(document.get("waiting"), Some(Bson::Boolean(true))),
        head: fields.entries("head")?,
        queue_len: fields.integer("len")?.and_then(|len| u32::try_from(len).ok()).unwrap_or(0),
    })
}

/// A session from its document.
pub(super) fn session(document: &Document) -> Result<SessionRecord> {
    let fields = Fields::of("session", document)?;
    let id = fields.id.parse().map_err(|error| fields.wrong("_id", &format!("{error}")))?;
    let vitality = match fields.text("st")? {
        Some("live") => Vitality::Live,
        Some("dead") => Vitality::Dead,
        _ => return Err(fields.wrong("st", "it is neither 'live' nor 'dead'")),
    };
    let nonce = fields.integer("n")?.map(Nonce);
    let ttl = fields.integer("ttl")?;
    // Only a tombstone, which is dead from its first moment, has neither.
    if vitality == Vitality::Live && nonce.is_none() {
        return Err(fields.wrong("n", "a live session has one"));
    }
    let ttl = match (vitality, ttl) {
        (_, Some(ms)) if ms > 0 => Duration::from_millis(ms.unsigned_abs()),
        (Vitality::Dead, None) => Duration::ZERO,
        _ => return Err(fields.wrong("ttl", "it is a positive number of milliseconds")),
    };
    Ok(SessionRecord {
        id,
        vitality,
        nonce,
        ttl,
        seen: fields.date("seen")?.unwrap_or_default(),
        died: fields.date("died")?,
        clean: fields.flag("clean")?,
        info: decode_info(&fields)?,
        opened: fields.date("opened")?.unwrap_or_default(),
        revision: fields.integer("rv")?.unwrap_or(0),
        providers: fields
            .list("prov")?
            .iter()
            .map(|provider| decode_provider(&fields, provider))
            .collect::<Result<_>>()?,
    })
}

/// What those who look on may know of a claim, from its document.
pub(super) fn claim_state(document: &Document) -> Result<ClaimState> {
    let fields = Fields::of("lock", document)?;
    let holder = fields.entry("own")?;
    Ok(ClaimState {
        key: ClaimKey::new(fields.id),
        holder,
        token: fields.integer("tok")?.unwrap_or(0),
        granted_at: fields.date("at")?.unwrap_or_default(),
        value: fields.text("val")?.map(str::to_owned).filter(|_| holder.is_some()),
    })
}

/// A provider as part of its session's document.
pub(super) fn encode_provider(provider: &ProviderRecord) -> Document {
    doc! { "k": &provider.key, "s": &provider.service, "m": &provider.metadata }
}

fn decode_provider(session: &Fields<'_>, provider: &Bson) -> Result<ProviderRecord> {
    let text = |key| provider.as_document().and_then(|document| document.get_str(key).ok()).map(str::to_owned);
    let decoded = (|| Some(ProviderRecord { key: text("k")?, service: text("s")?, metadata: text("m")? }))();
    decoded.ok_or_else(|| session.wrong("prov", "a provider is a document of the texts k, s and m"))
}

/// The session's `info` as a document. Labels are pairs in a list, since their keys may hold dots and dollars.
pub(super) fn encode_info(info: &SessionInfo) -> Document {
    let labels: Vec<Document> = info.labels.iter().map(|(k, v)| doc! { "k": k, "v": v }).collect();
    let mut document = doc! {
        "name": &info.name, "labels": labels, "host": &info.host, "boot": &info.boot,
        "pid": i64::from(info.pid), "start": info.start.cast_signed(), "pv": i64::from(info.pv),
    };
    if let Some(lk) = info.lk {
        // Bit for bit: device and inode numbers may use all of 64 bits.
        document.insert("lk", doc! { "dev": lk.dev.cast_signed(), "ino": lk.ino.cast_signed(), "btime": lk.btime });
    }
    document
}

fn decode_info(session: &Fields<'_>) -> Result<SessionInfo> {
    let Some(document) = session.document("info")? else { return Ok(SessionInfo::default()) };
    let fields = Fields { document, ..*session };
    let text = |key| Ok::<_, Error>(fields.text(key)?.unwrap_or_default().to_owned());
    let number = |key| Ok::<_, Error>(fields.integer(key)?.unwrap_or(0));
    let small = |key| Ok::<_, Error>(u32::try_from(number(key)?).unwrap_or(0));
    let mut labels = BTreeMap::new();
    for label in fields.list("labels")? {
        let pair = label.as_document().and_then(|label| Some((label.get_str("k").ok()?, label.get_str("v").ok()?)));
        let (key, value) = pair.ok_or_else(|| fields.wrong("labels", "a label is a document of k and v"))?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    let lk = match fields.document("lk")? {
        None => None,
        Some(document) => {
            let file = Fields { document, ..*session };
            let bits = |key| Ok::<_, Error>(file.integer(key)?.unwrap_or(0));
            Some(LockFile {
                dev: bits("dev")?.cast_unsigned(),
                ino: bits("ino")?.cast_unsigned(),
                btime: bits("btime")?,
            })
        }
    };
    Ok(SessionInfo {
        name: text("name")?,
        labels,
        host: text("host")?,
        boot: text("boot")?,
        pid: small("pid")?,
        start: number("start")?.cast_unsigned(),
        lk,
        pv: small("pv")?,
    })
}

/// The fields of one document, read with their types checked. A null is the same as nothing.
#[derive(Clone, Copy)]
struct Fields<'a> {
    kind: &'static str,
    id: &'a str,
    document: &'a Document,
}

impl<'a> Fields<'a> {
    fn of(kind: &'static str, document: &'a Document) -> Result<Self> {
        let id = document
            .get_str("_id")
            .map_err(|_| Error::new(Code::CorruptState, format!("the store holds a {kind} whose _id is not a text")))?;
        Ok(Self { kind, id, document })
    }

    fn get(&self, key: &str) -> Option<&'a Bson> {
        self.document.get(key).filter(|value| !matches!(value, Bson::Null))
    }

    fn typed<T>(&self, key: &str, wanted: &str, cast: impl Fn(&'a Bson) -> Option<T>) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => cast(value)
                .map(Some)
                .ok_or_else(|| self.wrong(key, &format!("it is {:?}, not {wanted}", value.element_type()))),
        }
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a text", Bson::as_str)
    }

    fn integer(&self, key: &str) -> Result<Option<i64>> {
        self.typed(key, "an integer", |value| value.as_i64().or_else(|| value.as_i32().map(i64::from)))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.typed(key, "true or false", Bson::as_bool)?.unwrap_or(false))
    }

    fn date(&self, key: &str) -> Result<Option<WallTime>> {
        self.typed(key, "a date", |value| value.as_datetime().map(|date| WallTime(date.timestamp_millis())))
    }

    fn document(&self, key: &str) -> Result<Option<&'a Document>> {
        self.typed(key, "a document", Bson::as_document)
    }

    fn list(&self, key: &str) -> Result<&'a [Bson]> {
        Ok(self.typed(key, "a list", |value| value.as_array().map(Vec::as_slice))?.unwrap_or_default())
    }

    fn entry(&self, key: &str) -> Result<Option<Entry>> {
        self.text(key)?.map(|text| self.parsed(key, text)).transpose()
    }

    fn entries(&self, key: &str) -> Result<Vec<Entry>> {
        self.list(key)?
            .iter()
            .map(|value| self.parsed(key, value.as_str().ok_or_else(|| self.wrong(key, "an element is no text"))?))
            .collect()
    }

    fn parsed(&self, key: &str, text: &str) -> Result<Entry> {
        text.parse().map_err(|error| self.wrong(key, &format!("{error}")))
    }

    fn wrong(&self, key: &str, why: &str) -> Error {
        let Self { kind, id, .. } = self;
        Error::new(Code::CorruptState, format!("the field '{key}' of the {kind} '{id}' in the store is corrupt: {why}"))
    }
}

/// The pattern that matches the entries of a session, and can use an index.
pub(super) fn entries_of(id: SessionId) -> Bson {
    Bson::RegularExpression(bson::Regex {
        pattern: format!("^{id}/").try_into().expect("hexadecimal digits hold no zero byte"),
        options: String::new().try_into().expect("an empty text holds no zero byte"),
    })
}

/// The condition that a text begins with another, for which an index serves.
pub(super) fn begins_with(prefix: &str) -> Bson {
    // Every key sorts below the prefix and the last of all characters.
    doc! { "$gte": prefix, "$lt": format!("{prefix}\u{10ffff}") }.into()
}
