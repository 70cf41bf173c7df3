//! Whether a token is exchanged, with the codes of the real service where not:
//! <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow#third-case-access-token-request-with-a-federated-credential>.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    CLIENT, TENANT,
    jwt::{Claims, Keys},
};

/// What the token of a workload has to be for.
pub const AUDIENCE: &str = "api://AzureADTokenExchange";
const SCOPE: &str = "https://storage.azure.com/.default";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How long an access token holds.
const LIFETIME: SignedDuration = SignedDuration::from_mins(60);

/// A federated credential of the identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The cluster.
    pub issuer: String,
    /// The `ServiceAccount`.
    pub subject: String,
    /// Whom the token is for; [`AUDIENCE`].
    pub audience: String,
}

/// An answer other than a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    code: u32,
    text: String,
}

impl Refusal {
    fn new(code: u32, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// As the real service words it.
    pub(super) fn to_reply(&self) -> String {
        let description = format!("AADSTS{}: {} Trace ID: 1 Correlation ID: 2", self.code, self.text);
        json!({"error": "invalid_client", "error_description": description, "error_codes": [self.code]}).to_string()
    }
}

/// The subject that gets a token.
pub(super) fn judge(tenant: &str, form: &str, keys: &Keys, trusted: &[Trust], now: Timestamp) -> Result<String, Refusal> {
    let form: BTreeMap<_, _> = url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    if tenant != TENANT {
        return Err(Refusal::new(90002, format!("Tenant '{tenant}' not found.")));
    }
    if field("client_id") != CLIENT {
        return Err(Refusal::new(700_016, format!("Application with identifier '{}' was not found.", field("client_id"))));
    }
    if field("grant_type") != "client_credentials" || field("client_assertion_type") != ASSERTION {
        return Err(Refusal::new(900_144, "The request body must contain 'grant_type' and 'client_assertion_type'."));
    }
    if field("scope") != SCOPE {
        return Err(Refusal::new(70011, format!("The provided value for scope '{}' is not valid.", field("scope"))));
    }
    let claims = keys.verify(field("client_assertion"));
    let claims = claims.map_err(|why| Refusal::new(50013, format!("Assertion failed signature validation: {why:#}.")))?;
    match_claims(claims, trusted, now)
}

fn match_claims(claims: Claims, trusted: &[Trust], now: Timestamp) -> Result<String, Refusal> {
    let mismatch = |code, what: &str, presented: &str| {
        Err(Refusal::new(
            code,
            format!("No matching federated identity record found for presented assertion {what} '{presented}'."),
        ))
    };
    let of_issuer: Vec<_> = trusted.iter().filter(|trust| trust.issuer == claims.iss).collect();
    if of_issuer.is_empty() {
        return mismatch(700_211, "issuer", &claims.iss);
    }
    let Some(trust) = of_issuer.into_iter().find(|trust| trust.subject == claims.sub) else {
        return mismatch(700_213, "subject", &claims.sub);
    };
    if !claims.aud.contains(&trust.audience) {
        return mismatch(700_212, "audience", &claims.aud.join(" "));
    }
    if !(claims.nbf..claims.exp).contains(&now.as_second()) {
        return Err(Refusal::new(700_024, "Client assertion is not within its valid time range."));
    }
    Ok(claims.sub)
}

/// A reply with an access token, as Azurite takes it with `--oauth basic`.
pub(super) fn grant(subject: &str, now: Timestamp) -> String {
    let claims = json!({
        "aud": "https://storage.azure.com",
        "iss": format!("https://sts.windows.net/{TENANT}/"),
        "sub": subject,
        "appid": CLIENT,
        "iat": now.as_second(),
        "nbf": now.as_second() - 60,
        "exp": (now + LIFETIME).as_second(),
    });
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let token = format!("{}.{}.{}", part(r#"{"alg":"HS256","typ":"JWT"}"#), part(&claims.to_string()), part("not verified"));
    json!({"token_type": "Bearer", "expires_in": LIFETIME.as_secs(), "access_token": token}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn trust() -> Trust {
        Trust { issuer: "https://cluster".into(), subject: "system:serviceaccount:a:b".into(), audience: AUDIENCE.into() }
    }

    fn claims(change: impl Fn(&mut Claims)) -> Claims {
        let Trust { issuer, subject, audience } = trust();
        let mut claims = Claims { iss: issuer, sub: subject, aud: vec![audience], nbf: NOW - 1, exp: NOW + 1 };
        change(&mut claims);
        claims
    }

    #[test]
    fn only_a_token_that_fits_a_federated_credential_now_is_exchanged() {
        let judge = |claims| match_claims(claims, &[trust()], Timestamp::from_second(NOW).unwrap()).map_err(|refusal| refusal.code);
        assert_eq!(judge(claims(|_| ())), Ok(trust().subject));
        assert_eq!(judge(claims(|claims| claims.iss.push('/'))), Err(700_211));
        assert_eq!(judge(claims(|claims| claims.aud = vec!["https://cluster".into()])), Err(700_212));
        assert_eq!(judge(claims(|claims| claims.sub.push('x'))), Err(700_213));
        assert_eq!(judge(claims(|claims| claims.exp = NOW)), Err(700_024));
        assert_eq!(judge(claims(|claims| claims.nbf = NOW + 1)), Err(700_024));
    }
}
