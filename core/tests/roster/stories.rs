//! What providers, observers and owners promise, on any store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use coord_core::client::{Client, connect};
use coord_core::election::LeaderEvent;
use coord_core::error::{Code, LossReason};
use coord_core::protocol::claim::{ClaimKey, ClaimStep, Entry, Priority, Step};
use coord_core::protocol::roster::ProviderRecord;
use coord_core::protocol::session::{KillProof, Nonce, SessionInfo, SessionRecord, SessionStep, Vitality};
use coord_core::store::{SessionQuery, SharedStore};
use coord_core::{
    ObserveOptions, Observer, ObserverEvent, OwnerEvent, OwnerWatch, ProvideOptions, Provider, ProviderEvent, SessionId,
};
use futures::FutureExt;
use futures::future::BoxFuture;

pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// A store that no other test uses: its URL, to which options can be added, and the way to it beside clients.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) open: Box<dyn Fn() -> BoxFuture<'static, SharedStore> + Send + Sync>,
}

impl Place {
    async fn connect(&self, name: &str) -> Client {
        // Long enough that on a busy machine nobody dies unasked.
        self.connect_with(name, "120").await
    }

    pub(crate) async fn connect_with(&self, name: &str, ttl: &str) -> Client {
        connect(&format!("{}&coord.name={name}&coord.ttl={ttl}", self.url)).await.unwrap()
    }
}

pub(crate) async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.unwrap_or_else(|_| panic!("{what}: not within {BOUND:?}"))
}

async fn provide(client: &Client, service: &str, metadata: &str) -> Provider {
    bounded("a provider", client.provide(service, metadata, ProvideOptions::default())).await.unwrap()
}

async fn provide_as(client: &Client, service: &str, instance: &str) -> Provider {
    let mut options = ProvideOptions::default();
    options.instance_id = Some(instance.to_owned());
    bounded("a provider", client.provide(service, "", options)).await.unwrap()
}

pub(crate) async fn observe(client: &Client, pattern: &str) -> Observer {
    bounded("an observer", client.observe(pattern, ObserveOptions::default())).await.unwrap()
}

async fn next(observer: &Observer) -> ObserverEvent {
    bounded("an event", observer.next()).await.unwrap()
}

/// An event in short: `up a`, `down a`, `+a 1`, `-a 1`, `~a 1`, with the last part of the service and the instance.
fn short(event: &ObserverEvent) -> String {
    let name = |service: &str| service.rsplit('/').next().unwrap().to_owned();
    match event {
        ObserverEvent::SnapshotStart => "[".to_owned(),
        ObserverEvent::SnapshotEnd => "]".to_owned(),
        ObserverEvent::FirstUp(provider) => format!("up {}", name(&provider.service)),
        ObserverEvent::LastDown { service } => format!("down {}", name(service)),
        ObserverEvent::Joined(provider) => format!("+{} {}", name(&provider.service), provider.instance_id),
        ObserverEvent::Left(provider) => format!("-{} {}", name(&provider.service), provider.instance_id),
        ObserverEvent::Changed(provider) => format!("~{} {}", name(&provider.service), provider.instance_id),
    }
}

async fn expect(observer: &Observer, expected: &[&str]) {
    for expected in expected {
        assert_eq!(short(&next(observer).await), *expected);
    }
}

/// Declares a session dead, as one does who has seen it silent.
async fn kill(store: &SharedStore, id: SessionId) {
    loop {
        let record = store.sessions(SessionQuery::Ids(vec![id])).await.unwrap().pop().expect("the session is there");
        let step = SessionStep::Kill(KillProof::Observed(record.nonce));
        let after = store.apply_session(id, step).await.unwrap().expect("a kill answers");
        if after.vitality == Vitality::Dead {
            return;
        }
    }
}

pub(crate) async fn an_observer_is_told_of_each_edge(place: Place) {
    let (a, b, watcher) = (place.connect("a").await, place.connect("b").await, place.connect("w").await);
    let observer = observe(&watcher, "search").await;
    assert_eq!(observer.pattern(), "default/default/search");
    assert!(observer.synced() && !observer.is_available("search").unwrap());
    expect(&observer, &["[", "]"]).await;

    let first = provide_as(&a, "search", "1").await;
    assert!(first.is_registered());
    bounded("available", observer.wait_available("", None)).await.unwrap();
    expect(&observer, &["up search", "+search 1"]).await;
    let second = provide_as(&b, "search", "2").await;
    expect(&observer, &["+search 2"]).await;
    let providers = observer.providers("default/search").unwrap();
    let seen: BTreeSet<_> = providers.iter().map(|p| (p.name.as_str(), p.instance_id.as_str())).collect();
    assert_eq!(seen, BTreeSet::from([("a", "1"), ("b", "2")]));
    assert_eq!(providers[0].service, "default/default/search");

    second.update("x=1").await.unwrap();
    let ObserverEvent::Changed(changed) = next(&observer).await else { panic!("it was to change") };
    assert_eq!((changed.metadata.as_str(), changed.instance_id.as_str()), ("x=1", "2"));
    assert_eq!(second.metadata(), "x=1");
    first.close().await.unwrap();
    first.close().await.unwrap();
    assert_eq!(first.update("").await.unwrap_err().code(), Code::Closed);
    expect(&observer, &["-search 1"]).await;
    assert!(observer.is_available("").unwrap());
    drop(second);
    bounded("unavailable", observer.wait_unavailable("search", None)).await.unwrap();
    expect(&observer, &["-search 2", "down search"]).await;
    let timeout = observer.wait_available("search", Some(Duration::from_millis(10))).await.unwrap_err();
    assert_eq!(timeout.code(), Code::Timeout);

    // A late comer is told in one bracket.
    let _third = provide_as(&a, "search", "3").await;
    bounded("the third", observer.wait_available("search", None)).await.unwrap();
    let late = observe(&watcher, "search").await;
    expect(&late, &["[", "up search", "+search 3", "]"]).await;
    let copy = observer.clone();
    observer.close();
    assert_eq!(copy.next().await.unwrap_err().code(), Code::Closed);
    assert_eq!(observer.is_available("search").unwrap_err().code(), Code::Closed);
    expect(&late, &[]).await;
    watcher.close(BOUND).await.unwrap();
    assert_eq!(bounded("its end", late.next()).await.unwrap_err().code(), Code::Closed);
    for client in [a, b] {
        client.close(BOUND).await.unwrap();
    }
}

pub(crate) async fn a_pattern_covers_a_scope(place: Place) {
    let client = place.connect("a").await;
    let scope = observe(&client, "shop/*").await;
    assert_eq!(scope.pattern(), "default/shop/*");
    let own = observe(&client, "*").await;
    expect(&scope, &["[", "]"]).await;
    let names = ["shop/cart", "shop/pay", "plain", "shopping/cart", "other/shop/cart"];
    let mut providers = Vec::new();
    for name in names {
        providers.push(provide_as(&client, name, "1").await);
    }
    expect(&scope, &["up cart", "+cart 1", "up pay", "+pay 1"]).await;
    assert_eq!(scope.services().unwrap(), ["default/shop/cart", "default/shop/pay"]);
    assert!(scope.is_available("shop/cart").unwrap());
    assert_eq!(scope.is_available("plain").unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(scope.is_available("").unwrap_err().code(), Code::InvalidArgument);
    bounded("plain", own.wait_available("plain", None)).await.unwrap();
    assert_eq!(own.services().unwrap(), ["default/default/plain"]);
    for (pattern, code) in
        [("a/b/c/*", Code::InvalidArgument), ("/*", Code::InvalidArgument), ("a*", Code::InvalidArgument)]
    {
        let refused = client.observe(pattern, ObserveOptions::default()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{pattern}: {refused}");
    }
    client.close(BOUND).await.unwrap();
}

pub(crate) async fn all_who_look_on_share_one_stream(place: Place) {
    let client = place.connect("a").await;
    assert_eq!(client.stats().store.streams, 0, "who does not look on costs nothing");
    let mut observers = Vec::new();
    for number in 0..5 {
        observers.push(observe(&client, &format!("s{number}")).await);
    }
    let owners = client.watch_owners().await.unwrap();
    let _provider = provide(&client, "s3", "").await;
    bounded("s3", observers[3].wait_available("", None)).await.unwrap();
    let stats = client.stats();
    assert_eq!((stats.store.streams, stats.onlookers, stats.providers), (1, 6, 1));
    drop((observers, owners));
    assert_eq!(client.stats().onlookers, 0);
    client.close(BOUND).await.unwrap();
}

pub(crate) async fn who_is_closed_is_told_nothing_more(place: Place) {
    let client = place.connect("a").await;
    let observer = observe(&client, "*").await;
    let (copy, owners) = (observer.clone(), client.watch_owners().await.unwrap());
    assert_eq!(client.stats().onlookers, 2);
    observer.close();
    owners.close();
    assert_eq!(client.stats().onlookers, 0, "although both are still referred to");
    copy.close();
    assert_eq!(copy.next().await.unwrap_err().code(), Code::Closed);
    assert_eq!(owners.next().await.unwrap_err().code(), Code::Closed);
    // The stream was closed with the last of them; the next one has another.
    let late = observe(&client, "*").await;
    let _provider = provide(&client, "a", "").await;
    bounded("a", late.wait_available("a", None)).await.unwrap();
    drop((observer, copy, owners));
    assert_eq!(client.stats().onlookers, 1);
    client.close(BOUND).await.unwrap();
}

pub(crate) async fn what_ends_takes_its_providers_along(place: Place) {
    let (client, watcher) = (place.connect("a").await, place.connect("w").await);
    let observer = observe(&watcher, "*").await;
    expect(&observer, &["[", "]"]).await;
    let provider = provide_as(&client, "a", "1").await;
    let _other = provide_as(&client, "b", "1").await;
    expect(&observer, &["up a", "+a 1", "up b", "+b 1"]).await;
    assert_eq!(provider.next().await.unwrap(), ProviderEvent::Registered);
    client.close(BOUND).await.unwrap();
    let mut left = BTreeSet::new();
    for _ in 0..4 {
        left.insert(short(&next(&observer).await));
    }
    let all = ["-a 1", "-b 1", "down a", "down b"].map(str::to_owned);
    assert_eq!(left, BTreeSet::from(all), "in one write");
    assert_eq!(bounded("closed", provider.next()).await.unwrap(), ProviderEvent::Closed);
    assert_eq!(provider.next().await.unwrap_err().code(), Code::Closed);
    assert!(!provider.is_registered());
    let refused = client.provide("c", "", ProvideOptions::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Closed);
    watcher.close(BOUND).await.unwrap();
}

pub(crate) async fn a_lost_session_registers_again(place: Place) {
    let (client, watcher) = (place.connect_with("a", "3").await, place.connect("w").await);
    let store = (place.open)().await;
    let observer = observe(&watcher, "*").await;
    expect(&observer, &["[", "]"]).await;
    let kept = provide_as(&client, "kept", "1").await;
    let mut options = ProvideOptions::default();
    options.reregister = false;
    let once = bounded("a provider", client.provide("once", "", options)).await.unwrap();
    for provider in [&kept, &once] {
        assert_eq!(provider.next().await.unwrap(), ProviderEvent::Registered);
    }
    expect(&observer, &["up kept", "+kept 1", "up once"]).await;
    next(&observer).await;

    let before = client.session();
    kill(&store, before.id).await;
    let mut told = BTreeMap::new();
    while told.get("kept").is_none_or(|story: &Vec<String>| story.len() < 4)
        || told.get("once").is_none_or(|story| story.len() < 2)
    {
        let event = short(&next(&observer).await);
        let service = if event.contains("kept") { "kept" } else { "once" };
        told.entry(service).or_insert_with(Vec::new).push(event.replace(once.instance_id(), "1"));
    }
    assert_eq!(told["kept"], ["-kept 1", "down kept", "up kept", "+kept 1"]);
    assert_eq!(told["once"], ["-once 1", "down once"]);
    let mut events = Vec::new();
    for _ in 0..2 {
        events.push(bounded("an event", kept.next()).await.unwrap());
    }
    assert!(matches!(events[..], [ProviderEvent::Lost(_), ProviderEvent::Reregistered]), "{events:?}");
    assert_eq!(events[0], ProviderEvent::Lost(LossReason::Killed));
    assert!(matches!(bounded("lost", once.next()).await.unwrap(), ProviderEvent::Lost(_)));
    assert_eq!(bounded("closed", once.next()).await.unwrap(), ProviderEvent::Closed);
    assert!(kept.is_registered() && !once.is_registered());
    let provider = observer.providers("kept").unwrap().pop().unwrap();
    assert_ne!(provider.session, before.id.to_string(), "a new owner");
    for client in [client, watcher] {
        client.close(BOUND).await.unwrap();
    }
    store.close().await;
}

pub(crate) async fn a_grace_hides_a_short_absence(place: Place) {
    let (client, watcher) = (place.connect_with("a", "3").await, place.connect("w").await);
    let store = (place.open)().await;
    let mut options = ObserveOptions::default();
    options.down_grace = BOUND;
    let observer = bounded("an observer", watcher.observe("a", options)).await.unwrap();
    let _provider = provide_as(&client, "a", "1").await;
    expect(&observer, &["[", "]", "up a", "+a 1"]).await;
    kill(&store, client.session().id).await;
    expect(&observer, &["-a 1", "+a 1"]).await;

    // And one that is not hidden: the last down comes by itself, after its time.
    let mut options = ObserveOptions::default();
    options.down_grace = Duration::from_millis(50);
    let other = bounded("an observer", watcher.observe("a", options)).await.unwrap();
    client.close(BOUND).await.unwrap();
    expect(&other, &["[", "up a", "+a 1", "]", "-a 1", "down a"]).await;
    watcher.close(BOUND).await.unwrap();
    store.close().await;
}

async fn next_owner(watch: &OwnerWatch) -> OwnerEvent {
    bounded("an owner event", watch.next()).await.unwrap()
}

pub(crate) async fn owners_come_and_go(place: Place) {
    let watcher = place.connect("w").await;
    let store = (place.open)().await;
    let held = watcher.lock("x").unwrap().acquire().await.unwrap();
    let _provider = provide(&watcher, "search", "").await;
    let [owner] = &watcher.owners().await.unwrap()[..] else { panic!("one session") };
    assert_eq!((owner.name.as_str(), &owner.session), ("w", &watcher.session().id.to_string()));
    assert_eq!(owner.holds, ["lock/default/default/x"]);
    assert_eq!(owner.provides, ["default/default/search"]);
    assert!(owner.since_ms > 0 && owner.last_renewal_ms >= owner.since_ms && owner.pid == std::process::id());

    let watch = watcher.watch_owners().await.unwrap();
    assert_eq!(next_owner(&watch).await, OwnerEvent::SnapshotStart);
    let OwnerEvent::Joined(joined) = next_owner(&watch).await else { panic!("it is there") };
    assert_eq!((&joined.session, &joined.holds, &joined.provides), (&owner.session, &owner.holds, &owner.provides));
    assert_eq!(next_owner(&watch).await, OwnerEvent::SnapshotEnd);

    let (a, b) = (place.connect("a").await, place.connect_with("a", "3").await);
    let (a_id, b_id) = (a.session().id, b.session().id);
    for id in [a_id, b_id] {
        let OwnerEvent::Joined(joined) = next_owner(&watch).await else { panic!("it has come") };
        assert_eq!((joined.session, joined.name.as_str()), (id.to_string(), "a"), "the same name is another owner");
    }
    a.close(BOUND).await.unwrap();
    let OwnerEvent::Left(left) = next_owner(&watch).await else { panic!("it was closed") };
    assert_eq!(left.session, a_id.to_string());
    kill(&store, b_id).await;
    let OwnerEvent::Expired(expired) = next_owner(&watch).await else { panic!("it was killed") };
    assert_eq!(expired.session, b_id.to_string());
    let OwnerEvent::Joined(again) = next_owner(&watch).await else { panic!("its client goes on") };
    assert_ne!(again.session, b_id.to_string());
    b.close(BOUND).await.unwrap();
    held.release().await.unwrap();
    watch.close();
    assert_eq!(watch.next().await.unwrap_err().code(), Code::Closed);
    watcher.close(BOUND).await.unwrap();
    store.close().await;
}

/// A session that nobody renews, as a process on another host that was switched off leaves it.
async fn leave_ghost(store: &SharedStore, number: u128) -> SessionId {
    let ghost = SessionId::from_random(number);
    let (ttl, info) = (Duration::from_secs(1), SessionInfo::default());
    store.apply_session(ghost, SessionStep::Open { nonce: Nonce(5), ttl, info }).await.unwrap();
    let provider = ProviderRecord::new("default/default/a", "1", "");
    store.apply_session(ghost, SessionStep::Provide { provider, revision: 1 }).await.unwrap().expect("live");
    ghost
}

pub(crate) async fn who_looks_on_buries_the_dead(place: Place) {
    // Nobody here becomes the keeper in the time of the test.
    let watcher = place.connect_with("w", "120").await;
    let store = (place.open)().await;
    let ghost = leave_ghost(&store, 4711).await;
    let observer = observe(&watcher, "a").await;
    expect(&observer, &["[", "up a", "+a 1", "]", "-a 1", "down a"]).await;
    let record = store.sessions(SessionQuery::Ids(vec![ghost])).await.unwrap().pop().unwrap();
    assert_eq!((record.vitality, record.clean), (Vitality::Dead, false));
    drop(observer);

    let watch = watcher.watch_owners().await.unwrap();
    while next_owner(&watch).await != OwnerEvent::SnapshotEnd {}
    let ghost = leave_ghost(&store, 4712).await;
    let OwnerEvent::Joined(joined) = next_owner(&watch).await else { panic!("it has come") };
    let OwnerEvent::Expired(expired) = next_owner(&watch).await else { panic!("it is dead") };
    assert_eq!([joined.session, expired.session], [ghost.to_string(), ghost.to_string()]);
    drop(watch);

    let ghost = leave_ghost(&store, 4713).await;
    let leader = Entry { session: ghost, attempt: 1, priority: Priority::default() };
    let step = Step::acquire(leader, true, 8, Vec::new());
    let key = ClaimKey::new("election/default/default/boss");
    store.apply_claim(key, ClaimStep::Step(step)).await.unwrap().expect("granted");
    let watch = watcher.election("boss").unwrap().observe().await.unwrap();
    let LeaderEvent::Leader(boss) = bounded("a leader", watch.next()).await.unwrap() else { panic!("it leads") };
    assert_eq!(boss.session, ghost.to_string());
    assert_eq!(bounded("no leader", watch.next()).await.unwrap(), LeaderEvent::NoLeader);

    watcher.close(BOUND).await.unwrap();
    store.close().await;
}

pub(crate) async fn the_keeper_buries_who_provides_and_is_dead(place: Place) {
    let keeper = place.connect_with("w", "1").await;
    let store = (place.open)().await;
    let ghost = leave_ghost(&store, 4711).await;
    let dead = async {
        loop {
            let record = store.sessions(SessionQuery::Ids(vec![ghost])).await.unwrap().pop().unwrap();
            if record.vitality == Vitality::Dead {
                return record;
            }
            // Not by an event: whoever looks on would look after it as well.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(!bounded("its death", dead).await.clean);
    keeper.close(BOUND).await.unwrap();
    store.close().await;
}

pub(crate) async fn limits_are_told(place: Place) {
    let client = place.connect("a").await;
    let refused = |service: &'static str, metadata: String, instance: Option<&'static str>| {
        let client = client.clone();
        async move {
            let mut options = ProvideOptions::default();
            options.instance_id = instance.map(str::to_owned);
            client.provide(service, &metadata, options).await.unwrap_err().code()
        }
    };
    assert_eq!(refused("a b", String::new(), None).await, Code::InvalidArgument);
    assert_eq!(refused("a", "x".repeat(4_097), None).await, Code::InvalidArgument);
    assert_eq!(refused("a", String::new(), Some("")).await, Code::InvalidArgument);
    assert_eq!(refused("a", String::new(), Some("x#y")).await, Code::InvalidArgument);
    let first = provide_as(&client, "a", "1").await;
    assert_eq!(refused("a", String::new(), Some("1")).await, Code::AlreadyExists);
    assert_eq!(first.update(&"x".repeat(4_097)).await.unwrap_err().code(), Code::InvalidArgument);
    // Withdrawn and provided again in one breath.
    drop(first);
    let again = provide_as(&client, "a", "1").await;
    assert!(again.is_registered());

    let full = "x".repeat(4_096);
    let mut many = Vec::new();
    let refusal = loop {
        match bounded("another", client.provide("a", &full, ProvideOptions::default())).await {
            Ok(provider) => many.push(provider),
            Err(error) => break error,
        }
    };
    assert_eq!(refusal.code(), Code::QueueFull, "{refusal}");
    assert!((240..260).contains(&many.len()), "{} times 4 KiB and their names are 1 MiB", many.len());
    assert_eq!(client.stats().providers, many.len() as u64 + 1);
    drop(many);
    again.update(&full).await.unwrap();
    client.close(BOUND).await.unwrap();
}

pub(crate) async fn nothing_is_lost_with_a_dropped_future(place: Place) {
    let (client, watcher) = (place.connect("a").await, place.connect("w").await);
    let observer = observe(&watcher, "*").await;
    let take = || async {
        // Every other wait is given up at once.
        loop {
            if let Some(event) = observer.next().now_or_never() {
                return event.unwrap();
            }
            let waited = tokio::time::timeout(Duration::from_millis(1), observer.next()).await;
            if let Ok(event) = waited {
                return event.unwrap();
            }
        }
    };
    for _ in 0..2 {
        bounded("the bracket", take()).await;
    }
    for round in 0..20 {
        let instance = round.to_string();
        let provider = provide_as(&client, "a", &instance).await;
        for expected in ["up a".to_owned(), format!("+a {instance}")] {
            assert_eq!(short(&bounded("an event", take()).await), expected);
        }
        drop(provider);
        for expected in [format!("-a {instance}"), "down a".to_owned()] {
            assert_eq!(short(&bounded("an event", take()).await), expected);
        }
    }
    // A provider whose future is dropped is withdrawn, whether it came to the store or not.
    for _ in 0..20 {
        let provided = client.provide("b", "", ProvideOptions::default());
        drop(tokio::time::timeout(Duration::from_micros(50), provided).await);
    }
    let last = provide_as(&client, "c", "last").await;
    bounded("c", observer.wait_available("c", None)).await.unwrap();
    bounded("b", observer.wait_unavailable("b", None)).await.unwrap();
    drop(last);
    for client in [client, watcher] {
        client.close(BOUND).await.unwrap();
    }
}

pub(crate) async fn a_slow_observer_is_told_what_is_true(place: Place) {
    let (client, watcher) = (place.connect("a").await, place.connect("w").await);
    let (slow, quick) = (observe(&watcher, "*").await, observe(&watcher, "*").await);
    let steady = provide_as(&client, "b", "0").await;
    for _ in 0..60 {
        let provider = provide_as(&client, "a", "1").await;
        provider.close().await.unwrap();
    }
    let _last = provide_as(&client, "a", "2").await;
    // Both are told by one stream, which may be behind: an earlier one of these is available, too.
    while short(&next(&quick).await) != "+a 2" {}
    steady.update("end").await.unwrap();
    let mut events = Vec::new();
    loop {
        events.push(short(&next(&slow).await));
        if events.last().is_some_and(|event| event == "~b 0") {
            break;
        }
    }
    let of_a: Vec<&str> = events.iter().map(String::as_str).filter(|event| event.contains('a')).collect();
    assert_eq!(of_a, ["up a", "+a 2"], "120 edges were too many to keep");
    for client in [client, watcher] {
        client.close(BOUND).await.unwrap();
    }
}

/// What an observer has been told, checked with every event.
pub(crate) struct Told {
    observer: Observer,
    up: BTreeSet<String>,
    providers: BTreeSet<(String, String, String, String)>,
    pub(crate) edges: BTreeMap<String, (u32, u32)>,
    in_bracket: bool,
}

impl Told {
    pub(crate) fn of(observer: Observer) -> Self {
        Self { observer, up: BTreeSet::new(), providers: BTreeSet::new(), edges: BTreeMap::new(), in_bracket: false }
    }

    /// Takes what there is, until it says what is true.
    pub(crate) async fn catch_up(&mut self, truth: &BTreeSet<(String, String, String, String)>) {
        while self.in_bracket || self.providers != *truth || self.up != services(truth) {
            let event = match tokio::time::timeout(BOUND, self.observer.next()).await {
                Ok(event) => event.unwrap(),
                Err(_) => panic!("told of {:?}, and true is {truth:?}", self.providers),
            };
            self.take(event);
        }
    }

    fn take(&mut self, event: ObserverEvent) {
        let id = |p: &coord_core::ProviderInfo| {
            (p.session.clone(), p.service.clone(), p.instance_id.clone(), p.metadata.clone())
        };
        match event {
            ObserverEvent::SnapshotStart => assert!(!std::mem::replace(&mut self.in_bracket, true)),
            ObserverEvent::SnapshotEnd => assert!(std::mem::replace(&mut self.in_bracket, false)),
            ObserverEvent::FirstUp(provider) => {
                self.edges.entry(provider.service.clone()).or_default().0 += 1;
                assert!(self.up.insert(provider.service), "up twice");
            }
            ObserverEvent::LastDown { service } => {
                self.edges.entry(service.clone()).or_default().1 += 1;
                assert!(self.up.remove(&service), "down without having been up");
            }
            ObserverEvent::Joined(provider) => assert!(self.providers.insert(id(&provider)), "joined twice"),
            ObserverEvent::Left(provider) => {
                let before = self.providers.len();
                self.providers.retain(|known| {
                    (&known.0, &known.2) != (&provider.session, &provider.instance_id) || known.1 != provider.service
                });
                assert_eq!(self.providers.len(), before - 1, "left without being there");
            }
            ObserverEvent::Changed(provider) => {
                self.providers.retain(|known| {
                    (&known.0, &known.2) != (&provider.session, &provider.instance_id) || known.1 != provider.service
                });
                assert!(self.providers.insert(id(&provider)));
            }
        }
    }
}

fn services(providers: &BTreeSet<(String, String, String, String)>) -> BTreeSet<String> {
    providers.iter().map(|provider| provider.1.clone()).collect()
}

pub(crate) async fn truth(store: &SharedStore) -> BTreeSet<(String, String, String, String)> {
    let live: Vec<SessionRecord> = store.sessions(SessionQuery::Roster).await.unwrap();
    live.into_iter()
        .flat_map(|session| {
            let id = session.id.to_string();
            session
                .providers
                .into_iter()
                .map(move |p| (id.clone(), p.service.clone(), p.instance().to_owned(), p.metadata))
        })
        .collect()
}

/// Providers come and go, with kills; whenever it is quiet, all who look on know what the store has, and they agree on how
/// often each service came and went.
pub(crate) async fn views_are_the_stores_at_quiet_moments(place: Place) {
    const CLIENTS: usize = 5;
    let store = (place.open)().await;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(place.connect_with(&format!("c{number}"), "3").await);
    }
    let watchers = [place.connect("w1").await, place.connect("w2").await];
    let mut told = Vec::new();
    for watcher in [&watchers[0], &watchers[0], &watchers[1]] {
        told.push(Told::of(observe(watcher, "*").await));
    }
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = move |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % limit as u64) as usize
    };
    let providers: Arc<tokio::sync::Mutex<Vec<Provider>>> = Arc::default();
    for round in 0..12 {
        for _ in 0..12 {
            let mut providers = providers.lock().await;
            match below(10) {
                0..=4 if providers.len() < 40 => {
                    let (client, service) = (&clients[below(CLIENTS)], format!("s{}", below(6)));
                    providers.push(provide(client, &service, "").await);
                }
                5 if !providers.is_empty() => {
                    let place = below(providers.len());
                    bounded("an update", providers[place].update(&round.to_string())).await.unwrap();
                }
                6 => kill(&store, clients[below(CLIENTS)].session().id).await,
                _ if !providers.is_empty() => {
                    let place = below(providers.len());
                    drop(providers.swap_remove(place));
                }
                _ => {}
            }
        }
        // Quiet: every client has a session that lives, and everything that is wanted is there again.
        let providers = providers.lock().await;
        let mut seen = String::new();
        let quiet = async {
            loop {
                let found = truth(&store).await;
                let sessions: BTreeSet<String> = clients.iter().map(|client| client.session().id.to_string()).collect();
                let live = store.sessions(SessionQuery::Live).await.unwrap().into_iter().map(|s| s.id.to_string());
                let live: BTreeSet<String> = live.collect();
                let all_live = sessions.is_subset(&live);
                let ours = |found: &BTreeSet<(String, String, String, String)>| {
                    providers.iter().all(|provider| {
                        found.iter().any(|f| f.2 == provider.instance_id() && f.3 == provider.metadata())
                    })
                };
                if all_live && found.len() == providers.len() && ours(&found) {
                    return found;
                }
                let wanted: Vec<_> = providers.iter().map(|p| (p.instance_id().to_owned(), p.metadata())).collect();
                seen = format!("sessions {sessions:?} of which live {live:?}\nproviders {found:?}\nwanted {wanted:?}");
                // Not by an event: it is the events that are compared with what the store says by itself.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let Ok(found) = tokio::time::timeout(BOUND, quiet).await else {
            panic!("round {round}: no quiet moment within {BOUND:?}: {seen}");
        };
        for told in &mut told {
            told.catch_up(&found).await;
            let shown: BTreeSet<String> = told.observer.services().unwrap().into_iter().collect();
            assert_eq!(shown, services(&found), "round {round}");
        }
        for other in &told[1..] {
            assert_eq!(other.edges, told[0].edges, "round {round}: all are told of the same edges");
        }
    }
    for (up, down) in told[0].edges.values() {
        assert!(up == down || *up == down + 1);
    }
    providers.lock().await.clear();
    for client in clients.into_iter().chain(watchers) {
        client.close(BOUND).await.unwrap();
    }
    store.close().await;
}
