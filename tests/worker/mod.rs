//! The worker on a queue that answers as it is told to, with receivers and storage that misbehave.

#![allow(clippy::unwrap_used, clippy::panic)]

mod admin;
mod begin;
mod deliver;
mod drain;
mod engine;
#[cfg(feature = "torch")]
mod first;
mod fitness;
mod flow;
mod lasting;
mod lines;
mod log;
mod models;
mod pace;
mod process;
mod queue;
mod s3;
mod sdxl;
mod secrets;
mod server;
mod source;
mod telling;
mod traces;
mod uploads;
mod webhooks;
mod wire;
