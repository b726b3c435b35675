//! What all HTTP clients begin with: TLS by rustls with ring, whom it believes, and nothing that happens behind our back.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{ClientBuilder, redirect, retry};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

use super::error::NoClient;
use super::roots::Roots;

/// For a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(10);

/// A client that believes `roots`: no redirects, tries of its own, proxies of the environment or referrers.
pub(super) fn client(roots: Roots) -> Result<ClientBuilder, NoClient> {
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
fn trusting(roots: Roots) -> Result<ClientConfig, NoClient> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(NoClient::new)?;
    let builder = if roots.is_empty() {
        builder.with_root_certificates(RootCertStore::empty())
    } else {
        builder.dangerous().with_custom_certificate_verifier(roots.verifier(provider)?)
    };
    Ok(builder.with_no_client_auth())
}
