//! Documents of MongoDB that somebody else wrote: a record or an error.

use coord_core::error::Code;
use coord_core::store::mongodb::testing;
use mongodb::bson::{Bson, DateTime, Document, doc};

use crate::input::Input;

/// What documents are made of.
pub const WORDS: &[&str] = &[
    "_id",
    "own",
    "q",
    "tok",
    "at",
    "val",
    "brk",
    "brt",
    "st",
    "live",
    "dead",
    "n",
    "ttl",
    "seen",
    "died",
    "info",
    "labels",
    "k",
    "v",
    "lk",
    "dev",
    "ino",
    "btime",
    "00000000000000000000000000000001/1/800",
];

const FIELDS: [&str; 18] = [
    "own", "q", "tok", "at", "val", "brk", "st", "n", "ttl", "seen", "died", "info", "labels", "k", "v", "lk", "name",
    "pid",
];

/// Reads bytes as a document, and a document that is almost right, as a claim and as a session.
pub fn play(bytes: &[u8]) {
    if let Ok(document) = Document::from_reader(bytes) {
        read(&document);
    }
    let mut input = Input::new(bytes);
    let mut document = doc! {
        "_id": "00000000000000000000000000000001", "own": "00000000000000000000000000000001/1/800", "q": [], "tok": 5_i64,
        "st": "live", "n": 1_i64, "ttl": 10_000_i64, "seen": DateTime::from_millis(0), "info": { "name": "n", "labels": [] },
    };
    while !input.is_empty() {
        let field = FIELDS[input.below(FIELDS.len())];
        let value = value(&mut input, 0);
        if input.byte() < 128 {
            document.insert(field, value);
        } else if let Ok(info) = document.get_document_mut("info") {
            info.insert(field, value);
        }
    }
    read(&document);
}

pub(crate) fn value(input: &mut Input<'_>, depth: u8) -> Bson {
    match input.below(12) {
        0 => Bson::Null,
        1 => Bson::Boolean(true),
        2 => Bson::Int32(i32::from(input.byte())),
        3 => Bson::Int64(input.number()),
        4 => Bson::Double(f64::from_bits(input.number().cast_unsigned())),
        5 => Bson::DateTime(DateTime::from_millis(input.number())),
        6 => Bson::String(input.text()),
        7 => Bson::String(format!("{:032x}/{}/800", input.byte(), input.byte())),
        8 | 9 if depth < 4 => Bson::Array((0..input.below(4)).map(|_| value(input, depth + 1)).collect()),
        10 if depth < 4 => {
            let fields = (0..input.below(4)).map(|_| (FIELDS[input.below(FIELDS.len())], value(input, depth + 1)));
            Bson::Document(fields.map(|(key, value)| (key.to_owned(), value)).collect())
        }
        _ => Bson::Undefined,
    }
}

fn read(document: &Document) {
    if let Err(error) = testing::claim(document) {
        assert_eq!(error.code(), Code::CorruptState, "{error}");
    }
    if let Err(error) = testing::session(document) {
        assert_eq!(error.code(), Code::CorruptState, "{error}");
    }
}
