//! What must be true of what an observer is told, however it comes and however slowly it is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::feed::{Event, Feed, KEPT, KEPT_OF_ALL};
use super::view::{Pattern, Roster, Step};
use super::*;
use crate::protocol::session::{Nonce, SessionId, SessionInfo, SessionStep, apply};
use crate::time::{Timestamp, WallTime};

const SERVICES: [&str; 3] = ["n/s/a", "n/s/b", "n/t/c"];

fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

/// The truth: sessions in a store.
#[derive(Default)]
struct Store(BTreeMap<SessionId, SessionRecord>);

impl Store {
    fn step(&mut self, number: u8, step: &SessionStep) -> Option<SessionRecord> {
        let id = SessionId::from_random(number.into());
        let after = apply(id, self.0.get(&id).cloned(), step, WallTime(0))?;
        self.0.insert(id, after.clone());
        Some(after)
    }

    fn live(&self) -> Vec<SessionRecord> {
        self.0.values().filter(|session| session.vitality == Vitality::Live).cloned().collect()
    }

    fn provided(&self, pattern: &Pattern) -> BTreeSet<(SessionId, ProviderRecord)> {
        let all = self.live().into_iter().flat_map(|s| s.providers.into_iter().map(move |p| (s.id, p)));
        all.filter(|(_, provider)| pattern.covers(&provider.service)).collect()
    }
}

/// One who takes events, and believes what they say.
#[derive(Default)]
struct Listener {
    up: BTreeSet<String>,
    providers: BTreeMap<(SessionId, String), ProviderRecord>,
    in_bracket: bool,
    edges: usize,
}

impl Listener {
    fn take(&mut self, event: Event) {
        match event {
            Event::SnapshotStart => assert!(!std::mem::replace(&mut self.in_bracket, true)),
            Event::SnapshotEnd => assert!(std::mem::replace(&mut self.in_bracket, false)),
            Event::FirstUp(present) => {
                self.edges += 1;
                assert!(self.up.insert(present.provider.service.clone()), "up twice");
            }
            Event::LastDown(service) => {
                self.edges += 1;
                assert!(self.up.remove(&service), "down without having been up");
                assert!(self.providers.values().all(|p| p.service != service), "down, and somebody is there");
            }
            Event::Joined(present) => {
                assert!(self.up.contains(&present.provider.service), "joined, and it is not up");
                assert_eq!(self.providers.insert(present.id(), present.provider.clone()), None, "joined twice");
            }
            Event::Changed(present) => {
                let before = self.providers.insert(present.id(), present.provider.clone());
                assert!(before.is_some_and(|before| before != present.provider), "changed without a change");
            }
            Event::Left(present) => assert!(self.providers.remove(&present.id()).is_some(), "left without being there"),
        }
    }

    fn believes(&self) -> BTreeSet<(SessionId, ProviderRecord)> {
        self.providers.iter().map(|((session, _), provider)| (*session, provider.clone())).collect()
    }
}

#[derive(Clone, Debug)]
enum Do {
    Open(u8),
    Close(u8),
    Provide(u8, usize, u8, u8),
    Withdraw(u8, usize, u8),
    /// The stream is interrupted for as many of the next steps.
    Interrupt(u8),
    Take(u8),
    Wait(u8),
}

fn any_do() -> impl Strategy<Value = Do> {
    let (session, service, instance) = (0..4u8, 0..SERVICES.len(), 0..2u8);
    prop_oneof![
        2 => session.clone().prop_map(Do::Open),
        1 => session.clone().prop_map(Do::Close),
        6 => (session.clone(), service.clone(), instance.clone(), 0..2u8).prop_map(|(s, v, i, m)| Do::Provide(s, v, i, m)),
        4 => (session, service, instance).prop_map(|(s, v, i)| Do::Withdraw(s, v, i)),
        1 => (0..6u8).prop_map(Do::Interrupt),
        3 => (0..9u8).prop_map(Do::Take),
        1 => (0..4u8).prop_map(Do::Wait),
    ]
}

fn session_step(store: &Store, doing: &Do) -> Option<(u8, SessionStep)> {
    let revision = |number: u8| store.0.get(&SessionId::from_random(number.into())).map_or(0, |s| s.revision) + 1;
    Some(match doing {
        Do::Open(number) => {
            let (nonce, ttl) = (Nonce(1), Duration::from_secs(9));
            (*number, SessionStep::Open { nonce, ttl, info: SessionInfo::default() })
        }
        Do::Close(number) => (*number, SessionStep::Close),
        Do::Provide(number, service, instance, metadata) => {
            let provider = ProviderRecord::new(SERVICES[*service], &instance.to_string(), &metadata.to_string());
            (*number, SessionStep::Provide { provider, revision: revision(*number) })
        }
        Do::Withdraw(number, service, instance) => {
            let key = key(SERVICES[*service], &instance.to_string());
            (*number, SessionStep::Withdraw { key, revision: revision(*number) })
        }
        _ => return None,
    })
}

/// Plays a story, and checks what a listener is told of it. Returns how many edges that were.
fn play(story: &[Do], pattern: Pattern, grace: u64) -> usize {
    play_keeping(KEPT_OF_ALL, story, pattern, grace)
}

/// The same where no more than so many events are kept.
fn play_keeping(most: usize, story: &[Do], pattern: Pattern, grace: u64) -> usize {
    let (mut store, mut roster) = (Store::default(), Roster::new(pattern.clone()));
    let mut feed = Feed::new(Duration::from_secs(grace));
    feed.most = most;
    let mut listener = Listener::default();
    let mut now = 0;
    let mut interrupted: Option<u8> = Some(0);
    for doing in story {
        // Sessions are never opened again in a store; here a dead one makes room.
        if let Do::Open(number) = doing {
            let id = SessionId::from_random((*number).into());
            if store.0.get(&id).is_some_and(|session| session.vitality == Vitality::Dead) && interrupted.is_none() {
                store.0.remove(&id);
            }
        }
        let changed = session_step(&store, doing).and_then(|(number, step)| store.step(number, &step));
        match (&mut interrupted, doing) {
            (Some(0), _) => {
                interrupted = None;
                let steps = roster.replace(&store.live());
                feed.bracket(steps, seconds(now));
            }
            (Some(left), _) => *left -= 1,
            (None, Do::Interrupt(length)) => interrupted = Some(*length),
            (None, Do::Wait(time)) => now += u64::from(*time),
            (None, Do::Take(count)) => {
                for event in std::iter::from_fn(|| feed.take(&roster, seconds(now))).take((*count).into()) {
                    listener.take(event);
                }
            }
            (None, _) => {
                if let Some(session) = changed {
                    let steps = roster.apply(&session);
                    feed.extend(steps, seconds(now));
                }
            }
        }
        if interrupted.is_none() {
            let shown: BTreeSet<_> = SERVICES
                .iter()
                .flat_map(|service| roster.providers(service))
                .map(|present| (present.session, present.provider.clone()))
                .collect();
            assert_eq!(shown, store.provided(&pattern), "the view is the store's");
        }
    }
    if interrupted.is_some() {
        let steps = roster.replace(&store.live());
        feed.bracket(steps, seconds(now));
    }
    now += grace;
    while let Some(event) = feed.take(&roster, seconds(now)) {
        listener.take(event);
    }
    assert!(!listener.in_bracket);
    assert_eq!(listener.believes(), store.provided(&pattern), "whoever has taken everything knows what is true");
    let up: BTreeSet<String> = roster.services().map(str::to_owned).collect();
    assert_eq!(listener.up, up);
    assert_eq!(feed.next_due(), None);
    listener.edges
}

proptest! {
    #[test]
    fn a_listener_believes_what_is_true(story in vec(any_do(), 1..200), grace in 0..3u64, all: bool) {
        let pattern = if all { Pattern::Under("n/".into()) } else { Pattern::One(SERVICES[0].into()) };
        play(&story, pattern, grace);
    }

    #[test]
    fn a_listener_who_is_never_fast_believes_it_too(story in vec(any_do(), 600..900)) {
        let story: Vec<Do> = story.into_iter().filter(|doing| !matches!(doing, Do::Take(_))).collect();
        play(&story, Pattern::Under("n/".into()), 0);
    }

    #[test]
    fn a_listener_who_falls_behind_again_and_again_believes_it_too(
        story in vec(any_do(), 1..300), grace in 0..3u64, most in 0..30usize,
    ) {
        play_keeping(most, &story, Pattern::Under("n/".into()), grace);
    }

    #[test]
    fn those_who_are_fast_are_told_of_the_same_edges(story in vec(any_do(), 1..100)) {
        // However the taking falls between the steps, as long as nothing collapses.
        let story: Vec<Do> = story.into_iter().filter(|doing| !matches!(doing, Do::Interrupt(_))).collect();
        let all = play(&story, Pattern::Under("n/".into()), 0);
        let eager: Vec<Do> = story.iter().flat_map(|doing| [doing.clone(), Do::Take(255)]).collect();
        prop_assert_eq!(play(&eager, Pattern::Under("n/".into()), 0), all);
    }

    #[test]
    fn a_provider_never_outlives_its_session(story in vec(any_do(), 1..100)) {
        let mut store = Store::default();
        for doing in &story {
            if let Some((number, step)) = session_step(&store, doing) {
                store.step(number, &step);
            }
            for session in store.0.values() {
                prop_assert!(session.vitality == Vitality::Live || session.providers.is_empty());
            }
        }
    }
}

fn opened(store: &mut Store, number: u8, service: &str) -> SessionRecord {
    store.step(number, &session_step(store, &Do::Open(number)).unwrap().1).unwrap();
    let step = SessionStep::Provide { provider: ProviderRecord::new(service, "1", ""), revision: 1 };
    store.step(number, &step).unwrap()
}

fn kinds(feed: &mut Feed, roster: &Roster, now: Timestamp) -> Vec<&'static str> {
    std::iter::from_fn(|| feed.take(roster, now))
        .map(|event| match event {
            Event::SnapshotStart => "start",
            Event::SnapshotEnd => "end",
            Event::FirstUp(_) => "up",
            Event::LastDown(_) => "down",
            Event::Joined(_) => "joined",
            Event::Left(_) => "left",
            Event::Changed(_) => "changed",
        })
        .collect()
}

#[test]
fn an_interruption_makes_no_edge_of_a_change_of_guard() {
    let mut store = Store::default();
    let mut roster = Roster::new(Pattern::One(SERVICES[0].into()));
    let mut feed = Feed::new(Duration::ZERO);
    opened(&mut store, 1, SERVICES[0]);
    let steps = roster.replace(&store.live());
    feed.bracket(steps, Timestamp::ZERO);
    assert_eq!(kinds(&mut feed, &roster, Timestamp::ZERO), ["start", "up", "joined", "end"]);
    store.step(1, &SessionStep::Close);
    opened(&mut store, 2, SERVICES[0]);
    let steps = roster.replace(&store.live());
    feed.bracket(steps, Timestamp::ZERO);
    assert_eq!(kinds(&mut feed, &roster, Timestamp::ZERO), ["start", "joined", "left", "end"]);
}

#[test]
fn a_down_is_held_back_for_the_grace() {
    let mut store = Store::default();
    let mut roster = Roster::new(Pattern::One(SERVICES[0].into()));
    let mut feed = Feed::new(Duration::from_secs(5));
    let tell = |feed: &mut Feed, roster: &mut Roster, session: &SessionRecord, now| {
        let steps = roster.apply(session);
        feed.extend(steps, now);
        kinds(feed, roster, now)
    };
    let first = opened(&mut store, 1, SERVICES[0]);
    assert_eq!(tell(&mut feed, &mut roster, &first, seconds(0)), ["up", "joined"]);
    let closed = store.step(1, &SessionStep::Close).unwrap();
    assert_eq!(tell(&mut feed, &mut roster, &closed, seconds(10)), ["left"]);
    assert_eq!(feed.next_due(), Some(seconds(15)));
    let second = opened(&mut store, 2, SERVICES[0]);
    assert_eq!(tell(&mut feed, &mut roster, &second, seconds(14)), ["joined"], "it was back in time");
    assert_eq!(feed.next_due(), None);
    let closed = store.step(2, &SessionStep::Close).unwrap();
    assert_eq!(tell(&mut feed, &mut roster, &closed, seconds(20)), ["left"]);
    assert_eq!(kinds(&mut feed, &roster, seconds(24)), [""; 0]);
    assert_eq!(kinds(&mut feed, &roster, seconds(25)), ["down"]);
}

#[test]
fn one_who_is_slow_is_told_what_is_true_and_no_more() {
    let mut store = Store::default();
    let mut roster = Roster::new(Pattern::Under("n/".into()));
    let mut feed = Feed::new(Duration::ZERO);
    for number in 0..=u8::try_from(KEPT).expect("few enough to number") {
        let session = opened(&mut store, number, SERVICES[0]);
        let steps = roster.apply(&session);
        feed.extend(steps, Timestamp::ZERO);
        let closed = store.step(number, &SessionStep::Close).unwrap();
        let steps = roster.apply(&closed);
        feed.extend(steps, Timestamp::ZERO);
    }
    let last = opened(&mut store, 255, SERVICES[0]);
    let steps = roster.apply(&last);
    assert!(matches!(steps[..], [Step::Joined(_)]));
    feed.extend(steps, Timestamp::ZERO);
    assert_eq!(kinds(&mut feed, &roster, Timestamp::ZERO), ["up", "joined"]);
}

/// Services of which each comes and goes, every other one behind the back of an observer who is interrupted.
fn come_and_go(services: usize, feed: &mut Feed, roster: &mut Roster) {
    for number in 0..services {
        let mut store = Store::default();
        let (session, interrupted) = (opened(&mut store, 1, &format!("n/s/{number}")), number % 2 == 0);
        if interrupted {
            feed.bracket(roster.replace(&store.live()), Timestamp::ZERO);
        } else {
            feed.extend(roster.apply(&session), Timestamp::ZERO);
        }
        let closed = store.step(1, &SessionStep::Close).unwrap();
        feed.extend(roster.apply(&closed), Timestamp::ZERO);
    }
}

#[test]
fn what_waits_does_not_grow_with_the_services_that_have_come_and_gone() {
    let (mut store, mut roster) = (Store::default(), Roster::new(Pattern::Under("n/".into())));
    let mut feed = Feed::new(Duration::ZERO);
    feed.bracket(Vec::new(), Timestamp::ZERO);
    come_and_go(500, &mut feed, &mut roster);
    let all = kinds(&mut feed, &roster, Timestamp::ZERO);
    assert_eq!(all.iter().filter(|kind| ["up", "down"].contains(kind)).count(), 1_000, "so many are told in full");

    come_and_go(KEPT_OF_ALL, &mut feed, &mut roster);
    let there = opened(&mut store, 2, SERVICES[0]);
    feed.extend(roster.apply(&there), Timestamp::ZERO);
    assert_eq!(kinds(&mut feed, &roster, Timestamp::ZERO), ["start", "up", "joined", "end"]);

    // Of what has gone only what was told of is told of.
    let closed = store.step(2, &SessionStep::Close).unwrap();
    feed.extend(roster.apply(&closed), Timestamp::ZERO);
    come_and_go(KEPT_OF_ALL, &mut feed, &mut roster);
    assert_eq!(kinds(&mut feed, &roster, Timestamp::ZERO), ["start", "left", "down", "end"]);
}
