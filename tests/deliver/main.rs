//! What lasts of a delivery, against receivers that misbehave.
#![allow(clippy::unwrap_used)]

mod server;
mod webhooks;
