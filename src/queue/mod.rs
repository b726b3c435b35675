//! The laws of the queue: what a job may become, and when. Pure: stores keep [`Record`]s, gateways bring events and dates.
//!
//! ```text
//! submit ──▶ IN_QUEUE ──start──▶ IN_PROGRESS ──finish──▶ COMPLETED | FAILED
//!               ▲  ▲                │  │
//!               │  └── lost, or never arrived ── again too often ──▶ FAILED
//!               │                      └── execution timeout ──▶ TIMED_OUT
//!               └───────── retry ───────── FAILED | TIMED_OUT
//! waiting or in progress ── cancel ──▶ CANCELLED      whatever it is ── ttl ──▶ gone
//! ```
//!
//! No other way is open. What has ended changes only by `retry`, or is forgotten.

mod done;
mod json;
mod laws;
mod record;
mod status;
mod submit;
mod timers;

#[cfg(test)]
mod tests;

pub use done::{End, Posted, Unreadable, posted};
pub use json::{Members, NoObject};
pub use laws::{Finish, Turn};
pub use record::{Attempt, Hook, Past, Record, Sent, State, Taking, Told};
pub use status::{Payloads, View, status};
pub use submit::{Manner, Submission, Unsubmitted, submission};
pub use timers::{Rules, Tells, Tried};
