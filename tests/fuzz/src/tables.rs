//! Filters, orders, projections, updates and documents that somebody else wrote, through tables: an error that says so,
//! or the same answer from the store in memory and from SQLite, whose answers come by other ways.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use coord_core::bson::raw::CString;
use coord_core::bson::{Binary, Bson, DateTime, Document, Regex, Timestamp, doc, oid::ObjectId, spec::BinarySubtype};
use coord_core::client::Client;
use coord_core::driver::Runtime;
use coord_core::error::{Code, Error, Result};
use coord_core::table::{FindOptions, Index, Projection, Sort, Stored, Table, WriteOptions};
use once_cell::sync::Lazy;

use crate::input::Input;
use crate::sys::scratch;

/// What documents, filters and updates are made of.
pub const WORDS: &[&str] = &["$set", "$in", "$and", "$regex", "$push", "$each", "_id", "a.b", "a.0", "\u{3}", "\u{4}"];

const FIELDS: [&str; 14] =
    ["a", "b", "a.b", "a.0", "a.b.c", "a.0.b", "b.1", "_id", "_id.a", "", "a.", ".a", "a..b", "$a"];

const TESTS: [&str; 14] = [
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$exists",
    "$not",
    "$regex",
    "$options",
    "$elemMatch",
    "$size",
];

const LOGIC: [&str; 5] = ["$and", "$or", "$nor", "$comment", "$where"];

const CHANGES: [&str; 10] =
    ["$set", "$unset", "$setOnInsert", "$inc", "$min", "$max", "$push", "$addToSet", "$pull", "$rename"];

/// The most calls that one input makes.
const MOST: usize = 24;
/// How deeply values lie in one another.
const DEPTH: u8 = 5;

static STORES: Lazy<[Client; 2]> = Lazy::new(|| {
    let runtime = Runtime::shared().expect("a runtime");
    let file = scratch().join("tables.db");
    let sqlite = format!("sqlite:///{}?coord.durability=normal", file.display());
    ["memory:tables".to_owned(), sqlite].map(|url| {
        let connected = async move { coord_core::connect(&url).await };
        runtime.wait(connected, Some(Duration::from_secs(60)), None).expect("a client")
    })
});

/// Makes the same calls on both stores.
pub fn play(bytes: &[u8]) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("t{}", COUNT.fetch_add(1, Relaxed));
    let tables = STORES.each_ref().map(|client| client.table(&name).expect("a table"));
    let bytes = bytes.to_vec();
    let playing = async move {
        let mut input = Input::new(&bytes);
        let mut alike = true;
        for _ in 0..MOST {
            if input.is_empty() || !alike {
                break;
            }
            alike = step(&tables, &mut input).await;
        }
        if alike {
            let everything = FindOptions::default();
            let all = [
                find(&tables[0], Document::new(), &everything).await,
                find(&tables[1], Document::new(), &everything).await,
            ];
            same("all", &all[0], &all[1]);
        }
        for table in &tables {
            table.drop_table().await?;
        }
        Ok(())
    };
    let runtime = Runtime::shared().expect("a runtime");
    runtime.wait(playing, Some(Duration::from_secs(60)), None).expect("the stores work");
}

/// One call on both; whether they are still alike.
async fn step(tables: &[Table; 2], input: &mut Input<'_>) -> bool {
    let no = WriteOptions::default;
    let (kind, key) = (input.below(14), key(input));
    match kind {
        0..8 => {
            let (document, update) = match kind {
                0..4 => (document(input), Document::new()),
                _ => (Document::new(), update(input)),
            };
            let mut written = Vec::new();
            for table in tables {
                let (key, document, update) = (key.clone(), document.clone(), update.clone());
                let written_here = match kind {
                    0 => table.insert(key, document, no()).await,
                    1 => table.put(key, document, no()).await,
                    2 => table.replace(key, document, no()).await,
                    3 => table.locate(key, document, no()).await,
                    4 | 5 => table.update(key, update, no()).await,
                    6 => table.upsert(key, update, no()).await,
                    _ => table.delete(key, no()).await,
                };
                written.push(written_here.map(|written| vec![bytes_of(&written.document)]));
            }
            same(&format!("write {kind} of {key}: {document} {update}"), &written[0], &written[1]);
        }
        8 | 9 => {
            let (filter, update) = (filter(input, 0), update(input));
            let mut counts = Vec::new();
            for table in tables {
                let (filter, update) = (filter.clone(), update.clone());
                let written = match kind {
                    8 => table.update_many(filter, update, no()).await,
                    _ => table.delete_many(filter, no()).await,
                };
                counts.push(written.map(|written| vec![written.count.to_le_bytes().to_vec()]));
            }
            let what = format!("write {kind} to {filter}: {update}");
            if counts.iter().all(Result::is_ok) || refused(tables, kind, &filter, &update).await {
                same(&what, &counts[0], &counts[1]);
                return true;
            }
            // Which ones were written before the first that could not be is nobody's promise, nor is why that was.
            for count in &counts {
                let code = count.as_ref().err().map(Error::code);
                let known = kind == 8 && matches!(code, Some(Code::AlreadyExists | Code::InvalidArgument));
                assert!(known, "{what}: {counts:?}");
            }
            return false;
        }
        10 => {
            let fields = (0..=input.below(2)).map(|_| (field(input), input.byte() < 128)).collect();
            let (unique, sparse) = (input.byte() < 64, input.byte() < 64);
            let index = Index { fields, unique, sparse, ..Index::default() };
            let mut made = Vec::new();
            for table in tables {
                made.push(table.ensure_indexes(vec![index.clone()]).await.map(|()| Vec::new()));
            }
            same(&format!("{index:?}"), &made[0], &made[1]);
        }
        _ => {
            let filter = filter(input, 0);
            let mut options = FindOptions::default();
            if input.byte() < 128 {
                order(input, &mut options);
            }
            if input.byte() < 64 {
                options.projection = Projection::parse(numbers(input)).ok();
            }
            let found =
                [find(&tables[0], filter.clone(), &options).await, find(&tables[1], filter.clone(), &options).await];
            same(&format!("find {filter} {options:?}"), &found[0], &found[1]);
            let mut counts = Vec::new();
            for table in tables {
                counts.push(table.count(filter.clone()).await.map(|count| vec![count.to_le_bytes().to_vec()]));
            }
            same(&format!("count {filter}"), &counts[0], &counts[1]);
        }
    }
    true
}

/// Whether a store refuses the filter or the update by itself, whatever there is: then nothing was written.
async fn refused(tables: &[Table; 2], kind: usize, filter: &Document, update: &Document) -> bool {
    for table in tables {
        let nothing = doc! { "_id": { "$in": [] } };
        if table.count(filter.clone()).await.is_err()
            || (kind == 8 && table.update_many(nothing, update.clone(), WriteOptions::default()).await.is_err())
        {
            return true;
        }
    }
    false
}

type Answer = Result<Vec<Vec<u8>>>;

/// What was found: in the order that was asked for, which leaves none equal, or else in one of ours.
async fn find(table: &Table, filter: Document, options: &FindOptions) -> Answer {
    let found = table.find(filter, options.clone()).await?;
    let mut found: Vec<Vec<u8>> = found.iter().map(|stored: &Stored| bytes_of(&stored.document)).collect();
    if options.sort.is_none() {
        found.sort();
    }
    Ok(found)
}

/// An order in which no two documents are equal, and a part of it.
fn order(input: &mut Input<'_>, options: &mut FindOptions) {
    let mut fields = numbers(input);
    if !fields.contains_key("_id") {
        fields.insert("_id", if input.byte() < 128 { 1 } else { -1 });
    }
    options.sort = Sort::parse(fields).ok();
    if options.sort.is_some() {
        options.skip = input.below(3) as u64;
        options.limit = (input.byte() < 64).then(|| input.below(4) as u64);
    }
}

fn same(what: &str, memory: &Answer, sqlite: &Answer) {
    for answer in [memory, sqlite] {
        if let Err(error) = answer {
            use Code::{AlreadyExists, InvalidArgument, NotFound, Unsupported};
            let known = matches!(error.code(), AlreadyExists | InvalidArgument | NotFound | Unsupported);
            assert!(known, "{what}: {error:?}");
        }
    }
    match (memory, sqlite) {
        (Ok(one), Ok(other)) => assert_eq!(one, other, "{what}"),
        (Err(one), Err(other)) => assert_eq!(one.code(), other.code(), "{what}: {one} / {other}"),
        _ => panic!("{what}: {memory:?} in memory, {sqlite:?} on SQLite"),
    }
}

/// NaN equals itself so.
fn bytes_of(document: &Document) -> Vec<u8> {
    document.to_vec().expect("a document")
}

fn key(input: &mut Input<'_>) -> Bson {
    match input.below(8) {
        0..4 => Bson::Int32(i32::from(input.byte() % 6)),
        4 => Bson::String("k".into()),
        5 => Bson::Int64(i64::from(input.byte() % 6)),
        6 => Bson::Document(doc! { "a": 1 }),
        _ => value(input, 0),
    }
}

fn field(input: &mut Input<'_>) -> String {
    match input.byte() {
        byte @ 0..230 => FIELDS[usize::from(byte) % FIELDS.len()].to_owned(),
        _ => input.text(),
    }
}

/// Bytes as they come, or fields with values.
fn document(input: &mut Input<'_>) -> Document {
    if input.byte() >= 240 {
        return Document::from_reader(input.piece()).unwrap_or_default();
    }
    let mut document = Document::new();
    for _ in 0..input.below(4) {
        let name = if input.byte() < 200 { ["a", "b", "c"][input.below(3)].to_owned() } else { field(input) };
        document.insert(name, value(input, 0));
    }
    document
}

fn numbers(input: &mut Input<'_>) -> Document {
    let mut document = Document::new();
    for _ in 0..=input.below(3) {
        let number = if input.byte() < 240 { Bson::Int32([1, -1, 0][input.below(3)]) } else { value(input, 3) };
        document.insert(field(input), number);
    }
    document
}

fn filter(input: &mut Input<'_>, depth: u8) -> Document {
    if input.byte() >= 245 {
        return Document::from_reader(input.piece()).unwrap_or_default();
    }
    let mut filter = Document::new();
    for _ in 0..input.below(3) {
        if input.byte() < 60 && depth < DEPTH {
            let parts: Vec<Bson> = (0..input.below(4)).map(|_| filter_value(input, depth)).collect();
            filter.insert(LOGIC[input.below(LOGIC.len())], parts);
        } else {
            let test = test(input, depth);
            filter.insert(field(input), test);
        }
    }
    filter
}

fn filter_value(input: &mut Input<'_>, depth: u8) -> Bson {
    if input.byte() < 250 { Bson::Document(filter(input, depth + 1)) } else { value(input, 3) }
}

fn test(input: &mut Input<'_>, depth: u8) -> Bson {
    if input.byte() < 80 || depth >= DEPTH {
        return value(input, 0);
    }
    let mut tests = Document::new();
    for _ in 0..=input.below(2) {
        let name = TESTS[input.below(TESTS.len())];
        let what = match name {
            "$not" if input.byte() < 230 => test(input, depth + 1),
            "$in" | "$nin" if input.byte() < 230 => Bson::Array((0..input.below(4)).map(|_| value(input, 1)).collect()),
            "$regex" if input.byte() < 230 => Bson::String(format!("^{}", input.text())),
            _ => value(input, 0),
        };
        tests.insert(name, what);
    }
    Bson::Document(tests)
}

fn update(input: &mut Input<'_>) -> Document {
    if input.byte() >= 245 {
        return Document::from_reader(input.piece()).unwrap_or_default();
    }
    let mut update = Document::new();
    for _ in 0..=input.below(3) {
        let name = CHANGES[input.below(CHANGES.len())];
        let mut fields = Document::new();
        for _ in 0..=input.below(2) {
            let what = if input.byte() < 40 {
                Bson::Document(doc! { "$each": (0..input.below(4)).map(|_| value(input, 1)).collect::<Vec<_>>() })
            } else {
                value(input, 0)
            };
            fields.insert(field(input), what);
        }
        update.insert(name, if input.byte() < 250 { Bson::Document(fields) } else { value(input, 3) });
    }
    update
}

fn value(input: &mut Input<'_>, depth: u8) -> Bson {
    match input.below(20) {
        0 => Bson::Null,
        1 => Bson::Boolean(input.byte() < 128),
        2..5 => Bson::Int32(i32::from(input.byte() % 4)),
        5 => Bson::Int64(input.number()),
        6 => Bson::Double(f64::from_bits(input.number().cast_unsigned())),
        7 => Bson::Double(f64::from(input.byte()) / 2.0),
        8 => Bson::DateTime(DateTime::from_millis(input.number())),
        9 => Bson::String(input.text()),
        10 => Bson::Binary(Binary { subtype: BinarySubtype::from(input.byte()), bytes: input.piece().to_vec() }),
        11 => Bson::Timestamp(Timestamp { time: input.number() as u32, increment: u32::from(input.byte()) }),
        12 => Bson::ObjectId(ObjectId::from_bytes([input.byte(); 12])),
        13 => {
            // In the order that a reader of BSON gives them.
            let options = CString::try_from(["", "i", "im", "msx"][input.below(4)]);
            match (CString::try_from(input.text()), options) {
                (Ok(pattern), Ok(options)) => Bson::RegularExpression(Regex { pattern, options }),
                _ => Bson::Null,
            }
        }
        14 => [Bson::Undefined, Bson::MinKey, Bson::MaxKey, Bson::Symbol("s".into())][input.below(4)].clone(),
        15 => Bson::Decimal128(coord_core::bson::Decimal128::from_bytes({
            let mut bytes = [0; 16];
            let taken = input.take(16);
            bytes[..taken.len()].copy_from_slice(taken);
            bytes
        })),
        16 | 17 if depth < DEPTH => Bson::Array((0..input.below(4)).map(|_| value(input, depth + 1)).collect()),
        18 | 19 if depth < DEPTH => {
            let fields = (0..input.below(4)).map(|_| (["a", "b", "c"][input.below(3)], value(input, depth + 1)));
            Bson::Document(fields.map(|(name, value)| (name.to_owned(), value)).collect())
        }
        _ => Bson::Int32(1),
    }
}
