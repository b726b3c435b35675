//! What a gateway is set to.

use std::time::Duration;

use crate::deliver::webhook::Signer;
use crate::net::Client;
use crate::queue::Rules;

use super::api_keys::ApiKey;
use super::browser_policy::BrowserPolicy;
use super::check::Handler;

/// An endpoint: a queue that has names.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// What its jobs are kept under.
    pub id: String,
    /// Other names that clients know it by.
    pub aliases: Vec<String>,
    /// Who works on its jobs.
    pub handler: Handler,
    /// How long an attempt may take, if a job does not say.
    pub execution_timeout: Duration,
    /// The memory of its workers' GPUs in GB, for workers that do not say.
    pub gpu: u32,
}

/// What a gateway is set to.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// Its endpoints; others are 404.
    pub endpoints: Vec<Endpoint>,
    /// How patient it is with workers.
    pub rules: Rules,
    /// How long a worker's poll is held. Well below the 90 seconds after which the SDK gives up.
    pub poll_hold: Duration,
    /// Connections at the same time; others wait to be accepted.
    pub connections: usize,
    /// How long a connection may wait for its next request.
    pub keep_alive: Duration,
    /// Bytes of a request, of `/run` and of `/runsync`.
    pub max_input: (usize, usize),
    /// Bytes of a result.
    pub max_result: usize,
    /// Bytes of what is under way: of submissions, of jobs on their way to workers, of results, of answers and of webhooks so many each.
    pub in_flight: usize,
    /// Who may ask. None: everybody.
    pub keys: Vec<ApiKey>,
    /// The key of a worker in this process: who may ask is up to the others.
    pub local_worker_key: Option<ApiKey>,
    /// Whether clients may ask only so often.
    pub limits: bool,
    /// Which browsers' requests are answered while no key is needed.
    pub browsers: BrowserPolicy,
    /// Whether routes without an endpoint's name are the first one's, as on the SDK's local server.
    pub serve_at_root: bool,
    /// What calls webhooks; without it, workers do.
    pub webhooks: Option<WebhookCaller>,
}

impl Default for GatewaySettings {
    /// One endpoint, as the hosted platform has it.
    fn default() -> Self {
        let id = "stable-diffusion-v1".to_owned();
        Self {
            endpoints: vec![Endpoint {
                id,
                aliases: Vec::new(),
                handler: Handler::External,
                execution_timeout: Duration::from_mins(10),
                gpu: 0,
            }],
            rules: Rules::default(),
            poll_hold: Duration::from_secs(20),
            connections: 16 * 1024,
            keep_alive: Duration::from_secs(75),
            max_input: (10 << 20, 20 << 20),
            max_result: 64 << 20,
            in_flight: 256 << 20,
            keys: Vec::new(),
            local_worker_key: None,
            limits: true,
            browsers: BrowserPolicy::default(),
            serve_at_root: false,
            webhooks: None,
        }
    }
}

/// Calls webhooks.
#[derive(Debug, Clone)]
pub struct WebhookCaller {
    /// Its guard decides who may be called.
    pub client: Client,
    /// Signs, if webhooks are signed.
    pub signer: Option<Signer>,
    /// Whether an end that the client brought about itself is told.
    pub cancelled: bool,
}
