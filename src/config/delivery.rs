//! The part of the configuration that is about results: what is kept on disk, who is told, and where images go.

use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;

use super::reader::Reader;
use super::setting::Setting;
use super::{Environment, Secret, SigningKey, WebhookDelivery};
use crate::net::Url;

/// What is kept on disk until it has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolConfig {
    /// Where.
    pub dir: PathBuf,
    /// Bytes after which no job is taken.
    pub max_bytes: u64,
}

/// How webhooks are delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// By whom.
    pub deliver: WebhookDelivery,
    /// Whether jobs that the queue stopped are told of.
    pub cancelled: bool,
    /// Hosts of queues that deliver webhooks themselves.
    pub platform_hosts: Vec<String>,
    /// In all.
    pub attempts: u64,
    /// Between attempts.
    pub pause: Duration,
    /// For an attempt.
    pub timeout: Duration,
    /// What they are signed with, if anything.
    pub secret: Option<SigningKey>,
}

/// The operator's storage for images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketConfig {
    /// Where it is.
    pub endpoint_url: Url,
    /// The key's name.
    pub access_key_id: Secret,
    /// The key.
    pub secret_access_key: Secret,
    /// The bucket; `None` is the month's.
    pub name: Option<BucketName>,
    /// The folder in it, if any.
    pub prefix: Option<ObjectPath>,
    /// The region; `None` is what the endpoint says.
    pub region: Option<String>,
}

/// A folder in a bucket: names with slashes between, which change no URL that they are part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectPath(String);

impl ObjectPath {
    /// What a path is made of.
    pub const ALLOWED: &'static str = "names of letters, digits, dots, underscores and hyphens, the first of them no dot, with slashes between, 512 bytes in all";

    /// Reads a path; slashes around it mean nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches('/');
        let fits = text.len() <= 512 && text.split('/').all(|name| BucketName::parse(name).is_some());
        fits.then(|| Self(text.into()))
    }
}

impl AsRef<str> for ObjectPath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Setting for Option<ObjectPath> {
    const ALLOWED: &'static str = ObjectPath::ALLOWED;
    fn read(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        if text.is_empty() { Some(None) } else { ObjectPath::parse(text).map(Some) }
    }
}

/// A bucket's name, which changes no URL that it is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketName(String);

impl BucketName {
    /// What a name is made of.
    pub const ALLOWED: &'static str = "letters, digits, dots, underscores and hyphens, the first of them no dot";

    /// Reads a name.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        (plain && !text.is_empty() && !text.starts_with('.')).then(|| Self(text.into()))
    }
}

impl AsRef<str> for BucketName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Setting for Option<BucketName> {
    const ALLOWED: &'static str = BucketName::ALLOWED;
    fn read(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        if text.is_empty() { Some(None) } else { BucketName::parse(text).map(Some) }
    }
}

impl Reader {
    pub(super) fn spool(&mut self, environment: &Environment) -> Option<SpoolConfig> {
        let dir = self.folder("spool.dir", || environment.data_dir().join("spool"));
        let max_bytes = self.read("spool.max_bytes");
        Some(SpoolConfig { dir: dir?, max_bytes: max_bytes? })
    }

    pub(super) fn webhooks(&mut self) -> Option<WebhookConfig> {
        let (deliver, platform_hosts) = (self.read("webhook.deliver"), self.read("webhook.platform_hosts"));
        let (attempts, pause) = (self.read("webhook.attempts"), self.read("webhook.pause"));
        let (timeout, secret) = (self.read("webhook.timeout"), self.read("webhook.secret"));
        let cancelled = self.read("webhook.cancelled");
        Some(WebhookConfig {
            deliver: deliver?,
            cancelled: cancelled?,
            platform_hosts: platform_hosts?,
            attempts: attempts?,
            pause: pause?,
            timeout: timeout?,
            secret: secret?,
        })
    }

    /// `Some(None)` without an endpoint, which must not come without its keys, nor they without it.
    #[expect(clippy::option_option, reason = "as everywhere here, the outer one is `None` with a fault")]
    pub(super) fn bucket(&mut self) -> Option<Option<BucketConfig>> {
        const PARTS: [&str; 3] = ["bucket.endpoint_url", "bucket.access_key_id", "bucket.secret_access_key"];
        let [url, id, secret] = PARTS;
        let endpoint_url = self.read::<Option<Url>>(url);
        let (access_key_id, secret_access_key) = (self.read::<Option<Secret>>(id), self.read::<Option<Secret>>(secret));
        let (name, prefix) = (self.read("bucket.name"), self.read("bucket.prefix"));
        let region = self.read("bucket.region");
        match (endpoint_url?, access_key_id?, secret_access_key?) {
            (None, None, None) => Some(None),
            (Some(endpoint_url), Some(access_key_id), Some(secret_access_key)) => {
                let (name, prefix, region) = (name?, prefix?, region?);
                Some(Some(BucketConfig { endpoint_url, access_key_id, secret_access_key, name, prefix, region }))
            }
            (endpoint_url, access_key_id, secret_access_key) => {
                let missing = [endpoint_url.is_none(), access_key_id.is_none(), secret_access_key.is_none()];
                for (key, _) in PARTS.into_iter().zip(missing).filter(|(_, missing)| *missing) {
                    self.refuse(key, format!("all of {} or none", PARTS.join(", ")));
                }
                None
            }
        }
    }
}
