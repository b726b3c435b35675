//! Bodies come as they are: what is compressed could be a thousand times as large as it says.

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, TRANSFER_ENCODING};

use super::reply::ApiError;

/// Refuses a request whose body is encoded.
pub(super) fn plain(headers: &HeaderMap) -> Result<(), ApiError> {
    // Of several codings the last is `chunked`, or it was refused before.
    for coding in headers.get_all(TRANSFER_ENCODING) {
        if !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(ApiError::TransferEncoding(String::from_utf8_lossy(coding.as_bytes()).into_owned()));
        }
    }
    let encoded = headers.get_all(CONTENT_ENCODING).iter().find(|coding| {
        let coding = coding.as_bytes().trim_ascii();
        !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")
    });
    encoded.map_or(Ok(()), |coding| {
        Err(ApiError::ContentEncoding(String::from_utf8_lossy(coding.as_bytes()).into_owned()))
    })
}
