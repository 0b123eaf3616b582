//! Providers, observers and owners through the public interface, on the stores that need no server.
#![allow(clippy::disallowed_methods, reason = "a test is a program of its own")]

mod processes;
mod stories;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coord_core::config::Durability;
use coord_core::env::Env;
use coord_core::store::memory::MemoryStore;
use coord_core::store::sqlite::SqliteStore;
use futures::FutureExt;
use stories::Place;

fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn env() -> Env {
    Env::system(tokio::runtime::Handle::current())
}

fn in_memory() -> Place {
    let name = format!("roster-{}", number());
    let url = format!("memory:{name}?");
    Place {
        url,
        open: Box::new(move || futures::future::ready(Arc::new(MemoryStore::open(&name, env())) as _).boxed()),
    }
}

fn on_sqlite() -> Place {
    let path = std::env::temp_dir().join(format!("coord-roster-{}-{}.db", std::process::id(), number()));
    let url = format!("sqlite:///{}?", path.display());
    let open = move || {
        let path = path.clone();
        async move { Arc::new(SqliteStore::open(&path, Durability::Normal, env()).await.unwrap()) as _ }.boxed()
    };
    Place { url, open: Box::new(open) }
}

macro_rules! on_both {
    ($($story:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $story() {
                super::stories::$story(super::in_memory()).await;
            })+
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $story() {
                super::stories::$story(super::on_sqlite()).await;
            })+
        }
    };
}

on_both![
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
