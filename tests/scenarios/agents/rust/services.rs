//! What the agent does with owners, providers and observers.

use std::time::Duration;

use coord_core::observer::{ObserveOptions, Observer, ObserverEvent, ProviderInfo};
use coord_core::owner::{Owner, OwnerEvent};
use coord_core::provider::{ProvideOptions, Provider, ProviderEvent};
use coord_scenarios::words::Words;

use crate::actor::{Actor, Answer, BOUND, Thing, Trouble, argument, bounded, number, timeout, unknown};
use crate::{reply, tables};

impl Actor {
    /// A command about services, or about what is watched; none if it is not one.
    pub(crate) async fn serve(&mut self, command: &Words) -> Option<Answer> {
        Some(match command.head() {
            "owners" => self.owners(command).await,
            "owner" => self.owner(command).await,
            "watch_owners" => self.watch_owners(command).await,
            "provide" => self.provide(command).await,
            "provider" => self
                .provider(command)
                .map(|provider| provider_words(provider).with("registered", provider.is_registered())),
            "update" => self.update(command).await,
            "watch" => self.watch(command).await,
            "available" => self.available(command),
            "services" => self.services(command),
            "providers" => self.providers(command),
            "await_available" => self.await_service(command, true).await,
            "await_unavailable" => self.await_service(command, false).await,
            "synced" => self.synced(command),
            "next" => self.next(command).await,
            "end" => self.end_of(command).await,
            _ => return None,
        })
    }

    async fn owners(&self, command: &Words) -> Answer {
        let owners = self.client(command)?.owners().await?;
        let mut names: Vec<&str> = owners.iter().map(|owner| owner.name.as_str()).collect();
        names.sort_unstable();
        Ok(reply::ok().with("owners", names.join(",")).with("count", owners.len()))
    }

    async fn owner(&self, command: &Words) -> Answer {
        let (client, session) = (self.client(command)?, argument(command, "session")?);
        let found = client.owners().await?.into_iter().find(|owner| owner.session == session);
        let Some(owner) = found else { return Ok(reply::ok().with("exists", false)) };
        let is_self = owner.session == client.session().id.to_string();
        Ok(owner_words(owner).with("exists", true).with("is_self", is_self))
    }

    async fn watch_owners(&mut self, command: &Words) -> Answer {
        let watch = self.client(command)?.watch_owners().await?;
        self.add(command, Thing::Owners(watch))
    }

    async fn provide(&mut self, command: &Words) -> Answer {
        let mut options = ProvideOptions::default();
        options.instance_id = command.get("instance").map(str::to_owned);
        options.reregister = command.get("reregister") != Some("false");
        let (service, metadata) = (argument(command, "service")?, command.get("metadata").unwrap_or_default());
        let provider = self.client(command)?.provide(service, metadata, options).await?;
        let words = provider_words(&provider);
        self.add(command, Thing::Provider(provider))?;
        Ok(words)
    }

    async fn update(&self, command: &Words) -> Answer {
        self.provider(command)?.update(argument(command, "metadata")?).await?;
        Ok(reply::ok())
    }

    async fn watch(&mut self, command: &Words) -> Answer {
        let mut options = ObserveOptions::default();
        if command.get("down_grace_ms").is_some() {
            options.down_grace = Duration::from_millis(number(command, "down_grace_ms")?);
        }
        let observer = self.client(command)?.observe(argument(command, "service")?, options).await?;
        self.add(command, Thing::Observer(observer))
    }

    fn available(&self, command: &Words) -> Answer {
        let available = self.observer(command)?.is_available(argument(command, "service")?)?;
        Ok(reply::ok().with("available", available))
    }

    fn services(&self, command: &Words) -> Answer {
        let mut services = self.observer(command)?.services()?;
        services.sort_unstable();
        Ok(reply::ok().with("services", services.join(",")))
    }

    fn providers(&self, command: &Words) -> Answer {
        let mut providers = self.observer(command)?.providers(argument(command, "service")?)?;
        providers.sort_by(|one, other| one.instance_id.cmp(&other.instance_id));
        let list = |of: fn(&ProviderInfo) -> &str| providers.iter().map(of).collect::<Vec<_>>().join(",");
        Ok(reply::ok()
            .with("count", providers.len())
            .with("instances", list(|one| &one.instance_id))
            .with("metadata", list(|one| &one.metadata))
            .with("owners", list(|one| &one.name)))
    }

    async fn await_service(&self, command: &Words, available: bool) -> Answer {
        let (observer, service) = (self.observer(command)?, argument(command, "service")?);
        let timeout = Some(timeout(command)?.unwrap_or(BOUND));
        if available {
            observer.wait_available(service, timeout).await?;
        } else {
            observer.wait_unavailable(service, timeout).await?;
        }
        Ok(reply::ok())
    }

    fn synced(&self, command: &Words) -> Answer {
        let name = argument(command, "hold")?;
        match self.things.get(name) {
            Some(Thing::Observer(observer)) => Ok(reply::ok().with("synced", observer.synced())),
            Some(Thing::Cache(cache)) => {
                let words = reply::ok().with("synced", cache.synced());
                Ok(words.with("position", cache.position()).with("bytes", cache.bytes()))
            }
            _ => Err(unknown(name)),
        }
    }

    async fn next(&mut self, command: &Words) -> Answer {
        let name = argument(command, "hold")?;
        Ok(match self.things.get_mut(name).ok_or_else(|| unknown(name))? {
            Thing::Leaders(watch) => reply::leader_event(&bounded(watch.next()).await??),
            Thing::Owners(watch) => owner_event(bounded(watch.next()).await??),
            Thing::Provider(provider) => provider_event(bounded(provider.next()).await??),
            Thing::Observer(observer) => observer_event(bounded(observer.next()).await??),
            Thing::Table(watched) => watched.next(command.get("keep") == Some("true")).await?,
            Thing::Log(log) => tables::entry(&bounded(log.next()).await??),
            Thing::Function(_) | Thing::Cache(_) | Thing::Reconciler(_) | Thing::Work(_) => return Err(unknown(name)),
        })
    }

    async fn end_of(&mut self, command: &Words) -> Answer {
        let name = argument(command, "hold")?;
        match self.things.get(name).ok_or_else(|| unknown(name))? {
            Thing::Owners(watch) => watch.close(),
            Thing::Provider(provider) => provider.close().await?,
            Thing::Observer(observer) => observer.close(),
            Thing::Table(watched) => watched.close(),
            Thing::Log(log) => log.close(),
            Thing::Reconciler(runner) => runner.close(timeout(command)?).await?,
            // These end when they are dropped.
            Thing::Leaders(_) | Thing::Cache(_) => drop(self.things.remove(name)),
            Thing::Function(_) | Thing::Work(_) => return Err(unknown(name)),
        }
        Ok(reply::ok())
    }

    fn provider(&self, command: &Words) -> Result<&Provider, Trouble> {
        let name = argument(command, "hold")?;
        match self.things.get(name) {
            Some(Thing::Provider(provider)) => Ok(provider),
            _ => Err(unknown(name)),
        }
    }

    fn observer(&self, command: &Words) -> Result<&Observer, Trouble> {
        let name = argument(command, "hold")?;
        match self.things.get(name) {
            Some(Thing::Observer(observer)) => Ok(observer),
            _ => Err(unknown(name)),
        }
    }
}

fn owner_words(owner: Owner) -> Words {
    let (mut holds, mut provides) = (owner.holds, owner.provides);
    holds.sort_unstable();
    provides.sort_unstable();
    let words = reply::ok()
        .with("session", owner.session)
        .with("name", owner.name)
        .with("pid", owner.pid)
        .with("state", format!("{:?}", owner.state).to_lowercase())
        .with("holds", holds.join(","))
        .with("provides", provides.join(","));
    owner.labels.iter().fold(words, |words, (name, value)| words.with(&format!("label.{name}"), value))
}

fn owner_event(event: OwnerEvent) -> Words {
    let (event, owner) = match event {
        OwnerEvent::SnapshotStart => ("snapshot_start", None),
        OwnerEvent::SnapshotEnd => ("snapshot_end", None),
        OwnerEvent::Joined(owner) => ("joined", Some(owner)),
        OwnerEvent::Left(owner) => ("left", Some(owner)),
        OwnerEvent::Expired(owner) => ("expired", Some(owner)),
    };
    let words = reply::ok().with("event", event);
    match owner {
        Some(owner) => words.with("name", owner.name).with("session", owner.session),
        None => words,
    }
}

fn provider_words(provider: &Provider) -> Words {
    reply::ok()
        .with("service", provider.service())
        .with("instance", provider.instance_id())
        .with("metadata", provider.metadata())
}

fn provider_event(event: ProviderEvent) -> Words {
    match event {
        ProviderEvent::Registered => reply::ok().with("event", "registered"),
        ProviderEvent::Lost(reason) => reply::ok().with("event", "lost").with("reason", reason.name()),
        ProviderEvent::Reregistered => reply::ok().with("event", "reregistered"),
        ProviderEvent::Closed => reply::ok().with("event", "closed"),
    }
}

fn observer_event(event: ObserverEvent) -> Words {
    let told = |event: &str, provider: ProviderInfo| {
        reply::ok()
            .with("event", event)
            .with("service", provider.service)
            .with("instance", provider.instance_id)
            .with("metadata", provider.metadata)
            .with("owner", provider.name)
            .with("session", provider.session)
    };
    match event {
        ObserverEvent::SnapshotStart => reply::ok().with("event", "snapshot_start"),
        ObserverEvent::SnapshotEnd => reply::ok().with("event", "snapshot_end"),
        ObserverEvent::LastDown { service } => reply::ok().with("event", "last_down").with("service", service),
        ObserverEvent::FirstUp(provider) => told("first_up", provider),
        ObserverEvent::Joined(provider) => told("joined", provider),
        ObserverEvent::Left(provider) => told("left", provider),
        ObserverEvent::Changed(provider) => told("changed", provider),
    }
}
