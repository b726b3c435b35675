//! The endpoint API: what clients and workers of the hosted platform speak, on a store of our own.
//!
//! A request names an endpoint and an operation; what may come of it, [`crate::queue`] says, and the store keeps it. Long polls wait in
//! the `notifier`. What time does, `timers` brings about.

mod api_keys;
mod auth;
mod body;
mod browser_policy;
mod browsers;
mod check;
mod chunks;
mod client;
mod encoding;
mod history;
mod idempotency;
mod job_status;
mod limits;
mod log_throttle;
mod long_poll;
mod memory_budget;
mod memory_pool;
mod metrics;
mod notifier;
mod openapi;
mod page;
mod peer;
mod probes;
mod receivers;
mod reply;
mod request_id;
mod routes;
mod serve;
mod settings;
mod shared_limits;
mod shared_workers;
mod sse;
mod state;
mod take;
mod timers;
mod uri;
mod version;
mod webhooks;
mod worker;
mod worker_registry;

#[cfg(test)]
mod tests;

pub use api_keys::{Access, ApiKey, Role};
pub use browser_policy::BrowserPolicy;
pub use check::Handler;
pub use openapi::document as openapi;
pub use serve::serve;
pub use settings::{Endpoint, GatewaySettings, WebhookCaller};
pub use state::Gateway;

use state::log_failure;
