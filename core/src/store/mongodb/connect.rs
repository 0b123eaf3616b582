//! From a URI to a store that is known to work: options, first contact, collections and indexes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::error::ErrorKind;
use mongodb::event::EventHandler;
use mongodb::event::sdam::{SdamEvent, TopologyDescription};
use mongodb::options::{
    Acknowledgment, ClientOptions, DatabaseOptions, IndexOptions, ReadConcern, ReadPreference, SelectionCriteria,
    WriteConcern,
};
use mongodb::{Client, Collection, Database, IndexModel, ServerType};
use tokio::sync::watch;

use super::errors::{self, Doing, WATCH};
use super::tasks::{Limits, Tasks};
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};
use crate::time::{Timestamp, WallTime};

/// A connection that has been tried.
#[derive(Debug)]
pub(super) struct Connection {
    /// For everything but renewals.
    pub(super) main: Database,
    /// For what keeps our own session alive: a full pool never delays it.
    pub(super) renewals: Database,
    /// Whether a router of a sharded cluster answers.
    pub(super) sharded: bool,
    /// The address of the primary that was found last.
    pub(super) primary: watch::Receiver<Option<String>>,
}

/// Connects, and prepares the collections `<prefix>sessions` and `<prefix>locks`.
pub(super) async fn connect(
    uri: &str,
    prefix: &str,
    pool: u32,
    limits: Limits,
    env: &Env,
    tasks: &Tasks,
) -> Result<Connection> {
    let mut options = parse(uri, limits, tasks).await?;
    let database = options.default_database.clone().unwrap_or_else(|| DEFAULT_DATABASE.into());
    if database.len() > 63
        || database.is_empty()
        || database.contains(['/', '\\', '.', ' ', '"', '$', '*', '<', '>', ':', '|', '?'])
    {
        return Err(Error::invalid(
            "the database in the MongoDB URI is no valid name: up to 63 letters, digits, '-' and '_'",
        ));
    }
    override_options(&mut options, pool, limits);

    let reach = Reach::new();
    let client = open(options.clone(), Some(&reach), env)?;
    let patience = Patience { env, begun: env.now() };
    let connected = async {
        let hello = first_contact(&client, &options, &reach, limits, &patience, tasks).await?;
        let sharded = inspect(&hello, env)?;
        prepare_patiently(&client, &database, prefix, &patience, tasks).await?;
        Ok(sharded)
    };
    let sharded = match connected.await {
        Ok(sharded) => sharded,
        Err(error) => {
            client.shutdown().immediate(true).await;
            return Err(error);
        }
    };
    options.max_pool_size = Some(RENEWAL_POOL);
    options.min_pool_size = Some(1);
    let renewals = open(options, None, env)?;
    let primary = reach.primary.subscribe();
    Ok(Connection { main: client.database(&database), renewals: renewals.database(&database), sharded, primary })
}

fn open(mut options: ClientOptions, reach: Option<&Reach>, env: &Env) -> Result<Client> {
    // The driver starts its own tasks where it is created.
    let _runtime = env.tasks.runtime().enter();
    options.sdam_event_handler = reach.map(Reach::handler);
    Client::with_options(options).map_err(|error| match &*error.kind {
        ErrorKind::InvalidArgument { message, .. } => Error::invalid(format!("the MongoDB URI is wrong: {message}")),
        _ => errors::from_driver(&error, CONNECT, ""),
    })
}

async fn parse(uri: &str, limits: Limits, tasks: &Tasks) -> Result<ClientOptions> {
    let text = uri.to_owned();
    // Resolves names for mongodb+srv.
    let parsed = tasks.run(limits.selection, CONNECT, async move { Ok(ClientOptions::parse(text).await) }, "").await?;
    parsed.map_err(|error| match &*error.kind {
        ErrorKind::InvalidArgument { message, .. } if !reveals(message, uri) => {
            Error::invalid(format!("the MongoDB URI is wrong: {message}"))
        }
        ErrorKind::DnsResolve { .. } | ErrorKind::Io(_) | ErrorKind::InvalidTlsConfig { .. } => {
            errors::from_driver(&error, CONNECT, "")
        }
        _ => Error::invalid(
            "the MongoDB URI is malformed: it is mongodb://[user:password@]host[:port][,…]/[database][?options], with \
             special characters of user and password percent-encoded",
        ),
    })
}

/// Whether a message repeats something of the URI that may be a secret: any part of what stands before the database,
/// or the value of an option that sounds like one. A part of a malformed URI can be anything.
fn reveals(message: &str, uri: &str) -> bool {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let (before, options) = rest.split_once('?').unwrap_or((rest, ""));
    let authority_end = before.rfind('@').or_else(|| before.find('/')).unwrap_or(before.len());
    let parts = before[..authority_end].split([':', '@', ',', '/']);
    let secrets = options.split('&').filter_map(|pair| pair.split_once('=')).filter_map(|(key, value)| {
        let key = key.to_ascii_lowercase();
        (key.contains("password") || key.contains("properties")).then_some(value)
    });
    parts.chain(secrets).any(|part| part.len() >= 3 && message.contains(part))
}

/// Sets what the protocol stands on, and says so where the URI wanted something else.
fn override_options(options: &mut ClientOptions, pool: u32, limits: Limits) {
    let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
    let concern = options.write_concern.take().unwrap_or_default();
    let overridden = [
        ("w", concern.w.is_some_and(|w| w != Acknowledgment::Majority), "every write waits for a majority"),
        ("journal=false", concern.journal == Some(false), "every write waits for the journal"),
        ("wtimeoutMS", concern.w_timeout.is_some(), "it follows from the ttl"),
        (
            "readConcernLevel",
            options.read_concern.as_ref().is_some_and(|wanted| *wanted != ReadConcern::majority()),
            "every read is of what a majority has",
        ),
        (
            "readPreference",
            options.selection_criteria.as_ref().is_some_and(|wanted| *wanted != primary),
            "every read is from the primary",
        ),
        ("retryWrites=false", options.retry_writes == Some(false), "writes are retried"),
        ("retryReads=false", options.retry_reads == Some(false), "reads are retried"),
        (
            "directConnection=true",
            options.direct_connection == Some(true),
            "the primary must be found after a failover",
        ),
        ("maxPoolSize", options.max_pool_size.is_some_and(|n| n != pool), "coord.pool says how many connections"),
        ("minPoolSize", options.min_pool_size.is_some_and(|n| n != 0), "connections are made as they are needed"),
        ("connectTimeoutMS", options.connect_timeout.is_some(), "the ttl decides how soon a failure must show"),
        ("serverSelectionTimeoutMS", options.server_selection_timeout.is_some(), "it follows from the ttl"),
        ("heartbeatFrequencyMS", options.heartbeat_freq.is_some(), "a failover must be seen within a second"),
        ("loadBalanced=true", options.load_balanced == Some(true), "the primary must be known by its own address"),
    ];
    for (option, is_set, why) in overridden {
        if is_set {
            tracing::warn!("the option {option} of the MongoDB URI is not used: {why}");
        }
    }
    options.write_concern = Some(majority(limits));
    options.read_concern = Some(ReadConcern::majority());
    options.selection_criteria = Some(primary);
    options.retry_writes = Some(true);
    options.retry_reads = Some(true);
    options.direct_connection = None;
    options.load_balanced = None;
    options.max_pool_size = Some(pool);
    options.min_pool_size = None;
    options.connect_timeout = Some(CONNECT_TIMEOUT);
    options.server_selection_timeout = Some(limits.selection);
    options.heartbeat_freq = Some(HEARTBEAT);
    if options.app_name.is_none() {
        options.app_name = Some("coord".into());
    }
}

/// Acknowledged by a majority with its journal.
fn majority(limits: Limits) -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(limits.acknowledge).build()
}

/// What the driver last learnt about the servers.
#[derive(Clone, Debug)]
struct Reach {
    seen: Arc<Mutex<Option<TopologyDescription>>>,
    /// The address of the latest primary, once there was one.
    primary: watch::Sender<Option<String>>,
}

impl Reach {
    fn new() -> Self {
        Self { seen: Arc::default(), primary: watch::Sender::new(None) }
    }

    fn handler(&self) -> EventHandler<SdamEvent> {
        let (seen, primary) = (Arc::clone(&self.seen), self.primary.clone());
        EventHandler::callback(move |event| {
            if let SdamEvent::TopologyDescriptionChanged(changed) = event {
                let servers = changed.new_description.servers();
                let found = servers.into_iter().find(|(_, server)| server.server_type() == ServerType::RsPrimary);
                if let Some(address) = found.map(|(address, _)| address.to_string()) {
                    primary.send_if_modified(|known| known.replace(address.clone()).is_none_or(|old| old != address));
                }
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(changed.new_description);
            }
        })
    }

    /// Why no server can be used, if none answers, or those that do are of another kind. None while there is hope:
    /// a set that elects its primary is waited for.
    fn hopeless(&self, set_name: Option<&str>) -> Option<Error> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = seen.as_ref()?.servers();
        if servers.values().any(|server| server.server_type() != ServerType::Unknown) {
            return None;
        }
        if let (true, Some(name)) = (servers.is_empty(), set_name) {
            return Some(Error::new(
                Code::Unsupported,
                format!(
                    "none of the servers of the MongoDB URI belongs to a replica set named '{}'; coord needs a replica set",
                    name.chars().take(64).collect::<String>()
                ),
            ));
        }
        let mut reasons: Vec<String> = Vec::new();
        for (address, server) in &servers {
            let text = server.error().map_or_else(|| "no answer".into(), |error| error.kind.to_string());
            if let Some(untrusted) = errors::trust(&text) {
                return Some(untrusted);
            }
            let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(160).collect();
            reasons.push(format!("{address}: {text}"));
        }
        reasons.sort();
        Some(Error::unavailable(format!("no MongoDB server can be reached ({})", reasons.join("; "))))
    }
}

/// The answer to `hello` of the primary. Gives up within the connect timeout when no server answers at all, and
/// waits until its patience ends when one does but there is no primary yet.
async fn first_contact(
    client: &Client,
    options: &ClientOptions,
    reach: &Reach,
    limits: Limits,
    patience: &Patience<'_>,
    tasks: &Tasks,
) -> Result<Document> {
    let hello = async {
        loop {
            let admin = client.database("admin");
            let hello = async move { admin.run_command(doc! { "hello": 1 }).await };
            match tasks.run(limits.selection + CONNECT_TIMEOUT, CONNECT, hello, "admin").await {
                Err(error) if patience.allows(&error) => tokio::time::sleep(PAUSE).await,
                answer => return answer,
            }
        }
    };
    let no_hope = async {
        tokio::time::sleep(CONNECT_TIMEOUT).await;
        loop {
            if let Some(error) = reach.hopeless(options.repl_set_name.as_deref()) {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        answer = hello => answer,
        error = no_hope => Err(error),
    }
}

/// Checks what kind of server answers. Returns whether it is a router.
fn inspect(hello: &Document, env: &Env) -> Result<bool> {
    let sharded = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
    if !sharded && !hello.contains_key("setName") {
        return Err(errors::standalone());
    }
    let wire = hello.get_i32("maxWireVersion").unwrap_or(0);
    if wire < OLDEST_WIRE_VERSION {
        return Err(Error::new(Code::Unsupported, "the MongoDB server is too old: 4.4 is the oldest that will do"));
    }
    let cluster = hello.get_document("$clusterTime").and_then(|time| time.get_timestamp("clusterTime"));
    if let Ok(cluster) = cluster {
        let cluster = WallTime(i64::from(cluster.time) * 1_000);
        let ahead_ms = cluster.0.saturating_sub(env.clock.wall().0);
        if ahead_ms > AHEAD_MS {
            tracing::warn!(
                "the cluster time of MongoDB is {} s ahead of this machine's clock: one of the two is wrong; tokens stay \
                 in order, but unused locks are kept until the clocks have caught up",
                ahead_ms / 1_000
            );
        }
    }
    Ok(sharded)
}

/// How long one opening is tried.
struct Patience<'a> {
    env: &'a Env,
    begun: Timestamp,
}

impl Patience<'_> {
    /// Whether something that went wrong may pass while there is time.
    fn allows(&self, error: &Error) -> bool {
        let may_pass = error.code() == Code::Unavailable && self.env.now().since(self.begun) < OPENING;
        if may_pass {
            tracing::debug!("trying again: {error}");
        }
        may_pass
    }
}

/// Prepares with the limits of a generous ttl, as often as there is time for: creating collections in a busy set can
/// take longer than a renewal may.
async fn prepare_patiently(
    client: &Client,
    database: &str,
    prefix: &str,
    patience: &Patience<'_>,
    tasks: &Tasks,
) -> Result<()> {
    let limits = Limits::of(OPENING);
    let options = DatabaseOptions::builder().write_concern(majority(limits)).build();
    let database = client.database_with_options(database, options);
    let mut unclear = false;
    loop {
        match prepare_once(&database, prefix, unclear, limits, tasks).await {
            Err(error) if patience.allows(&error) => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
        unclear = true;
    }
}

/// Prepares, and when an attempt before this one failed, asks the majority for what that created: it is there, and
/// nobody may have acknowledged it.
async fn prepare_once(database: &Database, prefix: &str, unclear: bool, limits: Limits, tasks: &Tasks) -> Result<()> {
    prepare(database, prefix, limits, tasks).await?;
    if unclear {
        ask_majority(database.collection(&format!("{prefix}sessions")), limits, tasks).await?;
    }
    Ok(())
}

/// Asks whether a majority has all that the primary has. A linearizable read writes to the oplog and waits for a
/// majority, but leaves no document behind.
pub(super) async fn ask_majority(sessions: Collection<Document>, limits: Limits, tasks: &Tasks) -> Result<()> {
    let namespace = sessions.namespace().to_string();
    let request = async move {
        let nobody = sessions.find_one(doc! { "_id": "nobody" });
        nobody.read_concern(ReadConcern::linearizable()).max_time(limits.operation).await.map(drop)
    };
    tasks.run(limits.operation, ASK_MAJORITY, request, &namespace).await
}

/// Creates what is missing of the collections and indexes. Also after somebody dropped them.
pub(super) async fn prepare(database: &Database, prefix: &str, limits: Limits, tasks: &Tasks) -> Result<()> {
    for (name, indexes) in indexes(prefix) {
        let db = database.clone();
        let namespace = format!("{}.{name}", database.name());
        let list = async move { db.list_collection_names().await };
        let collections = tasks.run(limits.operation, LIST_COLLECTIONS, list, database.name()).await?;
        if !collections.contains(&name) {
            let (db, name) = (database.clone(), name.clone());
            let create = async move {
                match db.create_collection(name).await {
                    Err(error) if is_command(&error, NAMESPACE_EXISTS) => Ok(()),
                    done => done,
                }
            };
            tasks.run(limits.operation, CREATE, create, &namespace).await?;
            failpoints::at(Point::MongoCollectionMade);
        }
        let collection = database.collection::<Document>(&name);
        let list = async move { collection.list_index_names().await };
        let existing = tasks.run(limits.operation, LIST_INDEXES, list, &namespace).await?;
        let missing: Vec<IndexModel> = indexes
            .into_iter()
            .filter(|index| {
                let name = index.options.as_ref().and_then(|options| options.name.as_ref());
                name.is_none_or(|name| !existing.contains(name))
            })
            .collect();
        if !missing.is_empty() {
            let collection = database.collection::<Document>(&name);
            let create = async move { collection.create_indexes(missing).await };
            tasks.run(limits.operation, INDEX, create, &namespace).await?;
        }
    }
    let locks = database.collection::<Document>(&format!("{prefix}locks"));
    let namespace = format!("{}.{prefix}locks", database.name());
    // A user who may not watch would wait for polls: better to hear of it now.
    let watch = async move { locks.watch().await.map(drop) };
    tasks.run(limits.operation, WATCH, watch, &namespace).await
}

fn indexes(prefix: &str) -> [(String, Vec<IndexModel>); 2] {
    let index = |keys: Document, options: IndexOptions| IndexModel::builder().keys(keys).options(options).build();
    let named = |name: &str| IndexOptions::builder().name(name.to_owned()).build();
    let mut died = named("died");
    died.expire_after = Some(TOMBSTONE_KEPT);
    [
        (format!("{prefix}sessions"), vec![index(doc! { "died": 1 }, died), index(doc! { "st": 1 }, named("st"))]),
        (format!("{prefix}locks"), ["own", "q", "at"].map(|field| index(doc! { field: 1 }, named(field))).into()),
    ]
}

fn is_command(error: &mongodb::error::Error, code: i32) -> bool {
    matches!(&*error.kind, ErrorKind::Command(command) if command.code == code)
}

const CONNECT: Doing = Doing { what: "connect", rights: "connect" };
const LIST_COLLECTIONS: Doing = Doing { what: "list the collections", rights: "listCollections" };
const LIST_INDEXES: Doing = Doing { what: "list the indexes", rights: "listIndexes" };
const CREATE: Doing = Doing { what: "create a collection", rights: "insert or createCollection" };
const INDEX: Doing = Doing { what: "create an index", rights: "createIndex" };
const ASK_MAJORITY: Doing = Doing { what: "ask the majority", rights: "find" };

const DEFAULT_DATABASE: &str = "coord";

/// How long one attempt to connect to one server may take, and how long the first contact waits when none answers.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long opening is tried while servers answer but the set is busy, or has no primary: electing one takes 12 s in a
/// set with default settings. Whoever has less time gives up by himself.
const OPENING: Duration = Duration::from_secs(20);

const PAUSE: Duration = Duration::from_millis(100);

/// How often the driver looks at each server: a failover shows after this and the connect timeout.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Several renewals of one session may be under way, each with a nonce of its own.
const RENEWAL_POOL: u32 = 16;

/// How long the record of a dead session is kept, so that whoever slept through its death still learns of it.
const TOMBSTONE_KEPT: Duration = Duration::from_secs(24 * 3600);

const AHEAD_MS: i64 = 3_600_000;
const NAMESPACE_EXISTS: i32 = 48;

/// MongoDB 4.4: the first that projects expressions in `findAndModify`.
const OLDEST_WIRE_VERSION: i32 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_repeats_a_part_of_the_credentials_is_recognised() {
        for (message, uri) in [
            ("invalid port: s3cret", "mongodb://user:s3cret"),
            ("bad s3c in it", "mongodb://user:s3c/ret@h/db"),
            ("user@name?", "mongodb://user@name:s3cret@h"),
            ("value 'hidden'", "mongodb://h/?tlsCertificateKeyFilePassword=hidden"),
        ] {
            assert!(reveals(message, uri), "{message}");
        }
        assert!(!reveals("maxPoolSize must be a number, not 'x'", "mongodb://user:s3cret@h/?maxPoolSize=x"));
    }
}
