//! Whose certificates are believed: those that the machine's own sign, and the machine's own themselves.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::error::NoClient;

/// What webpki says of a certificate that may sign others where it stands for a host. It has seen by then that the time is right.
const IS_CA: &str = "CaUsedAsEndEntity";

/// Certificates that are believed.
#[derive(Debug, Clone, Default)]
pub(super) struct Roots(Vec<CertificateDer<'static>>);

impl Roots {
    /// The machine's own certificates: an operator can add to them, and the system keeps them fresh.
    pub(super) fn of_machine() -> Self {
        Self(rustls_native_certs::load_native_certs().certs)
    }

    /// Whether no certificate is trusted.
    pub(super) fn is_empty(&self) -> bool {
        self.store().is_empty()
    }

    /// Those that can be read, as what signs others.
    pub(super) fn store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self.0.iter().cloned());
        store
    }

    /// What judges the certificates of hosts.
    ///
    /// # Errors
    /// No certificate is trusted.
    pub(super) fn verifier(self, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, NoClient> {
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(self.store()), provider).build();
        Ok(Arc::new(Verifier { usual: usual.map_err(NoClient::new)?, roots: self }))
    }
}

/// Judges as webpki does, but for one thing: a certificate that `openssl req -x509` makes signs itself and is believed as it stands by whom it is
/// given to, as other TLS libraries do. Its owner could sign another for the same name anyway.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    roots: Roots,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let usual = self.usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match usual {
            Err(Error::InvalidCertificate(CertificateError::Other(why)))
                if why.0.to_string() == IS_CA && self.roots.0.iter().any(|root| root == end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use rustls::crypto::ring;

    use super::*;

    /// For `localhost`, from November 2026 for a hundred years: `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1
    /// -nodes -days 36500 -subj /CN=localhost -addext subjectAltName=DNS:localhost`, and another of the same kind.
    const ONE: &str = "MIIBljCCATugAwIBAgIUHJLkw2EncTDe62ysT0G5/NqAAQYwCgYIKoZIzj0EAwIwFDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEy\
        ODA0NDEwN1oYDzIxMjYxMTA0MDQ0MTA3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASimUq/gPf38jSsmTd98Qp6\
        i3Ke61ucDWmK08K9YJDeeqJ8lWXkpCdVydmsIA9/Bk1vRd3Zii5tQNFmeJY5GkZlo2kwZzAdBgNVHQ4EFgQUEpiYTRr2h5G23HRQTU2UQNgrTCAwHwYDVR0j\
        BBgwFoAUEpiYTRr2h5G23HRQTU2UQNgrTCAwDwYDVR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwIDSQAwRgIhAJW4/Dg0\
        /D1fQAu6xxOmK/p1cizfRf/pmHIN3wLS+2TFAiEA+pa5wZw5WtbzBoIT5c7gBNP5n2X5De9fogORQWaL3Ts=";
    const OTHER: &str = "MIIBlTCCATugAwIBAgIUWiKd9SrM9KLMQNABeKK1HDb36xowCgYIKoZIzj0EAwIwFDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEy\
        ODA0NDEwN1oYDzIxMjYxMTA0MDQ0MTA3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARu5uQjdoQvS2+Js2aCjzdY\
        4zZMO6EKgFEv7rcgO0mq7wStUwReaxcC5Tzelxar29CiT+xDDeSITv5Mda1ltDN/o2kwZzAdBgNVHQ4EFgQUKAdNIcAEZY2fKFFGK5f8BYdnM9gwHwYDVR0j\
        BBgwFoAUKAdNIcAEZY2fKFFGK5f8BYdnM9gwDwYDVR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwIDSAAwRQIgJe248zuB\
        obZzjeKzuPowN+nKJr8v3gpR3zr6RkPmB9wCIQDvUbJhvqdXscj+6M7htslwj+s+yHFskFu2D/LL1rp7nA==";

    #[test]
    fn a_certificate_that_signs_itself_is_believed_by_whom_it_was_given_to() {
        let certificate = |text: &str| CertificateDer::from(BASE64_STANDARD.decode(text).unwrap());
        let (one, other) = (certificate(ONE), certificate(OTHER));
        let verifier = Roots(vec![one.clone()]).verifier(Arc::new(ring::default_provider())).unwrap();
        let judge = |shown: &CertificateDer<'_>, host: &str, year: u64| {
            let now = UnixTime::since_unix_epoch(Duration::from_hours((year - 1970) * 8766));
            let host = ServerName::try_from(host.to_owned()).unwrap();
            verifier.verify_server_cert(shown, &[], &host, &[], now).map(drop).map_err(|why| why.to_string())
        };
        assert_eq!(judge(&one, "localhost", 2030), Ok(()));
        for (shown, host, year, why) in [
            (&other, "localhost", 2030, "CaUsedAsEndEntity"),
            (&one, "other.example", 2030, "not valid for name"),
            (&one, "localhost", 2020, "not valid yet"),
            (&one, "localhost", 2130, "expired"),
        ] {
            let error = judge(shown, host, year).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn without_certificates_nobody_is_believed() {
        assert!(Roots::default().is_empty());
        assert!(Roots::default().verifier(Arc::new(ring::default_provider())).is_err());
    }
}
