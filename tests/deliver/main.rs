//! What lasts of a delivery, against receivers and storage that misbehave.
#![allow(clippy::unwrap_used)]

mod s3;
mod server;
mod uploads;
mod webhooks;
