//! A client certificate as a credential:
//! <https://learn.microsoft.com/entra/identity-platform/certificate-credentials>.
//!
//! `azure_identity` has this only together with OpenSSL, which a static program does without. Here the signature is made by the
//! cryptography that TLS uses already.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jiff::Timestamp;
use rustls::{
    SignatureScheme,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::Signer,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// How long one signature may be used, in seconds.
const LIFETIME: i64 = 300;
/// By how much the clocks of this machine and Entra may differ, in seconds.
const TOLERANCE: i64 = 60;

/// A certificate, those that vouch for it, and the way to sign as it.
#[derive(Debug)]
pub(super) struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    signer: Box<dyn Signer>,
}

impl Certificate {
    /// Reads PEM with the certificate and its RSA key. The error ends a sentence that begins with the file; it repeats no content.
    pub(super) fn parse(pem: &str) -> Result<Self, String> {
        if pem.contains("ENCRYPTED") {
            return Err("has a key with a password, which is not supported: openssl rsa -in FILE -out NEW takes it off".to_owned());
        }
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let chain = chain.map_err(|_| "cannot be read: it must be PEM".to_owned())?;
        if chain.is_empty() {
            return Err(
                "has no BEGIN CERTIFICATE: it must be PEM with the certificate and its key; openssl pkcs12 -in FILE -nodes \
                        -out NEW makes it of a PFX file"
                    .to_owned(),
            );
        }
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes());
        let key = key.map_err(|_| "has no BEGIN PRIVATE KEY: it must be PEM with the certificate and its key".to_owned())?;
        let key = any_supported_type(&key)
            .map_err(|_| "has a key that cannot be used: Entra takes RSA keys of 2048 bits and more".to_owned())?;
        let signer = key.choose_scheme(&[SignatureScheme::RSA_PSS_SHA256]);
        let signer = signer.ok_or_else(|| "has a key that is not RSA, and Entra takes no other".to_owned())?;
        Ok(Self { chain, signer })
    }

    /// A signed statement to be `client`, for `audience` only.
    pub(super) fn assertion(&self, audience: &str, client: &str, send_chain: bool, now: Timestamp) -> Result<String, String> {
        let now = now.as_second();
        let mut header = json!({"alg": "PS256", "typ": "JWT", "x5t#S256": URL_SAFE_NO_PAD.encode(Sha256::digest(&self.chain[0]))});
        if send_chain {
            header["x5c"] = self.chain.iter().map(|certificate| STANDARD.encode(certificate)).collect();
        }
        let claims = json!({
            "aud": audience,
            "iss": client,
            "sub": client,
            "jti": Uuid::new_v4(),
            "nbf": now - TOLERANCE,
            "exp": now + LIFETIME,
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(&claims));
        let signature = self.signer.sign(text.as_bytes()).map_err(|error| format!("cannot sign: {error}"))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made for these tests by `openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=blobferry-test -days 36500`.
    const PEM: &str = include_str!("certificate/test.pem");

    fn decoded(assertion: &str) -> (serde_json::Value, serde_json::Value, Vec<u8>) {
        let parts: Vec<_> = assertion.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        let json = |part: &[u8]| serde_json::from_slice(part).unwrap();
        (json(&parts[0]), json(&parts[1]), parts[2].clone())
    }

    /// Whether the certificate's key made `signature` over `text`.
    fn is_signed(certificate: &CertificateDer<'_>, text: &str, signature: &[u8]) -> bool {
        let parsed = rustls::server::ParsedCertificate::try_from(certificate).unwrap();
        let key = parsed.subject_public_key_info();
        // At the end of a subjectPublicKeyInfo is the RSAPublicKey, 270 bytes for 2048 bits.
        let key = &key[key.len() - 270..];
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let pss = algorithms.mapping.iter().find(|(scheme, _)| *scheme == SignatureScheme::RSA_PSS_SHA256).unwrap().1;
        pss.iter().any(|algorithm| algorithm.verify_signature(key, text.as_bytes(), signature).is_ok())
    }

    #[test]
    fn statement_names_certificate_client_and_audience_and_bears_the_certificates_signature() {
        let certificate = Certificate::parse(PEM).unwrap();
        let now = "2026-11-21T08:00:00Z".parse().unwrap();
        let assertion = certificate.assertion("https://login.example.com/t/oauth2/v2.0/token", "client", false, now).unwrap();
        let (header, claims, signature) = decoded(&assertion);
        assert_eq!((header["alg"].as_str(), header.get("x5c")), (Some("PS256"), None));
        let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(&certificate.chain[0]));
        assert_eq!(header["x5t#S256"].as_str(), Some(thumbprint.as_str()));
        assert_eq!((claims["iss"].as_str(), claims["sub"].as_str()), (Some("client"), Some("client")));
        assert_eq!(claims["aud"].as_str(), Some("https://login.example.com/t/oauth2/v2.0/token"));
        assert_eq!((claims["nbf"].as_i64(), claims["exp"].as_i64()), (Some(now.as_second() - 60), Some(now.as_second() + 300)));

        let (text, _) = assertion.rsplit_once('.').unwrap();
        assert!(is_signed(&certificate.chain[0], text, &signature));
        assert!(!is_signed(&certificate.chain[0], "another text", &signature));
    }

    #[test]
    fn certificate_is_sent_along_when_that_is_asked_for() {
        let certificate = Certificate::parse(PEM).unwrap();
        let (header, _, _) = decoded(&certificate.assertion("a", "c", true, Timestamp::UNIX_EPOCH).unwrap());
        assert_eq!(header["x5c"][0].as_str(), Some(STANDARD.encode(&certificate.chain[0]).as_str()));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_remedy_and_without_its_content() {
        let (certificate, key) = PEM.split_at(PEM.find("-----BEGIN PRIVATE KEY").unwrap());
        for (pem, reason) in [
            ("hunter2", "has no BEGIN CERTIFICATE"),
            (key, "has no BEGIN CERTIFICATE"),
            (certificate, "has no BEGIN PRIVATE KEY"),
            (&format!("{certificate}-----BEGIN ENCRYPTED PRIVATE KEY-----\nhunter2"), "has a key with a password"),
        ] {
            let error = Certificate::parse(pem).unwrap_err();
            assert!(error.starts_with(reason) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let key = PEM.lines().rev().nth(3).unwrap();
        assert!(!format!("{:?}", Certificate::parse(PEM).unwrap()).contains(key));
    }
}
