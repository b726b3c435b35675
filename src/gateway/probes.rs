//! What whoever watches a gateway asks: whether it lives, and whether it can serve.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use crate::store::Store;

use super::Gateway;
use super::reply::RawJson;

/// The probes that are answered however many connections there are.
pub(super) const PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// For the store to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// The process lives, and hears.
pub(super) async fn alive() -> RawJson {
    RawJson(r#"{"status":"ok"}"#.into())
}

/// It is not about to close, and its store does what it is asked; a Redis, that it takes writes.
pub(super) async fn ready<S: Store>(State(gateway): State<Arc<Gateway<S>>>) -> Response {
    let not = |why: &str| {
        let body = serde_json::json!({ "status": "not ready", "why": why });
        (StatusCode::SERVICE_UNAVAILABLE, RawJson(body.to_string())).into_response()
    };
    if gateway.closing.is_cancelled() {
        return not("it is draining");
    }
    match timeout(READY_TIMEOUT, gateway.store.ready()).await {
        Ok(Ok(())) => alive().await.into_response(),
        Ok(Err(error)) => not(&error.to_string()),
        Err(_) => not("the store does not answer"),
    }
}
