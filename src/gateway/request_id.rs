//! The name of a request, `x-request-id`: its client's or its proxy's own, else a new one. Its answer has it, and its line of the log.

use axum::http::{HeaderName, Request};

/// As proxies call it.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Letters of a name at most: it is logged.
const MAX_REQUEST_ID: usize = 128;

/// The request without a name that is none: too long, or with more in it than visible ASCII. It gets a new one.
pub(super) fn checked<B>(mut request: Request<B>) -> Request<B> {
    let is_name = |name: &[u8]| (1..=MAX_REQUEST_ID).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic);
    if request.headers().get(X_REQUEST_ID).is_some_and(|name| !is_name(name.as_bytes())) {
        request.headers_mut().remove(X_REQUEST_ID);
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_can_be_seen() {
        let long = "x".repeat(MAX_REQUEST_ID + 1);
        for (name, kept) in
            [("a-1:b/c", true), (&long[1..], true), (&long, false), ("", false), ("a b", false), ("é", false)]
        {
            let request = Request::builder().header(X_REQUEST_ID, name.as_bytes()).body(()).unwrap();
            assert_eq!(checked(request).headers().contains_key(X_REQUEST_ID), kept, "{name}");
        }
    }
}
