//! The store of one story: a file, or collections of its own in a replica set.

use std::time::Duration;

use coord_core::config::Location;
use coord_core::table::WriteOptions;
use coord_core::{Client, Held, Options};
use coord_tests::servers::scratch::Scratch;
use mongodb::bson::{DateTime, Document, doc};

use crate::story::NOTES;

/// A lock that is so old that its record is collected.
pub const OLD: &str = "old";

/// A store of several processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    Sqlite,
    /// A replica set.
    MongoDb,
}

impl Kind {
    /// The ttl of the story's sessions: short, but not so short that a busy server costs them. `COORD_FAILPOINTS_TTL` has
    /// another one, in milliseconds, for a machine that is busier than that.
    pub fn ttl(self) -> Duration {
        let usual = match self {
            Self::Sqlite => 1_000,
            Self::MongoDb => 3_000,
        };
        let wanted = std::env::var("COORD_FAILPOINTS_TTL").ok().and_then(|text| text.parse().ok());
        Duration::from_millis(wanted.unwrap_or(usual))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::MongoDb => "mongodb",
        }
    }
}

/// Where a story is played.
#[derive(Debug)]
pub struct Place {
    kind: Kind,
    folder: Scratch,
    /// The URI of the servers, and what the names of the story's collections begin with.
    servers: Option<(String, String)>,
}

impl Place {
    /// A new one; on a replica set with names that no other has. None where there is no `mongod`.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn new(kind: Kind, number: u64) -> std::io::Result<Option<Self>> {
        let servers = match kind {
            Kind::Sqlite => None,
            Kind::MongoDb => match coord_tests::servers::shared_uri() {
                Some(uri) => Some((uri, format!("fp{}x{number}y", std::process::id()))),
                None => return Ok(None),
            },
        };
        Ok(Some(Self { kind, folder: Scratch::new()?, servers }))
    }

    /// Which kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A folder of its own.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The URL of its store.
    pub fn url(&self) -> String {
        self.url_of("t")
    }

    /// The URL of a second store, which nobody has used.
    pub fn fresh_url(&self) -> String {
        self.url_of("fresh")
    }

    /// What the names of its collections begin with: `t` for its store, `fresh` for the second one.
    pub fn prefix(&self, name: &str) -> String {
        self.servers.as_ref().map(|(_, prefix)| format!("{prefix}{name}_")).unwrap_or_default()
    }

    fn url_of(&self, name: &str) -> String {
        let ttl = self.kind.ttl().as_millis();
        match &self.servers {
            None => format!("sqlite:///{}/{name}.db?coord.ttl={ttl}ms", self.folder.path().display()),
            Some((uri, _)) => {
                let separator = if uri.contains('?') { '&' } else { '?' };
                format!("{uri}{separator}coord.prefix={}&coord.ttl={ttl}ms", self.prefix(name))
            }
        }
    }

    /// Makes the store, with the record of a lock that was granted two days ago.
    ///
    /// # Errors
    /// What goes wrong, in words.
    pub async fn make(&self) -> Result<(), String> {
        let client = coord_core::connect(&self.url()).await.map_err(text)?;
        let held = client.lock(OLD).map_err(text)?.acquire().await.map_err(text)?;
        self.make_indexes(&client, &held).await?;
        held.release().await.map_err(text)?;
        client.close(PATIENCE).await.map_err(text)?;
        match &self.servers {
            None => {
                let db = rusqlite::Connection::open(self.folder.path().join("t.db")).map_err(text)?;
                let changed = db.execute("UPDATE lock SET at = at - ?1 WHERE name LIKE '%/old'", [TWO_DAYS]);
                if changed.map_err(text)? != 1 {
                    return Err("there is no record of the old lock".into());
                }
            }
            Some(_) => {
                let locks = self.database().await?.collection::<Document>(&format!("{}locks", self.prefix("t")));
                let ago = DateTime::from_millis(DateTime::now().timestamp_millis() - TWO_DAYS);
                let dated = doc! { "$set": { "at": ago, "tok": 1_000_i64 } };
                let done = locks.update_one(doc! { "_id": { "$regex": "/old$" } }, dated).await.map_err(text)?;
                if done.modified_count != 1 {
                    return Err("there is no record of the old lock".into());
                }
            }
        }
        Ok(())
    }

    /// Has made what is made with the first fenced write, which can take a busy set longer than a write may.
    async fn make_indexes(&self, client: &Client, held: &Held) -> Result<(), String> {
        let table = client.table(NOTES).map_err(text)?;
        let mut tries = 10;
        loop {
            tries -= 1;
            let written = table.put("made", doc! {}, WriteOptions::fenced(held).map_err(text)?).await;
            match written {
                Err(error) if tries > 0 && error.ambiguous() => {}
                written => {
                    written.map_err(text)?;
                    return table.delete("made", WriteOptions::default()).await.map(drop).map_err(text);
                }
            }
        }
    }

    /// What is wrong with the store itself, when everybody has gone.
    ///
    /// # Errors
    /// What goes wrong with looking, in words.
    pub fn damage(&self) -> Result<Vec<String>, String> {
        if self.servers.is_some() {
            return Ok(Vec::new());
        }
        let mut wrong = Vec::new();
        for name in ["t", "fresh"] {
            let path = self.folder.path().join(format!("{name}.db"));
            let db = rusqlite::Connection::open(&path).map_err(text)?;
            let found: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(text)?;
            if found != "ok" {
                wrong.push(format!("{name}.db is damaged: {found}"));
            }
            let listeners: i64 = db.query_row("SELECT count(*) FROM listener", [], |row| row.get(0)).map_err(text)?;
            if listeners > 0 {
                wrong.push(format!("{name}.db has {listeners} rows of listeners, and nobody is there"));
            }
            drop(db);
            for entry in std::fs::read_dir(self.folder.path().join(format!("{name}.db-run"))).map_err(text)? {
                let file = entry.map_err(text)?.file_name();
                if file != "gate" {
                    wrong.push(format!("{} is left in the run directory of {name}.db", file.display()));
                }
            }
        }
        Ok(wrong)
    }

    /// Removes what the story had on servers.
    ///
    /// # Errors
    /// What goes wrong, in words.
    pub async fn clear(&self) -> Result<(), String> {
        let Some((_, prefix)) = &self.servers else { return Ok(()) };
        let database = self.database().await?;
        for name in database.list_collection_names().await.map_err(text)? {
            if name.starts_with(prefix) {
                database.collection::<Document>(&name).drop().await.map_err(text)?;
            }
        }
        Ok(())
    }

    async fn database(&self) -> Result<mongodb::Database, String> {
        let options = Options::parse(&self.url()).map_err(text)?;
        let Location::MongoDb { uri } = options.location() else { return Err("the store has no servers".into()) };
        let client = mongodb::Client::with_uri_str(uri).await.map_err(text)?;
        Ok(client.default_database().unwrap_or_else(|| client.database("coord")))
    }
}

/// An error in words.
pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

const TWO_DAYS: i64 = 2 * 86_400_000;

/// How long closing may take.
pub const PATIENCE: Duration = Duration::from_secs(20);
