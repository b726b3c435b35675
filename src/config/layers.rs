//! The layers of a configuration, each with the name of where it came from.

use std::io;
use std::path::PathBuf;

use figment::providers::{Format as _, Toml};
use figment::util::nest;
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};

use super::environment::Environment;
use super::error::ConfigFault;
use crate::disk::whole;
use crate::suggest::suggest;

/// The commented file in the binary: the only place of defaults.
const DEFAULTS: &str = include_str!("default.toml");

/// Bytes of a configuration file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "latentd.toml";

/// A variable of our prefix that is no setting: the configuration file's name.
const FILE_VARIABLE: &str = "LATENTD_CONFIG";

/// What `net.allow_private` is when nothing is forbidden.
const EVERY_ADDRESS: &str = "0.0.0.0/0, ::/0";

/// What the hosted platform tells a worker, and the settings it becomes. Of two for one, the later wins.
const QUEUE_VARIABLES: [(&str, &str); 8] = [
    ("RUNPOD_WEBHOOK_GET_JOB", "runpod.get_job"),
    ("RUNPOD_WEBHOOK_POST_OUTPUT", "runpod.post_output"),
    // The older name of the next.
    ("RUNPOD_WEBHOOK_JOB_STREAM", "runpod.post_stream"),
    ("RUNPOD_WEBHOOK_POST_STREAM", "runpod.post_stream"),
    ("RUNPOD_WEBHOOK_PING", "runpod.ping"),
    ("RUNPOD_PING_INTERVAL", "runpod.ping_interval"),
    ("RUNPOD_AI_API_KEY", "runpod.api_key"),
    ("RUNPOD_POD_ID", "runpod.pod_id"),
];

/// The storage that the RunPod SDK uploads to, and the settings it becomes.
const BUCKET_VARIABLES: [(&str, &str); 3] = [
    ("BUCKET_ENDPOINT_URL", "bucket.endpoint_url"),
    ("BUCKET_ACCESS_KEY_ID", "bucket.access_key_id"),
    ("BUCKET_SECRET_ACCESS_KEY", "bucket.secret_access_key"),
];

/// Other variables that have a meaning here.
const OTHER_VARIABLES: [(&str, &str); 12] = [
    ("RUNPOD_MIN_MEMORY_GB", "fitness.min_memory"),
    ("RUNPOD_MIN_DISK_PERCENT", "fitness.min_disk"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint"),
    // The older name of the next.
    ("HUGGING_FACE_HUB_TOKEN", "hub.token"),
    ("HF_TOKEN", "hub.token"),
    ("HF_ENDPOINT", "hub.endpoint"),
    // Names in lower case are the older ones, and come first with other tools.
    ("HTTP_PROXY", "net.http_proxy"),
    ("http_proxy", "net.http_proxy"),
    ("HTTPS_PROXY", "net.https_proxy"),
    ("https_proxy", "net.https_proxy"),
    ("NO_PROXY", "net.no_proxy"),
    ("no_proxy", "net.no_proxy"),
];

/// What the command line has to say about the configuration.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The configuration file that was asked for.
    pub file: Option<PathBuf>,
    /// Settings by name, nesting by dots.
    pub settings: Vec<(&'static str, String)>,
}

/// Settings from one origin.
struct Layer {
    origin: String,
    settings: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.settings.clone()))
    }
}

/// All layers, merged; what is no setting is left out and told in `faults`.
pub(super) fn merge(flags: &Flags, environment: &Environment, faults: &mut Vec<ConfigFault>) -> Figment {
    let defaults = Layer { origin: "default".into(), settings: parse(DEFAULTS).unwrap_or_default() };
    let known = keys(&defaults.settings);
    let layers = file(flags, environment, faults)
        .into_iter()
        .chain(runpod(environment))
        .chain(variables(environment))
        .chain(from_flags(flags));
    let mut merged = Figment::from(defaults);
    for mut layer in layers {
        let mut unknown = Vec::new();
        prune(&mut layer.settings, "", &known, &mut unknown);
        faults.extend(unknown.into_iter().map(|key| ConfigFault::Unknown {
            hint: suggest(&key, known.iter().map(String::as_str)).map(str::to_owned),
            key,
            origin: layer.origin.clone(),
        }));
        merged = merged.merge(layer);
    }
    merged
}

fn parse(text: &str) -> Result<Dict, String> {
    let mut profiles = Toml::string(text).data().map_err(|cause| unquoted(&cause.to_string()))?;
    Ok(profiles.remove(&Profile::Default).unwrap_or_default())
}

/// What is wrong and where, without the line itself, which may hold a key.
fn unquoted(fault: &str) -> String {
    let quoted = |line: &str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    let lines: Vec<&str> = fault.lines().map(str::trim_end).filter(|line| !line.is_empty() && !quoted(line)).collect();
    lines.join(": ")
}

fn file(flags: &Flags, environment: &Environment, faults: &mut Vec<ConfigFault>) -> Option<Layer> {
    let (path, named_by) = match (&flags.file, environment.get(FILE_VARIABLE)) {
        (Some(path), _) => (path.clone(), Some("--config")),
        (None, Some(path)) => (PathBuf::from(path), Some(FILE_VARIABLE)),
        (None, None) => (PathBuf::from(DEFAULT_FILE), None),
    };
    let read = if named_by.is_some() { whole::read_named_text } else { whole::read_text };
    match read(&path, MAX_FILE_BYTES) {
        Ok(text) => match parse(&text) {
            Ok(settings) => return Some(Layer { origin: path.display().to_string(), settings }),
            Err(cause) => faults.push(ConfigFault::Syntax { path, cause }),
        },
        Err(cause) if named_by.is_none() && cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => {
            faults.push(ConfigFault::File { path, origin: named_by.unwrap_or("the working directory"), cause });
        }
    }
    None
}

/// The variables of the RunPod SDK that have a meaning here, in its own order of precedence.
fn runpod(environment: &Environment) -> impl Iterator<Item = Layer> {
    let level = ["RUNPOD_LOG_LEVEL", "RUNPOD_DEBUG_LEVEL"]
        .into_iter()
        .find_map(|name| Some(layer(name, "log.level", environment.get(name)?)));
    let name = "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS";
    let truthy = |text: &&str| ["1", "true", "yes"].contains(&text.trim().to_ascii_lowercase().as_str());
    let private = environment.get(name).filter(truthy).map(|_| layer(name, "net.allow_private", EVERY_ADDRESS));
    let name = "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS";
    let skip = environment.get(name).filter(|text| text.trim().eq_ignore_ascii_case("true"));
    let skip = skip.map(|_| layer(name, "fitness.machine", "false"));
    let named = QUEUE_VARIABLES.into_iter().chain(BUCKET_VARIABLES).chain(OTHER_VARIABLES);
    let named = named.filter_map(|(name, key)| Some(layer(name, key, environment.get(name)?)));
    level.into_iter().chain(private).chain(skip).chain(named)
}

fn variables(environment: &Environment) -> impl Iterator<Item = Layer> {
    environment
        .with_prefix("LATENTD_")
        .filter(|(name, ..)| *name != FILE_VARIABLE)
        .map(|(name, rest, value)| layer(name, &rest.to_ascii_lowercase().replace("__", "."), value))
}

fn from_flags(flags: &Flags) -> impl Iterator<Item = Layer> {
    flags.settings.iter().map(|(key, value)| layer(&format!("--{}", key.replace(['.', '_'], "-")), key, value))
}

fn layer(origin: &str, key: &str, value: &str) -> Layer {
    let settings = nest(key, value.into()).into_dict().unwrap_or_default();
    Layer { origin: origin.into(), settings }
}

#[cfg(test)]
pub(super) fn default_keys() -> Vec<String> {
    keys(&parse(DEFAULTS).unwrap_or_default())
}

/// The paths of all values that are no tables.
fn keys(settings: &Dict) -> Vec<String> {
    let mut found = Vec::new();
    for (key, value) in settings {
        match value {
            Value::Dict(_, inner) => found.extend(keys(inner).into_iter().map(|rest| format!("{key}.{rest}"))),
            _ => found.push(key.clone()),
        }
    }
    found
}

/// Moves the paths of what is not `known` from `settings`, a table at `path`, to `unknown`.
fn prune(settings: &mut Dict, path: &str, known: &[String], unknown: &mut Vec<String>) {
    settings.retain(|key, value| {
        // A dot inside of a quoted key does not nest.
        let key = if key.contains('.') { format!("{key:?}") } else { key.clone() };
        let path = if path.is_empty() { key } else { format!("{path}.{key}") };
        match value {
            Value::Dict(_, inner) => {
                prune(inner, &path, known, unknown);
                !inner.is_empty()
            }
            _ if known.contains(&path) => true,
            _ => {
                unknown.push(path);
                false
            }
        }
    });
}
