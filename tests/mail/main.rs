//! Mail against a real server: what arrives, and what happens when the server misbehaves.

mod arrives;
mod dialogue;
mod random;
mod security;
mod support;
