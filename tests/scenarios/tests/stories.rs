//! Plays every story with every agent on every store. `COORD_STORY=name` plays only those whose name contains it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use coord_scenarios::conductor::play;
use coord_scenarios::stage::{Agents, Language, Program, Store, cast};
use coord_scenarios::story::Story;
use coord_tests::servers::scratch::Scratch;

/// How many stories are played at once: they wait more than they work.
const AT_ONCE: usize = 4;

fn stories() -> Vec<Story> {
    let all = Story::read_all(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_or_else(|error| panic!("{error}"));
    let wanted = std::env::var("COORD_STORY").unwrap_or_default();
    all.into_iter().filter(|story| story.name.contains(&wanted)).collect()
}

/// Plays with an agent of one language, or with one of each in turns.
fn play_all(store: Store, languages: &[Language]) {
    let agents = Agents::new(env!("CARGO_BIN_EXE_coord-agent"));
    let Some(programs) = languages.iter().map(|language| agents.of(*language)).collect::<Option<Vec<_>>>() else {
        return;
    };
    let mut stories = stories();
    stories.retain(|story| story.stores.contains(&store));
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((turn, story)) = take(&stories, &next) {
                    if let Err(error) = play_story(story, store, &programs, turn) {
                        let failure = format!("\n{}: {error}", story.name);
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failures.is_empty(), "{} of {} stories failed:{}", failures.len(), stories.len(), failures.concat());
}

fn take<'a>(stories: &'a [Story], next: &AtomicUsize) -> Option<(usize, &'a Story)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    stories.get(index).map(|story| (index, story))
}

fn play_story(story: &Story, store: Store, programs: &[Program], turn: usize) -> Result<(), String> {
    let able: Vec<Program> = programs.iter().filter(|program| story.is_for(program.language)).cloned().collect();
    if able.is_empty() {
        return Ok(());
    }
    let scratch = Scratch::new().map_err(|error| error.to_string())?;
    let Some(url) = store.url(&scratch) else { return Ok(()) };
    play(story, store, &url, &cast(&story.processes(), &able, turn), &scratch)
}

#[test]
fn there_are_enough_stories_and_few_exceptions() {
    let all = Story::read_all(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert!(all.len() >= 18);
    for language in Language::ALL {
        let exceptions = all.iter().filter(|story| story.except.contains_key(&language)).count();
        assert!(exceptions <= 1, "{language:?} does not play {exceptions} stories");
    }
}

macro_rules! plays {
    ($($name:ident: $store:ident, $languages:expr;)*) => {
        $(#[test]
        fn $name() {
            play_all(Store::$store, &$languages);
        })*
    };
}

plays! {
    rust_on_memory: Memory, [Language::Rust];
    rust_on_sqlite: Sqlite, [Language::Rust];
    rust_on_mongodb: Mongodb, [Language::Rust];
    c_on_memory: Memory, [Language::C];
    c_on_sqlite: Sqlite, [Language::C];
    c_on_mongodb: Mongodb, [Language::C];
    go_on_memory: Memory, [Language::Go];
    go_on_sqlite: Sqlite, [Language::Go];
    go_on_mongodb: Mongodb, [Language::Go];
    python_on_memory: Memory, [Language::Python];
    python_on_sqlite: Sqlite, [Language::Python];
    python_on_mongodb: Mongodb, [Language::Python];
    asyncio_on_memory: Memory, [Language::Asyncio];
    asyncio_on_sqlite: Sqlite, [Language::Asyncio];
    asyncio_on_mongodb: Mongodb, [Language::Asyncio];
    mixed_on_sqlite: Sqlite, Language::ALL;
    mixed_on_mongodb: Mongodb, Language::ALL;
}
