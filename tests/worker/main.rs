//! The worker on a queue that answers as it is told to.

#![allow(clippy::unwrap_used, clippy::panic)]

mod deliver;
mod drain;
mod engine;
mod flow;
mod pace;
mod process;
mod queue;
mod source;
