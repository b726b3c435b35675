//! The connection: one for everything, renewed when it is lost, and when what is at its other end takes no writes.
//!
//! Events come on it, too, so that whoever can ask hears of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig, SendError};
use redis::{FromRedisValue, Pipeline, PushInfo, PushKind, RedisError, RedisResult, ScriptInvocation, Value};
use tokio::sync::{Mutex, RwLock};
use tokio::time::Instant;

use super::super::StoreError;
use super::super::events::{EventSender, StoreEvent};
use super::address::{CONNECT_TIMEOUT, REDIS_TIMEOUT, RedisAddress};
use super::keys;

/// Between two looks for another server: whoever asks meanwhile is told what the last found.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// The oldest Redis that knows what our scripts say of themselves.
const MIN_VERSION: u32 = 7;

/// What a server says that is there and takes no writes, each before it has changed anything: a replica, as it is after a failover; one whose
/// disk does not take its snapshots; one that has fewer replicas than it should; one that lost its master; one that reads its disk.
const REFUSALS: [&str; 5] = ["READONLY", "MISCONF", "NOREPLICAS", "MASTERDOWN", "LOADING"];

/// Why a certificate is not believed, as rustls says it, and what helps.
const UNTRUSTED: [(&str, &str); 2] = [
    ("UnknownIssuer", "add its CA's to those of the system, or name a PEM file in SSL_CERT_FILE"),
    (
        "CaUsedAsEndEntity",
        "it is that of a CA, as openssl req -x509 makes it; make it with -addext basicConstraints=critical,CA:FALSE, or have a CA sign another",
    ),
];

/// Asks a Redis.
pub(super) struct Connection {
    address: RedisAddress,
    server: RwLock<ServerConnection>,
    /// When another server was last looked for. Held meanwhile.
    looked: Mutex<Option<Instant>>,
    sender: Arc<EventSender>,
    /// Whether there was a connection before: what was told since is unknown.
    heard: Arc<AtomicBool>,
}

/// A connection to one server, which renews itself when it is lost.
#[derive(Clone)]
struct ServerConnection {
    db: ConnectionManager,
    /// Tells it from those before.
    number: u64,
}

impl ServerConnection {
    /// Whether it can be used at all. One that was lost and then was refused, as without its user (NOAUTH, WRONGPASS) or with too many
    /// clients, answers everything with that, and does not try again by itself.
    async fn is_open(&self) -> bool {
        let ping = redis::cmd("PING").query_async::<()>(&mut self.db.clone()).await;
        ping.is_ok()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.address)
    }
}

impl Connection {
    /// Connects, and has all events published by `sender` from now on.
    pub(super) async fn open(url: &str, sender: Arc<EventSender>) -> Result<Self, StoreError> {
        let (address, heard) = (RedisAddress::parse(url)?, Arc::new(AtomicBool::new(false)));
        let db = connect(&address, &sender, &heard).await.map_err(|error| failed(&address, &error))?;
        let server = RwLock::new(ServerConnection { db, number: 0 });
        let connection = Self { address, server, looked: Mutex::default(), sender, heard };
        connection.check().await?;
        Ok(connection)
    }

    /// Whether it is a Redis that can be used, and what is to be known of it.
    async fn check(&self) -> Result<(), StoreError> {
        let mut db = self.server.read().await.db.clone();
        let info: String = match redis::cmd("INFO").arg("everything").query_async(&mut db).await {
            Err(error) if error.code() == Some("NOPERM") => {
                tracing::warn!(
                    "{} lets this user not ask INFO: whether it is of version {MIN_VERSION} or later, and keeps jobs when its memory is full and when it \
                     ends, is not known",
                    self.address
                );
                return Ok(());
            }
            Err(error) => return Err(failed(&self.address, &error)),
            Ok(info) => info,
        };
        let says =
            |key: &str| info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap_or_default();
        let version = says("redis_version");
        if version.split('.').next().and_then(|major| major.parse().ok()).is_none_or(|major: u32| major < MIN_VERSION) {
            let why =
                format!("{}: its version is {version:?}, and {MIN_VERSION} is the oldest that will do", self.address);
            return Err(StoreError::Failed(why));
        }
        if says("cluster_enabled") == "1" {
            return Err(StoreError::Failed(format!("{}: it is a cluster, which is not spoken here", self.address)));
        }
        if says("maxmemory_policy") != "noeviction" {
            let policy = says("maxmemory_policy");
            tracing::warn!(
                policy,
                "{} throws jobs away when its memory is full: set maxmemory-policy noeviction",
                self.address
            );
        }
        if says("aof_enabled") != "1" {
            tracing::warn!("{} forgets jobs when it ends: set appendonly yes", self.address);
        }
        Ok(())
    }

    /// Asks for what some commands answer.
    pub(super) async fn ask<T: FromRedisValue + Send>(&self, commands: &Pipeline) -> Result<T, StoreError> {
        self.twice(|mut db, _| async move { commands.query_async(&mut db).await }).await
    }

    /// Runs a script.
    pub(super) async fn run<T: FromRedisValue + Send>(&self, script: &ScriptInvocation<'_>) -> Result<T, StoreError> {
        self.run_or(script, script).await
    }

    /// Runs a script; once more as it is `again`, if it may have run already.
    pub(super) async fn run_or<T: FromRedisValue + Send>(
        &self,
        script: &ScriptInvocation<'_>,
        again: &ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        let ask = |mut db, twice| async move { if twice { again } else { script }.invoke_async(&mut db).await };
        self.twice(ask).await
    }

    /// Once more when the connection was lost, with or without its answer, and when the server took no writes or no connection.
    async fn twice<T, F>(&self, ask: impl Fn(ConnectionManager, bool) -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = RedisResult<T>> + Send,
    {
        let mut again = false;
        loop {
            let server = self.server.read().await.clone();
            match ask(server.db.clone(), again).await {
                // Boxed: it is rare, and larger than all else.
                Err(error) if !again && Box::pin(self.is_mended(&server, &error)).await => again = true,
                answer => return answer.map_err(|error| failed(&self.address, &error)),
            }
        }
    }

    /// Whether there is hope after an error: it was one of the connection or of the server, and there is another by now.
    async fn is_mended(&self, server: &ServerConnection, error: &RedisError) -> bool {
        if refusal(error).is_some() {
            return self.renew(server.number).await;
        }
        if !error.is_io_error() {
            return !server.is_open().await && self.renew(server.number).await;
        }
        // One that has an address finds the way back by itself.
        !error.is_timeout() && (!self.address.moves() || self.renew(server.number).await)
    }

    /// Connects again, because the connection of this number is of no use: its name may lead to another server by now. Returns whether there
    /// is another connection.
    async fn renew(&self, number: u64) -> bool {
        let began = Instant::now();
        let mut looked = self.looked.lock().await;
        if self.server.read().await.number != number {
            return true;
        }
        if looked.is_some_and(|looked| looked + RECONNECT_PAUSE > began) {
            return false;
        }
        let found = connect(&self.address, &self.sender, &self.heard).await;
        *looked = Some(Instant::now());
        match found {
            Ok(db) => {
                *self.server.write().await = ServerConnection { db, number: number + 1 };
                true
            }
            Err(error) => {
                tracing::warn!(cause = %error, "{} is looked for and cannot be reached", self.address);
                false
            }
        }
    }
}

/// Connects to where the server is now, and listens to events.
async fn connect(
    server: &RedisAddress,
    sender: &Arc<EventSender>,
    heard: &Arc<AtomicBool>,
) -> RedisResult<ConnectionManager> {
    let (sender, heard) = (sender.clone(), heard.clone());
    let hear = move |push: PushInfo| -> Result<(), SendError> {
        match push.kind {
            PushKind::Message => sender.publish(told(&push)),
            // Not for the first time: what was told meanwhile is unknown.
            PushKind::Subscribe if heard.swap(true, Ordering::Relaxed) => sender.publish([StoreEvent::Lagged]),
            _ => {}
        }
        Ok(())
    };
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(0) // whoever asks next tries again
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(REDIS_TIMEOUT))
        .set_push_sender(hear)
        .set_automatic_resubscription();
    let mut db = ConnectionManager::new_with_config(server.find().await?, config).await?;
    db.subscribe(keys::events()).await?;
    Ok(db)
}

/// Why a server that is there took no write, if it is that.
fn refusal(error: &RedisError) -> Option<String> {
    let errors = error.clone().into_server_errors()?;
    let (_, refusal) = errors.iter().find(|(_, error)| REFUSALS.contains(&error.code()))?;
    Some(format!("it takes no writes: {} {}", refusal.code(), refusal.details().unwrap_or_default()))
}

fn failed(server: &RedisAddress, error: &RedisError) -> StoreError {
    let why = match error.code() {
        Some("OOM") => {
            let why = "its memory is full, and it takes no more jobs until some are over (OOM, maxmemory)";
            return StoreError::NoSpace(format!("{server}: {why}"));
        }
        _ if error.is_timeout() => format!("no answer within {} s", REDIS_TIMEOUT.as_secs()),
        _ => refusal(error).unwrap_or_else(|| error.to_string()),
    };
    for (sign, what) in UNTRUSTED {
        if why.contains(sign) {
            return StoreError::Failed(format!(
                "{server}: this machine does not believe its certificate: {what} ({why})"
            ));
        }
    }
    StoreError::Failed(format!("{server}: {why}"))
}

/// The events of a message; of one that cannot be read, that some were missed.
fn told(push: &PushInfo) -> Vec<StoreEvent> {
    let text = match push.data.get(1) {
        Some(Value::BulkString(text)) => &text[..],
        _ => &[],
    };
    serde_json::from_slice(text).unwrap_or_else(|_| vec![StoreEvent::Lagged])
}
