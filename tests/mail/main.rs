//! Mail against a real server: what arrives, and what happens when the server misbehaves.

mod arrives;
mod campaign;
mod dialogue;
mod outbox;
mod random;
mod security;
mod support;
