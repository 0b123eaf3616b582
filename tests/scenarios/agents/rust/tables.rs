//! What the agent does with tables: writes, reads, watches, logs and copies in memory.

use coord_core::bson::{Bson, Document};
use coord_core::table::{
    CacheOptions, CachedTable, Delivery, Fence, Filter, FindOptions, Index, Key, LogEntry, LogFrom, Position,
    Projection, Revision, Sort, Stored, Table, TableEvent, TableWatch, Update, WatchOptions, WriteOptions, Written,
};
use coord_scenarios::words::Words;

use crate::actor::{Actor, Answer, Grant, Thing, Trouble, argument, bounded, number, unknown};
use crate::reply;

/// A watch, and its delivery that is not acknowledged yet.
pub(crate) struct Watched {
    watch: TableWatch,
    // A delivery has a document and the one before it: much larger than what else goes on.
    out: Option<Box<Delivery>>,
}

impl Watched {
    /// The next delivery's event. Acknowledged at once, unless it is kept for `done`.
    pub(crate) async fn next(&mut self, keep: bool) -> Answer {
        let delivery = bounded(self.watch.next()).await??;
        let words = event(delivery.event()).with("position", delivery.position()).with("failures", delivery.failures());
        if keep {
            self.out = Some(Box::new(delivery));
        } else {
            delivery.done(Ok(()));
        }
        Ok(words)
    }

    pub(crate) fn close(&self) {
        self.watch.close();
    }
}

impl Actor {
    /// A command about tables; none if it is not one.
    pub(crate) async fn keep_documents(&mut self, command: &Words) -> Option<Answer> {
        Some(match command.head() {
            "table" => self.table(command).await,
            "watch_table" => self.watch_table(command),
            "done" => self.done(command),
            "log" => self.log(command).await,
            "cache" => self.cache(command).await,
            "cached" => self.cached(command).await,
            _ => return None,
        })
    }

    fn table_of(&self, command: &Words) -> Result<Table, Trouble> {
        Ok(self.client(command)?.table(argument(command, "table")?)?)
    }

    async fn table(&self, command: &Words) -> Answer {
        let (table, rights) = (self.table_of(command)?, self.rights(command)?);
        Ok(match argument(command, "op")? {
            "insert" => written(table.insert(key(command)?, document(command)?, rights).await?),
            "put" => written(table.put(key(command)?, document(command)?, rights).await?),
            "update" => written(table.update(key(command)?, update(command)?, rights).await?),
            "upsert" => written(table.upsert(key(command)?, update(command)?, rights).await?),
            "locate" => written(table.locate(key(command)?, document(command)?, rights).await?),
            "replace" => written(match revision(command)? {
                Some(revision) => table.replace_if(key(command)?, document(command)?, revision, rights).await?,
                None => table.replace(key(command)?, document(command)?, rights).await?,
            }),
            "delete" => written(match revision(command)? {
                Some(revision) => table.delete_if(key(command)?, revision, rights).await?,
                None => table.delete(key(command)?, rights).await?,
            }),
            "update_many" => {
                let many = table.update_many(filter(command)?, update(command)?, rights).await?;
                reply::ok().with("count", many.count).with("position", many.position)
            }
            "delete_many" => {
                let many = table.delete_many(filter(command)?, rights).await?;
                reply::ok().with("count", many.count).with("position", many.position)
            }
            "get" => stored(&table.get(key(command)?).await?),
            "contains" => reply::ok().with("contains", table.contains(key(command)?).await?),
            "find" => found(table.find(filter(command)?, options(command)?).await?),
            "count" => reply::ok().with("count", table.count(filter(command)?).await?),
            "aggregate" => documents(table.aggregate(list(command)?).await?.collect().await?),
            "ensure_indexes" => {
                let indexes = list(command)?.iter().map(index).collect::<Result<_, _>>()?;
                table.ensure_indexes(indexes).await?;
                reply::ok()
            }
            "drop" => {
                table.drop_table().await?;
                reply::ok()
            }
            other => return Err(format!("there is no operation '{other}' of a table").into()),
        })
    }

    fn watch_table(&mut self, command: &Words) -> Answer {
        let mut options = WatchOptions { previous: command.get("previous") == Some("true"), ..Default::default() };
        if command.get("from").is_some() {
            options.from = Some(Position(number(command, "from")?));
        }
        let watch = self.table_of(command)?.watch(filter(command)?, options)?;
        self.add(command, Thing::Table(Box::new(Watched { watch, out: None })))
    }

    fn done(&mut self, command: &Words) -> Answer {
        let name = argument(command, "hold")?;
        let Some(Thing::Table(watched)) = self.things.get_mut(name) else { return Err(unknown(name)) };
        let delivery = watched.out.take().ok_or_else(|| "no delivery was kept".to_owned())?;
        delivery.done(command.get("failure").map_or(Ok(()), |failure| Err(failure.to_owned())));
        Ok(reply::ok())
    }

    async fn log(&mut self, command: &Words) -> Answer {
        let from = if command.get("after").is_some() {
            LogFrom::After(Position(number(command, "after")?))
        } else if command.get("since_ms").is_some() {
            LogFrom::Time(number(command, "since_ms")?)
        } else {
            LogFrom::Now
        };
        let log = self.table_of(command)?.log(from).await?;
        self.add(command, Thing::Log(log))
    }

    async fn cache(&mut self, command: &Words) -> Answer {
        let mut options = CacheOptions { filter: filter(command)?, ..CacheOptions::default() };
        options.read_your_writes = command.get("read_your_writes") != Some("false");
        if command.get("max_bytes").is_some() {
            options.max_bytes = number(command, "max_bytes")?;
        }
        let cache = self.client(command)?.cached_table(argument(command, "table")?, options).await?;
        self.add(command, Thing::Cache(cache))
    }

    async fn cached(&self, command: &Words) -> Answer {
        let (cache, rights) = (self.cache_of(command)?, self.rights(command)?);
        Ok(match argument(command, "op")? {
            "get" => stored(&cache.get(key(command)?)?),
            "get_fresh" => stored(&cache.get_fresh(key(command)?).await?),
            "find" => found(cache.find(filter(command)?, options(command)?)?),
            "count" => reply::ok().with("count", cache.count(filter(command)?)?),
            "insert" => written(cache.insert(key(command)?, document(command)?, rights).await?),
            "put" => written(cache.put(key(command)?, document(command)?, rights).await?),
            "update" => written(cache.update(key(command)?, update(command)?, rights).await?),
            "upsert" => written(cache.upsert(key(command)?, update(command)?, rights).await?),
            "replace" => written(match revision(command)? {
                Some(revision) => cache.replace_if(key(command)?, document(command)?, revision, rights).await?,
                None => cache.replace(key(command)?, document(command)?, rights).await?,
            }),
            "delete" => written(cache.delete(key(command)?, rights).await?),
            "wait_until" => {
                bounded(cache.wait_until(Position(number(command, "position")?))).await??;
                reply::ok()
            }
            other => return Err(format!("there is no operation '{other}' of a copy").into()),
        })
    }

    fn cache_of(&self, command: &Words) -> Result<&CachedTable, Trouble> {
        let name = argument(command, "hold")?;
        match self.things.get(name) {
            Some(Thing::Cache(cache)) => Ok(cache),
            _ => Err(unknown(name)),
        }
    }

    /// By whose right a write is done: of a hold, a term, or a run of a reconciler.
    fn rights(&self, command: &Words) -> Result<WriteOptions, Trouble> {
        let fence = match command.get("fence") {
            None => None,
            Some(name) => Some(self.fence(name)?),
        };
        Ok(WriteOptions { fence, strict: command.get("strict") == Some("true") })
    }

    fn fence(&self, name: &str) -> Result<Fence, Trouble> {
        if let Some(Thing::Work(request)) = self.things.get(name) {
            return Ok(request.fence()?);
        }
        Ok(match self.hold(name)? {
            Grant::Lock(held) => held.fence()?,
            Grant::Term(term) => term.fence()?,
        })
    }
}

fn bson(command: &Words, name: &str) -> Result<Option<Bson>, Trouble> {
    let Some(text) = command.get(name) else { return Ok(None) };
    let wrong = |error: &dyn std::fmt::Display| Trouble::Command(format!("'{name}' is no Extended JSON: {error}"));
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| wrong(&error))?;
    Bson::try_from(value).map(Some).map_err(|error| wrong(&error))
}

/// The types of the library let nothing else than a document in, so what is none is refused here.
fn document_of(command: &Words, name: &str) -> Result<Option<Document>, Trouble> {
    match bson(command, name)? {
        None => Ok(None),
        Some(Bson::Document(document)) => Ok(Some(document)),
        Some(_) => Err(format!("'{name}' is no document").into()),
    }
}

pub(crate) fn key(command: &Words) -> Result<Key, Trouble> {
    let value = bson(command, "key")?.ok_or_else(|| "the argument 'key' is missing".to_owned())?;
    Ok(Key::new(value)?)
}

fn document(command: &Words) -> Result<Document, Trouble> {
    document_of(command, "document")?.ok_or_else(|| "the argument 'document' is missing".to_owned().into())
}

fn update(command: &Words) -> Result<Update, Trouble> {
    Ok(Update::parse(document(command)?)?)
}

pub(crate) fn filter(command: &Words) -> Result<Filter, Trouble> {
    Ok(match document_of(command, "filter")? {
        None => Filter::default(),
        Some(document) => Filter::parse(document)?,
    })
}

fn revision(command: &Words) -> Result<Option<Revision>, Trouble> {
    command.get("revision").map(|_| Ok(Revision(number(command, "revision")?))).transpose()
}

fn options(command: &Words) -> Result<FindOptions, Trouble> {
    let mut options = FindOptions {
        sort: document_of(command, "sort")?.map(Sort::parse).transpose()?,
        projection: document_of(command, "projection")?.map(Projection::parse).transpose()?,
        ..FindOptions::default()
    };
    if command.get("skip").is_some() {
        options.skip = number(command, "skip")?;
    }
    if command.get("limit").is_some() {
        options.limit = Some(number(command, "limit")?);
    }
    Ok(options)
}

/// A pipeline, or indexes.
fn list(command: &Words) -> Result<Vec<Document>, Trouble> {
    let Some(Bson::Array(values)) = bson(command, "document")? else {
        return Err("'document' is no array".to_owned().into());
    };
    let documents = values.into_iter().map(|value| match value {
        Bson::Document(document) => Ok(document),
        _ => Err("'document' is no array of documents".to_owned().into()),
    });
    documents.collect()
}

/// `{fields: {a: 1, b: -1}, name?, unique?, sparse?}`
fn index(description: &Document) -> Result<Index, Trouble> {
    let fields = description.get_document("fields").map_err(|error| error.to_string())?;
    Ok(Index {
        name: description.get_str("name").unwrap_or_default().to_owned(),
        fields: fields.iter().map(|(path, way)| (path.clone(), way.as_i32() == Some(-1))).collect(),
        unique: description.get_bool("unique").unwrap_or_default(),
        sparse: description.get_bool("sparse").unwrap_or_default(),
        expire_after: None,
    })
}

pub(crate) fn text(value: impl Into<Bson>) -> String {
    value.into().into_relaxed_extjson().to_string()
}

fn written(written: Written) -> Words {
    let words = reply::ok()
        .with("document", text(written.document))
        .with("position", written.position)
        .with("created", written.created);
    with_revision(words, written.revision)
}

fn stored(stored: &Stored) -> Words {
    let words =
        reply::ok().with("key", text(stored.key.value().clone())).with("document", text(stored.document.clone()));
    with_revision(words, stored.revision)
}

fn found(found: Vec<Stored>) -> Words {
    documents(found.into_iter().map(|stored| stored.document).collect())
}

fn documents(documents: Vec<Document>) -> Words {
    reply::ok().with("count", documents.len()).with("documents", text(documents))
}

pub(crate) fn with_revision(words: Words, revision: Option<Revision>) -> Words {
    match revision {
        Some(revision) => words.with("revision", revision),
        None => words,
    }
}

fn event(event: &TableEvent) -> Words {
    let (name, key, document, before, revision) = match event {
        TableEvent::Init => ("init", None, None, None, None),
        TableEvent::InitApply { key, document, revision } => ("init_apply", Some(key), Some(document), None, *revision),
        TableEvent::InitDone => ("init_done", None, None, None, None),
        TableEvent::Apply { key, document, previous, revision } => {
            ("apply", Some(key), Some(document), previous.as_ref(), *revision)
        }
        TableEvent::Delete { key, previous } => ("delete", Some(key), None, previous.as_ref(), None),
        // The agent is built with the library, so there is nothing else.
        _ => ("", None, None, None, None),
    };
    let mut words = with_revision(reply::ok().with("event", name), revision);
    if let Some(key) = key {
        words = words.with("key", text(key.value().clone()));
    }
    for (name, document) in [("document", document), ("previous", before)] {
        if let Some(document) = document {
            words = words.with(name, text(document.clone()));
        }
    }
    words
}

/// An entry of a log.
pub(crate) fn entry(entry: &LogEntry) -> Words {
    let words = reply::ok()
        .with("operation", entry.operation.name())
        .with("at_ms", entry.at_ms)
        .with("key", text(entry.key.value().clone()))
        .with("changed", entry.changed_fields.join(","))
        .with("position", entry.position);
    let words = with_revision(words, entry.revision);
    match &entry.source {
        Some(source) => words.with("source", source),
        None => words,
    }
}
