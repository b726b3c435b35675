//! Paths as the Python SDK writes them.
//!
//! It appends its parameters with `&`, also to a URL that has no `?` yet: `/job-take/w1&job_in_progress=0`. So a path ends at its first
//! `&`, and what follows is part of the query (PROTOCOL 1.3).

use axum::http::Request;
use axum::http::uri::{PathAndQuery, Uri};

/// The request with its path cut at the first `&`.
pub(super) fn cut<B>(mut request: Request<B>) -> Request<B> {
    if let Some(uri) = mended(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

fn mended(uri: &Uri) -> Option<Uri> {
    let (path, more) = uri.path().split_once('&')?;
    let text = match uri.query() {
        Some(query) => format!("{path}?{more}&{query}"),
        None => format!("{path}?{more}"),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_ends_at_its_first_ampersand() {
        for (sent, meant) in [
            ("/v2/e/job-take/w1&job_in_progress=0", Some("/v2/e/job-take/w1?job_in_progress=0")),
            ("/v2/e/job-done/w/j&a=1&b=2?gpu=x", Some("/v2/e/job-done/w/j?a=1&b=2&gpu=x")),
            ("http://h/v2/e/ping/w&", Some("http://h/v2/e/ping/w?")),
            ("/v2/e/job-take/w1?&job_in_progress=0", None),
            ("/v2/e/health", None),
        ] {
            let uri = mended(&sent.parse().unwrap()).map(|uri| uri.to_string());
            assert_eq!(uri.as_deref(), meant, "{sent}");
        }
    }
}
