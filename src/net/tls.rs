//! TLS by rustls with ring, and whom it believes.

use std::fmt::Display;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// TLS or the client on it could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("no HTTP client: {0}")]
pub struct NoClient(String);

impl NoClient {
    pub(super) fn new(cause: impl Display) -> Self {
        Self(cause.to_string())
    }
}

/// The machine's own certificates: an operator can add to them, and the system keeps them fresh.
pub(super) fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// TLS that believes `roots`.
pub(super) fn trusting(roots: RootCertStore) -> Result<ClientConfig, NoClient> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(NoClient::new)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
