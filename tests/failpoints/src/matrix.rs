//! Every point in its turn, on each store: a story is played up to there, and what it leaves is looked at.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use coord_core::failpoints::Point;
use coord_faults::random::Random;
use coord_tests::servers::process;
use rustix::process::Signal;
use tokio::sync::{mpsc, watch};

use crate::check::Facts;
use crate::judge::{contend, judge};
use crate::place::{Kind, Place, text};
use crate::post::Post;
use crate::said::Said;
use crate::strike::{Blow, Strike, points};

/// What a story's program is given before its arguments.
pub const WORD: &str = "story";

/// The variable that names the known-bad variant of the core that a story's processes are.
pub const MUTANT: &str = "COORD_FAILPOINTS_MUTANT";

/// What to play.
#[derive(Clone, Debug)]
pub struct Plan {
    /// On which store.
    pub kind: Kind,
    /// How often each point has each blow.
    pub rounds: usize,
    /// Which points alone, if not all.
    pub only: Vec<Point>,
    /// As many of all that are drawn by chance, if not all.
    pub sample: Option<usize>,
    /// What is drawn by chance.
    pub seed: u64,
    /// How many stories are played at a time.
    pub lanes: usize,
    /// Which known-bad variant of the core everybody is, if one: then one violation is enough.
    pub mutant: Option<&'static str>,
}

/// What has come of it.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// What must never be, and was.
    pub violations: Vec<String>,
    /// Of each point how often it was passed, and how often a process was killed and held up there.
    pub hits: BTreeMap<&'static str, [u64; 3]>,
    /// How long it took at most until what the dead had was somebody else's.
    pub free_after: Duration,
    /// How many stories were played.
    pub stories: u64,
}

/// One blow, of which the time is drawn when the story's length is known.
#[derive(Clone, Copy)]
struct Job {
    point: Point,
    kill: bool,
    /// Which part of the times that the point is passed: 0 is the first.
    part: f64,
    /// In ttls.
    delay: f64,
}

/// Plays all. None where there is no such store.
///
/// # Errors
/// What keeps it from being played.
pub fn play(plan: &Plan) -> Result<Option<Findings>, String> {
    let findings = Mutex::new(Findings::default());
    let numbers = AtomicU64::new(0);
    let stage = Stage { kind: plan.kind, mutant: plan.mutant, numbers: &numbers, findings: &findings };
    // First nothing happens to it, which shows that all points are there.
    let Some(played) = stage.try_play(None)? else { return Ok(None) };
    let usual = played.passed.clone();
    let wanted: Vec<Point> = points(plan.kind == Kind::MongoDb).collect();
    for point in &wanted {
        if usual.get(point.name()).is_none_or(|passed| *passed == 0) {
            stage.lock().violations.push(format!("{}: the story does not pass it", point.name()));
        }
    }
    let mut random = Random::new(plan.seed);
    let mut jobs = Vec::new();
    for _ in 0..plan.rounds {
        for point in wanted.iter().filter(|point| plan.only.is_empty() || plan.only.contains(point)) {
            for kill in [true, false] {
                let (part, delay) = (random.below(1_000) as f64 / 1_000.0, 0.2 + random.below(1_800) as f64 / 1_000.0);
                jobs.push(Job { point: *point, kill, part, delay });
            }
        }
    }
    if let Some(sample) = plan.sample {
        for place in 0..sample.min(jobs.len()) {
            let drawn = place + random.below(jobs.len() - place);
            jobs.swap(place, drawn);
        }
        jobs.truncate(sample);
    }
    let jobs = Mutex::new(jobs.into_iter());
    let next = || {
        let caught = plan.mutant.is_some() && !stage.lock().violations.is_empty();
        jobs.lock().unwrap_or_else(PoisonError::into_inner).next().filter(|_| !caught)
    };
    std::thread::scope(|scope| {
        for _ in 0..plan.lanes {
            scope.spawn(|| {
                while let Some(job) = next() {
                    stage.strike(job, &usual);
                }
            });
        }
    });
    Ok(Some(findings.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

struct Stage<'a> {
    kind: Kind,
    mutant: Option<&'static str>,
    numbers: &'a AtomicU64,
    findings: &'a Mutex<Findings>,
}

/// A story that was played.
struct Played {
    passed: BTreeMap<String, u64>,
    struck: bool,
}

impl Stage<'_> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a blow fall. A story that was shorter than usual is played again, for an earlier one.
    fn strike(&self, job: Job, usual: &BTreeMap<String, u64>) {
        let name = job.point.name();
        let usual = usual.get(name).copied().unwrap_or(0);
        let mut nth = 1 + (job.part * usual as f64) as u64;
        loop {
            let blow = if job.kill { Blow::Kill } else { Blow::Delay(self.kind.ttl().mul_f64(job.delay)) };
            match self.try_play(Some(Strike { point: job.point, nth, blow })) {
                Ok(Some(Played { struck: true, .. })) => {
                    let mut findings = self.lock();
                    findings.hits.entry(name).or_default()[if job.kill { 1 } else { 2 }] += 1;
                    return;
                }
                Ok(_) if nth > 1 => nth /= 2,
                Ok(_) => {
                    self.lock().violations.push(format!("{name}: it was not passed"));
                    return;
                }
                Err(error) => {
                    self.lock().violations.push(format!("{name}: {error}"));
                    return;
                }
            }
        }
    }

    /// Plays a story and looks at what is left.
    fn try_play(&self, strike: Option<Strike>) -> Result<Option<Played>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
        let number = self.numbers.fetch_add(1, Relaxed);
        let Some(place) = Place::new(self.kind, number).map_err(text)? else { return Ok(None) };
        let played = runtime.block_on(self.play_at(&place, strike));
        // What is left is of use only to whoever looks for the cause, who plays it again.
        let cleared = runtime.block_on(place.clear());
        let played = played?;
        cleared?;
        Ok(Some(played))
    }

    async fn play_at(&self, place: &Place, strike: Option<Strike>) -> Result<Played, String> {
        place.make().await?;
        let post = Post::start().map_err(text)?;
        let errors = place.folder().join("errors");
        let mut child = start(place, &post, strike, self.mutant, &errors).map_err(text)?;
        let (facts, beside) = watch_story(&mut child, place, strike).await?;
        let status = child.wait().map_err(text)?;
        let struck = facts.said.contains(&Said::Struck);
        let mut wrong = beside.err().into_iter().collect::<Vec<_>>();
        let done = facts.said.iter().find_map(|said| match said {
            Said::Done { passed } => Some(passed.clone()),
            _ => None,
        });
        let killed = struck && strike.is_some_and(|strike| strike.blow == Blow::Kill);
        let ended_well = status.success() && done.is_some();
        if !killed && !ended_well {
            let said = std::fs::read_to_string(&errors).unwrap_or_default();
            wrong.push(format!("the process ended by itself, with {status}: {}", last(&said)));
        }
        if strike.is_none() {
            // Nothing was in the way.
            wrong.extend(facts.said.iter().filter_map(|said| match said {
                Said::Failed { step, why } => Some(format!("{step} failed: {why}")),
                _ => None,
            }));
        }
        match judge(place, &post).await {
            Ok(finds) => {
                let facts = Facts {
                    after: finds.granted,
                    documents: finds.documents,
                    mails: finds.mails,
                    arrived: post.arrived(),
                    // The other process always may die so, and this one when it is struck.
                    doubts: 1 + usize::from(struck),
                    ..facts
                };
                wrong.extend(finds.wrong);
                wrong.extend(facts.violations());
                wrong.extend(place.damage()?);
                let mut findings = self.lock();
                findings.free_after = findings.free_after.max(finds.free_after);
            }
            Err(error) => wrong.push(error),
        }
        let passed = done.unwrap_or_default();
        self.note(strike, &wrong, &passed);
        Ok(Played { passed, struck })
    }

    #[expect(clippy::print_stdout, reason = "whoever waits for hours wants to see what was found")]
    fn note(&self, strike: Option<Strike>, wrong: &[String], passed: &BTreeMap<String, u64>) {
        let mut findings = self.lock();
        findings.stories += 1;
        if findings.stories.is_multiple_of(50) && self.mutant.is_none() {
            println!("{}: {} stories", self.kind.name(), findings.stories);
        }
        for point in points(self.kind == Kind::MongoDb) {
            findings.hits.entry(point.name()).or_default()[0] += passed.get(point.name()).copied().unwrap_or(0);
        }
        let at = strike.map_or_else(
            || "nowhere".to_owned(),
            |strike| format!("{} {} {:?}", strike.point.name(), strike.nth, strike.blow),
        );
        for violation in wrong {
            if self.mutant.is_none() {
                println!("{} {at}: {violation}", self.kind.name());
            }
            findings.violations.push(format!("{at}: {violation}"));
        }
    }
}

fn start(
    place: &Place,
    post: &Post,
    strike: Option<Strike>,
    mutant: Option<&str>,
    errors: &std::path::Path,
) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([WORD, &place.url(), &place.fresh_url(), &post.port().to_string()]);
    if let Some(Strike { point, nth, blow }) = strike {
        let delay = match blow {
            Blow::Kill => "kill".to_owned(),
            Blow::Delay(time) => time.as_millis().to_string(),
        };
        command.args([point.name(), &nth.to_string(), &delay]);
    }
    if let Some(mutant) = mutant {
        command.env(MUTANT, mutant);
    }
    // The end of what it says is told, which is to be why it ended.
    command.env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(std::fs::File::create(errors)?);
    process::spawn(command, Signal::KILL)
}

/// Hears what the story's processes say until they have ended, with somebody beside it from a delay on: what he says is
/// among it, and the inner error is his.
async fn watch_story(
    child: &mut Child,
    place: &Place,
    strike: Option<Strike>,
) -> Result<(Facts, Result<(), String>), String> {
    let output = child.stdout.take().ok_or("it has no output")?;
    let (sender, mut lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        // A last line that is not whole is of somebody who was killed while he said it.
        let mut lines = BufReader::new(output).split(b'\n').map_while(Result::ok);
        lines.try_for_each(|line| sender.send(line))
    });
    let delayed = strike.is_some_and(|strike| strike.blow != Blow::Kill);
    let (stop, stopped) = watch::channel(false);
    let mut said = Vec::new();
    let mut contender = None;
    loop {
        let Ok(line) = tokio::time::timeout(LONGEST, lines.recv()).await else {
            child.kill().map_err(text)?;
            return Err("the story does not come to its end".into());
        };
        let Some(line) = line else { break };
        let Ok(one) = serde_json::from_slice::<Said>(&line) else { continue };
        if one == Said::Struck && delayed {
            let (url, stopped) = (place.url(), stopped.clone());
            contender = Some(tokio::spawn(async move { contend(&url, stopped).await }));
        }
        said.push(one);
    }
    stop.send_replace(true);
    let mut beside = Ok(());
    if let Some(contender) = contender {
        match contender.await.map_err(text)? {
            Ok(more) => said.extend(more),
            Err(error) => beside = Err(format!("whoever stood beside it: {error}")),
        }
    }
    Ok((Facts { said, ..Facts::default() }, beside))
}

fn last(text: &str) -> String {
    let from = text.char_indices().rev().nth(600).map_or(0, |(place, _)| place);
    text[from..].trim().to_owned()
}

/// How long a story may be silent.
const LONGEST: Duration = Duration::from_secs(90);
