//! Images that jobs name, from hosts and files that mean no good.

#![allow(clippy::unwrap_used)]

mod fetch;
mod intake;
mod server;
