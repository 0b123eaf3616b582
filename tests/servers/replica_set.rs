//! A replica set of one or more members, all of which can become primary.

use std::time::{Duration, Instant};

use mongodb::bson::{Bson, Document, doc};

use super::mongod::{Arguments, Mongod, PATIENCE, POLL, Place};
use super::mongod_program;
use super::scratch::{Scratch, free_ports};
use super::security::{Certificates, key_file};

/// The administrator of a set with authentication.
pub const ADMIN: (&str, &str) = ("admin", "admin-password");

/// What kind of set to start.
#[derive(Clone, Copy, Debug)]
pub struct SetOptions {
    /// How many members.
    pub members: usize,
    /// Whether users have to authenticate; there is one, [`ADMIN`].
    pub auth: bool,
    /// Whether connections have to use TLS, with a certificate of an authority made for this set.
    pub tls: bool,
    /// How long the others do without a primary before they elect one.
    pub election_timeout: Duration,
    /// The size of the oplog. A small one lets a test lose history.
    pub oplog_mb: u32,
}

impl SetOptions {
    /// A set of this many members without authentication, which elects fast.
    pub fn of(members: usize) -> Self {
        Self { members, auth: false, tls: false, election_timeout: Duration::from_secs(1), oplog_mb: OPLOG_MB }
    }
}

/// A running replica set. Stopped, and its data removed, when dropped.
#[derive(Debug)]
pub struct ReplicaSet {
    // Before the folder, so that the servers have ended when it is removed.
    members: Vec<Mongod>,
    certificates: Option<Certificates>,
    arguments: Arguments,
    scratch: Scratch,
}

impl ReplicaSet {
    /// Starts a set of this many members, and waits until its primary takes writes. None where there is no `mongod`
    /// (see [`mongod_program`]).
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start(members: usize) -> Option<Self> {
        Self::with(SetOptions::of(members))
    }

    /// The same with options.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn with(options: SetOptions) -> Option<Self> {
        Self::at(options, vec![Place::default(); options.members])
    }

    /// The same with a place for each member.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn at(options: SetOptions, places: Vec<Place>) -> Option<Self> {
        let program = mongod_program()?;
        let scratch = Scratch::new().expect("a folder for the servers");
        let mut arguments = Arguments::default();
        arguments.extra.extend(["--replSet".into(), NAME.into()]);
        arguments.extra.extend(["--oplogSize".into(), options.oplog_mb.to_string()]);
        if options.oplog_mb < OPLOG_MB {
            // It is cut after a checkpoint of the server's own, of which there is else one a minute.
            arguments.extra.extend(["--syncdelay".into(), "1".into()]);
        }
        if options.auth {
            let key = key_file(scratch.path()).expect("a key file");
            arguments.extra.extend(["--keyFile".into(), key.display().to_string()]);
            arguments.credentials = format!("{}:{}@", ADMIN.0, ADMIN.1);
            arguments.uri_options += "&authSource=admin";
        }
        let certificates = options.tls.then(|| {
            let made = Certificates::make(scratch.path(), "server").expect("certificates");
            arguments.extra.extend(["--tlsMode".into(), "requireTLS".into()]);
            arguments.extra.extend(["--tlsCertificateKeyFile".into(), made.server.display().to_string()]);
            arguments.extra.extend(["--tlsCAFile".into(), made.ca.display().to_string()]);
            arguments.extra.push("--tlsAllowConnectionsWithoutCertificates".into());
            arguments.uri_options += &format!("&tls=true&tlsCAFile={}", made.ca.display());
            made
        });
        let members = free_ports(options.members)
            .expect("free ports")
            .into_iter()
            .zip(places)
            .map(|(port, place)| {
                Mongod::start(program.clone(), scratch.path(), port, Arguments { place, ..arguments.clone() })
            })
            .collect();
        let set = Self { members, certificates, arguments, scratch };
        set.initiate(options);
        Some(set)
    }

    /// The URI of the whole set, for its administrator where there is one. Without a database.
    pub fn uri(&self) -> String {
        self.uri_as(&self.arguments.credentials)
    }

    /// The URI of the whole set with these credentials: `user:password@`, or nothing.
    pub fn uri_as(&self, credentials: &str) -> String {
        let hosts: Vec<String> =
            self.members.iter().map(|member| format!("{}:{}", member.host(), member.port())).collect();
        format!("mongodb://{credentials}{}/?replicaSet={NAME}{}", hosts.join(","), self.arguments.uri_options)
    }

    /// The members, in no order of rank.
    pub fn members(&self) -> &[Mongod] {
        &self.members
    }

    /// What the set's servers show to clients, where it uses TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// A folder for what belongs to this set.
    pub fn folder(&self) -> &std::path::Path {
        self.scratch.path()
    }

    /// The primary: waits until there is one that takes writes, and a majority that agrees.
    ///
    /// # Panics
    /// If none is found in a minute.
    pub fn primary(&self) -> &Mongod {
        self.wait("no primary", || {
            self.members.iter().find(|member| {
                let hello = if member.is_running() { member.command(doc! { "hello": 1 }).ok() } else { None };
                hello.is_some_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false))
            })
        })
    }

    /// The members other than the primary.
    pub fn secondaries(&self) -> Vec<&Mongod> {
        let primary = self.primary().port();
        self.members.iter().filter(|member| member.port() != primary).collect()
    }

    /// Makes the primary step down, and waits until another one takes writes.
    ///
    /// # Panics
    /// If the primary refuses, or no other is found in a minute.
    pub fn step_down(&self) {
        let before = self.primary();
        // A secondary that lags can make the first try fail.
        self.wait("the primary does not step down", || {
            before.command(doc! { "replSetStepDown": 60, "secondaryCatchUpPeriodSecs": 10 }).ok()
        });
        self.wait("no other primary", || (self.primary().port() != before.port()).then_some(()));
    }

    /// Takes a member's data away, and waits until it has copied everything from the others: initial sync. These have all
    /// that a majority has acknowledged when the data go, and must stay as they are until it is over; two at least.
    ///
    /// # Panics
    /// If it does not come to its end in a minute.
    pub fn sync_anew(&self, member: &Mongod) {
        // While it is down nobody can acknowledge for it. So what it has voted for is over, too, before it forgets that.
        member.kill();
        let all_others = self.members.len() as i32 - 1;
        self.wait("the others do not agree", || self.acknowledged(Bson::from(all_others)).then_some(()));
        member.empty();
        member.restart();
        self.wait("no initial sync", || checkpoint(member));
    }

    /// Whether so many acknowledge a write within a second.
    pub fn acknowledged(&self, by: Bson) -> bool {
        let begun = Instant::now();
        let note = doc! { "appendOplogNote": 1, "data": { "agreed": true },
        "writeConcern": { "w": by, "wtimeout": 1_000 } };
        let reply = self.command(note);
        let acknowledged = reply.is_ok_and(|reply| !reply.contains_key("writeConcernError"));
        acknowledged && begun.elapsed() < Duration::from_secs(1)
    }

    /// Runs a command on the `admin` database of the primary.
    ///
    /// # Errors
    /// What the server or the driver says.
    pub fn command(&self, command: Document) -> mongodb::error::Result<Document> {
        self.primary().command(command)
    }

    fn initiate(&self, options: SetOptions) {
        let members: Vec<Document> = self
            .members
            .iter()
            .enumerate()
            .map(|(id, member)| doc! { "_id": id as i32, "host": format!("{}:{}", member.host(), member.port()) })
            .collect();
        let config = doc! { "_id": NAME, "members": members, "settings": {
            "electionTimeoutMillis": options.election_timeout.as_millis() as i64,
            "heartbeatIntervalMillis": 500,
        } };
        let first = &self.members[0];
        first
            .command_before_users(doc! { "replSetInitiate": config })
            .unwrap_or_else(|error| panic!("the set cannot be initiated: {error}\n{}", first.log_tail()));
        if options.auth {
            self.create_administrator();
        }
        // The set is up when a majority has acknowledged a write.
        self.wait("no acknowledged write", || {
            let note = doc! { "insert": "started", "documents": [{}],
            "writeConcern": { "w": "majority", "wtimeout": 2_000 } };
            let reply = self.command(note).ok()?;
            (!reply.contains_key("writeErrors") && !reply.contains_key("writeConcernError")).then_some(())
        });
        for member in &self.members {
            self.wait("no checkpoint", || checkpoint(member));
        }
    }

    fn create_administrator(&self) {
        // Before there is a user, `hello` is all that the server answers besides creating one.
        self.wait("no administrator", || {
            let create = doc! { "createUser": ADMIN.0, "pwd": ADMIN.1, "roles": ["root"] };
            self.members.iter().find_map(|member| {
                let hello = member.command_before_users(doc! { "hello": 1 }).ok()?;
                hello.get_bool("isWritablePrimary").ok()?.then_some(())?;
                member.command_before_users(create.clone()).ok()
            })
        });
    }

    fn wait<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(value) = condition() {
                return value;
            }
            let logs =
                || self.members.iter().map(|m| format!("{m:?}\n{}", m.log_tail())).collect::<Vec<_>>().join("\n");
            assert!(begun.elapsed() < PATIENCE, "{what}\n{}", logs());
            std::thread::sleep(POLL);
        }
    }
}

/// Makes a checkpoint that a rollback can go back to. A member that has none yet, in its first minute, aborts when it
/// comes back from a failure and has to roll back.
fn checkpoint(member: &Mongod) -> Option<()> {
    let status = || member.command(doc! { "replSetGetStatus": 1 }).ok();
    let settled = |status: &Document| status.get_i32("myState").is_ok_and(|s| matches!(s, PRIMARY | SECONDARY));
    settled(&status()?).then(|| member.command(doc! { "fsync": 1 }).ok())??;
    let status = status()?;
    let stable = status.get_timestamp("lastStableRecoveryTimestamp").ok()?;
    (settled(&status) && stable.time > 0).then_some(())
}

const OPLOG_MB: u32 = 64;

const PRIMARY: i32 = 1;
const SECONDARY: i32 = 2;

const NAME: &str = "rs";
