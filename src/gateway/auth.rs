//! Who may ask what, and how often.

use std::sync::Arc;

use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::store::Store;

use super::api_keys::{Role, sent_key};
use super::peer::ClientId;
use super::reply::ApiError;
use super::{Gateway, encoding, metrics, peer};

/// What a route asks for: the part of its path after the endpoint.
fn operation(route: &str) -> &str {
    let rest = route.split_once("{endpoint}/").map_or("", |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(operation, _)| operation)
}

/// Bytes of a worker's id, which is remembered with all that is known of the worker.
const MAX_WORKER_ID_BYTES: usize = 255;

async fn check<S: Store>(
    gateway: &Gateway<S>,
    role: Role,
    route: &MatchedPath,
    path: &RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let name = path.iter().find(|(key, _)| *key == "endpoint").map_or("", |(_, name)| name);
    // An unknown endpoint is told to who has a key for any.
    let endpoint = gateway.endpoint(name).map_or(name, |endpoint| &endpoint.id);
    gateway.keys.allow(role, endpoint, &request)?;
    encoding::plain(request.headers())?;
    if path.iter().any(|(key, worker)| key == "worker" && worker.len() > MAX_WORKER_ID_BYTES) {
        return Err(ApiError::BadRequest(format!("the worker's id should have at most {MAX_WORKER_ID_BYTES} bytes")));
    }
    // A key that was not asked for says nothing: anybody could send another with each request.
    let key = (!gateway.keys.is_open()).then(|| Sha256::digest(sent_key(request.headers())).into());
    let address = peer::address().filter(|_| role == Role::Worker || key.is_none());
    let client = ClientId { key, address };
    peer::identify(client);
    if role == Role::Worker || !gateway.settings.limits {
        return Ok(next.run(request).await);
    }
    let operation = operation(route.as_str());
    let mut asked = Sha256::new();
    let address = client.address.map(|address| address.to_string()).unwrap_or_default();
    for part in [endpoint.as_bytes(), operation.as_bytes(), key.as_ref().map_or(address.as_bytes(), |key| key)] {
        asked.update(part.len().to_le_bytes());
        asked.update(part);
    }
    let place = gateway.admit(asked.finalize().into(), operation).await?;
    Ok(place.release_with_body(next.run(request).await))
}

pub(super) async fn user<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    route: MatchedPath,
    path: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let reply = check(&gateway, Role::User, &route, &path, request, next).await;
    metrics::with_route(reply.into_response(), route)
}

pub(super) async fn worker<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    route: MatchedPath,
    path: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let reply = check(&gateway, Role::Worker, &route, &path, request, next).await;
    metrics::with_route(reply.into_response(), route)
}

#[cfg(test)]
mod tests {
    use super::operation;

    #[test]
    fn an_operation_is_named_by_its_route_whatever_is_asked_of_it() {
        for (route, expected) in
            [("/v2/{endpoint}/run", "run"), ("/v1/{endpoint}/status-sync/{id}", "status-sync"), ("/healthz", "")]
        {
            assert_eq!(operation(route), expected, "{route}");
        }
    }
}
