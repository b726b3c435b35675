//! `latentd gateway`: the endpoint on a queue in a file or in a Redis.

use std::fs;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime;
use tokio::select;
use tracing::{error, info, warn};

use super::{Exit, complain, say};
use crate::blocking::blocking;
use crate::clock::SystemClock;
use crate::config::{self, Config, Kept, Secret};
use crate::gateway::{Endpoint, Gateway, Key, Role, Settings, serve};
use crate::queue::Rules;
use crate::stop::{Signals, Stop};
use crate::store::{RedisStore, SqliteStore, Store, StoreError};

/// Serves until it is told to stop.
pub(super) fn execute(config: &Config) -> Exit {
    let gateway = &config.gateway;
    let open = gateway.api_keys.is_empty() || gateway.worker_keys.is_empty();
    if open && !gateway.listen.ip().is_loopback() {
        complain(&format!(
            "listen is {}, which other hosts can reach: set api_keys and worker_keys (LATENTD_API_KEYS, LATENTD_WORKER_KEYS) first",
            gateway.listen
        ));
        return Exit::Usage;
    }
    match runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(until_stopped(gateway.clone())),
        Err(cause) => {
            complain(&format!("no runtime: {cause}"));
            Exit::Bug
        }
    }
}

async fn until_stopped(config: config::Gateway) -> Exit {
    let stop = Stop::default();
    let signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(cause) => {
            error!("signals cannot be caught: {cause}");
            return Exit::Failed;
        }
    };
    select! {
        exit = start(config, stop.clone()) => exit,
        () = signals.pass_on(stop.clone()) => Exit::Done,
        () = stop.now.cancelled() => Exit::Done,
    }
}

async fn start(config: config::Gateway, stop: Stop) -> Exit {
    match config.store.clone() {
        Kept::File(path) => on(blocking(move || open(&path)).await, config, stop).await,
        Kept::Redis(url) => on(RedisStore::open(&url, Rules::default()).await, config, stop).await,
    }
}

/// Serves on a store, if it could be opened.
async fn on(store: Result<impl Store, StoreError>, config: config::Gateway, stop: Stop) -> Exit {
    let store = match store {
        Ok(store) => store,
        Err(cause) => {
            error!(store = %config.store, "the queue cannot be opened: {cause}");
            return Exit::Failed;
        }
    };
    let listener = match TcpListener::bind(config.listen).await {
        Ok(listener) => listener,
        Err(cause) => {
            error!(listen = %config.listen, "cannot listen: {cause}");
            return Exit::Failed;
        }
    };
    let address = listener.local_addr().unwrap_or(config.listen);
    if config.api_keys.is_empty() && config.worker_keys.is_empty() {
        warn!("no keys are set: whoever can connect to {address} may ask everything");
    }
    info!(endpoint = config.endpoint, store = %config.store, "serving http://{address}/v2/{}", config.endpoint);
    // A closed stdout keeps nobody from asking.
    let _ = say(&format_args!("listening on http://{address}"));
    let gateway = Gateway::new(Arc::new(store), Arc::new(SystemClock), settings(&config));
    match serve(listener, gateway, stop.draining).await {
        Ok(()) => Exit::Done,
        Err(cause) => {
            error!("serving ended: {cause}");
            Exit::Failed
        }
    }
}

fn open(path: &std::path::Path) -> Result<SqliteStore, StoreError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|cause| StoreError::Failed(format!("{}: {cause}", folder.display())))?;
    }
    SqliteStore::open(path, Rules::default())
}

fn settings(config: &config::Gateway) -> Settings {
    let keys = |keys: &[Secret], role| keys.iter().map(|key| Key::new(key.reveal(), role, None)).collect::<Vec<_>>();
    let usual = Settings::default();
    let endpoints = usual.endpoints.into_iter().map(|endpoint| Endpoint { id: config.endpoint.clone(), ..endpoint });
    Settings {
        endpoints: endpoints.collect(),
        keys: [keys(&config.api_keys, Role::User), keys(&config.worker_keys, Role::Worker)].concat(),
        ..Settings::default()
    }
}
