//! What the agent does with elections, and with a store under control.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coord_core::election::{CampaignOptions, Candidacy, CandidacyOptions, Elected, Election};
use coord_core::testing::Control;
use coord_scenarios::words::Words;
use tokio::sync::mpsc;

use crate::actor::{Actor, Answer, Grant, Operation, Thing, Trouble, argument, bounded, number, timeout, unknown};
use crate::reply;

/// A function that is called in every term: its calls come through a channel, and end when they are told to.
pub(crate) struct Function {
    candidacy: Arc<Candidacy>,
    entered: mpsc::UnboundedReceiver<Elected>,
    current: Option<Elected>,
    begun: Arc<AtomicUsize>,
    ended: usize,
}

impl Function {
    fn new(candidacy: Candidacy) -> Self {
        let (call, entered) = mpsc::unbounded_channel();
        let (candidacy, begun) = (Arc::new(candidacy), Arc::new(AtomicUsize::new(0)));
        let (calls, count) = (candidacy.clone(), begun.clone());
        tokio::spawn(async move {
            while let Ok(elected) = calls.next().await {
                count.fetch_add(1, Ordering::SeqCst);
                if call.send(elected).is_err() {
                    return;
                }
            }
        });
        Self { candidacy, entered, current: None, begun, ended: 0 }
    }

    /// Waits for the next call, and gives its term.
    pub(crate) async fn entered(&mut self) -> Result<Grant, Trouble> {
        let elected = bounded(self.entered.recv()).await?.ok_or_else(|| "there are no calls any more".to_owned())?;
        let term = elected.term().clone();
        self.current = Some(elected);
        Ok(Grant::Term(term))
    }

    /// Lets the call end that runs.
    pub(crate) async fn finish(&mut self, error: Option<&str>) -> Result<(), Trouble> {
        if self.current.is_none() {
            self.entered().await?;
        }
        let elected = self.current.take().ok_or_else(|| "the function was not called".to_owned())?;
        self.ended += 1;
        Ok(elected.complete(error.map_or(Ok(()), |error| Err(error.to_owned())))?)
    }
}

impl Actor {
    /// A command about an election; none if it is not one.
    pub(crate) async fn elect(&mut self, command: &Words) -> Option<Answer> {
        Some(match command.head() {
            "campaign" => self.campaign(command).await,
            "try_campaign" => self.try_campaign(command).await,
            "start_campaign" => self.start_campaign(command),
            "leading" => self.election(command).map(|election| reply::ok().with("leading", election.is_leader())),
            "leader" => self.leader(command).await,
            "candidates" => self.candidates(command).await,
            "proclaim" => self.proclaim(command).await,
            "resign" => self.resign(command).await,
            "transfer" => self.transfer(command).await,
            "observe" => self.observe(command).await,
            "elect" => self.when_elected(command),
            "calls" => self.calls(command),
            "retire" => self.retire(command).await,
            "force_leader" => self.force_leader(command).await,
            "expire" => self.expire(command).await,
            "advance" => self.advance(command).await,
            _ => return None,
        })
    }

    fn election(&self, command: &Words) -> Result<Election, Trouble> {
        Ok(self.client(command)?.election(argument(command, "election")?)?)
    }

    async fn campaign(&mut self, command: &Words) -> Answer {
        let (election, options) = (self.election(command)?, options(command)?);
        let term = election.campaign_with(value(command), options).await?;
        self.keep(argument(command, "as")?, Grant::Term(Arc::new(term)))
    }

    async fn try_campaign(&mut self, command: &Words) -> Answer {
        let term = self.election(command)?.try_campaign(value(command)).await?;
        self.keep(argument(command, "as")?, Grant::Term(Arc::new(term)))
    }

    fn start_campaign(&mut self, command: &Words) -> Answer {
        let (election, options, value) = (self.election(command)?, options(command)?, value(command).to_owned());
        let task = tokio::spawn(async move { election.campaign_with(&value, options).await });
        self.operations.insert(argument(command, "as")?.to_owned(), Operation::Campaign(task));
        Ok(reply::ok())
    }

    async fn leader(&self, command: &Words) -> Answer {
        Ok(match self.election(command)?.leader().await? {
            None => reply::ok().with("exists", false),
            Some(leader) => reply::leader(reply::ok().with("exists", true), &leader),
        })
    }

    async fn candidates(&self, command: &Words) -> Answer {
        let candidates = self.election(command)?.candidates().await?;
        let names: Vec<&str> = candidates.iter().map(|one| one.name.as_str()).collect();
        let sessions: Vec<&str> = candidates.iter().map(|one| one.session.as_str()).collect();
        let priorities: Vec<String> = candidates.iter().map(|one| one.priority.to_string()).collect();
        Ok(reply::ok()
            .with("candidates", names.join(","))
            .with("sessions", sessions.join(","))
            .with("priorities", priorities.join(","))
            .with("waiting", candidates.len()))
    }

    async fn proclaim(&self, command: &Words) -> Answer {
        self.term(command)?.proclaim(argument(command, "value")?).await?;
        Ok(reply::ok())
    }

    async fn resign(&self, command: &Words) -> Answer {
        self.term(command)?.resign().await?;
        Ok(reply::ok())
    }

    async fn transfer(&self, command: &Words) -> Answer {
        self.term(command)?.transfer_to(argument(command, "to")?).await?;
        Ok(reply::ok())
    }

    async fn observe(&mut self, command: &Words) -> Answer {
        let watch = self.election(command)?.observe().await?;
        self.add(command, Thing::Leaders(watch))
    }

    fn when_elected(&mut self, command: &Words) -> Answer {
        let keep_on_error = command.get("keep_on_error") == Some("true");
        let mut options = CandidacyOptions { keep_on_error, ..Default::default() };
        if command.get("priority").is_some() {
            options.priority = number(command, "priority")?;
        }
        if command.get("backoff_ms").is_some() {
            let pause = Duration::from_millis(number(command, "backoff_ms")?);
            (options.min_backoff, options.max_backoff) = (pause, pause);
        }
        let candidacy = self.election(command)?.when_elected(value(command), options)?;
        self.add(command, Thing::Function(Function::new(candidacy)))
    }

    fn calls(&mut self, command: &Words) -> Answer {
        let function = self.function(argument(command, "hold")?)?;
        let begun = function.begun.load(Ordering::SeqCst);
        Ok(reply::ok().with("calls", begun).with("running", begun > function.ended))
    }

    async fn retire(&mut self, command: &Words) -> Answer {
        let function = self.function(argument(command, "hold")?)?;
        function.candidacy.close();
        bounded(function.candidacy.closed()).await?;
        Ok(reply::ok())
    }

    async fn force_leader(&self, command: &Words) -> Answer {
        let control = Control::of(self.client(command)?)?;
        control.force_leader(argument(command, "election")?, argument(command, "session")?).await?;
        Ok(reply::ok())
    }

    async fn expire(&self, command: &Words) -> Answer {
        Control::of(self.client(command)?)?.expire_session(argument(command, "session")?).await?;
        Ok(reply::ok())
    }

    async fn advance(&self, command: &Words) -> Answer {
        Control::of(self.client(command)?)?.advance(Duration::from_millis(number(command, "ms")?)).await?;
        Ok(reply::ok())
    }

    fn term(&self, command: &Words) -> Result<&coord_core::election::Term, Trouble> {
        let name = argument(command, "hold")?;
        match self.hold(name)? {
            Grant::Term(term) => Ok(term),
            Grant::Lock(_) => Err(unknown(name)),
        }
    }

    pub(crate) fn function(&mut self, name: &str) -> Result<&mut Function, Trouble> {
        match self.things.get_mut(name) {
            Some(Thing::Function(function)) => Ok(function),
            _ => Err(unknown(name)),
        }
    }
}

fn value(command: &Words) -> &str {
    command.get("value").unwrap_or_default()
}

fn options(command: &Words) -> Result<CampaignOptions, Trouble> {
    let mut options = CampaignOptions { timeout: timeout(command)?, ..Default::default() };
    if command.get("priority").is_some() {
        options.priority = number(command, "priority")?;
    }
    Ok(options)
}
