//! The connection: one for everything, made anew when it is lost.
//!
//! News come on it, too, so that whoever can ask hears of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig, SendError};
use redis::io::tcp::TcpSettings;
use redis::{
    Client, FromRedisValue, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo, PushKind, RedisError, RedisResult,
    ScriptInvocation, Value,
};

use super::super::StoreError;
use super::super::news::{News, Teller};
use super::keys;

/// For a connection, TLS and password included.
const CONNECT: Duration = Duration::from_secs(3);

/// For an answer. The largest payload must come through in it.
const ANSWER: Duration = Duration::from_secs(10);

/// The oldest Redis that knows what our scripts say of themselves.
const OLDEST: u32 = 7;

/// Asks a Redis.
#[derive(Clone)]
pub(super) struct Link {
    db: ConnectionManager,
    /// Host, port and number of the database, for people.
    place: String,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.place)
    }
}

impl Link {
    /// Connects, and has all news told to `teller` from now on.
    pub(super) async fn open(url: &str, teller: Arc<Teller>) -> Result<Self, StoreError> {
        // Its words about a URL may quote it.
        let no_url = |_| {
            StoreError::Failed(
                "it should be redis://[user:password@]host[:port][/database], or rediss:// for TLS".into(),
            )
        };
        let info = url.into_connection_info().map_err(no_url)?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let place = format!("Redis at {}/{}", info.addr(), settings.db());
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(ANSWER);
        let failed = |error: RedisError| failed(&place, &error);
        let client = Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp)).map_err(failed)?;
        let subscribed = AtomicBool::new(false);
        let hear = move |push: PushInfo| -> Result<(), SendError> {
            match push.kind {
                PushKind::Message => teller.tell(told(&push)),
                // Not for the first time: nobody knows what was told meanwhile.
                PushKind::Subscribe if subscribed.swap(true, Ordering::Relaxed) => teller.tell([News::Much]),
                _ => {}
            }
            Ok(())
        };
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0) // whoever asks next tries again
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER))
            .set_push_sender(hear)
            .set_automatic_resubscription();
        let mut db = ConnectionManager::new_with_config(client, config).await.map_err(failed)?;
        db.subscribe(keys::news()).await.map_err(failed)?;
        let link = Self { db, place };
        link.check().await?;
        Ok(link)
    }

    /// Whether it is a Redis that can be used, and what is to be known of it.
    async fn check(&self) -> Result<(), StoreError> {
        let (info,): (String,) = self.ask(redis::pipe().cmd("INFO").arg("everything")).await?;
        let says =
            |key: &str| info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap_or_default();
        let version = says("redis_version");
        if version.split('.').next().and_then(|major| major.parse().ok()).is_none_or(|major: u32| major < OLDEST) {
            let why = format!("{}: its version is {version:?}, and {OLDEST} is the oldest that will do", self.place);
            return Err(StoreError::Failed(why));
        }
        if says("cluster_enabled") == "1" {
            return Err(StoreError::Failed(format!("{}: it is a cluster, which is not spoken here", self.place)));
        }
        if says("maxmemory_policy") != "noeviction" {
            let policy = says("maxmemory_policy");
            tracing::warn!(
                policy,
                "{} throws jobs away when its memory is full: set maxmemory-policy noeviction",
                self.place
            );
        }
        if says("aof_enabled") != "1" {
            tracing::warn!("{} forgets jobs when it ends: set appendonly yes", self.place);
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

    /// Once more when the connection was lost, with or without its answer.
    async fn twice<T, F>(&self, ask: impl Fn(ConnectionManager, bool) -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = RedisResult<T>> + Send,
    {
        let mut answer = ask(self.db.clone(), false).await;
        if answer.as_ref().is_err_and(|error| error.is_io_error() && !error.is_timeout()) {
            answer = ask(self.db.clone(), true).await;
        }
        answer.map_err(|error| failed(&self.place, &error))
    }
}

fn failed(place: &str, error: &RedisError) -> StoreError {
    let why = match error.code() {
        Some("OOM") => {
            let why = "its memory is full, and it takes no more jobs until some are over (OOM, maxmemory)";
            return StoreError::Full(format!("{place}: {why}"));
        }
        _ if error.is_timeout() => format!("no answer within {} s", ANSWER.as_secs()),
        _ => error.to_string(),
    };
    if why.contains("UnknownIssuer") {
        let what = "this machine does not believe its certificate: add its CA's to those of the system, or name a PEM file in SSL_CERT_FILE";
        return StoreError::Failed(format!("{place}: {what} ({why})"));
    }
    StoreError::Failed(format!("{place}: {why}"))
}

/// The news of a message; of one that cannot be read, that there are some.
fn told(push: &PushInfo) -> Vec<News> {
    let text = match push.data.get(1) {
        Some(Value::BulkString(text)) => &text[..],
        _ => &[],
    };
    serde_json::from_slice(text).unwrap_or_else(|_| vec![News::Much])
}
