//! `latentd key`: keys that open endpoints, made, listed and revoked in the store of the gateways.

use serde_json::json;
use uuid::Uuid;

use super::cli::{KeyCommand, KeyRole};
use super::gateway::open;
use super::running::running;
use super::{Exit, complain, say};
use crate::blocking::blocking;
use crate::clock::{SystemClock, WallClock};
use crate::config::{Config, StoreLocation};
use crate::gateway::{ApiKey, Role};
use crate::queue::Rules;
use crate::store::{KeyRecord, RedisStore, Store, StoreError};

/// Does it, on the store that the configuration names.
pub(super) fn execute(command: KeyCommand, config: &Config) -> Exit {
    running(async {
        let done = match config.gateway.store.clone() {
            StoreLocation::File(path) => match blocking(move || open(&path, Rules::default(), None)).await {
                Ok(store) => obey(command, config, &store).await,
                Err(cause) => Err(cause.to_string()),
            },
            StoreLocation::Redis(url) => match RedisStore::open(&url, Rules::default()).await {
                Ok(store) => obey(command, config, &store).await,
                Err(cause) => Err(cause.to_string()),
            },
        };
        done.map_or_else(
            |why| {
                complain(&format_args!("{}: {why}", config.gateway.store));
                Exit::Failed
            },
            |()| Exit::Done,
        )
    })
}

async fn obey(command: KeyCommand, config: &Config, store: &impl Store) -> Result<(), String> {
    let text = match command {
        KeyCommand::Create { role, endpoint, name } => create(config, store, role, endpoint, name).await?,
        KeyCommand::List { json } => {
            let keys = store.keys().await.map_err(|cause| cause.to_string())?;
            if json { as_json(&keys) } else { as_lines(&keys) }
        }
        KeyCommand::Revoke { name } => match store.remove_key(&name).await {
            Ok(true) => format!("{name} is revoked: gateways that run refuse it within five seconds"),
            Ok(false) => return Err(format!("there is no key called {name:?}; `latentd key list` has them")),
            Err(cause) => return Err(cause.to_string()),
        },
    };
    say(&text).map_err(|cause| format!("stdout: {cause}"))
}

/// The key itself is shown this once.
async fn create(
    config: &Config,
    store: &impl Store,
    role: KeyRole,
    endpoint: Option<String>,
    name: Option<String>,
) -> Result<String, String> {
    let known: Vec<&String> = config.gateway.endpoints.iter().map(|endpoint| &endpoint.id).collect();
    if let Some(other) = endpoint.as_ref().filter(|name| !known.contains(name)) {
        return Err(format!("there is no endpoint {other:?} here, only {known:?}"));
    }
    let text = format!("ltd_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let (word, role) = match role {
        KeyRole::User => ("user", Role::User),
        KeyRole::Worker => ("worker", Role::Worker),
    };
    let name = name.unwrap_or_else(|| format!("{word}-{}", &Uuid::new_v4().simple().to_string()[..8]));
    let record = ApiKey::new(&text, role, endpoint).record(name.clone(), SystemClock.now());
    match store.add_key(record).await {
        Ok(()) => {}
        Err(StoreError::Duplicate) => return Err(format!("there is a key called {name:?} already")),
        Err(cause) => return Err(cause.to_string()),
    }
    let keys = store.keys().await.map_err(|cause| cause.to_string())?;
    if keys.len() == 1 && config.gateway.api_keys.is_empty() && config.gateway.worker_keys.is_empty() {
        complain(&"the first key: within five seconds gateways on this store refuse users and workers that have none");
    }
    Ok(text)
}

fn role(key: &KeyRecord) -> &'static str {
    if key.worker { "worker" } else { "user" }
}

fn as_lines(keys: &[KeyRecord]) -> String {
    let line = |key: &KeyRecord| {
        let of = key.endpoint.as_deref().unwrap_or("all endpoints");
        format!("{:<20} {:<7} {of:<24} {}", key.name, role(key), &key.digest[..8.min(key.digest.len())])
    };
    if keys.is_empty() { "no keys".into() } else { keys.iter().map(line).collect::<Vec<_>>().join("\n") }
}

fn as_json(keys: &[KeyRecord]) -> String {
    let key = |key: &KeyRecord| {
        json!({
            "created": key.created.as_millis(), "digest": key.digest, "endpoint": key.endpoint, "name": key.name, "role": role(key),
        })
    };
    json!(keys.iter().map(key).collect::<Vec<_>>()).to_string()
}
