//! What must be true of sessions whatever the network, the clocks and the other processes do.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const TTL: Duration = Duration::from_secs(10);
const ID: SessionId = SessionId::from_random(7);

fn timing() -> Timing {
    Timing::new(TTL, Duration::ZERO).expect("valid")
}

fn ms(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

fn open(nonce: Nonce) -> SessionStep {
    SessionStep::Open { nonce, ttl: TTL, info: SessionInfo::default() }
}

fn live(nonce: Nonce, ttl: Duration) -> SessionRecord {
    let step = SessionStep::Open { nonce, ttl, info: SessionInfo::default() };
    apply(ID, None, &step, WallTime(0)).expect("opened")
}

mod record {
    use super::*;

    fn any_nonce() -> impl Strategy<Value = Nonce> {
        (0i64..4).prop_map(Nonce)
    }

    fn any_step() -> impl Strategy<Value = SessionStep> {
        prop_oneof![
            1 => (any_nonce(), 1u64..4).prop_map(|(nonce, ttl)| SessionStep::Open {
                nonce,
                ttl: Duration::from_secs(ttl),
                info: SessionInfo { pid: ttl as u32, ..SessionInfo::default() },
            }),
            4 => (vec(any_nonce(), 0..3), any_nonce())
                .prop_map(|(accept, nonce)| SessionStep::Renew { accept, nonce }),
            2 => proptest::option::of(any_nonce()).prop_map(|seen| SessionStep::Kill(KillProof::Observed(seen))),
            1 => vec(any_nonce(), 0..3).prop_map(|ring| SessionStep::Kill(KillProof::KernelLock(ring))),
            1 => Just(SessionStep::Close),
            2 => (0..3u8, 0..3u8, 0..6i64).prop_map(|(instance, metadata, revision)| SessionStep::Provide {
                provider: ProviderRecord::new("a/b/c", &instance.to_string(), &metadata.to_string()),
                revision,
            }),
            1 => (0..3u8, 0..6i64).prop_map(|(instance, revision)| SessionStep::Withdraw {
                key: roster::key("a/b/c", &instance.to_string()),
                revision,
            }),
        ]
    }

    fn proves(proof: &KillProof, record: Option<&SessionRecord>) -> bool {
        let nonce = record.map(|r| r.nonce);
        match (proof, nonce) {
            (KillProof::Observed(_), None) => true,
            (KillProof::KernelLock(_), None) => false,
            (KillProof::Observed(seen), Some(nonce)) => seen.is_some() && *seen == nonce,
            (KillProof::KernelLock(ring), Some(nonce)) => nonce.is_some_and(|n| ring.contains(&n)),
        }
    }

    proptest! {
        #[test]
        fn a_session_dies_once_and_only_for_a_reason(steps in vec(any_step(), 1..40)) {
            let mut record: Option<SessionRecord> = None;
            for (now, step) in steps.iter().enumerate() {
                let now = WallTime(now as i64);
                let Some(after) = apply(ID, record.clone(), step, now) else {
                    let refusable = match step {
                        SessionStep::Open { .. } | SessionStep::Kill(KillProof::Observed(_)) => false,
                        SessionStep::Kill(KillProof::KernelLock(_)) => record.is_none(),
                        SessionStep::Close => record.as_ref().is_none_or(|r| r.vitality == Vitality::Dead),
                        SessionStep::Provide { revision, .. } | SessionStep::Withdraw { revision, .. } => {
                            record.as_ref().is_none_or(|r| r.vitality == Vitality::Dead || r.revision > *revision)
                        }
                        SessionStep::Renew { accept, .. } => record.as_ref().is_none_or(|r| {
                            r.vitality == Vitality::Dead || !r.nonce.is_some_and(|n| accept.contains(&n))
                        }),
                    };
                    prop_assert!(refusable, "{:?} was refused by {:?}", step, record);
                    continue;
                };
                prop_assert_eq!(after.id, ID);
                prop_assert_eq!(after.died.is_some(), after.vitality == Vitality::Dead);
                prop_assert!(after.vitality == Vitality::Live || after.providers.is_empty(), "the dead provide nothing");
                let clean = record.as_ref().is_some_and(|r| r.clean) || matches!(step, SessionStep::Close);
                prop_assert_eq!(after.clean, after.vitality == Vitality::Dead && clean);
                if let Some(before) = &record {
                    prop_assert_eq!((after.ttl, &after.info), (before.ttl, &before.info));
                    prop_assert_eq!(after.opened, before.opened);
                    prop_assert!(after.revision >= before.revision, "what observers order changes by");
                    if before.vitality == Vitality::Dead {
                        prop_assert_eq!(&after, before, "the dead do not change");
                    }
                    if after.nonce != before.nonce {
                        let SessionStep::Renew { accept, nonce } = step else {
                            return Err(TestCaseError::fail("only a renewal brings a new nonce"));
                        };
                        prop_assert!(before.nonce.is_some_and(|n| accept.contains(&n)));
                        prop_assert_eq!(after.nonce, Some(*nonce));
                    }
                }
                let was_dead = record.as_ref().is_some_and(|r| r.vitality == Vitality::Dead);
                if after.vitality == Vitality::Dead && !was_dead {
                    let reason = match step {
                        SessionStep::Close => record.is_some(),
                        SessionStep::Kill(proof) => proves(proof, record.as_ref()),
                        _ => false,
                    };
                    prop_assert!(reason, "{:?} killed {:?}", step, record);
                }
                if let SessionStep::Kill(proof) = step {
                    prop_assert!(after.vitality == Vitality::Dead || !proves(proof, record.as_ref()), "spared");
                }
                record = Some(after);
            }
        }

        #[test]
        fn a_step_sent_again_changes_no_decision(before in vec(any_step(), 0..10), step in any_step()) {
            let run = |record, step: &SessionStep| apply(ID, Option::clone(&record), step, WallTime(1)).or(record);
            let mut record = None;
            for step in &before {
                record = run(record, step);
            }
            let first_applied = apply(ID, record.clone(), &step, WallTime(1)).is_some();
            let once = run(record, &step);
            // A renewal accepts its own nonce, as every renewal that is sent does.
            let own = matches!(&step, SessionStep::Renew { accept, nonce } if !accept.contains(nonce));
            prop_assume!(!own);
            prop_assert_eq!(run(once.clone(), &step), once.clone());
            if first_applied && !matches!(step, SessionStep::Close) {
                prop_assert!(apply(ID, once, &step, WallTime(2)).is_some(), "the second answer is as good");
            }
        }

        #[test]
        fn an_id_survives_its_text(bits: u128) {
            let id = SessionId::from_random(bits);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn a_text_that_is_an_id_is_the_only_one(text in "[+0-9a-fA-Fg-]{30,34}|[0-9a-f]{32}") {
            if let Ok(id) = text.parse::<SessionId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn a_nonce_is_never_negative(bits: u64) {
            prop_assert!(Nonce::from_random(bits).0 >= 0);
        }

        #[test]
        fn a_valid_timing_leaves_room_for_two_renewals(ttl in 0u64..90_000_000, margin in 0u64..90_000_000) {
            let (ttl, stop) = (Duration::from_millis(ttl), Duration::from_millis(margin));
            match Timing::new(ttl, stop) {
                Ok(timing) => {
                    prop_assert!((MIN_TTL..=MAX_TTL).contains(&ttl));
                    prop_assert!(timing.margin >= ttl / 10 && timing.margin >= stop + Duration::from_millis(500));
                    prop_assert!(timing.renew_every * 2 + timing.margin <= ttl);
                }
                Err(why) => prop_assert!(!why.is_empty()),
            }
        }
    }

    #[test]
    fn a_ttl_alone_is_valid_over_its_whole_range() {
        for ttl in [MIN_TTL, Duration::from_millis(1_001), Duration::from_secs(10), MAX_TTL] {
            assert!(Timing::new(ttl, Duration::ZERO).is_ok(), "{ttl:?}");
        }
        assert!(Timing::new(MIN_TTL, Duration::MAX).is_err());
    }
}

/// A holder and a store with a network between them that delays, reorders, doubles and loses everything.
mod view {
    use super::*;

    #[derive(Clone, Debug)]
    enum Event {
        /// The clock moves; nobody looks.
        Pass(u64),
        /// The holder's task runs.
        Look,
        Renew,
        /// A request that was sent arrives, again or for the first time.
        Arrive(usize),
        /// A reply that was given arrives, again or for the first time.
        Answer(usize),
        /// Somebody kills the session, with the proof that he needs.
        Kill,
    }

    fn any_event(kills: bool) -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0u64..3_000).prop_map(Event::Pass),
            1 => (8_000u64..20_000).prop_map(Event::Pass),
            1 => Just(Event::Look),
            6 => Just(Event::Renew),
            6 => (0usize..100).prop_map(Event::Arrive),
            6 => (0usize..100).prop_map(Event::Answer),
            u32::from(kills) => Just(Event::Kill),
        ]
    }

    struct World {
        now: u64,
        view: SessionView,
        record: Option<SessionRecord>,
        requests: Vec<SessionStep>,
        replies: Vec<(Nonce, bool)>,
        first_sent: BTreeMap<i64, u64>,
        /// The longest that a hold could last, by the renewals that the store has applied.
        allowed_until: u64,
        epoch: u64,
        was_live: bool,
        killed: bool,
        opened: bool,
    }

    impl World {
        fn new() -> Self {
            let nonce = Nonce(0);
            Self {
                now: 5,
                view: SessionView::begin_open(timing(), nonce, ms(5)),
                record: None,
                requests: vec![open(nonce)],
                replies: Vec::new(),
                first_sent: BTreeMap::from([(0, 5)]),
                allowed_until: 0,
                epoch: 0,
                was_live: false,
                killed: false,
                opened: false,
            }
        }

        fn run(&mut self, event: Event) {
            match event {
                Event::Pass(millis) => self.now += millis,
                Event::Look => self.view.on_time(ms(self.now)),
                Event::Renew => self.renew(),
                Event::Arrive(pick) => self.arrive(pick),
                Event::Answer(pick) => self.answer(pick),
                Event::Kill => {
                    let nonce = self.record.as_ref().and_then(|r| r.nonce);
                    let step = SessionStep::Kill(KillProof::Observed(nonce));
                    self.record = apply(ID, self.record.take(), &step, WallTime(0));
                    self.killed = true;
                }
            }
        }

        fn renew(&mut self) {
            if matches!(self.view.state(), SessionState::Opening | SessionState::Lost(_)) {
                return;
            }
            self.view.on_time(ms(self.now));
            let fresh = Nonce(self.first_sent.len() as i64);
            let step = self.view.begin_renewal(ms(self.now), fresh);
            let SessionStep::Renew { nonce, .. } = &step else { panic!("a renewal renews") };
            self.first_sent.entry(nonce.0).or_insert(self.now);
            assert!(self.view.possible_nonces().count() <= RING, "more than the ring can hold");
            self.requests.push(step);
        }

        fn arrive(&mut self, pick: usize) {
            let step = self.requests[pick % self.requests.len()].clone();
            let after = apply(ID, self.record.clone(), &step, WallTime(0));
            let alive = after.as_ref().is_some_and(|r| r.vitality == Vitality::Live);
            let (SessionStep::Open { nonce, .. } | SessionStep::Renew { nonce, .. }) = step else {
                unreachable!("the holder sends nothing else")
            };
            self.replies.push((nonce, alive));
            self.record = after.or_else(|| self.record.take());
        }

        fn answer(&mut self, pick: usize) {
            let Some(&(nonce, alive)) = self.replies.get(pick % self.replies.len().max(1)) else { return };
            if nonce.0 == 0 {
                self.view.on_opened(ms(self.now), alive);
                self.opened = true;
            } else if alive {
                self.view.on_renewed(ms(self.now), nonce);
            } else {
                self.view.on_refused(nonce);
            }
            if alive {
                let margin = timing().margin.as_millis() as u64;
                let until = self.first_sent[&nonce.0] + TTL.as_millis() as u64 - margin;
                self.allowed_until = self.allowed_until.max(until);
            }
        }

        fn check(&mut self) -> Result<(), TestCaseError> {
            let mut looked = self.view.clone();
            looked.on_time(ms(self.now));
            let live = looked.state() == SessionState::Live;
            if live {
                prop_assert!(self.opened && self.now < self.allowed_until, "live at {}", self.now);
                prop_assert!(looked.deadline() <= ms(self.allowed_until), "the deadline is later than any renewal");
            }
            prop_assert!(looked.epoch() >= self.epoch);
            if self.was_live && !live {
                prop_assert!(looked.epoch() > self.epoch, "it stopped to be live, and its holds are still valid");
            }
            if !self.killed {
                prop_assert!(!matches!(looked.state(), SessionState::Lost(_)), "lost, and nobody killed it");
            }
            if let Some(nonce) = self.record.as_ref().filter(|r| r.vitality == Vitality::Live).and_then(|r| r.nonce) {
                let known: Vec<Nonce> = self.view.possible_nonces().collect();
                prop_assert!(known.contains(&nonce), "the ring {:?} lacks {:?}", known, nonce);
            }
            self.epoch = looked.epoch();
            self.was_live = live;
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

        /// Includes: never lost without a killer, whatever is refused; never live beyond the oldest clock reading
        /// that its renewals allow; the store's nonce is always one that the ring has.
        #[test]
        fn a_view_never_believes_too_much(events in vec(any_event(false), 1..120)) {
            let mut world = World::new();
            for event in events {
                world.run(event);
                world.check()?;
            }
        }

        #[test]
        fn a_killed_session_learns_it(events in vec(any_event(true), 1..120)) {
            let mut world = World::new();
            for event in events {
                world.run(event);
                world.check()?;
            }
            if world.killed && !matches!(world.view.state(), SessionState::Opening | SessionState::Lost(_)) {
                world.renew();
                let last = world.requests.len() - 1;
                world.arrive(last);
                world.answer(world.replies.len() - 1);
                prop_assert!(matches!(world.view.state(), SessionState::Lost(LossReason::Killed)));
            }
        }

        /// Once the network is well again, one renewal brings a session back that nobody has killed.
        #[test]
        fn a_suspended_session_comes_back(events in vec(any_event(false), 1..80), away in 0u64..100_000) {
            let mut world = World::new();
            for event in events {
                world.run(event);
            }
            world.arrive(0);
            world.answer(world.replies.len() - 1);
            world.now += away;
            world.view.on_time(ms(world.now));
            world.renew();
            world.arrive(world.requests.len() - 1);
            world.answer(world.replies.len() - 1);
            world.check()?;
            // With the ring full the newest is sent again, and its first sending may be too long ago.
            world.renew();
            world.arrive(world.requests.len() - 1);
            world.answer(world.replies.len() - 1);
            world.check()?;
            prop_assert_eq!(world.view.state(), SessionState::Live);
        }
    }

    #[test]
    fn the_hold_of_an_earlier_epoch_is_lost_though_nobody_looked() {
        let mut view = SessionView::begin_open(timing(), Nonce(0), ms(0));
        view.on_opened(ms(1), true);
        let epoch = view.epoch();
        let _ = view.begin_renewal(ms(8_000), Nonce(1));
        // The reply comes after the deadline of the opening and before that of the renewal.
        view.on_renewed(ms(9_500), Nonce(1));
        assert_eq!(view.state(), SessionState::Live);
        assert!(view.epoch() > epoch, "between 9.0 s and 9.5 s others could have taken over");
    }

    #[test]
    fn a_late_opening_is_suspended_not_live() {
        let mut view = SessionView::begin_open(timing(), Nonce(0), ms(0));
        view.on_opened(ms(9_000), true);
        assert_eq!(view.state(), SessionState::Suspended);
    }

    /// The driver renews after the opening only; if it did not, the renewal must not stand in for the opening.
    #[test]
    fn a_renewal_before_the_opening_is_acknowledged_gives_no_more_time() {
        let mut view = SessionView::begin_open(timing(), Nonce(0), ms(0));
        let _ = view.begin_renewal(ms(5_000), Nonce(1));
        view.on_renewed(ms(5_001), Nonce(1));
        assert_eq!(view.state(), SessionState::Opening);
        let _ = view.begin_renewal(ms(8_000), Nonce(2));
        view.on_opened(ms(8_001), true);
        assert!(view.deadline() <= ms(9_000), "the opening was sent at 0");
    }

    #[test]
    fn an_end_is_final() {
        let mut view = SessionView::begin_open(timing(), Nonce(0), ms(0));
        view.on_opened(ms(1), true);
        view.end(LossReason::Forked);
        let epoch = view.epoch();
        view.end(LossReason::Closed);
        view.on_opened(ms(2), true);
        view.on_time(ms(20_000));
        assert_eq!((view.state(), view.epoch()), (SessionState::Lost(LossReason::Forked), epoch));
    }
}

/// An observer's table against the list of all that it was told.
mod observation {
    use super::*;

    const WATCHED: SessionId = ID;

    #[derive(Clone, Copy, Debug)]
    struct Read {
        sent: u64,
        answered: u64,
        nonce: Option<i64>,
    }

    /// Reads one after another; about as far apart as an observer's reads, and sometimes much farther.
    fn any_reads() -> impl Strategy<Value = Vec<Read>> {
        let gap = prop_oneof![8 => 0u64..2_000, 2 => 2_000u64..5_100, 1 => 5_000u64..30_000];
        let nonce = prop_oneof![12 => Just(None), 1 => proptest::option::of(0i64..3).prop_map(Some)];
        vec((gap, 0u64..300, nonce), 1..60).prop_map(|steps| {
            let (mut now, mut current) = (0, Some(0));
            let reads = steps.into_iter().map(|(gap, takes, change)| {
                if let Some(nonce) = change {
                    current = nonce;
                }
                let read = Read { sent: now + gap, answered: now + gap + takes, nonce: current };
                now = read.answered;
                read
            });
            reads.collect()
        })
    }

    fn tell(table: &mut Observations, read: &Read) {
        let record = read.nonce.map(|nonce| live(Nonce(nonce), TTL));
        table.on_read(ms(read.sent), ms(read.answered), WATCHED, record.as_ref(), TTL);
    }

    /// How long the latest nonce was certainly there without a gap, by all reads so far.
    fn certain(reads: &[Read]) -> u64 {
        let last = reads[reads.len() - 1];
        let mut first = last;
        for read in reads.iter().rev().skip(1) {
            if read.nonce != first.nonce || first.sent - read.sent > TTL.as_millis() as u64 / 2 {
                break;
            }
            first = *read;
        }
        last.sent.saturating_sub(first.answered)
    }

    proptest! {
        #[test]
        fn eligible_exactly_after_the_ttl_and_a_fiftieth(reads in any_reads()) {
            let mut table = Observations::default();
            table.want(ms(0), WATCHED, Duration::from_secs(1_000_000));
            for (place, read) in reads.iter().enumerate() {
                tell(&mut table, read);
                let due = certain(&reads[..=place]) >= 10_200;
                let proof = KillProof::Observed(read.nonce.map(Nonce));
                let expected = if due { vec![(WATCHED, proof)] } else { vec![] };
                prop_assert_eq!(table.eligible(), expected, "after {:?}", &reads[..=place]);
            }
        }

        /// Reads that overtake one another make an observer more patient, never less.
        #[test]
        fn never_eligible_too_early_whatever_the_order(
            reads in vec((0u64..40_000, 0u64..6_000, proptest::option::of(0i64..2)), 1..40)
        ) {
            let mut reads: Vec<Read> = reads
                .into_iter()
                .map(|(sent, takes, nonce)| Read { sent, answered: sent + takes, nonce })
                .collect();
            reads.sort_by_key(|read| read.answered);
            let mut table = Observations::default();
            table.want(ms(0), WATCHED, Duration::from_secs(1_000_000));
            for (place, read) in reads.iter().enumerate() {
                tell(&mut table, read);
                for (_, proof) in table.eligible() {
                    let shows = |r: &&Read| KillProof::Observed(r.nonce.map(Nonce)) == proof;
                    let told: Vec<&Read> = reads[..=place].iter().collect();
                    let proven = told.iter().enumerate().any(|(from, first)| {
                        let run: Vec<&&Read> = told[from..].iter().take_while(|r| shows(r)).collect();
                        let last = run.iter().map(|r| r.sent).max().unwrap_or(0);
                        from + run.len() == told.len() && last.saturating_sub(first.answered) >= 10_200
                    });
                    prop_assert!(proven, "eligible without proof after {:?}", told);
                }
            }
        }

        #[test]
        fn the_holders_ttl_counts_and_not_the_observers(ttl in 1u64..100, observers in 1u64..100) {
            let (ttl, default) = (Duration::from_secs(ttl), Duration::from_secs(observers));
            let mut table = Observations::default();
            table.want(ms(0), WATCHED, Duration::from_secs(1_000_000));
            let record = live(Nonce(1), ttl);
            let due = ttl * 102 / 100;
            let mut now = Timestamp::ZERO;
            loop {
                table.on_read(now, now, WATCHED, Some(&record), default);
                prop_assert_eq!(table.eligible().is_empty(), now.since(Timestamp::ZERO) < due);
                prop_assert_eq!(table.next_deadline(), Some(Timestamp::ZERO + due));
                if !table.eligible().is_empty() {
                    break;
                }
                now = (now + ttl / 4).min(Timestamp::ZERO + due);
            }
        }

        /// Short waits for the same silent session add up, as long as it stays wanted.
        #[test]
        fn interest_is_kept_as_long_as_the_longest_wish(keeps in vec((0u64..5_000, 1u64..30_000), 1..20)) {
            let mut table = Observations::default();
            let (mut now, mut until) = (0, 0);
            for (pass, keep) in keeps {
                now += pass;
                let before = table.to_read(ms(now));
                prop_assert_eq!(before.contains(&WATCHED), until > now);
                until = if until > now { until.max(now + keep) } else { now + keep };
                table.want(ms(now), WATCHED, Duration::from_millis(keep));
                prop_assert_eq!(table.to_read(ms(now)), vec![WATCHED]);
            }
            prop_assert_eq!(table.to_read(ms(until)), vec![]);
        }
    }

    #[test]
    fn the_dead_are_known_and_no_longer_read() {
        let mut table = Observations::default();
        table.want(ms(0), WATCHED, TTL * 10);
        let dead = SessionRecord { vitality: Vitality::Dead, ..live(Nonce(1), TTL) };
        tell(&mut table, &Read { sent: 0, answered: 1, nonce: Some(1) });
        table.on_read(ms(2), ms(3), WATCHED, Some(&dead), TTL);
        // An older read that comes late does not raise the dead.
        tell(&mut table, &Read { sent: 0, answered: 4, nonce: Some(1) });
        assert!(table.is_dead(WATCHED));
        assert_eq!(table.sighting(ms(5), WATCHED), Sighting::Dead);
        assert_eq!((table.to_read(ms(5)), table.eligible()), (vec![], vec![]));
        assert_eq!(table.next_deadline(), None);
    }

    #[test]
    fn only_what_was_wanted_is_observed() {
        let mut table = Observations::default();
        tell(&mut table, &Read { sent: 0, answered: 1, nonce: Some(1) });
        assert_eq!(table.sighting(ms(1), WATCHED), Sighting::Unknown);
        table.want(ms(1), WATCHED, TTL);
        assert_eq!(table.sighting(ms(1), WATCHED), Sighting::Unknown);
        tell(&mut table, &Read { sent: 2, answered: 3, nonce: Some(1) });
        assert_eq!(table.sighting(ms(1_003), WATCHED), Sighting::Unchanged(Duration::from_secs(1)));
        assert!(!table.has_renewed_since(WATCHED, ms(0)));
        tell(&mut table, &Read { sent: 2_000, answered: 2_001, nonce: Some(2) });
        // Between the two reads, so after the first was sent; nobody can say more.
        assert!(table.has_renewed_since(WATCHED, ms(2)));
        assert!(!table.has_renewed_since(WATCHED, ms(3)));
        table.on_dead(WATCHED);
        assert!(!table.has_renewed_since(WATCHED, ms(0)));
    }
}

/// The promise of the whole: whoever is killed by observation has stopped before, though no two clocks agree.
mod together {
    use super::*;

    #[derive(Clone, Debug)]
    struct Renewal {
        /// Since the one before, on the true clock.
        after: u64,
        /// From sending to the store; none if lost.
        request: Option<u64>,
        /// From the store to the holder; none if lost.
        reply: Option<u64>,
    }

    fn any_renewal() -> impl Strategy<Value = Renewal> {
        let delay = || proptest::option::weighted(0.8, prop_oneof![4 => 0u64..300, 1 => 0u64..15_000]);
        (prop_oneof![5 => 1_000u64..2_500, 1 => 0u64..12_000], delay(), delay())
            .prop_map(|(after, request, reply)| Renewal { after, request, reply })
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum What {
        Send(usize),
        Apply(usize),
        Reply(usize),
        Read,
    }

    /// The reading of a clock that runs at this many per mille of the true rate, from its own zero.
    fn clock(true_ms: u64, per_mille: u64, zero: u64) -> Timestamp {
        Timestamp::from_nanos(zero + true_ms * per_mille * 1_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn a_killed_session_has_stopped_before(
            renewals in vec(any_renewal(), 1..20),
            read_gaps in vec((0u64..1_500, 0u64..200, 0u64..3_000), 60),
            holder_rate in select(vec![960u64, 1_000, 1_040]),
            observer_rate in select(vec![960u64, 1_000, 1_040]),
            zeros in (0u64..1 << 50, 0u64..1 << 50),
        ) {
            let mut events: Vec<(u64, What)> = Vec::new();
            let mut now = 1;
            for (place, renewal) in renewals.iter().enumerate() {
                now += renewal.after;
                events.push((now, What::Send(place)));
                if let Some(request) = renewal.request {
                    events.push((now + request, What::Apply(place)));
                    if let Some(reply) = renewal.reply {
                        events.push((now + request + reply, What::Reply(place)));
                    }
                }
            }
            let mut at = 0;
            let reads: Vec<(u64, u64, u64)> = read_gaps
                .iter()
                .map(|(gap, takes, kill_delay)| {
                    at += gap + takes;
                    (at - takes, at, at + kill_delay)
                })
                .collect();
            events.extend(reads.iter().map(|(_, answered, _)| (*answered, What::Read)));
            events.sort();

            let holder = |t| clock(t, holder_rate, zeros.0);
            let observer = |t| clock(t, observer_rate, zeros.1);
            let mut view = SessionView::begin_open(timing(), Nonce(0), holder(0));
            view.on_opened(holder(1), true);
            let mut record = apply(ID, None, &open(Nonce(0)), WallTime(0));
            let mut table = Observations::default();
            table.want(observer(0), ID, Duration::from_secs(1_000_000));
            let mut requests: BTreeMap<usize, SessionStep> = BTreeMap::new();
            let mut replies: BTreeMap<usize, bool> = BTreeMap::new();
            let mut read = reads.iter();
            let mut kill: Option<(u64, KillProof)> = None;

            for (now, what) in events {
                if let Some((at, proof)) = kill.take_if(|(at, _)| *at <= now) {
                    record = apply(ID, record.take(), &SessionStep::Kill(proof), WallTime(0));
                    if record.as_ref().is_some_and(|r| r.vitality == Vitality::Dead) {
                        view.on_time(holder(at));
                        prop_assert_ne!(view.state(), SessionState::Live, "killed at {} while live", at);
                        return Ok(());
                    }
                }
                match what {
                    What::Send(place) => {
                        if matches!(view.state(), SessionState::Lost(_)) { return Ok(()) }
                        requests.insert(place, view.begin_renewal(holder(now), Nonce(place as i64 + 1)));
                    }
                    What::Apply(place) => {
                        let after = apply(ID, record.clone(), &requests[&place], WallTime(0));
                        replies.insert(place, after.is_some());
                        record = after.or(record);
                    }
                    What::Reply(place) => {
                        let SessionStep::Renew { nonce, .. } = &requests[&place] else { unreachable!() };
                        if replies[&place] {
                            view.on_renewed(holder(now), *nonce);
                        } else {
                            view.on_refused(*nonce);
                        }
                    }
                    What::Read => {
                        let (sent, answered, kill_at) = *read.next().expect("one event for each read");
                        table.on_read(observer(sent), observer(answered), ID, record.as_ref(), TTL);
                        if let Some((_, proof)) = table.eligible().into_iter().next() {
                            kill.get_or_insert((kill_at, proof));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_period_never_starts_the_count_anew() {
    // The gap after which a count starts anew is half the ttl of the observed session, whatever the observer's is.
    for ttl_ms in [1_000, 1_500, 2_000, 6_000, 30_000, 86_400_000] {
        let mut seen = Observations::default();
        let id = SessionId::from_random(1);
        seen.want(Timestamp::ZERO, id, Duration::from_secs(1_000_000));
        assert_eq!(seen.period(), None);
        let record = SessionRecord {
            id,
            vitality: Vitality::Live,
            nonce: Some(Nonce(1)),
            ttl: Duration::from_millis(ttl_ms),
            seen: WallTime(0),
            died: None,
            clean: false,
            info: SessionInfo::default(),
            opened: WallTime(0),
            revision: 0,
            providers: Vec::new(),
        };
        seen.on_read(Timestamp::ZERO, Timestamp::ZERO, id, Some(&record), Duration::from_secs(30));
        let period = seen.period().unwrap();
        assert!(period <= record.ttl / 4, "{period:?} of {ttl_ms} ms");
        seen.on_dead(id);
        assert_eq!(seen.period(), None);
    }
}
