//! Plays one story by hand: `coord-play STORY URL AGENT…`. The agents play the story's processes in turn. For people
//! who write stories and agents; the tests play all of them.

use std::path::Path;
use std::process::ExitCode;

use coord_scenarios::conductor::play;
use coord_scenarios::stage::{Language, Program, Store, cast};
use coord_scenarios::story::Story;
use coord_tests::servers::scratch::Scratch;

const USAGE: &str = "usage: coord-play STORY URL AGENT…";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [story, url, agents @ ..] = &arguments[..] else { return usage() };
    if agents.is_empty() {
        return usage();
    }
    match play_one(story, url, agents) {
        Ok(title) => {
            eprintln!("ok: {title}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("coord-play: {error}");
            ExitCode::FAILURE
        }
    }
}

fn play_one(story: &str, url: &str, agents: &[String]) -> Result<String, String> {
    let story = Story::read(Path::new(story))?;
    let store = match url.split(':').next() {
        Some("memory") => Store::Memory,
        Some("sqlite") => Store::Sqlite,
        _ => Store::Mongodb,
    };
    let program = |agent: &String| Program { language: Language::Rust, path: agent.into(), arguments: Vec::new() };
    let programs: Vec<Program> = agents.iter().map(program).collect();
    let scratch = Scratch::new().map_err(|error| error.to_string())?;
    play(&story, store, url, &cast(&story.processes(), &programs, 0), &scratch)?;
    Ok(story.title)
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
