//! Plays one story: starts the agents of its cast, takes the steps in order, compares, and ends everything.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use coord_tests::servers::scratch::Scratch;

use crate::agent::{Agent, Answer};
use crate::expectation::compare;
use crate::json;
use crate::stage::{Cast, Store, namespace};
use crate::story::{Step, Story};
use crate::verbs::{Actor, BEGINNING, ENDING, GRANTING, verb};
use crate::watch::Watch;
use crate::words::Words;

/// How long a step is repeated `until` something is so.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The pause between two looks, so that looking does not slow down what is awaited.
const LOOK: Duration = Duration::from_millis(5);

/// Plays a story on a store.
///
/// # Errors
/// The step that went wrong, and how.
pub fn play(story: &Story, store: Store, url: &str, cast: &Cast, scratch: &Scratch) -> Result<(), String> {
    let mut play = Play {
        story,
        store,
        url,
        cast,
        folder: scratch.path(),
        namespace: namespace(&story.name),
        agents: BTreeMap::new(),
        processes: HashMap::new(),
        answers: BTreeMap::new(),
        watch: Watch::default(),
    };
    for (index, step) in story.steps.iter().enumerate() {
        play.step(step).map_err(|error| format!("step {}, {}: {error}", index + 1, describe(step)))?;
    }
    play.end()
}

struct Play<'a> {
    story: &'a Story,
    store: Store,
    url: &'a str,
    cast: &'a Cast,
    folder: &'a Path,
    namespace: String,
    /// By process.
    agents: BTreeMap<String, Agent>,
    /// The process of each hold and operation.
    processes: HashMap<String, String>,
    /// What was answered, by the name that it is kept under.
    answers: BTreeMap<String, BTreeMap<String, String>>,
    watch: Watch,
}

impl Play<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        if let Some(name) = step.argument("as").filter(|_| BEGINNING.contains(&step.verb.as_str())) {
            self.watch.asked(name);
        }
        let deadline = Instant::now() + PATIENCE;
        let values = loop {
            let answer = self.carry_out(step)?;
            let Some(values) = self.judge(step, answer)? else { return Ok(()) };
            let Err(difference) = compare(&step.until, &values, &|text| self.resolve(text)) else { break values };
            if Instant::now() >= deadline {
                return Err(format!("after {} s, {difference}", PATIENCE.as_secs()));
            }
            std::thread::sleep(LOOK);
        };
        compare(&step.expect, &values, &|text| self.resolve(text))?;
        if let Some(name) = step.kept_as() {
            self.answers.entry(name.to_owned()).or_default().extend(values.clone());
        }
        self.observe(step, &values)
    }

    fn carry_out(&mut self, step: &Step) -> Result<Answer, String> {
        let verb = verb(&step.verb).ok_or("there is no such verb")?;
        let process = match verb.actor {
            Actor::Conductor => return self.conduct(step).map(Answer::Ok),
            Actor::Client => self.process_of(step.argument("client").unwrap_or_default()),
            Actor::Hold => self.processes.get(step.argument("hold").unwrap_or_default()).cloned().unwrap_or_default(),
        };
        if let Some(name) = step.argument("as") {
            self.processes.insert(name.to_owned(), process.clone());
        }
        let mut command = Words::new([verb.name]);
        for (name, value) in &step.arguments {
            let mut value = self.resolve(value)?;
            if name == "file" {
                value = self.folder.join(value).display().to_string();
            }
            command = command.with(name, value);
        }
        if verb.name == "connect" {
            command = self.connect_command(command);
        }
        self.agent(&process)?.ask(&command)
    }

    /// With the URL of the store, a namespace of this play's own, and the options of the client's role.
    fn connect_command(&self, mut command: Words) -> Words {
        if command.get("url").is_none() {
            command = command.with("url", self.url);
        }
        let role = &self.story.clients[command.get("client").unwrap_or_default()];
        command = command.with("option.namespace", &self.namespace);
        role.options.iter().fold(command, |command, (name, value)| command.with(&format!("option.{name}"), value))
    }

    /// A success's values; none where an error was what the story wants.
    fn judge(&self, step: &Step, answer: Answer) -> Result<Option<BTreeMap<String, String>>, String> {
        match (answer, &step.error) {
            (Answer::Ok(words), None) => {
                let normal = |(name, value): (String, String)| Ok((name.clone(), json::normal(&name, value)?));
                words.named.into_iter().map(normal).collect::<Result<_, String>>().map(Some)
            }
            (Answer::Ok(words), Some(_)) => Err(format!("it should have failed, but: {words}")),
            (Answer::Error(words), Some(expected)) => {
                compare(expected, &words.named, &|text| self.resolve(text)).map(|()| None)
            }
            (Answer::Error(words), None) => {
                let code = words.get("code").unwrap_or_default();
                if step.allow.iter().any(|allowed| allowed == code) {
                    return Ok(None);
                }
                Err(format!("{code}: {}", words.get("message").unwrap_or_default()))
            }
        }
    }

    fn conduct(&mut self, step: &Step) -> Result<Words, String> {
        let process = self.agent_name(step.argument("process").unwrap_or_default());
        match step.verb.as_str() {
            "kill" => {
                self.agents.remove(&process).ok_or("this process does not run")?.kill()?;
                self.processes.retain(|hold, at| {
                    let killed = *at == process;
                    if killed {
                        self.watch.ended(hold);
                    }
                    !killed
                });
            }
            "stop" => self.agent(&process)?.stop()?,
            "continue" => self.agent(&process)?.go_on()?,
            // Time that the story is about, such as a ttl: there is no event to await in its place.
            "pass" => std::thread::sleep(Duration::from_millis(self.number(step, "ms")?)),
            "file" => return self.read_counter(step.argument("file").unwrap_or_default()),
            other => return Err(format!("the conductor cannot {other}")),
        }
        Ok(Words::new(["ok"]))
    }

    /// What `rounds` have written: how many there were, and the token of the last.
    fn read_counter(&self, file: &str) -> Result<Words, String> {
        let path = self.folder.join(file);
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let (count, token) = text.trim().split_once(' ').ok_or_else(|| format!("'{text}' is not two numbers"))?;
        Ok(Words::new(["ok"]).with("count", count).with("token", token))
    }

    fn number(&self, step: &Step, name: &str) -> Result<u64, String> {
        self.resolve(step.argument(name).unwrap_or_default())?.parse().map_err(|_| format!("'{name}' is no number"))
    }

    /// Reports to the watch what a success means, and asks all who could believe to hold what was just granted.
    fn observe(&mut self, step: &Step, values: &BTreeMap<String, String>) -> Result<(), String> {
        let Some(hold) = step.argument("as").or_else(|| step.argument("hold")) else { return Ok(()) };
        if ENDING.contains(&step.verb.as_str()) {
            self.watch.ended(hold);
        }
        let lock = values.get("lock").map(|name| format!("lock {name}"));
        let claim = lock.or_else(|| values.get("election").map(|name| format!("election {name}")));
        let grant = claim.zip(values.get("token")).filter(|_| GRANTING.contains(&step.verb.as_str()));
        let Some((claim, token)) = grant else {
            if step.verb == "await" {
                // A function that ran under the lock has ended.
                self.watch.ended(hold);
            }
            return Ok(());
        };
        self.watch.granted(hold, &claim, token.parse().map_err(|_| format!("'{token}' is no token"))?)?;
        if self.story.overlap {
            return Ok(());
        }
        for rival in self.watch.rivals(hold) {
            self.ask_rival(hold, &rival)?;
        }
        Ok(())
    }

    fn ask_rival(&mut self, hold: &str, rival: &str) -> Result<(), String> {
        let process = self.processes.get(rival).cloned().unwrap_or_default();
        let agent = self.agent(&process)?;
        if agent.is_stopped() {
            return Ok(());
        }
        if let Answer::Ok(_) = agent.ask(&Words::new(["check"]).with("hold", rival))? {
            return Err(format!("'{rival}' believes that it holds while '{hold}' does"));
        }
        self.watch.ended(rival);
        Ok(())
    }

    /// Puts values in the place of references: `${name.value}`, `${namespace}`, `${races}`, `${a*100}`.
    fn resolve(&self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (reference, after) = after.split_once('}').ok_or("'${' without '}'")?;
            out.push_str(before);
            out.push_str(&self.look_up(reference)?);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn look_up(&self, reference: &str) -> Result<String, String> {
        if let Some((letter, count)) = reference.split_once('*') {
            return Ok(letter.repeat(count.parse().map_err(|_| format!("'{count}' is no number"))?));
        }
        match reference {
            "namespace" => Ok(self.namespace.clone()),
            "races" => Ok(self.store.races().to_string()),
            _ => {
                let known = reference.split_once('.').and_then(|(name, value)| self.answers.get(name)?.get(value));
                known.cloned().ok_or_else(|| format!("nothing is known as '{reference}'"))
            }
        }
    }

    fn process_of(&self, client: &str) -> String {
        self.agent_name(&self.story.clients[client].process)
    }

    /// A store inside of one process has one agent.
    fn agent_name(&self, process: &str) -> String {
        match self.store {
            Store::Memory => self.story.processes()[0].to_owned(),
            _ => process.to_owned(),
        }
    }

    /// The agent of a process, started when it is first needed.
    fn agent(&mut self, process: &str) -> Result<&mut Agent, String> {
        if !self.agents.contains_key(process) {
            let program = self.cast.get(process).ok_or_else(|| format!("nobody plays the process '{process}'"))?;
            self.agents.insert(process.to_owned(), Agent::start(program)?);
        }
        self.agents.get_mut(process).ok_or_else(|| "an agent that was just started".into())
    }

    /// Every agent must end well, with whatever the story has left open.
    fn end(self) -> Result<(), String> {
        let failed = Cell::new(None);
        for (process, agent) in self.agents {
            if let Err(error) = agent.quit() {
                failed.set(Some(format!("the agent of process '{process}' at the end: {error}")));
            }
        }
        failed.take().map_or(Ok(()), Err)
    }
}

fn describe(step: &Step) -> String {
    let arguments: Vec<String> = step.arguments.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!("{}{}", step.verb, arguments.concat())
}
