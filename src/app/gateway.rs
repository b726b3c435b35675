//! `latentd gateway`: the endpoint on a queue in a file or in a Redis.

use std::fmt::Display;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::slice;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::select;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::running::{running, until_stopped};
use super::{Exit, complain, say};
use crate::blocking::blocking;
use crate::clock::SystemClock;
use crate::config::{self, Config, Gateway as Settled, HandledBy, Kept, Secret, WebhookBy};
use crate::deliver::webhook::Signer;
use crate::gateway::{Caller, Endpoint, Gateway, Handler, Key, Role, Settings, serve};
use crate::net::{Client, Guard, NoClient};
use crate::queue::{Rules, Tells};
use crate::store::{RedisStore, SqliteStore, StoreError};

/// Serves until it is told to stop.
pub(super) fn execute(config: &Config) -> Exit {
    running(until_stopped(async |stop| match Door::open(config, None).await {
        Ok(door) => select! {
            exit = door.serve(stop.draining) => exit,
            () = stop.now.cancelled() => Exit::Done,
        },
        Err(exit) => exit,
    }))
}

/// A gateway that listens, and does not serve yet.
pub(super) struct Door {
    listener: TcpListener,
    address: SocketAddr,
    gateway: Opened,
}

/// A gateway on the store that was asked for.
enum Opened {
    File(Arc<Gateway<SqliteStore>>),
    Redis(Arc<Gateway<RedisStore>>),
}

impl Opened {
    async fn is_guarded(&self) -> Result<bool, StoreError> {
        match self {
            Self::File(gateway) => gateway.is_guarded().await,
            Self::Redis(gateway) => gateway.is_guarded().await,
        }
    }

    async fn open(config: &Settled, settings: Settings) -> Result<Self, StoreError> {
        let rules = settings.rules.clone();
        let reserve = config.min_free.0;
        Ok(match config.store.clone() {
            Kept::File(path) => {
                let store = blocking(move || open(&path, rules, reserve)).await?;
                Self::File(Gateway::new(Arc::new(store), Arc::new(SystemClock), settings))
            }
            Kept::Redis(url) => {
                let store = RedisStore::open(&url, rules).await?;
                Self::Redis(Gateway::new(Arc::new(store), Arc::new(SystemClock), settings))
            }
        })
    }
}

impl Door {
    /// Opens the store, and listens. `home` is the key of a worker in this process, whose endpoint the routes without a name are, too.
    ///
    /// # Errors
    /// It was said why, and the process ends so.
    pub(super) async fn open(config: &Config, home: Option<&Secret>) -> Result<Self, Exit> {
        let settings = settings(config, home).map_err(|cause| failed(&cause))?;
        let gateway = Opened::open(&config.gateway, settings).await;
        let gateway = gateway
            .map_err(|cause| failed(&format_args!("the queue cannot be opened: {}: {cause}", config.gateway.store)))?;
        let listen = config.gateway.listen;
        let guarded = gateway.is_guarded().await.map_err(|cause| failed(&format_args!("the queue fails: {cause}")))?;
        if !guarded && !listen.ip().is_loopback() {
            complain(&format_args!(
                "listen is {listen}, which other hosts can reach: set api_keys and worker_keys (LATENTD_API_KEYS, LATENTD_WORKER_KEYS), or make keys \
                 with `latentd key create`"
            ));
            return Err(Exit::Usage);
        }
        let listener = TcpListener::bind(listen).await;
        let listener = listener.map_err(|cause| failed(&format_args!("cannot listen on {listen}: {cause}")))?;
        let address = listener.local_addr().unwrap_or(listen);
        if !guarded {
            warn!("users or workers have no keys: whoever can connect to {address} may ask everything");
        }
        for endpoint in &config.gateway.endpoints {
            info!(store = %config.gateway.store, "serving http://{address}/v2/{}", endpoint.id);
        }
        // A closed stdout keeps nobody from asking.
        let _ = say(&format_args!("listening on http://{address}"));
        Ok(Self { listener, address, gateway })
    }

    /// Where this machine itself asks.
    pub(super) fn address(&self) -> SocketAddr {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.address.port())
    }

    /// Serves until `stop`.
    pub(super) async fn serve(self, stop: CancellationToken) -> Exit {
        match self.gateway {
            Opened::File(gateway) => serve(self.listener, gateway, stop).await,
            Opened::Redis(gateway) => serve(self.listener, gateway, stop).await,
        }
        Exit::Done
    }
}

fn failed(why: &impl Display) -> Exit {
    error!("{why}");
    Exit::Failed
}

pub(super) fn open(path: &std::path::Path, rules: Rules, reserve: Option<u64>) -> Result<SqliteStore, StoreError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|cause| StoreError::Failed(format!("{}: {cause}", folder.display())))?;
    }
    SqliteStore::open(path, rules, reserve)
}

fn endpoint(configured: &config::Endpoint) -> Endpoint {
    Endpoint {
        id: configured.id.clone(),
        aliases: configured.aliases.clone(),
        handler: match configured.handler {
            HandledBy::Latentd => Handler::Latentd { models: None },
            HandledBy::External => Handler::External,
        },
        patience: configured.execution_timeout,
        gpu: configured.gpu,
    }
}

fn settings(config: &Config, home: Option<&Secret>) -> Result<Settings, NoClient> {
    let gateway = &config.gateway;
    let keys = |keys: &[Secret], role| keys.iter().map(|key| Key::new(key.reveal(), role, None)).collect::<Vec<_>>();
    let usual = Settings::default();
    let mut endpoints: Vec<Endpoint> = gateway.endpoints.iter().map(endpoint).collect();
    if let (Some(first), Some(_)) = (endpoints.first_mut(), home) {
        // The worker of this process draws with these, and with no others.
        let models = config.models().ok().map(|served| served.into_iter().map(|served| served.model.name).collect());
        first.handler = Handler::Latentd { models };
    }
    let hooks = &config.webhook;
    let tells = Tells {
        tries: u32::try_from(hooks.attempts).unwrap_or(u32::MAX).max(1),
        pause: hooks.pause,
        time: hooks.timeout,
    };
    Ok(Settings {
        endpoints,
        rules: Rules { lost: gateway.lost, waiting: gateway.max_waiting.0, tells, ..usual.rules },
        // Without keys of users everybody may ask, and a key of our own would change that.
        keys: match (keys(&gateway.api_keys, Role::User), keys(&gateway.worker_keys, Role::Worker)) {
            (users, workers) if users.is_empty() && workers.is_empty() => Vec::new(),
            (users, workers) => {
                [users, workers, keys(home.map(slice::from_ref).unwrap_or_default(), Role::Worker)].concat()
            }
        },
        limits: gateway.limits,
        root: home.is_some(),
        hooks: match hooks.deliver {
            WebhookBy::Auto | WebhookBy::Gateway => Some(Caller {
                client: Client::new(Guard::new(config.net.allow_private.clone()))?,
                signer: hooks.secret.clone().map(Signer::new),
                cancelled: hooks.cancelled,
            }),
            WebhookBy::Worker | WebhookBy::Off => None,
        },
        ..Settings::default()
    })
}
