//! What all HTTP clients begin with: TLS by rustls with ring, whom it believes, and nothing that happens behind our back.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{ClientBuilder, redirect, retry};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// For a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(10);

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

/// A client that believes `roots`: no redirects, tries of its own, proxies of the environment or referrers.
pub(super) fn client(roots: RootCertStore) -> Result<ClientBuilder, NoClient> {
    Ok(ClientBuilder::new()
        .tls_backend_preconfigured(trusting(roots)?)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT)
        .user_agent(concat!("latentd/", env!("CARGO_PKG_VERSION"))))
}

/// TLS that believes `roots`.
fn trusting(roots: RootCertStore) -> Result<ClientConfig, NoClient> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(NoClient::new)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
