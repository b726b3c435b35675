//! The part of the configuration that is for the endpoint.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;
use serde_json::Value as JsonValue;

use super::endpoints::EndpointConfig;
use super::setting::Setting;
use super::{Environment, Reader, RedactedUrl, Secret};
use crate::net::{Url, shown};

/// Where jobs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// In an `SQLite` file.
    File(PathBuf),
    /// In the Redis of a URL, for several gateways.
    Redis(RedactedUrl),
}

/// Without a password.
impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Redis(url) => f.write_str(&shown_redis(url)),
        }
    }
}

/// `None` is `auto`.
impl Setting for Option<StoreLocation> {
    const ALLOWED: &'static str = "sqlite:FILE, redis://[user:password@]host[:port][/database], rediss:// for TLS, redis+unix:///path, redis+sentinel://[user:password@]host[:port],…/master-name[/database], rediss+sentinel:// for TLS, or auto";
    fn read(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        let file = text.strip_prefix("sqlite:").unwrap_or(text);
        // No file is called so, but a URL that was cut off.
        let cut = || {
            ["redis", "rediss", "valkey", "valkeys", "unix"].iter().any(|scheme| file.split(':').next() == Some(scheme))
        };
        match text {
            "auto" => Some(None),
            _ if is_redis(text) => Some(Some(StoreLocation::Redis(RedactedUrl::from(text.to_owned())))),
            _ if file.is_empty() || file.contains("://") || (file.contains(':') && cut()) => None,
            _ => Some(Some(StoreLocation::File(file.into()))),
        }
    }
    fn show(value: &Value) -> JsonValue {
        value.as_str().map_or_else(|| "hidden".into(), |text| shown_redis(text).into())
    }
}

/// What a URL of several hosts begins with.
const SENTINELS: [&str; 4] = ["redis+sentinel", "rediss+sentinel", "valkey+sentinel", "valkeys+sentinel"];

/// Whether it leads to a Redis. What is wrong within it, the store says.
fn is_redis(text: &str) -> bool {
    match text.split_once("://") {
        Some(("redis" | "rediss" | "valkey" | "valkeys", _)) => text.parse().is_ok_and(|url: Url| url.has_host()),
        Some(("redis+unix" | "valkey+unix" | "unix", path)) => path.starts_with('/') && path.len() > 1,
        Some((scheme, rest)) if SENTINELS.contains(&scheme) => {
            rest.split_once('/').is_some_and(|(hosts, name)| !hosts.is_empty() && !name.is_empty())
        }
        _ => false,
    }
}

/// A URL, without a password. One of several hosts is none to others.
fn shown_redis(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) if SENTINELS.contains(&scheme) => {
            let hosts = rest.rsplit_once('@').map_or_else(|| rest.to_owned(), |(_, hosts)| format!("***@{hosts}"));
            format!("{scheme}://{hosts}")
        }
        _ => shown(text),
    }
}

/// What `latentd gateway` and `latentd serve` serve, and to whom.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where its queue is.
    pub store: StoreLocation,
    /// What it serves, one at least; the first is the usual one.
    pub endpoints: Vec<EndpointConfig>,
    /// Whether clients may ask only so often.
    pub limits: bool,
    /// Keys of clients.
    pub api_keys: Vec<Secret>,
    /// Keys of workers.
    pub worker_keys: Vec<Secret>,
    /// From the last sign of a job until it is taken for lost.
    pub lost: Duration,
    /// Jobs that may wait when another is submitted.
    pub max_waiting: Limit,
    /// Bytes of the disk of its file that new jobs leave free.
    pub min_free: Limit,
    /// Names that it is reached by.
    pub hosts: Hosts,
    /// Origins whose pages may ask.
    pub cors: Origins,
    /// For the next request of a connection.
    pub keep_alive: Duration,
    /// Bytes of memory for each kind of what is under way.
    pub in_flight: u64,
}

/// Names of hosts, in small letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts(pub Vec<String>);

impl Setting for Hosts {
    const ALLOWED: &'static str = "a list of host names without ports, in a text separated by commas";
    fn read(value: &Value) -> Option<Self> {
        let name = |text: &String| {
            let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
            fits.then(|| text.trim_end_matches('.').to_ascii_lowercase()).filter(|name| !name.is_empty())
        };
        Vec::<String>::read(value)?.iter().map(name).collect::<Option<_>>().map(Self)
    }
}

/// Origins of pages, as browsers write them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins(pub Vec<String>);

impl Setting for Origins {
    const ALLOWED: &'static str = "a list of origins such as https://app.example.org, with a scheme and without a path, in a text separated by commas";
    fn read(value: &Value) -> Option<Self> {
        let origin = |text: &String| {
            let url: Url = text.parse().ok().filter(|url: &Url| matches!(url.scheme(), "http" | "https"))?;
            let origin = url.origin().ascii_serialization();
            // Nothing beside the origin was written.
            (url.as_str() == format!("{origin}/")).then_some(origin)
        };
        Vec::<String>::read(value)?.iter().map(origin).collect::<Option<_>>().map(Self)
    }
}

/// A number that there may be at most, or must be at least; `None` where everything will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<u64>);

impl Setting for Limit {
    const ALLOWED: &'static str = "a whole number above 0, or off";
    fn read(value: &Value) -> Option<Self> {
        if value.as_str() == Some("off") { Some(Self(None)) } else { u64::read(value).map(|number| Self(Some(number))) }
    }
}

impl Reader {
    pub(super) fn gateway(&mut self, environment: &Environment) -> Option<GatewayConfig> {
        let listen: Option<SocketAddr> = self.read("listen");
        let store = self.kept(environment);
        let endpoints = self.endpoints();
        let limits = self.read("limits");
        let (api_keys, worker_keys) = (self.read("api_keys"), self.read("worker_keys"));
        let (lost, max_waiting) = (self.read("gateway.lost"), self.read("gateway.max_waiting"));
        let min_free = self.read("gateway.min_free");
        let (hosts, cors) = (self.read("gateway.hosts"), self.read("gateway.cors"));
        let (keep_alive, in_flight) = (self.read("gateway.keep_alive"), self.read("gateway.in_flight"));
        Some(GatewayConfig {
            listen: listen?,
            store: store?,
            endpoints: endpoints?,
            limits: limits?,
            api_keys: api_keys?,
            worker_keys: worker_keys?,
            lost: lost?,
            max_waiting: max_waiting?,
            min_free: min_free?,
            hosts: hosts?,
            cors: cors?,
            keep_alive: keep_alive?,
            in_flight: in_flight?,
        })
    }

    fn kept(&mut self, environment: &Environment) -> Option<StoreLocation> {
        let kept: Option<StoreLocation> = self.read("store")?;
        let kept = kept.unwrap_or_else(|| StoreLocation::File(environment.data_dir().join("queue.db")));
        self.show_last(kept.to_string());
        Some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_none() {
        let read = |value: Value| Limit::read(&value);
        assert_eq!(
            (read("off".into()), read(7.into()), read("7".into())),
            (Some(Limit(None)), Some(Limit(Some(7))), Some(Limit(Some(7))))
        );
        for wrong in [Value::from(0), (-1).into(), "none".into(), "".into()] {
            assert_eq!(Limit::read(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn names_and_origins_are_read_as_browsers_write_them() {
        let names = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let hosts = |text: &str| Hosts::read(&Value::from(text)).map(|hosts| hosts.0);
        let origins = |text: &str| Origins::read(&Value::from(text)).map(|origins| origins.0);
        assert_eq!(hosts("GPU.lan, host.docker.internal."), names(&["gpu.lan", "host.docker.internal"]));
        assert_eq!(Hosts::read(&Value::from(Vec::<String>::new())), Some(Hosts(Vec::new())));
        for wrong in ["", "gpu.lan:8000", "http://gpu.lan", "a b", "*", "."] {
            assert_eq!(hosts(wrong), None, "{wrong}");
        }
        assert_eq!(
            origins("https://App.example.org:443, http://127.0.0.1:3000/"),
            names(&["https://app.example.org", "http://127.0.0.1:3000"])
        );
        for wrong in
            ["", "app.example.org", "https://x/path", "https://x?q", "https://me:pw@x", "*", "null", "file:///x"]
        {
            assert_eq!(origins(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_queue_is_in_a_file_or_in_a_redis() {
        let read = |text: &str| Option::<StoreLocation>::read(&Value::from(text));
        assert_eq!(read("auto"), Some(None));
        for (text, file) in [("sqlite:a/b.db", "a/b.db"), ("redis.db", "redis.db"), ("/a:b", "/a:b")] {
            assert_eq!(read(text), Some(Some(StoreLocation::File(file.into()))));
        }
        for url in [
            "redis://h",
            "redis://:s3cret@h:1/2",
            "rediss://me:s3cret@h",
            "valkey://me:s3cret@h",
            "valkeys://h",
            "redis+unix:///run/redis.sock?pass=s3cret",
            "unix:///run/redis.sock",
            "redis+sentinel://me:s3cret@a:1,b/main/2",
            "rediss+sentinel://me:s3/@cret@a/main",
        ] {
            let kept = read(url).flatten().unwrap();
            assert_eq!(kept, StoreLocation::Redis(RedactedUrl::from(url.to_owned())));
            assert!(!format!("{kept} {kept:?}").contains("s3cret"), "{kept}");
            assert!(!Option::<StoreLocation>::show(&Value::from(url)).to_string().contains("s3cret"));
        }
        for wrong in [
            "",
            "sqlite:",
            "redis:",
            "redis:h",
            "redis://",
            "http://h",
            "sqlite:redis://h",
            "valkey:h",
            "unix:/p",
            "unix://p",
            "redis+unix:///",
            "redis+sentinel://a",
            "redis+sentinel:///main",
            "redis+sentinel://a/",
            "http+sentinel://a/m",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        let shown = read("redis+sentinel://me:s3cret@a:1,b/main").flatten().unwrap().to_string();
        assert_eq!(shown, "redis+sentinel://***@a:1,b/main");
    }
}
