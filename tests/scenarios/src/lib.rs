//! Stories about clients and locks, told without any language, and the conductor that plays them.
//!
//! A story is a JSON file (see README.md for its words). Its clients live in *agents*: small programs, one per
//! language, that take one command a line and answer with one line. The conductor gives each process of a story to an
//! agent, plays the steps in order, and compares what comes back. So one story is played in every language, and with
//! several languages at once, on every store.
//!
//! - [`words`]: the lines between conductor and agents.
//! - [`story`]: a story as it is read from its file.
//! - [`verbs`]: what a step can do, and which arguments it takes.
//! - [`expectation`]: what an answer must be.
//! - [`json`]: one form for the documents in answers.
//! - [`agent`]: an agent's process.
//! - [`watch`]: what must be true in every story, whatever it tells: tokens grow, and no two hold.
//! - [`conductor`]: plays one story.
//! - [`stage`]: which agents and stores there are to play with.
//!
//! Invariant: a play never waits without a bound, and never sleeps in the place of a wait.
//!
//! Lacks on purpose: any knowledge of coord. What the stories know, they say.
#![deny(unsafe_code)]

pub mod agent;
pub mod conductor;
pub mod expectation;
pub mod json;
pub mod stage;
pub mod story;
pub mod verbs;
pub mod watch;
pub mod words;
