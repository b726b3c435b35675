//! Who may ask what, and how often.

use std::sync::Arc;

use axum::extract::{RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};

use crate::store::Store;

use super::api_keys::{Role, sent_key};
use super::reply::ApiError;
use super::{Gateway, encoding};

async fn check<S: Store>(
    gateway: &Gateway<S>,
    role: Role,
    path: &RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let name = path.iter().find(|(key, _)| *key == "endpoint").map_or("", |(_, name)| name);
    // An unknown endpoint is told to who has a key for any.
    let endpoint = gateway.endpoint(name).map_or(name, |endpoint| &endpoint.id);
    gateway.keys.allow(role, endpoint, &request)?;
    encoding::plain(request.headers())?;
    if role == Role::Worker || !gateway.settings.limits {
        return Ok(next.run(request).await);
    }
    // After the version and the endpoint.
    let operation = request.uri().path().split('/').nth(3).unwrap_or_default().to_owned();
    let mut asked = Sha256::new();
    for part in [endpoint.as_bytes(), operation.as_bytes(), sent_key(request.headers())] {
        asked.update(part.len().to_le_bytes());
        asked.update(part);
    }
    let place = gateway.admit(asked.finalize().into(), &operation).await?;
    Ok(place.held_by(next.run(request).await))
}

pub(super) async fn user<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    path: RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    check(&gateway, Role::User, &path, request, next).await
}

pub(super) async fn worker<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    path: RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    check(&gateway, Role::Worker, &path, request, next).await
}
