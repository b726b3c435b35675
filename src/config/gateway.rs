//! The part of the configuration that is for the endpoint.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;

use super::setting::Setting;
use super::{Environment, Reader, Secret};

/// What `latentd gateway` and `latentd serve` serve, and to whom.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The file of its queue.
    pub store: PathBuf,
    /// The name of its endpoint.
    pub endpoint: String,
    /// Who works on its jobs.
    pub handler: HandledBy,
    /// Whether clients may ask only so often.
    pub limits: bool,
    /// Keys of clients.
    pub api_keys: Vec<Secret>,
    /// Keys of workers.
    pub worker_keys: Vec<Secret>,
    /// From the last heartbeat that named a job, until it is taken for lost.
    pub lost: Duration,
}

/// Whose workers an endpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandledBy {
    /// Ours.
    Latentd,
    /// Somebody's own.
    External,
}

impl Setting for HandledBy {
    const ALLOWED: &'static str = "latentd or external";
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "latentd" => Some(Self::Latentd),
            "external" => Some(Self::External),
            _ => None,
        }
    }
}

impl Reader {
    pub(super) fn gateway(&mut self, environment: &Environment) -> Option<Gateway> {
        let listen: Option<SocketAddr> = self.read("listen");
        let store = self.folder("store", || environment.data_dir().join("queue.db"));
        let endpoint: Option<String> = self.read("endpoint");
        let (handler, limits) = (self.read("handler"), self.read("limits"));
        let (api_keys, worker_keys) = (self.read("api_keys"), self.read("worker_keys"));
        let lost: Option<Duration> = self.read("gateway.lost");
        let store = store.and_then(|store| self.file(&store));
        let endpoint = endpoint.and_then(|endpoint| self.name(endpoint));
        Some(Gateway {
            listen: listen?,
            store: store?,
            endpoint: endpoint?,
            handler: handler?,
            limits: limits?,
            api_keys: api_keys?,
            worker_keys: worker_keys?,
            lost: lost?,
        })
    }

    fn file(&mut self, store: &std::path::Path) -> Option<PathBuf> {
        let text = store.to_string_lossy();
        let file = text.strip_prefix("sqlite:").unwrap_or(&text);
        if file.is_empty() || file.contains("://") {
            self.refuse("store", "sqlite:FILE, or auto".into());
            return None;
        }
        Some(file.into())
    }

    /// It is a part of URLs.
    fn name(&mut self, endpoint: String) -> Option<String> {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        if endpoint.is_empty() || !endpoint.chars().all(plain) {
            self.refuse("endpoint", "letters, digits, `-`, `_` and `.`".into());
            return None;
        }
        Some(endpoint)
    }
}
