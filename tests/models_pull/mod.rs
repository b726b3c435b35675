//! Models pulled from a hub that misbehaves, by the real binary and by its parts.

#![allow(clippy::unwrap_used, clippy::panic)]

mod breaks;
mod command;
mod hub;
mod refusals;
mod sdxl;
mod server;
mod whole;
