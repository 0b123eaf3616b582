//! The clients, holds and running operations of one agent, and what it does with them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coord_core::client::Client;
use coord_core::config::Options;
use coord_core::election::{LeaderWatch, Term};
use coord_core::error::{Error, LossReason, Result};
use coord_core::lock::{Held, Lock};
use coord_core::name::sanitize;
use coord_core::observer::Observer;
use coord_core::owner::OwnerWatch;
use coord_core::provider::Provider;
use coord_core::reconciler::Request;
use coord_core::table::{CachedTable, TableLog};
use coord_scenarios::words::Words;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::elections::Function;
use crate::reconcilers::Runner;
use crate::tables::Watched;
use crate::{contest, reply};

/// The bound of every wait for an event.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// How long closing may take if the command does not say.
const CLOSE: Duration = Duration::from_secs(20);

/// What one agent has.
#[derive(Default)]
pub(crate) struct Actor {
    clients: HashMap<String, Client>,
    holds: HashMap<String, Grant>,
    pub(crate) operations: HashMap<String, Operation>,
    pub(crate) things: HashMap<String, Thing>,
}

/// What was granted and is held.
pub(crate) enum Grant {
    Lock(Arc<Held>),
    Term(Arc<Term>),
}

/// What goes on until it is ended.
pub(crate) enum Thing {
    Leaders(LeaderWatch),
    Function(Function),
    Owners(OwnerWatch),
    Provider(Provider),
    Observer(Observer),
    Table(Box<Watched>),
    Log(TableLog),
    Cache(CachedTable),
    Reconciler(Runner),
    Work(Request),
}

/// Something that runs in the background.
pub(crate) enum Operation {
    Acquire(JoinHandle<Result<Held>>),
    Campaign(JoinHandle<Result<Term>>),
    Run {
        task: JoinHandle<Result<()>>,
        entered: Option<oneshot::Receiver<Arc<Held>>>,
        finish: Option<oneshot::Sender<()>>,
    },
    Rounds(JoinHandle<std::result::Result<Words, String>>),
}

/// A command that could not be carried out.
pub(crate) enum Trouble {
    /// The library says no.
    Library(Error),
    /// The command makes no sense here.
    Command(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

impl From<String> for Trouble {
    fn from(message: String) -> Self {
        Self::Command(message)
    }
}

pub(crate) type Answer = std::result::Result<Words, Trouble>;

impl Actor {
    /// Carries a command out.
    pub(crate) async fn answer(&mut self, command: &Words) -> Words {
        match self.carry_out(command).await {
            Ok(words) => words,
            Err(Trouble::Library(error)) => reply::error(&error),
            Err(Trouble::Command(message)) => reply::fail(&message),
        }
    }

    /// Closes what the story has left open.
    pub(crate) async fn end(self) {
        for client in self.clients.values() {
            if let Err(error) = client.close(CLOSE).await {
                eprintln!("coord-agent: closing at the end: {error}");
            }
        }
    }

    async fn carry_out(&mut self, command: &Words) -> Answer {
        if let Some(answer) = self.elect(command).await {
            return answer;
        }
        if let Some(answer) = self.serve(command).await {
            return answer;
        }
        if let Some(answer) = self.keep_documents(command).await {
            return answer;
        }
        if let Some(answer) = self.reconcile(command).await {
            return answer;
        }
        match command.head() {
            "connect" => self.connect(command).await,
            "close" => {
                let timeout = timeout(command)?.unwrap_or(CLOSE);
                self.client(command)?.close(timeout).await?;
                Ok(reply::ok())
            }
            "session" => Ok(session(self.client(command)?)),
            "info" => Ok(reply::info(self.lock(command)?.info().await?.as_ref())),
            "locks" => {
                let locks = self.client(command)?.locks(command.get("prefix").unwrap_or_default()).await?;
                let names: Vec<&str> = locks.iter().map(|info| info.name.as_str()).collect();
                Ok(reply::ok().with("locks", names.join(",")))
            }
            "break" => {
                let token = number(command, "token")?;
                let force = command.get("force") == Some("true");
                self.client(command)?.break_lock(argument(command, "lock")?, token, force).await?;
                Ok(reply::ok())
            }
            "sanitize" => Ok(reply::ok().with("name", sanitize(argument(command, "text")?))),
            "acquire" => {
                let (lock, timeout) = (self.lock(command)?, timeout(command)?);
                let held = acquire(lock, timeout).await?;
                self.keep(argument(command, "as")?, Grant::Lock(Arc::new(held)))
            }
            "try" => {
                let held = self.lock(command)?.try_acquire().await?;
                self.keep(argument(command, "as")?, Grant::Lock(Arc::new(held)))
            }
            "start" | "run" | "rounds" => self.start(command),
            "races" => {
                let rounds = number(command, "rounds")?;
                Ok(contest::races(&self.lock(command)?, rounds).await?)
            }
            _ => self.carry_out_begun(command).await,
        }
    }

    async fn carry_out_begun(&mut self, command: &Words) -> Answer {
        let name = argument(command, "hold")?;
        match command.head() {
            "await" => self.finish_operation(name).await,
            "pending" => {
                let pending = !self.operation(name)?.is_finished();
                Ok(reply::ok().with("pending", pending))
            }
            "cancel" => {
                self.operation(name)?.abort();
                Ok(reply::ok())
            }
            "entered" => self.entered(name).await,
            "finish" if self.things.contains_key(name) => {
                self.function(name)?.finish(command.get("failure")).await?;
                Ok(reply::ok())
            }
            "finish" => {
                let Operation::Run { finish, .. } = self.operation(name)? else { return Err(unknown(name)) };
                let waits = finish.take().is_some_and(|finish| finish.send(()).is_ok());
                if waits { Ok(reply::ok()) } else { Err("the function has ended already".to_owned().into()) }
            }
            "held" => {
                let held = self.hold(name)?;
                Ok(reply::granted(held).with("remaining_ms", held.remaining().as_millis()))
            }
            "check" => {
                self.hold(name)?.check()?;
                Ok(reply::ok())
            }
            "ensure" => {
                let duration = Duration::from_millis(number(command, "ms")?);
                self.hold(name)?.ensure(duration).await?;
                Ok(reply::ok())
            }
            "lost" => {
                let reason = bounded(self.hold(name)?.lost()).await?;
                Ok(reply::ok().with("reason", reason.name()))
            }
            "release" => {
                let Grant::Lock(held) = self.hold(name)? else { return Err(unknown(name)) };
                held.release().await?;
                Ok(reply::ok())
            }
            "drop" => {
                let dropped = self.holds.remove(name).is_some() | self.things.remove(name).is_some();
                if dropped || command.get("if_held") == Some("true") { Ok(reply::ok()) } else { Err(unknown(name)) }
            }
            verb => Err(format!("there is no command '{verb}'").into()),
        }
    }

    async fn connect(&mut self, command: &Words) -> Answer {
        let mut options = Options::parse(argument(command, "url")?)?;
        for (name, value) in &command.named {
            if let Some(option) = name.strip_prefix("option.") {
                options.set(option, value)?;
            }
        }
        let client = Client::connect(options).await?;
        let answer = session(&client);
        self.clients.insert(argument(command, "client")?.to_owned(), client);
        Ok(answer)
    }

    fn start(&mut self, command: &Words) -> Answer {
        let name = argument(command, "as")?.to_owned();
        let (lock, timeout) = (self.lock(command)?, timeout(command)?);
        let operation = match command.head() {
            "start" => Operation::Acquire(tokio::spawn(acquire(lock, timeout))),
            "run" => run(lock),
            _ => {
                let (rounds, file) = (number(command, "rounds")?, argument(command, "file")?.to_owned());
                Operation::Rounds(tokio::spawn(async move { contest::rounds(&lock, rounds, &file).await }))
            }
        };
        self.operations.insert(name, operation);
        Ok(reply::ok())
    }

    async fn finish_operation(&mut self, name: &str) -> Answer {
        let operation = self.operations.remove(name).ok_or_else(|| unknown(name))?;
        match operation {
            Operation::Acquire(task) => match bounded(task).await? {
                Ok(held) => self.keep(name, Grant::Lock(Arc::new(held?))),
                // Dropping the future is how Rust cancels; there is no error then, so this says what it comes to.
                Err(_) => Ok(Words::new(["error", "Cancelled"]).with("message", "cancelled")),
            },
            Operation::Campaign(task) => match bounded(task).await? {
                Ok(term) => self.keep(name, Grant::Term(Arc::new(term?))),
                Err(_) => Ok(Words::new(["error", "Cancelled"]).with("message", "cancelled")),
            },
            Operation::Run { task, .. } => {
                bounded(task).await?.map_err(|error| error.to_string())??;
                Ok(reply::ok())
            }
            Operation::Rounds(task) => Ok(bounded(task).await?.map_err(|error| error.to_string())??),
        }
    }

    async fn entered(&mut self, name: &str) -> Answer {
        if self.things.contains_key(name) {
            let term = self.function(name)?.entered().await?;
            return self.keep(name, term);
        }
        let Operation::Run { entered, .. } = self.operation(name)? else { return Err(unknown(name)) };
        let entered = entered.take().ok_or_else(|| unknown(name))?;
        let held = bounded(entered).await?.map_err(|_| "the function was not called".to_owned())?;
        self.keep(name, Grant::Lock(held))
    }

    pub(crate) fn keep(&mut self, name: &str, grant: Grant) -> Answer {
        let answer = reply::granted(&grant);
        self.holds.insert(name.to_owned(), grant);
        Ok(answer)
    }

    /// Keeps something under the name in `as`.
    pub(crate) fn add(&mut self, command: &Words, thing: Thing) -> Answer {
        self.things.insert(argument(command, "as")?.to_owned(), thing);
        Ok(reply::ok())
    }

    pub(crate) fn client(&self, command: &Words) -> std::result::Result<&Client, Trouble> {
        let name = argument(command, "client")?;
        self.clients.get(name).ok_or_else(|| unknown(name))
    }

    fn lock(&self, command: &Words) -> std::result::Result<Lock, Trouble> {
        Ok(self.client(command)?.lock(argument(command, "lock")?)?)
    }

    pub(crate) fn hold(&self, name: &str) -> std::result::Result<&Grant, Trouble> {
        self.holds.get(name).ok_or_else(|| unknown(name))
    }

    fn operation(&mut self, name: &str) -> std::result::Result<&mut Operation, Trouble> {
        self.operations.get_mut(name).ok_or_else(|| unknown(name))
    }
}

impl Grant {
    pub(crate) fn remaining(&self) -> Duration {
        match self {
            Self::Lock(held) => held.remaining(),
            Self::Term(term) => term.remaining(),
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            Self::Lock(held) => held.check(),
            Self::Term(term) => term.check(),
        }
    }

    async fn ensure(&self, duration: Duration) -> Result<()> {
        match self {
            Self::Lock(held) => held.ensure(duration).await,
            Self::Term(term) => term.ensure(duration).await,
        }
    }

    async fn lost(&self) -> LossReason {
        match self {
            Self::Lock(held) => held.lost().await,
            Self::Term(term) => term.lost().await,
        }
    }
}

impl Operation {
    fn is_finished(&self) -> bool {
        match self {
            Self::Acquire(task) => task.is_finished(),
            Self::Campaign(task) => task.is_finished(),
            Self::Run { task, .. } => task.is_finished(),
            Self::Rounds(task) => task.is_finished(),
        }
    }

    fn abort(&self) {
        match self {
            Self::Acquire(task) => task.abort(),
            Self::Campaign(task) => task.abort(),
            Self::Run { task, .. } => task.abort(),
            Self::Rounds(task) => task.abort(),
        }
    }
}

/// Runs a function under the lock, which says when it is called and ends when it is told to.
fn run(lock: Lock) -> Operation {
    let (call, entered) = oneshot::channel();
    let (finish, finished) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        lock.run(|held| async move {
            // Nobody listens any more only if the agent has ended.
            let _ = call.send(held);
            let _ = finished.await;
        })
        .await
    });
    Operation::Run { task, entered: Some(entered), finish: Some(finish) }
}

async fn acquire(lock: Lock, timeout: Option<Duration>) -> Result<Held> {
    match timeout {
        Some(timeout) => lock.acquire_timeout(timeout).await,
        None => lock.acquire().await,
    }
}

fn session(client: &Client) -> Words {
    let status = client.session();
    reply::ok()
        .with("session", status.id)
        .with("state", format!("{:?}", status.state).to_lowercase())
        .with("remaining_ms", status.remaining.as_millis())
}

pub(crate) async fn bounded<T>(future: impl Future<Output = T>) -> std::result::Result<T, Trouble> {
    let waited = tokio::time::timeout(BOUND, future).await;
    waited.map_err(|_| Trouble::Command(format!("it has not happened within {} s", BOUND.as_secs())))
}

pub(crate) fn argument<'a>(command: &'a Words, name: &str) -> std::result::Result<&'a str, Trouble> {
    command.get(name).ok_or_else(|| Trouble::Command(format!("the argument '{name}' is missing")))
}

pub(crate) fn number<T: std::str::FromStr>(command: &Words, name: &str) -> std::result::Result<T, Trouble> {
    argument(command, name)?.parse().map_err(|_| Trouble::Command(format!("'{name}' is not a number")))
}

pub(crate) fn timeout(command: &Words) -> std::result::Result<Option<Duration>, Trouble> {
    match command.get("timeout_ms") {
        None => Ok(None),
        Some(_) => Ok(Some(Duration::from_millis(number(command, "timeout_ms")?))),
    }
}

pub(crate) fn unknown(name: &str) -> Trouble {
    Trouble::Command(format!("there is nothing of that kind under the name '{name}'"))
}
