//! Where the Redis is: at an address, at a socket of this machine, or where Sentinels say.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError, RedisResult,
};

use super::super::StoreError;

/// For a connection, TLS and password included.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// For an answer. The largest payload must come through in it.
pub(super) const REDIS_TIMEOUT: Duration = Duration::from_secs(10);

/// Where Sentinels listen, by default.
const SENTINEL_PORT: u16 = 26379;

/// A Redis, or whom to ask for it.
#[derive(Clone)]
pub(super) struct RedisAddress {
    /// How it is spoken to, and where, unless Sentinels say that.
    info: ConnectionInfo,
    /// They and what they call it.
    sentinels: Option<(Vec<ConnectionAddr>, String)>,
}

/// For people, without a password.
impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let db = self.info.redis_settings().db();
        match &self.sentinels {
            None => write!(f, "Redis at {}/{db}", self.info.addr()),
            Some((sentinels, name)) => {
                let sentinels: Vec<_> = sentinels.iter().map(ToString::to_string).collect();
                write!(f, "Redis {name:?} of the Sentinels at {}, database {db}", sentinels.join(", "))
            }
        }
    }
}

impl RedisAddress {
    /// Reads a URL.
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        // Words of others about a URL may quote it.
        let wrong = || {
            let forms = "redis://[user:password@]host[:port][/database], rediss:// for TLS, redis+unix:///path, or \
                redis+sentinel://[user:password@]host[:port],…/master-name[/database]";
            StoreError::Failed(format!("it should be {forms}"))
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let (info, sentinels) = match scheme.strip_suffix("+sentinel") {
            Some(scheme) => {
                let (info, sentinels) = of_sentinels(scheme, rest).ok_or_else(wrong)?;
                (info, Some(sentinels))
            }
            None => (url.into_connection_info().map_err(|_| wrong())?, None),
        };
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(REDIS_TIMEOUT);
        Ok(Self { info: info.set_redis_settings(settings).set_tcp_settings(tcp), sentinels })
    }

    /// Whether it may be elsewhere the next time.
    pub(super) fn moves(&self) -> bool {
        self.sentinels.is_some()
    }

    /// Where it is now.
    pub(super) async fn find(&self) -> RedisResult<Client> {
        let Some((sentinels, name)) = &self.sentinels else { return Client::open(self.info.clone()) };
        let mut last = None;
        for sentinel in sentinels {
            match self.ask(sentinel, name).await {
                Ok(Some(place)) => return Client::open(self.info.clone().set_addr(place)),
                // It may know less than the next.
                Ok(None) => last = Some(io(format!("no Sentinel knows {name:?}"))),
                Err(error) => last = last.or(Some(error)),
            }
        }
        Err(last.unwrap_or_else(|| io("there are no Sentinels".into())))
    }

    /// What one of them knows.
    async fn ask(&self, sentinel: &ConnectionAddr, name: &str) -> RedisResult<Option<ConnectionAddr>> {
        // Most have no password of their own, and refuse one.
        let open = self.info.clone().set_addr(sentinel.clone()).set_redis_settings(RedisConnectionInfo::default());
        let keyed = self.info.redis_settings().clone().set_db(0).set_protocol(ProtocolVersion::RESP2);
        let keyed = open.clone().set_redis_settings(keyed);
        let found = match master(open, name).await {
            Err(error) if self.info.redis_settings().password().is_some() && wants_password(&error) => {
                master(keyed, name).await?
            }
            found => found?,
        };
        Ok(found.map(|(host, port)| at(sentinel, host, port)))
    }
}

/// What is asked of a Sentinel.
async fn master(info: ConnectionInfo, name: &str) -> RedisResult<Option<(String, u16)>> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(CONNECT_TIMEOUT));
    let mut db: MultiplexedConnection =
        Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?;
    redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name).query_async(&mut db).await
}

fn wants_password(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOAUTH" | "NOPERM"))
}

fn io(why: String) -> RedisError {
    std::io::Error::other(why).into()
}

/// A place that is spoken to as another is: with TLS or without.
fn at(like: &ConnectionAddr, name: String, number: u16) -> ConnectionAddr {
    match like.clone() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: name, port: number, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(name, number),
    }
}

/// `[user:password@]host[:port],…/master-name[/database]`; the user is one of the Redis, and of Sentinels that want any.
fn of_sentinels(scheme: &str, rest: &str) -> Option<(ConnectionInfo, (Vec<ConnectionAddr>, String))> {
    let (hosts, path) = rest.split_once('/')?;
    let (user, hosts) = hosts.rsplit_once('@').map_or(("", hosts), |(user, hosts)| (user, hosts));
    let (name, db) = path.split_once('/').unwrap_or((path, "0"));
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    let mut found = Vec::new();
    for host in hosts.split(',') {
        let bare = host.rsplit_once(':').is_none_or(|(_, port)| port.is_empty() || port.contains(']'));
        let port = if bare { format!(":{SENTINEL_PORT}") } else { String::new() };
        let url = format!("{scheme}://{user}{}{port}/{db}", host.trim_end_matches(':'));
        found.push(url.into_connection_info().ok()?);
    }
    let sentinels = found.iter().map(|info| info.addr().clone()).collect();
    let known =
        !name.is_empty() && matches!(found.first()?.addr(), ConnectionAddr::Tcp(..) | ConnectionAddr::TcpTls { .. });
    known.then(|| found.swap_remove(0)).map(|info| (info, (sentinels, name.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        match RedisAddress::parse(url) {
            Ok(server) => server.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_redis_is_at_an_address_a_socket_or_where_sentinels_say() {
        for (url, place) in [
            ("redis://h", "Redis at h:6379/0"),
            ("valkey://:s3cret@h:1/2", "Redis at h:1/2"),
            ("valkeys://h", "Redis at h:6379/0"),
            ("redis+unix:///run/r.sock?db=3&pass=s3cret", "Redis at /run/r.sock/3"),
            ("unix:///run/r.sock", "Redis at /run/r.sock/0"),
            (
                "redis+sentinel://me:s3cret@a:1,b,[::1]:2,[::1]/mymaster/4",
                "Redis \"mymaster\" of the Sentinels at a:1, b:26379, ::1:2, ::1:26379, database 4",
            ),
            ("valkeys+sentinel://a/m", "Redis \"m\" of the Sentinels at a:26379, database 0"),
        ] {
            assert_eq!(shown(url), place, "{url}");
        }
    }

    #[test]
    fn what_is_no_such_url_is_told_the_forms() {
        for url in [
            "redis",
            "redis://",
            "http://h",
            "redis+unix://h",
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "redis+sentinel:///m",
            "redis+sentinel://a,/m",
            "redis+sentinel://a:x/m",
            "redis+sentinel://a/m/x",
            "unix+sentinel://a/m",
            "http+sentinel://a/m",
            "+sentinel://a/m",
            "redis+sentinel://me:s3cret@/m",
        ] {
            let error = shown(url);
            assert!(error.contains("it should be redis://[user") && !error.contains("s3cret"), "{url}: {error}");
        }
    }
}
