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

mod job_done;
mod json;
mod record;
mod rules;
mod status;
mod submit;
mod timers;
mod transitions;

#[cfg(test)]
mod tests;

pub use job_done::{JobEnd, UnreadableResult, WorkerPost, parse_job_done};
pub use json::{Members, NotAnObject};
pub use record::{Attempt, Claim, FailedAttempt, Idempotency, JobState, JobWebhook, Record, WebhookAttempt};
pub use rules::{Rules, WebhookRetry};
pub use status::{Payloads, StatusView, status};
pub use submit::{Submission, SubmissionContext, SubmissionError, parse_submission};
pub use timers::WebhookOutcome;
pub use transitions::{Finish, Transition};
