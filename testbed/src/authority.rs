//! A certificate authority of a test's own, and a certificate of it.

use std::{fs, net::IpAddr, path::PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;

/// An authority that nobody knows, and the certificate of one host.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    certificate: rcgen::Certificate,
    key: KeyPair,
    folder: TempDir,
}

impl Authority {
    /// A new authority, with a certificate for `host`.
    ///
    /// # Errors
    ///
    /// When the files cannot be written.
    pub fn new(host: IpAddr) -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([host.to_string()])?.signed_by(&key, &authority)?;
        let folder = TempDir::new()?;
        fs::write(folder.path().join("certificate.pem"), certificate.pem())?;
        fs::write(folder.path().join("key.pem"), key.serialize_pem())?;
        Ok(Self { pem: authority.pem(), certificate, key, folder })
    }

    /// The authority's own certificate, PEM: what a client has to trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// `certificate.pem` or `key.pem` of the host.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// What a server of the host needs.
    ///
    /// # Errors
    ///
    /// When TLS cannot be set up.
    pub fn server(&self) -> Result<ServerConfig> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)?;
        Ok(config)
    }
}
