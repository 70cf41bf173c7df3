//! Tokens that the API server signs, verified with the keys that it publishes:
//! <https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery>.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use kube::Client;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::{Deserialize, de::DeserializeOwned};

/// The public keys of a cluster, and the name under which it signs.
#[derive(Clone, Debug)]
pub struct Keys {
    issuer: String,
    keys: Vec<Key>,
}

#[derive(Clone, Debug, Deserialize)]
struct Key {
    kid: String,
    alg: String,
    n: String,
    e: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Key>,
}

/// `/.well-known/openid-configuration`
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
    id_token_signing_alg_values_supported: Vec<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

/// What a token says.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) sub: String,
    pub(super) aud: Vec<String>,
    pub(super) nbf: i64,
    pub(super) exp: i64,
}

impl Keys {
    /// Reads what the API server publishes for everybody.
    ///
    /// # Errors
    ///
    /// When it publishes no keys, or none that Entra would take.
    pub async fn published(client: &Client) -> Result<Self> {
        let get =
            async |path: &str| client.request_text(http::Request::get(path).body(Vec::new())?).await.map_err(anyhow::Error::from);
        let discovery: Discovery = serde_json::from_str(&get("/.well-known/openid-configuration").await?)?;
        ensure!(discovery.id_token_signing_alg_values_supported == ["RS256"], "Entra takes RS256 only");
        let path = url::Url::parse(&discovery.jwks_uri).context("jwks_uri is no URL")?.path().to_owned();
        let set: KeySet = serde_json::from_str(&get(&path).await?).context("cannot read the published keys")?;
        Ok(Self { issuer: discovery.issuer, keys: set.keys })
    }

    /// The name under which the cluster signs.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What `token` says, if one of the keys has signed it.
    pub(super) fn verify(&self, token: &str) -> Result<Claims> {
        let (text, signature) = token.rsplit_once('.').context("it is no token")?;
        let (header, claims) = text.split_once('.').context("it is no token")?;
        let header: Header = decode(header)?;
        let known = self.keys.iter().find(|key| key.kid == header.kid && key.alg == header.alg);
        let key = known.with_context(|| format!("no key {} for {} is published", header.kid, header.alg))?;
        ensure!(header.alg == "RS256", "{} is not RS256", header.alg);
        let (n, e) = (BASE64_URL_SAFE_NO_PAD.decode(&key.n)?, BASE64_URL_SAFE_NO_PAD.decode(&key.e)?);
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature)?;
        let verified = RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, text.as_bytes(), &signature);
        ensure!(verified.is_ok(), "key {} has not signed it", key.kid);
        decode(claims)
    }
}

fn decode<T: DeserializeOwned>(part: &str) -> Result<T> {
    Ok(serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part)?)?)
}
