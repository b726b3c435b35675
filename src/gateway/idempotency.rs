//! A submission that is sent again means the same job, if its client says so (`Idempotency-Key`, draft-ietf-httpapi-idempotency-key-header).
//!
//! The key decides the job's id, so that all gateways on a store agree without asking each other.

use std::time::Duration;

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::date::UnixTime;
use crate::hex;
use crate::queue::Idempotency;

use super::api_keys::sent_key;
use super::reply::ApiError;

/// How long a key is known.
const KEY_LIFETIME: Duration = Duration::from_hours(24);

/// Bytes of a key.
const MAX_KEY_BYTES: usize = 255;

/// Names a submission, among those of one client at one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdempotentId {
    /// The random part of its job's id.
    pub(super) id: Uuid,
    until: UnixTime,
}

impl IdempotentId {
    /// What is kept of the submission.
    pub(super) fn sent(&self, body: &[u8]) -> Idempotency {
        Idempotency { digest: hex::encode(Sha256::digest(body)), until: self.until }
    }
}

/// The name of a submission, if its client gave it one.
pub(super) fn name(
    headers: &HeaderMap,
    endpoint: &str,
    operation: &str,
    now: UnixTime,
) -> Result<Option<IdempotentId>, ApiError> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.as_bytes();
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(ApiError::BadRequest(format!("`Idempotency-Key` should have 1 to {MAX_KEY_BYTES} bytes")));
    }
    let client = sent_key(headers);
    let mut hash = Sha256::new();
    for part in [endpoint.as_bytes(), operation.as_bytes(), client, key] {
        // Lengths keep the parts apart.
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let mut random = [0; 16];
    random.copy_from_slice(&hash.finalize()[..16]);
    Ok(Some(IdempotentId { id: Builder::from_random_bytes(random).into_uuid(), until: now + KEY_LIFETIME }))
}
