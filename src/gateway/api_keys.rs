//! Keys: clients and workers have their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::date::UnixTime;
use crate::hex;
use crate::store::KeyRecord;

use super::reply::ApiError;

/// What a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// What clients ask.
    User,
    /// What workers ask.
    Worker,
}

/// A key, of which only the hash is kept: whoever sees it cannot use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    digest: [u8; 32],
    role: Role,
    endpoint: Option<String>,
}

impl ApiKey {
    /// A key for one endpoint, by its id, or for all.
    pub fn new(text: &str, role: Role, endpoint: Option<String>) -> Self {
        Self { digest: Sha256::digest(text.as_bytes()).into(), role, endpoint }
    }

    /// The same as a store keeps it.
    pub fn record(&self, name: String, created: UnixTime) -> KeyRecord {
        let digest = hex::encode(self.digest);
        KeyRecord { name, worker: self.role == Role::Worker, endpoint: self.endpoint.clone(), digest, created }
    }

    /// `None` if somebody changed what the store has.
    fn stored(record: &KeyRecord) -> Option<Self> {
        let digest = hex::decode(&record.digest)?;
        let role = if record.worker { Role::Worker } else { Role::User };
        Some(Self { digest, role, endpoint: record.endpoint.clone() })
    }
}

/// Who needs a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// None: there was never a key.
    Open,
    /// Everybody.
    Closed {
        /// Whether clients have any.
        users: bool,
        /// Whether workers have any.
        workers: bool,
    },
}

impl Access {
    /// What is wrong with that; nothing, if both have keys.
    pub const fn problem(self) -> Option<&'static str> {
        match self {
            Self::Open => Some("users and workers have no keys: whoever can connect may ask everything"),
            Self::Closed { users: true, workers: true } => None,
            Self::Closed { users: true, workers: false } => Some(
                "users have keys and workers have none, so that no worker gets a job: `latentd key create --role worker`, or worker_keys \
                 (LATENTD_WORKER_KEYS)",
            ),
            Self::Closed { users: false, workers: true } => Some(
                "workers have keys and users have none, so that no job can be submitted: `latentd key create --role user`, or api_keys \
                 (LATENTD_API_KEYS)",
            ),
            Self::Closed { users: false, workers: false } => {
                Some("the last key is revoked, so that all requests are refused: `latentd key create`")
            }
        }
    }
}

/// The keys that open a gateway: those it is set to, and those of its store.
#[derive(Debug)]
pub(super) struct ApiKeys {
    set: Vec<ApiKey>,
    /// That of the worker in this process, if there is one: it opens, and closes nothing to others.
    home: Option<ApiKey>,
    all: RwLock<Arc<[ApiKey]>>,
    /// Whether there was ever a key that is no home: when the last is revoked, all requests are refused.
    guarded: AtomicBool,
}

impl ApiKeys {
    pub(super) fn new(set: Vec<ApiKey>, home: Option<ApiKey>) -> Self {
        let keys = Self { set, home, all: RwLock::default(), guarded: AtomicBool::new(false) };
        keys.learn(&[]);
        keys
    }

    /// Takes in what the store has.
    pub(super) fn learn(&self, stored: &[KeyRecord]) {
        let mut all: Vec<ApiKey> = self.set.iter().cloned().chain(stored.iter().filter_map(ApiKey::stored)).collect();
        if !all.is_empty() {
            self.guarded.store(true, Ordering::Relaxed);
        }
        all.extend(self.home.clone());
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = all.into();
    }

    /// Who needs one.
    pub(super) fn access(&self) -> Access {
        if !self.guarded.load(Ordering::Relaxed) {
            return Access::Open;
        }
        let have = |role| self.now().iter().any(|key| key.role == role);
        Access::Closed { users: have(Role::User), workers: have(Role::Worker) }
    }

    /// Whether none is needed.
    pub(super) fn is_open(&self) -> bool {
        !self.guarded.load(Ordering::Relaxed)
    }

    fn now(&self) -> Arc<[ApiKey]> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a client is known by, where there are keys: so much of its key's digest as tells it from others. Without keys anybody could send any.
    pub(super) fn client(&self, headers: &HeaderMap) -> Option<String> {
        let id = || hex::encode(&Sha256::digest(sent_key(headers))[..8]);
        self.guarded.load(Ordering::Relaxed).then(id)
    }

    pub(super) fn allow(&self, role: Role, endpoint: &str, request: &Request) -> Result<(), ApiError> {
        let open = !self.guarded.load(Ordering::Relaxed);
        if open || allows(&self.now(), role, endpoint, sent(request)) { Ok(()) } else { Err(ApiError::Unauthorized) }
    }

    /// Whether any of the keys is sent, whatever it is for.
    pub(super) fn allow_any(&self, request: &Request) -> Result<(), ApiError> {
        let keys = self.now();
        let open = !self.guarded.load(Ordering::Relaxed);
        let opens = |key: &ApiKey| allows(&keys, key.role, key.endpoint.as_deref().unwrap_or_default(), sent(request));
        if open || keys.iter().fold(false, |found, key| found | opens(key)) {
            Ok(())
        } else {
            Err(ApiError::Unauthorized)
        }
    }
}

/// Whether one of the keys is sent.
fn allows(keys: &[ApiKey], role: Role, endpoint: &str, sent: &[u8]) -> bool {
    let digest: [u8; 32] = Sha256::digest(sent).into();
    let fits = |key: &ApiKey| key.role == role && key.endpoint.as_deref().is_none_or(|of| of == endpoint);
    // All of every key is compared, whatever differs, so that the time it takes tells nothing.
    let same = |found: Choice, key: &ApiKey| found | key.digest.ct_eq(&digest);
    keys.iter().filter(|key| fits(key)).fold(Choice::from(0), same).into()
}

fn sent(request: &Request) -> &[u8] {
    sent_key(request.headers())
}

/// The key that is sent, however it is spelled: who is meant by it is one client to everything that asks who does.
pub(super) fn sent_key(headers: &HeaderMap) -> &[u8] {
    headers.get(AUTHORIZATION).map_or(&b""[..], |value| key_of(value.as_bytes()))
}

/// The docs' own lines send `Bearer <key>` and the bare key alike, and workers the bare one.
fn key_of(authorization: &[u8]) -> &[u8] {
    let key = match authorization.split_at_checked("bearer".len()) {
        Some((scheme, key))
            if scheme.eq_ignore_ascii_case(b"bearer") && key.first().is_none_or(u8::is_ascii_whitespace) =>
        {
            key
        }
        _ => authorization,
    };
    key.trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_what_it_is_for() {
        let keys = [
            ApiKey::new("user", Role::User, None),
            ApiKey::new("one", Role::User, Some("e".into())),
            ApiKey::new("work", Role::Worker, None),
        ];
        for (role, endpoint, sent, opens) in [
            (Role::User, "e", "Bearer user", true),
            (Role::User, "e", "bearer  user ", true),
            (Role::User, "f", "user", true),
            (Role::User, "e", "BEARER one", true),
            (Role::User, "f", "Bearer one", false),
            (Role::User, "e", "Bearer work", false),
            (Role::Worker, "e", "work", true),
            (Role::Worker, "e", "user", false),
            (Role::User, "e", "", false),
            (Role::User, "e", "Bearer ", false),
            (Role::User, "e", "Bearer", false),
            (Role::User, "e", "Beareruser", false),
            (Role::User, "e", "Basic user", false),
        ] {
            assert_eq!(allows(&keys, role, endpoint, key_of(sent.as_bytes())), opens, "{sent}");
        }
    }

    #[test]
    fn a_key_of_the_store_opens_until_it_is_revoked_and_then_nothing_does() {
        let keys = ApiKeys::new(Vec::new(), None);
        let ask = |text: &str| Request::builder().header(AUTHORIZATION, text).body(axum::body::Body::empty()).unwrap();
        let opens =
            |text: &str| (keys.allow(Role::Worker, "e", &ask(text)).is_ok(), keys.allow_any(&ask(text)).is_ok());
        assert_eq!(opens(""), (true, true), "without keys everybody may ask");
        let record = ApiKey::new("work", Role::Worker, Some("e".into())).record("w".into(), UnixTime::EPOCH);
        keys.learn(&[record]);
        assert_eq!(keys.access(), Access::Closed { users: false, workers: true });
        assert_eq!((opens("work"), opens("other")), ((true, true), (false, false)));
        keys.learn(&[]);
        assert_eq!((opens("work"), keys.access()), ((false, false), Access::Closed { users: false, workers: false }));
        let spoilt =
            KeyRecord { digest: "é".into(), ..ApiKey::new("x", Role::User, None).record("x".into(), UnixTime::EPOCH) };
        keys.learn(&[spoilt]);
        assert_eq!(keys.access(), Access::Closed { users: false, workers: false });
    }

    #[test]
    fn the_worker_at_home_is_let_in_and_closes_nothing_to_others() {
        let keys = ApiKeys::new(Vec::new(), Some(ApiKey::new("home", Role::Worker, None)));
        let ask = |text: &str| Request::builder().header(AUTHORIZATION, text).body(axum::body::Body::empty()).unwrap();
        let opens = |role, text: &str| keys.allow(role, "e", &ask(text)).is_ok();
        assert!(keys.access() == Access::Open && opens(Role::User, "") && opens(Role::Worker, ""));
        keys.learn(&[ApiKey::new("u", Role::User, None).record("u".into(), UnixTime::EPOCH)]);
        assert_eq!(keys.access(), Access::Closed { users: true, workers: true });
        assert!(opens(Role::Worker, "home") && !opens(Role::Worker, "") && !opens(Role::User, "home"));
    }
}
