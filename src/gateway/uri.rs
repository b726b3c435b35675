//! Paths as the SDKs write them.
//!
//! The Python SDK appends its parameters with `&`, also to a URL that has no `?` yet: `/job-take/w1&job_in_progress=0`. So a path ends at
//! its first `&`, and what follows is part of the query. All of them put a slash after their base URL, which may end with one: `/v2//e/run`.
//! No name is empty here, so slashes in a row are one.

use axum::http::Request;
use axum::http::uri::{PathAndQuery, Uri};

/// The request with its path cut at the first `&`, and without empty names in it.
pub(super) fn mend<B>(mut request: Request<B>) -> Request<B> {
    if let Some(uri) = mended(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

/// What the SDK's local server has at its root, and what clients ask beside it.
const ROOT_OPERATIONS: [&str; 9] =
    ["run", "runsync", "status", "status-sync", "stream", "cancel", "retry", "purge-queue", "health"];

/// The request, at the endpoint `home` if it names none.
pub(super) fn at_home<B>(mut request: Request<B>, home: Option<&str>) -> Request<B> {
    let (path, query) = (request.uri().path(), request.uri().query());
    let Some(home) = home.filter(|_| path.split('/').nth(1).is_some_and(|first| ROOT_OPERATIONS.contains(&first)))
    else {
        return request;
    };
    let text = format!("{home}{path}{}{}", if query.is_some() { "?" } else { "" }, query.unwrap_or_default());
    if let Some(uri) = with(request.uri(), text) {
        *request.uri_mut() = uri;
    }
    request
}

fn mended(uri: &Uri) -> Option<Uri> {
    let (path, more) = uri.path().split_once('&').map_or((uri.path(), None), |(path, more)| (path, Some(more)));
    if more.is_none() && !path.contains("//") {
        return None;
    }
    let mut text = path.to_owned();
    while text.contains("//") {
        text = text.replace("//", "/");
    }
    for (query, mark) in more.into_iter().chain(uri.query()).zip(['?', '&']) {
        text.push(mark);
        text.push_str(query);
    }
    with(uri, text)
}

fn with(uri: &Uri, path_and_query: String) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path_and_query).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_ends_at_its_first_ampersand_and_has_no_empty_names() {
        for (sent, meant) in [
            ("/v2/e/job-take/w1&job_in_progress=0", Some("/v2/e/job-take/w1?job_in_progress=0")),
            ("/v2/e/job-done/w/j&a=1&b=2?gpu=x", Some("/v2/e/job-done/w/j?a=1&b=2&gpu=x")),
            ("http://h/v2/e/ping/w&", Some("http://h/v2/e/ping/w?")),
            ("/v2/e/job-take/w1?&job_in_progress=0", None),
            ("/v2/e/health", None),
            ("/v2//e/run", Some("/v2/e/run")),
            ("//v2////e//status/j?wait=5", Some("/v2/e/status/j?wait=5")),
            ("http://h//v2/e//job-take/w&url=http://x?a=//", Some("http://h/v2/e/job-take/w?url=http://x&a=//")),
            ("/v2/e/run?webhook=http://x", None),
            ("/v2/e/run/", None),
        ] {
            let uri = mended(&sent.parse().unwrap()).map(|uri| uri.to_string());
            assert_eq!(uri.as_deref(), meant, "{sent}");
        }
    }

    #[test]
    fn a_path_without_an_endpoint_is_at_home() {
        for (sent, meant) in [
            ("/run", "/v2/e/run"),
            ("/status/j1?wait=5", "/v2/e/status/j1?wait=5"),
            ("/", "/"),
            ("/v2/f/run", "/v2/f/run"),
            ("/runner", "/runner"),
        ] {
            let request = |uri: &str| Request::builder().uri(uri).body(()).unwrap();
            assert_eq!(at_home(request(sent), Some("/v2/e")).uri().to_string(), meant);
            assert_eq!(at_home(request(sent), None).uri().to_string(), sent);
        }
    }
}
