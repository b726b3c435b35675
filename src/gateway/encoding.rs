//! Bodies come as they are: what is compressed could be a thousand times as large as it says.

use axum::extract::Request;
use axum::http::header::CONTENT_ENCODING;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::reply::Fault;

/// Passes on a request whose body is not encoded.
pub(super) async fn plain(request: Request, next: Next) -> Response {
    let encoded = request.headers().get_all(CONTENT_ENCODING).iter().find(|coding| {
        let coding = coding.as_bytes().trim_ascii();
        !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")
    });
    match encoded {
        Some(coding) => Fault::Encoded(String::from_utf8_lossy(coding.as_bytes()).into_owned()).into_response(),
        None => next.run(request).await,
    }
}
