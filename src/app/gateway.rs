//! `latentd gateway`: the endpoint on a queue in a file or in a Redis.

use std::fmt::Display;
use std::fs::{File, TryLockError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::select;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::running::{running, until_stopped};
use super::{Exit, complain, files, offer, say};
use crate::blocking::blocking;
use crate::clock::SystemClock;
use crate::config::{self, Config, GatewayConfig, HandlerKind, Secret, StoreLocation, WebhookDelivery};
use crate::deliver::webhook::Signer;
use crate::disk::private;
use crate::gateway::{
    Access, ApiKey, BrowserPolicy, Endpoint, Gateway, GatewaySettings, Handler, Role, WebhookCaller, serve,
};
use crate::net::{Client, Guard, NoClient};
use crate::queue::{Rules, WebhookRetry};
use crate::store::{RedisStore, SqliteStore, StoreError};

/// Serves until it is told to stop.
pub(super) fn execute(config: &Config) -> Exit {
    running(until_stopped(async |stop| match GatewayServer::open(config, None).await {
        Ok(server) => select! {
            exit = server.serve(stop.draining) => exit,
            () = stop.now.cancelled() => Exit::Done,
        },
        Err(exit) => exit,
    }))
}

/// A gateway that listens, and does not serve yet.
pub(super) struct GatewayServer {
    listener: TcpListener,
    address: SocketAddr,
    gateway: OpenGateway,
}

/// A gateway on the store that was asked for.
enum OpenGateway {
    /// And the lock that keeps others from serving it.
    File(Arc<Gateway<SqliteStore>>, File),
    Redis(Arc<Gateway<RedisStore>>),
}

impl OpenGateway {
    async fn access(&self) -> Result<Access, StoreError> {
        match self {
            Self::File(gateway, _) => gateway.access().await,
            Self::Redis(gateway) => gateway.access().await,
        }
    }

    async fn open(config: &GatewayConfig, settings: GatewaySettings) -> Result<Self, StoreError> {
        let rules = settings.rules.clone();
        let reserve = config.min_free.0;
        Ok(match config.store.clone() {
            StoreLocation::File(path) => {
                let opened = blocking(move || -> Result<_, StoreError> {
                    make_folder(&path)?;
                    let lock = alone(&path)?;
                    Ok((open(&path, rules, reserve)?, lock))
                });
                let (store, lock) = opened.await?;
                Self::File(Gateway::open(Arc::new(store), Arc::new(SystemClock), settings).await?, lock)
            }
            StoreLocation::Redis(url) => {
                let store = RedisStore::open(&url, rules).await?;
                Self::Redis(Gateway::open(Arc::new(store), Arc::new(SystemClock), settings).await?)
            }
        })
    }
}

impl GatewayServer {
    /// Opens the store, and listens. `home` is the key of a worker in this process, whose endpoint the routes without a name are, too.
    ///
    /// # Errors
    /// It was said why, and the process ends so.
    pub(super) async fn open(config: &Config, home: Option<&Secret>) -> Result<Self, Exit> {
        let settings = settings(config, home).map_err(|cause| failed(&cause))?;
        let gateway = OpenGateway::open(&config.gateway, settings).await;
        let gateway = gateway
            .map_err(|cause| failed(&format_args!("the queue cannot be opened: {}: {cause}", config.gateway.store)))?;
        let listen = config.gateway.listen;
        let access = gateway.access().await.map_err(|cause| failed(&format_args!("the queue fails: {cause}")))?;
        if access.problem().is_some() && !listen.ip().is_loopback() {
            complain(&format_args!(
                "listen is {listen}, which other hosts can reach: set api_keys and worker_keys (LATENTD_API_KEYS, LATENTD_WORKER_KEYS), or make keys \
                 with `latentd key create`"
            ));
            return Err(Exit::Usage);
        }
        let listener = TcpListener::bind(listen).await;
        let listener = listener.map_err(|cause| failed(&format_args!("cannot listen on {listen}: {cause}")))?;
        let address = listener.local_addr().unwrap_or(listen);
        if let Some(why) = access.problem() {
            warn!("{address}: {why}");
        }
        for endpoint in &config.gateway.endpoints {
            info!(store = %config.gateway.store, "serving http://{address}/v2/{}", endpoint.id);
        }
        // A closed stdout keeps no client from asking.
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
            OpenGateway::File(gateway, _lock) => serve(self.listener, gateway, stop).await,
            OpenGateway::Redis(gateway) => serve(self.listener, gateway, stop).await,
        }
        Exit::Done
    }
}

fn failed(why: &impl Display) -> Exit {
    error!("{why}");
    Exit::Failed
}

pub(super) fn open(path: &Path, rules: Rules, reserve: Option<u64>) -> Result<SqliteStore, StoreError> {
    make_folder(path)?;
    SqliteStore::open(path, rules, reserve)
}

/// The one that the file is to be in.
fn make_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(path);
    private::folder(folder).map_err(|cause| StoreError::Failed(format!("{}: {cause}", folder.display())))
}

/// Keeps other gateways from serving this queue, for as long as it is there: one would not wake what waits at the other.
fn alone(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push("-gateway");
    let lock =
        private::file(Path::new(&name)).map_err(|cause| StoreError::Failed(format!("{}: {cause}", name.display())))?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => Err(StoreError::Failed(
            "another gateway serves it; stop that first, or have both share a Redis (LATENTD_STORE=redis://…)".into(),
        )),
        // On a file system without locks it is unknown.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(lock),
    }
}

fn endpoint(configured: &config::EndpointConfig) -> Endpoint {
    Endpoint {
        id: configured.id.clone(),
        aliases: configured.aliases.clone(),
        handler: match configured.handler {
            HandlerKind::Latentd => Handler::Latentd { models: None, contract: configured.contract },
            HandlerKind::External => Handler::External,
        },
        execution_timeout: configured.execution_timeout,
        gpu: configured.gpu,
    }
}

fn settings(config: &Config, home: Option<&Secret>) -> Result<GatewaySettings, NoClient> {
    let gateway = &config.gateway;
    let keys = |keys: &[Secret], role| keys.iter().map(|key| ApiKey::new(key.reveal(), role, None)).collect::<Vec<_>>();
    let usual = GatewaySettings::default();
    let mut endpoints: Vec<Endpoint> = gateway.endpoints.iter().map(endpoint).collect();
    if let (Some(first), Some(configured), Some(_)) = (endpoints.first_mut(), gateway.endpoints.first(), home) {
        // The worker of this process draws with these, and with no others.
        let models = config.models().ok().and_then(|served| offer::models(&served).ok());
        first.handler = Handler::Latentd { models, contract: configured.contract };
    }
    let hooks = &config.webhook;
    let webhooks = WebhookRetry {
        tries: u32::try_from(hooks.attempts).unwrap_or(u32::MAX).max(1),
        pause: hooks.pause,
        timeout: hooks.timeout,
    };
    Ok(GatewaySettings {
        endpoints,
        rules: Rules { lost_after: gateway.lost, max_waiting: gateway.max_waiting.0, webhooks, ..usual.rules },
        keys: [keys(&gateway.api_keys, Role::User), keys(&gateway.worker_keys, Role::Worker)].concat(),
        local_worker_key: home.map(|key| ApiKey::new(key.reveal(), Role::Worker, None)),
        connections: files::connections(files::raise()),
        keep_alive: gateway.keep_alive,
        in_flight: usize::try_from(gateway.in_flight).unwrap_or(usize::MAX),
        limits: gateway.limits,
        browsers: BrowserPolicy { hosts: gateway.hosts.0.clone(), origins: gateway.cors.0.clone() },
        serve_at_root: home.is_some(),
        webhooks: match hooks.deliver {
            WebhookDelivery::Auto | WebhookDelivery::Gateway => Some(WebhookCaller {
                client: Client::new(Guard::new(config.net.allow_private.clone()))?,
                signer: hooks.secret.clone().map(Signer::new),
                cancelled: hooks.cancelled,
            }),
            WebhookDelivery::Worker | WebhookDelivery::Off => None,
        },
        ..usual
    })
}
