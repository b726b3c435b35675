//! Requests that browsers carry: answered, refused, or asked before (CORS), as the policy says.

use std::convert::Infallible;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tower::Service;

use crate::store::Store;

use super::Gateway;

/// What a granted page may read and send, and for how many seconds it need not ask again.
const CORS_HEADERS: [(HeaderName, &str); 3] = [
    (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
    (ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, idempotency-key"),
    (ACCESS_CONTROL_MAX_AGE, "7200"),
];

/// Asks the routes, if what browsers say of the request permits it.
pub(super) async fn ask<S: Store>(
    gateway: &Gateway<S>,
    mut routes: Router,
    request: Request,
) -> Result<Response, Infallible> {
    let (browsers, api) = (&gateway.settings.browsers, is_api(request.uri().path()));
    let granted = if api { browsers.granted(request.headers()) } else { None };
    let refused = if gateway.keys.is_open() { browsers.judge(&request, api, granted.is_some()).err() } else { None };
    let mut reply = match (refused, &granted) {
        (Some(fault), _) => fault.into_response(),
        (None, Some(_)) if is_preflight(&request) => preflight(request.headers()),
        // A router is always ready.
        (None, _) => routes.call(request).await?,
    };
    if api && !browsers.origins.is_empty() {
        reply.headers_mut().append(VARY, HeaderValue::from_static("origin"));
    }
    if let Some(origin) = granted {
        reply.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let read = HeaderValue::from_static("retry-after, x-job-id, x-request-id");
        reply.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, read);
    }
    Ok(reply)
}

/// Whether a path is of the API, and not of what anybody may link to.
fn is_api(path: &str) -> bool {
    path.starts_with("/v1/") || path.starts_with("/v2/") || path == "/metrics" || path == "/openapi.json"
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight(asked: &HeaderMap) -> Response {
    let mut reply = StatusCode::NO_CONTENT.into_response();
    reply.headers_mut().extend(CORS_HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    // Clients' libraries add headers of their own: whoever is listed may.
    if let Some(headers) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        reply.headers_mut().insert(ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
    }
    reply
}
