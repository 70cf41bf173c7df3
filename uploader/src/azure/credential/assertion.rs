//! How an identity shows who it is without a password: by a token that somebody vouches for, or by a signature of its certificate.
//!
//! Each exchange for an access token reads the file again, so one that was replaced counts from the next exchange on.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use azure_core::{
    error::{Error, ErrorKind},
    http::ClientMethodOptions,
};
use azure_identity::ClientAssertion;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::certificate::Certificate;

/// The token in a file, as the kubelet keeps it fresh.
#[derive(Debug)]
pub(super) struct TokenFile(pub(super) PathBuf);

#[async_trait]
impl ClientAssertion for TokenFile {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let text = read(&self.0, "the federated token").await?;
        let token = text.trim();
        if token.is_empty() {
            return Err(refusal(format!("the federated token in {} is empty", self.0.display())));
        }
        Ok(token.to_owned())
    }
}

/// A certificate with its key in a file.
#[derive(Debug)]
pub(super) struct CertificateFile {
    /// PEM.
    pub(super) path: PathBuf,
    /// Whom the signature is for: the token service's URL.
    pub(super) audience: String,
    /// Client id.
    pub(super) client: String,
    /// Whether the certificate itself is sent too, by which an identity may trust all of its subject and issuer.
    pub(super) send_chain: bool,
}

#[async_trait]
impl ClientAssertion for CertificateFile {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let pem = read(&self.path, "the client certificate").await?;
        let explain = |message| refusal(format!("the client certificate in {} {message}", self.path.display()));
        let certificate = Certificate::parse(&pem).map_err(explain)?;
        certificate.assertion(&self.audience, &self.client, self.send_chain, jiff::Timestamp::now()).map_err(explain)
    }
}

async fn read(path: &Path, what: &str) -> azure_core::Result<String> {
    let text = tokio::fs::read_to_string(path).await;
    text.map_err(|error| refusal(format!("cannot read {what} in {}: {error}", path.display())))
}

fn refusal(message: String) -> Error {
    Error::with_message(ErrorKind::Credential, message)
}

/// What a federated credential must say for a token to be taken. None of it is a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) audience: String,
}

/// What the token in `path` says, if it is one.
pub(super) async fn claims(path: &Path) -> Option<Claims> {
    let token = tokio::fs::read_to_string(path).await.ok()?;
    let payload = URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let audience = match &claims["aud"] {
        serde_json::Value::Array(all) => text(all.first()?)?,
        one => text(one)?,
    };
    Some(Claims { issuer: text(&claims["iss"])?, subject: text(&claims["sub"])?, audience })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    #[tokio::test]
    async fn a_replaced_token_counts_at_the_next_exchange() {
        let (_folder, path) = file("first\n");
        let assertion = TokenFile(path.clone());
        assert_eq!(assertion.secret(None).await.unwrap(), "first");
        std::fs::write(&path, "second").unwrap();
        assert_eq!(assertion.secret(None).await.unwrap(), "second");
    }

    #[tokio::test]
    async fn an_absent_and_an_empty_token_are_named_by_their_file() {
        let (_folder, path) = file(" \n");
        let error = TokenFile(path.clone()).secret(None).await.unwrap_err().to_string();
        assert_eq!(error, format!("the federated token in {} is empty", path.display()));
        let error = TokenFile("/nowhere/token".into()).secret(None).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot read the federated token in /nowhere/token: "), "{error}");
    }

    #[tokio::test]
    async fn claims_of_a_token_are_read_without_its_signature() {
        let payload = URL_SAFE_NO_PAD.encode(
            r#"{"iss":"https://k3s.example.com","sub":"system:serviceaccount:cameras:blobferry-uploader","aud":["api://AzureADTokenExchange"]}"#,
        );
        let (_folder, path) = file(&format!("header.{payload}.signature"));
        let Claims { issuer, subject, audience } = claims(&path).await.unwrap();
        assert_eq!(issuer, "https://k3s.example.com");
        assert_eq!(subject, "system:serviceaccount:cameras:blobferry-uploader");
        assert_eq!(audience, "api://AzureADTokenExchange");
        let (_folder, path) = file("hunter2");
        assert_eq!(claims(&path).await, None);
    }
}
