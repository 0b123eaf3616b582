//! Providers, observers and owners: the stories that every store plays, and what observers are told of failovers.

use std::sync::Arc;
use std::time::Duration;

use coord_core::client::connect;
use coord_core::store::mongodb::MongoStore;
use coord_core::{ObserveOptions, ObserverEvent, ProvideOptions, ProviderEvent};
use coord_tests::servers::{self, ReplicaSet};
use futures::FutureExt;

use self::stories::Place;
use super::support::*;

#[path = "../../core/tests/roster/stories.rs"]
mod stories;

fn place(uri: &str) -> Place {
    let prefix = prefix();
    let separator = if uri.contains('?') { '&' } else { '?' };
    let url = format!("{uri}{separator}coord.prefix={prefix}");
    let uri = uri.to_owned();
    let open = move || {
        let (uri, prefix) = (uri.clone(), prefix.clone());
        async move { Arc::new(MongoStore::open(&uri, &prefix, 20, TTL, env()).await.unwrap()) as _ }.boxed()
    };
    Place { url, open: Box::new(open) }
}

macro_rules! stories {
    ($($story:ident),+ $(,)?) => {
        $(#[test]
        fn $story() {
            let Some(uri) = servers::shared_uri() else { return };
            run(stories::$story(place(&uri)));
        })+
    };
}

stories![
    an_observer_is_told_of_each_edge,
    a_pattern_covers_a_scope,
    all_who_look_on_share_one_stream,
    who_is_closed_is_told_nothing_more,
    what_ends_takes_its_providers_along,
    a_lost_session_registers_again,
    a_grace_hides_a_short_absence,
    owners_come_and_go,
    who_looks_on_buries_the_dead,
    the_keeper_buries_who_provides_and_is_dead,
    limits_are_told,
    nothing_is_lost_with_a_dropped_future,
    a_slow_observer_is_told_what_is_true,
    views_are_the_stores_at_quiet_moments,
];

#[test]
fn failovers_give_a_new_snapshot_and_no_false_edge() {
    let Some(set) = ReplicaSet::start(3) else { return };
    let set = Arc::new(set);
    run(async {
        let url = format!("{}&coord.ttl=120", place(&set.uri()).url);
        let (client, watcher) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
        let provider = client.provide("a", "0", ProvideOptions::default()).await.unwrap();
        let observer = watcher.observe("*", ObserveOptions::default()).await.unwrap();
        let owners = watcher.watch_owners().await.unwrap();
        for _ in 0..4 {
            tokio::time::timeout(PATIENCE, observer.next()).await.unwrap().unwrap();
        }
        let faults: [fn(&ReplicaSet); 3] = [ReplicaSet::step_down, restart_primary, restart_all];
        for (number, fault) in (1..).zip(faults) {
            let breaking = Arc::clone(&set);
            blocking(move || fault(&breaking)).await;
            // Something that is told after the interruption.
            let metadata = number.to_string();
            tokio::time::timeout(2 * PATIENCE, provider.update(&metadata)).await.unwrap().unwrap();
            let mut brackets = Vec::new();
            loop {
                let event = tokio::time::timeout(2 * PATIENCE, observer.next()).await.unwrap().unwrap();
                match event {
                    ObserverEvent::SnapshotStart | ObserverEvent::SnapshotEnd => brackets.push(event),
                    // In the bracket or after it.
                    ObserverEvent::Changed(provider) if provider.metadata == metadata => break,
                    other => panic!("{other:?} is not true"),
                }
            }
            assert!(brackets.contains(&ObserverEvent::SnapshotStart), "fault {number}: {brackets:?}");
            if brackets.len() % 2 == 1 {
                let end = tokio::time::timeout(PATIENCE, observer.next()).await.unwrap().unwrap();
                assert_eq!(end, ObserverEvent::SnapshotEnd);
            }
            assert!(observer.is_available("a").unwrap());
        }
        assert_eq!(provider.next().await.unwrap(), ProviderEvent::Registered);
        assert_eq!(provider.next().now_or_never().map(|event| event.unwrap()), None, "its session lived on");
        while let Some(event) = owners.next().now_or_never() {
            let gone = matches!(event.unwrap(), coord_core::OwnerEvent::Expired(_) | coord_core::OwnerEvent::Left(_));
            assert!(!gone, "all owners live");
        }
        for client in [client, watcher] {
            client.close(Duration::from_secs(60)).await.unwrap();
        }
    });
}

fn restart_primary(set: &ReplicaSet) {
    let primary = set.primary();
    primary.kill();
    primary.restart();
    set.primary();
}

fn restart_all(set: &ReplicaSet) {
    set.members().iter().for_each(|member| member.kill());
    set.members().iter().for_each(|member| member.restart());
    set.primary();
}
