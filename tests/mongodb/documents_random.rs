//! Random documents, filters, orders, projections and updates on all three stores. MongoDB is the truth.
//!
//! What the shared part of the language does not know must be `Unsupported` on the others; everything else must give the
//! same documents, to the byte, or be refused by all. `COORD_DIFF_DOCUMENTS` is the number of questions (2 000 unless told,
//! 20 000 in CI), `COORD_DIFF_SEED` repeats a run.

use std::sync::Arc;

use coord_core::bson::spec::BinarySubtype;
use coord_core::bson::{Binary, Bson, DateTime, Decimal128, Document, Timestamp, doc, oid::ObjectId};
use coord_core::config::Durability;
use coord_core::error::{Code, Result};
use coord_core::protocol::document::{Action, Filter, Key, Projection, Sort, TableName, Update, Write};
use coord_core::store::SharedStore;
use coord_core::store::documents::{Documents, Query};
use coord_core::store::memory::MemoryStore;
use coord_core::store::sqlite::SqliteStore;
use coord_tests::servers;
use futures::TryStreamExt;

use super::support::{env, open, run};

/// How many documents one round has, and how many questions are asked of them.
const DOCUMENTS: usize = 40;
const QUESTIONS: usize = 40;

#[test]
fn all_stores_answer_alike() {
    let Some(uri) = servers::shared_uri() else { return };
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let default = if std::env::var("CI").as_deref() == Ok("true") { 20_000 } else { 2_000 };
    let questions = number("COORD_DIFF_DOCUMENTS").unwrap_or(default);
    run(async move {
        let seed = number("COORD_DIFF_SEED").unwrap_or_else(|| env().rng.bits());
        eprintln!("COORD_DIFF_SEED={seed} COORD_DIFF_DOCUMENTS={questions}");
        let scratch = servers::scratch::Scratch::new().unwrap();
        let path = scratch.path().join("t.db");
        let stores: Vec<(&str, SharedStore)> = vec![
            ("mongodb", Arc::new(open(&uri).await)),
            ("memory", Arc::new(MemoryStore::open("", env()))),
            ("sqlite", Arc::new(SqliteStore::open(&path, Durability::Normal, env()).await.unwrap())),
        ];
        let mut walk = Walk { random: Random(seed), met: [0; Met::COUNT] };
        for round in 0..questions.div_ceil(QUESTIONS as u64) {
            walk.round(round, &stores).await;
        }
        for (_, store) in &stores {
            store.close().await;
        }
        eprintln!("{:?}: {:?}", Met::NAMES, walk.met);
        // A run that does not meet every case proves nothing.
        for (name, met) in Met::NAMES.iter().zip(walk.met) {
            assert!(met >= questions / 100, "only {met} of {questions} questions were '{name}'");
        }
    });
}

#[derive(Clone, Copy)]
enum Met {
    Matching,
    None,
    Sorted,
    Projected,
    Updated,
    Refused,
}

impl Met {
    const COUNT: usize = 6;
    const NAMES: [&str; Self::COUNT] = ["matching", "matching nothing", "sorted", "projected", "updates", "refused"];
}

struct Walk {
    random: Random,
    met: [u64; Met::COUNT],
}

impl Walk {
    async fn round(&mut self, round: u64, stores: &[(&str, SharedStore)]) {
        let table = TableName::parse(&format!("random{round}")).unwrap();
        let tables: Vec<(&str, &dyn Documents)> =
            stores.iter().map(|(name, store)| (*name, store.documents().expect("documents"))).collect();
        for number in 0..DOCUMENTS {
            let document = self.random.document();
            for (name, documents) in &tables {
                let write = Write::new(Key::from(number as i64), Action::Insert(document.clone()));
                documents.write(&table, write).await.unwrap_or_else(|error| panic!("{name}: {error}\n{document}"));
            }
        }
        for _ in 0..QUESTIONS {
            if self.random.one_in(3) {
                self.update(&table, &tables).await;
            } else {
                self.query(&table, &tables).await;
            }
        }
        for (_, documents) in &tables {
            documents.drop_table(&table).await.unwrap();
        }
    }

    async fn query(&mut self, table: &TableName, tables: &[(&str, &dyn Documents)]) {
        let text = self.random.filter(2);
        let sort = self.random.one_in(2).then(|| self.random.sort());
        let projection = self.random.one_in(3).then(|| self.random.projection());
        let query = || -> Result<Query> {
            let mut query = Query { filter: Filter::parse(text.clone())?, ..Query::default() };
            query.sort = sort.clone().map(Sort::parse).transpose()?;
            query.projection = projection.clone().map(Projection::parse).transpose()?;
            Ok(query)
        };
        let query = match query() {
            Ok(mut query) => {
                if query.sort.is_some() && self.random.one_in(2) {
                    query.skip = self.random.below(5);
                    query.limit = Some(1 + self.random.below(20));
                }
                query
            }
            Err(error) => {
                assert_eq!(error.code(), Code::InvalidArgument, "{error}");
                self.met[Met::Refused as usize] += 1;
                return;
            }
        };
        assert!(query.filter.is_shared(), "the generator makes only what all stores know: {text}");
        let mut answers = Vec::new();
        for (name, documents) in tables {
            answers.push((*name, find(*documents, table, query.clone()).await));
        }
        let (_, truth) = answers.remove(0);
        let shown = format!("filter {text}\nsort {sort:?}\nprojection {projection:?}");
        for (name, answer) in answers {
            match (&truth, answer) {
                (Ok(truth), Ok(answer)) => {
                    let differing = truth.iter().zip(&answer).find(|(left, right)| left != right);
                    assert!(
                        *truth == answer,
                        "{name} differs from MongoDB\n{shown}\nMongoDB {:?}\n{name} {:?}\nfirst {differing:?}",
                        truth.iter().map(|(key, _)| key).collect::<Vec<_>>(),
                        answer.iter().map(|(key, _)| key).collect::<Vec<_>>()
                    );
                }
                (Err(truth), Err(error)) => assert_eq!(truth.code(), error.code(), "{truth}\n{error}\n{shown}"),
                (truth, answer) => panic!("{name} differs from MongoDB\n{shown}\n{truth:?}\n{answer:?}"),
            }
        }
        match &truth {
            Err(_) => self.met[Met::Refused as usize] += 1,
            Ok(found) if found.is_empty() => self.met[Met::None as usize] += 1,
            Ok(_) => {
                self.met[Met::Matching as usize] += 1;
                self.met[Met::Sorted as usize] += u64::from(sort.is_some());
                self.met[Met::Projected as usize] += u64::from(projection.is_some());
            }
        }
    }

    async fn update(&mut self, table: &TableName, tables: &[(&str, &dyn Documents)]) {
        let text = self.random.update();
        let Ok(update) = Update::parse(text.clone()) else {
            self.met[Met::Refused as usize] += 1;
            return;
        };
        let key = Key::from(self.random.below(DOCUMENTS as u64 + 10) as i64);
        let upsert = self.random.one_in(2);
        let action = if upsert { Action::Upsert(update) } else { Action::Update(update) };
        let before = find(tables[0].1, table, Query { filter: Filter::key(&key), ..Query::default() }).await;
        let mut truth = None;
        for (name, documents) in tables {
            let written = documents.write(table, Write::new(key.clone(), action.clone())).await;
            let answer = written.map(|written| (written.document.to_vec().unwrap(), written.document, written.created));
            match (&truth, answer) {
                (None, Ok(answer)) => truth = Some(Ok(answer)),
                (None, Err(error)) => truth = Some(Err(error)),
                (Some(Ok(truth)), Ok(answer)) => {
                    assert!(
                        truth.0 == answer.0 && truth.2 == answer.2,
                        "{name} differs from MongoDB\nupdate {text}\nof {before:?}\nMongoDB {}\n{name} {}",
                        truth.1,
                        answer.1
                    );
                }
                // A sum with a decimal; the others do not have it then.
                (Some(Ok((_, truth, _))), Err(error)) if error.code() == Code::Unsupported => {
                    documents.write(table, Write::new(key.clone(), Action::Put(truth.clone()))).await.unwrap();
                }
                // Where such a sum is not all that is wrong, either may be told.
                (Some(Err(_)), Err(error)) if error.code() == Code::Unsupported => {}
                (Some(Err(truth)), Err(error)) => {
                    assert_eq!(truth.code(), error.code(), "{name}\n{truth}\n{error}\n{text}\n{before:?}");
                }
                (Some(truth), answer) => {
                    panic!("{name} differs from MongoDB\nupdate {text}\nof {before:?}\nMongoDB {truth:?}\n{answer:?}");
                }
            }
        }
        let met = if matches!(truth, Some(Ok(_))) { Met::Updated } else { Met::Refused };
        self.met[met as usize] += 1;
    }
}

/// What was found: keys, and documents to the byte.
async fn find(documents: &dyn Documents, table: &TableName, query: Query) -> Result<Vec<(Key, Vec<u8>)>> {
    let sorted = query.sort.is_some();
    let found = documents.find(table, query).await?;
    let mut found: Vec<(Key, Vec<u8>)> =
        found.map_ok(|stored| (stored.key, stored.document.to_vec().unwrap())).try_collect().await?;
    if !sorted {
        found.sort();
    }
    Ok(found)
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    fn document(&mut self) -> Document {
        let fields = self.below(5);
        (0..fields).map(|_| (self.name().to_owned(), self.value(3))).collect()
    }

    fn name(&mut self) -> &'static str {
        self.of::<&str>(&["a", "b", "c", "d", "0", "1"])
    }

    fn path(&mut self) -> String {
        let names = ["a", "a", "b", "b", "c", "d"];
        let mut path = (*self.of(&names)).to_owned();
        for _ in 0..self.of(&[0, 0, 0, 1, 1, 2]).to_owned() {
            path = format!("{path}.{}", self.of(&["a", "b", "c", "0", "1", "2"]));
        }
        path
    }

    fn value(&mut self, depth: u64) -> Bson {
        match self.below(if depth == 0 { 15 } else { 22 }) {
            0 => Bson::Null,
            1 => Bson::Boolean(self.one_in(2)),
            2 | 3 => Bson::Int32(self.below(4) as i32 - 1),
            4 => Bson::Int64(*self.of(&[0, 1, 2, i64::MAX, i64::MIN, 9_007_199_254_740_993, i64::from(i32::MAX) + 1])),
            5 => Bson::Double(*self.of(&[
                0.0,
                -0.0,
                1.0,
                1.5,
                0.1,
                f64::NAN,
                f64::INFINITY,
                9_007_199_254_740_992.0,
                9_223_372_036_854_775_808.0,
            ])),
            6 => {
                let text = self.of(&["0", "1.0", "1.5", "0.1", "NaN", "-Infinity", "1E+3", "9007199254740993", "2"]);
                Bson::Decimal128(text.parse::<Decimal128>().unwrap())
            }
            7..=9 => Bson::String((*self.of(&["", "a", "ab", "abc", "b", "B", "é", "a.b", "a\0b"])).to_owned()),
            10 => Bson::DateTime(DateTime::from_millis(*self.of(&[-1, 0, 1_700_000_000_123]))),
            11 => Bson::Binary(Binary {
                subtype: *self.of(&[BinarySubtype::Generic, BinarySubtype::UserDefined(0x80)]),
                bytes: vec![7; self.below(3) as usize],
            }),
            12 => Bson::ObjectId(ObjectId::from_bytes([self.below(2) as u8; 12])),
            13 => Bson::Timestamp(Timestamp { time: 1 + self.below(2) as u32, increment: self.below(2) as u32 }),
            14 => Bson::Int32(i32::MAX),
            15..=18 => Bson::Array((0..self.below(4)).map(|_| self.value(depth - 1)).collect()),
            _ => {
                let fields = self.below(3);
                Bson::Document((0..fields).map(|_| (self.name().to_owned(), self.value(depth - 1))).collect())
            }
        }
    }

    fn filter(&mut self, depth: u64) -> Document {
        let mut filter = Document::new();
        for _ in 0..1 + self.below(2) {
            if depth > 0 && self.one_in(3) {
                let operator = *self.of(&["$and", "$or", "$nor"]);
                let filters: Vec<Bson> = (0..1 + self.below(2)).map(|_| self.filter(depth - 1).into()).collect();
                filter.insert(operator, filters);
            } else {
                let path = if self.one_in(12) { "_id".into() } else { self.path() };
                let test = self.test(depth);
                filter.insert(path, test);
            }
        }
        filter
    }

    fn test(&mut self, depth: u64) -> Bson {
        match self.below(11) {
            0..=2 => self.value(2),
            3..=4 => {
                let operator = *self.of(&["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]);
                doc! { operator: self.value(2) }.into()
            }
            5 => doc! { "$gte": self.value(1), "$lt": self.value(1) }.into(),
            6 => {
                let values: Vec<Bson> = (0..self.below(4)).map(|_| self.value(1)).collect();
                doc! { *self.of(&["$in", "$nin"]): values }.into()
            }
            7 => doc! { "$exists": self.one_in(2) }.into(),
            8 => doc! { "$regex": *self.of(&["^", "^a", "^ab", "^a\\.", "^é"]) }.into(),
            _ if depth > 0 => match self.test(0) {
                Bson::Document(test) if test.keys().next().is_some_and(|key| key.starts_with('$')) => {
                    doc! { "$not": test }.into()
                }
                other => other,
            },
            _ => doc! { "$gt": self.value(0) }.into(),
        }
    }

    fn sort(&mut self) -> Document {
        let mut sort = Document::new();
        for _ in 0..1 + self.below(2) {
            sort.insert(self.path(), *self.of(&[1, -1]));
        }
        // Equal documents have no order of their own.
        sort.insert("_id", *self.of(&[1, -1]));
        sort
    }

    fn projection(&mut self) -> Document {
        let wanted = i32::from(self.one_in(2));
        let mut projection = Document::new();
        for _ in 0..1 + self.below(3) {
            let names: Vec<&str> = (0..1 + self.below(2)).map(|_| *self.of(&["a", "b", "c"])).collect();
            projection.insert(names.join("."), wanted);
        }
        if self.one_in(3) {
            projection.insert("_id", i32::from(self.one_in(3)));
        }
        projection
    }

    fn update(&mut self) -> Document {
        let mut update = Document::new();
        for _ in 0..1 + self.below(2) {
            let operators =
                ["$set", "$set", "$unset", "$inc", "$min", "$max", "$push", "$addToSet", "$pull", "$setOnInsert"];
            let operator = *self.of(&operators);
            let mut fields = Document::new();
            for _ in 0..1 + self.below(2) {
                let value = match operator {
                    "$inc" => self
                        .of(&[
                            Bson::Int32(1),
                            Bson::Int64(2),
                            Bson::Double(0.5),
                            Bson::Int32(-1),
                            Bson::Int32(i32::MAX),
                        ])
                        .clone(),
                    "$push" | "$addToSet" if self.one_in(2) => {
                        let values: Vec<Bson> = (0..self.below(3)).map(|_| self.value(1)).collect();
                        doc! { "$each": values }.into()
                    }
                    "$pull" => self.value(0),
                    "$unset" => "".into(),
                    _ => self.value(1),
                };
                fields.insert(self.path(), value);
            }
            update.insert(operator, fields);
        }
        update
    }
}
