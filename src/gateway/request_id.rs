//! The name of a request, `x-request-id`: its client's or its proxy's own, else a new one. Its answer has it, and its line of the log.

use std::cell::Cell;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// As proxies call it.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Letters of a name at most: it is logged.
const MAX_REQUEST_ID: usize = 128;

/// The name of a request with such headers. What it calls itself is none if it is too long, or has more in it than visible ASCII.
pub(super) fn of(headers: &HeaderMap) -> HeaderValue {
    let is_name = |name: &&HeaderValue| {
        (1..=MAX_REQUEST_ID).contains(&name.len()) && name.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    headers.get(X_REQUEST_ID).filter(is_name).cloned().unwrap_or_else(next)
}

/// A new one: a UUID. Those of a thread count up from a random one, as a random one each would ask the system for each.
fn next() -> HeaderValue {
    thread_local! {
        static NEXT: Cell<u128> = Cell::new(Uuid::new_v4().as_u128());
    }
    let id = Uuid::from_u128(NEXT.replace(NEXT.get().wrapping_add(1)));
    let name = HeaderValue::from_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    name.unwrap_or(HeaderValue::from_static(""))
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
            let headers = HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_bytes(name.as_bytes()).unwrap())]);
            let id = of(&headers);
            assert_eq!(id.as_bytes() == name.as_bytes(), kept, "{name}");
            assert!(kept || id.to_str().unwrap().parse::<Uuid>().is_ok(), "{id:?}");
        }
        assert_ne!(of(&HeaderMap::new()), of(&HeaderMap::new()));
    }
}
