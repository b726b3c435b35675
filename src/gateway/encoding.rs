//! Bodies come as they are: what is compressed could be a thousand times as large as it says.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;

use super::reply::ApiError;

/// Refuses a request whose body is encoded.
pub(super) fn plain(headers: &HeaderMap) -> Result<(), ApiError> {
    let encoded = headers.get_all(CONTENT_ENCODING).iter().find(|coding| {
        let coding = coding.as_bytes().trim_ascii();
        !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")
    });
    encoded.map_or(Ok(()), |coding| {
        Err(ApiError::ContentEncoding(String::from_utf8_lossy(coding.as_bytes()).into_owned()))
    })
}
