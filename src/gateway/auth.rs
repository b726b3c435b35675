//! Who may ask: clients and workers have keys of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};

use crate::store::Store;

use super::Gateway;
use super::reply::Fault;

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
pub struct Key {
    digest: [u8; 32],
    role: Role,
    endpoint: Option<String>,
}

impl Key {
    /// A key for one endpoint, by its id, or for all.
    pub fn new(text: &str, role: Role, endpoint: Option<String>) -> Self {
        Self { digest: Sha256::digest(text.as_bytes()).into(), role, endpoint }
    }
}

/// Whether one of the keys is sent. Without keys everybody may ask everything.
///
/// The docs' own lines send `Bearer <key>` and the bare key alike, and workers the bare one (PROTOCOL 2.1).
fn allows(keys: &[Key], role: Role, endpoint: &str, authorization: &[u8]) -> bool {
    let sent = match authorization.split_at_checked("bearer ".len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key,
        _ => authorization,
    };
    let digest: [u8; 32] = Sha256::digest(sent.trim_ascii()).into();
    let fits = |key: &Key| key.role == role && key.endpoint.as_deref().is_none_or(|of| of == endpoint);
    // All of every key is compared, whatever differs, so that the time it takes tells nothing.
    let same = |key: &Key| key.digest.iter().zip(digest).fold(0, |differ, (ours, sent)| differ | (ours ^ sent)) == 0;
    keys.is_empty() || keys.iter().filter(|key| fits(key)).fold(false, |found, key| found | same(key))
}

/// Whether any of the keys is sent, whatever it is for.
pub(super) fn any(keys: &[Key], request: &Request) -> Result<(), Fault> {
    let opens =
        |role| keys.iter().any(|key| allows(keys, role, key.endpoint.as_deref().unwrap_or_default(), sent(request)));
    if keys.is_empty() || opens(Role::User) | opens(Role::Worker) { Ok(()) } else { Err(Fault::NoKey) }
}

fn sent(request: &Request) -> &[u8] {
    request.headers().get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes())
}

async fn check<S: Store>(
    gateway: &Gateway<S>,
    role: Role,
    path: &BTreeMap<String, String>,
    request: Request,
    next: Next,
) -> Result<Response, Fault> {
    let name = path.get("endpoint").map_or("", String::as_str);
    // An unknown endpoint is told to who has a key for any.
    let endpoint = gateway.endpoint(name).map_or(name, |endpoint| &endpoint.id);
    if !allows(&gateway.settings.keys, role, endpoint, sent(&request)) {
        return Err(Fault::NoKey);
    }
    if role == Role::Worker || !gateway.settings.limits {
        return Ok(next.run(request).await);
    }
    let operation = request.uri().path().split('/').nth(1).unwrap_or_default().to_owned();
    let mut asked = Sha256::new();
    for part in [endpoint.as_bytes(), operation.as_bytes(), sent(&request)] {
        asked.update(part.len().to_le_bytes());
        asked.update(part);
    }
    let place = gateway.limits.admit(asked.finalize().into(), &operation, gateway.now())?;
    Ok(place.held_by(next.run(request).await))
}

pub(super) async fn user<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    Path(path): Path<BTreeMap<String, String>>,
    request: Request,
    next: Next,
) -> Result<Response, Fault> {
    check(&gateway, Role::User, &path, request, next).await
}

pub(super) async fn worker<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    Path(path): Path<BTreeMap<String, String>>,
    request: Request,
    next: Next,
) -> Result<Response, Fault> {
    check(&gateway, Role::Worker, &path, request, next).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_what_it_is_for() {
        let keys = [
            Key::new("user", Role::User, None),
            Key::new("one", Role::User, Some("e".into())),
            Key::new("work", Role::Worker, None),
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
            (Role::User, "e", "Basic user", false),
        ] {
            assert_eq!(allows(&keys, role, endpoint, sent.as_bytes()), opens, "{sent}");
            assert!(allows(&[], role, endpoint, sent.as_bytes()));
        }
    }
}
