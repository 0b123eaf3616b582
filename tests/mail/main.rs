//! Mail against a real server: what arrives, and what happens when the server misbehaves.

mod arrives;
mod campaign;
mod clocks;
mod copies;
mod dialogue;
mod outbox;
mod place;
mod random;
mod rates;
mod security;
mod steps;
mod support;
