//! A session without any secret on a real node: the pod's own token is exchanged for one of the account; and one that names nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use blobferry_crds::conditions;
use blobferry_testbed::{
    Stage,
    authority::Authority,
    azurite::SecureAzurite,
    entra::{AUDIENCE, CLIENT, Keys, TENANT, TokenService, Trust},
    scenario,
};
use jiff::SignedDuration;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Secret, ServiceAccount},
};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::causes::is_named;

const MIB: u64 = 1 << 20;
const ARRIVED: Duration = Duration::from_mins(5);
/// What the chart's `uploaders.authoritiesConfigMap` names on a bed.
const AUTHORITIES: &str = "authorities";
const UPLOADER: &str = "blobferry-uploader";

/// Everything outside of the cluster: who gives tokens, and the account that takes them.
struct Cloud {
    authority: Authority,
    entra: TokenService,
    azurite: SecureAzurite,
    keys: Keys,
}

impl Cloud {
    async fn start(stage: &Stage) -> Result<Self> {
        let authority = Authority::new(stage.bed.host)?;
        let keys = Keys::published(&stage.client()).await?;
        let entra = TokenService::start(stage.bed.host, &authority, keys.clone()).await?;
        let azurite = SecureAzurite::start(stage.bed.host, &authority).await?;
        Ok(Self { authority, entra, azurite, keys })
    }

    /// The federated credential for one of the stage's service accounts.
    fn trust(&self, namespace: &str, account: &str) -> Trust {
        let subject = format!("system:serviceaccount:{namespace}:{account}");
        Trust { issuer: self.keys.issuer().to_owned(), subject, audience: AUDIENCE.to_owned() }
    }

    /// The destination of a session that names no Secret.
    fn destination(&self, stage: &Stage) -> Result<Value> {
        Ok(json!({"destination": {"azureBlob": {
            "accountUrl": self.azurite.account(&stage.bed.account)?.url(),
            "credentialsSecretRef": null,
            "workloadIdentity": {"clientId": CLIENT, "tenantId": TENANT, "authorityHost": self.entra.url()},
        }}}))
    }

    /// What the service says to somebody who shows it a token.
    async fn exchange(&self, token: &str, change: impl Fn(&str, &str) -> String) -> Result<String> {
        let authority = reqwest::Certificate::from_pem(self.authority.pem().as_bytes())?;
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).build()?;
        let fields = [
            ("client_assertion", token),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_id", CLIENT),
            ("grant_type", "client_credentials"),
            ("scope", "https://storage.azure.com/.default"),
        ];
        let fields = fields.map(|(name, value)| (name, change(name, value)));
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let url = format!("{}/{TENANT}/oauth2/v2.0/token", self.entra.url());
        Ok(client.post(url).body(form).send().await?.text().await?)
    }
}

/// Gives the stage's namespace the authority, and takes its Secret away.
async fn prepare(stage: &Stage, cloud: &Cloud) -> Result<()> {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": AUTHORITIES},
        "data": {"test.pem": cloud.authority.pem()},
    });
    stage.api::<ConfigMap>().patch(AUTHORITIES, &PatchParams::apply("test"), &Patch::Apply(&map)).await?;
    stage.api::<Secret>().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    Ok(())
}

async fn assert_no_secret(stage: &Stage) -> Result<()> {
    let secrets = stage.api::<Secret>().list(&ListParams::default()).await?.items;
    ensure!(secrets.is_empty(), "there is a Secret: {:?}", secrets[0].metadata.name);
    Ok(())
}

/// Waits until the destination is said to be out of reach, with all of `words`.
async fn named(stage: &Stage, session: &str, words: &[&str]) -> Result<()> {
    is_named(stage, session, conditions::DESTINATION_REACHABLE, words).await.map(drop)
}

/// A token of a service account of the stage, as the kubelet asks for one.
async fn token(stage: &Stage, account: &str, audience: &str) -> Result<String> {
    let spec = TokenRequestSpec { audiences: vec![audience.to_owned()], ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let made = stage.api::<ServiceAccount>().create_token_request(account, &PostParams::default(), &request).await?;
    Ok(made.status.context("no token")?.token)
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn a_session_uploads_with_its_pods_own_token_and_no_secret() -> Result<()> {
    scenario("identity", async |stage| {
        let cloud = Cloud::start(stage).await?;
        prepare(stage, &cloud).await?;
        let account = cloud.azurite.account(&stage.bed.account)?;
        let secure = Stage { blobs: account.container(stage.namespace.clone()), ..stage.clone() };

        let subject = format!("system:serviceaccount:{}:{UPLOADER}", stage.namespace);
        cloud.entra.trust(vec![cloud.trust("somewhere-else", UPLOADER)]);
        secure.apply_session("s", cloud.destination(stage)?).await?;
        let sizes = [0, 4096, 5 * MIB, 40 * MIB];
        let files = sizes.map(|size| secure.deliver("s", &format!("{size}.dat"), size)).into_iter().collect::<Result<Vec<_>>>()?;
        named(stage, "s", &["Denied", "AADSTS700213", "federated credential needs subject", &subject]).await?;

        // To a clock that is two hours ahead, the pod's token has expired.
        cloud.entra.set_ahead(SignedDuration::from_hours(2));
        cloud.entra.trust(vec![cloud.trust(&stage.namespace, UPLOADER)]);
        named(stage, "s", &["Denied", "AADSTS700024"]).await?;
        cloud.entra.set_ahead(SignedDuration::ZERO);
        secure.await_uploaded("s", files.len(), ARRIVED).await?;
        secure.compare("s", &files).await?;
        ensure!(cloud.entra.granted().contains(&subject), "the files came without the pod's token");
        assert_no_secret(stage).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn a_session_uploads_as_the_service_account_that_it_names_and_no_other_token_is_exchanged() -> Result<()> {
    scenario("account", async |stage| {
        let cloud = Cloud::start(stage).await?;
        prepare(stage, &cloud).await?;
        let account = cloud.azurite.account(&stage.bed.account)?;
        let secure = Stage { blobs: account.container(stage.namespace.clone()), ..stage.clone() };
        let made = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "cameras"}});
        stage.api::<ServiceAccount>().patch("cameras", &PatchParams::apply("test"), &Patch::Apply(&made)).await?;

        cloud.entra.trust(vec![cloud.trust(&stage.namespace, "cameras")]);
        let mut change = cloud.destination(stage)?;
        change["pod"] = json!({"serviceAccountName": "cameras"});
        secure.apply_session("s", change).await?;
        let file = secure.deliver("s", "a.dat", 20 * MIB)?;
        refuses_all_but_the_right_token(stage, &cloud).await?;
        secure.await_uploaded("s", 1, ARRIVED).await?;
        secure.compare("s", &[file]).await?;
        let subject = format!("system:serviceaccount:{}:cameras", stage.namespace);
        ensure!(cloud.entra.granted().iter().all(|granted| *granted == subject), "{:?}", cloud.entra.granted());
        assert_no_secret(stage).await
    })
    .await
}

/// The double itself: what it takes from the real API server, and what it does not.
async fn refuses_all_but_the_right_token(stage: &Stage, cloud: &Cloud) -> Result<()> {
    let right = token(stage, "cameras", AUDIENCE).await?;
    let stranger = token(stage, "default", AUDIENCE).await?;
    let (text, signature) = right.rsplit_once('.').context("no token")?;
    let (_, foreign) = stranger.rsplit_once('.').context("no token")?;
    let same = |_: &str, value: &str| value.to_owned();
    for (token, code) in [
        (right.clone(), "access_token"),
        (token(stage, "cameras", cloud.keys.issuer()).await?, "AADSTS700212"),
        (stranger.clone(), "AADSTS700213"),
        (format!("{text}.{foreign}"), "AADSTS50013"),
        (format!("{}.{signature}", text.replacen("eyJ", "eyK", 1)), "AADSTS50013"),
        (String::new(), "AADSTS50013"),
    ] {
        let reply = cloud.exchange(&token, same).await?;
        ensure!(reply.contains(code), "{reply} instead of {code}");
    }
    for (field, code) in [("client_id", "AADSTS700016"), ("scope", "AADSTS70011"), ("client_assertion_type", "AADSTS900144")] {
        let without = |name: &str, value: &str| if name == field { String::new() } else { value.to_owned() };
        let reply = cloud.exchange(&right, without).await?;
        ensure!(reply.contains(code), "{reply} instead of {code}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn a_session_that_names_no_credential_says_what_was_tried_and_goes_on_with_one_that_is_named() -> Result<()> {
    scenario("nothing", async |stage| {
        let tls = Cloud::start(stage).await?;
        prepare(stage, &tls).await?;
        let account = tls.azurite.account(&stage.bed.account)?;
        let secure = Stage { blobs: account.container(stage.namespace.clone()), ..stage.clone() };
        let destination =
            |secret: Value| json!({"destination": {"azureBlob": {"accountUrl": account.url(), "credentialsSecretRef": secret}}});
        secure.apply_session("s", destination(Value::Null)).await?;
        let file = secure.deliver("s", "a.dat", 4096)?;
        named(stage, "s", &["Denied", "no credential named or found", "environment (no AZURE_TENANT_ID)"]).await?;

        stage.put_secret(&stage.bed.account.secret()).await?;
        secure.apply_session("s", destination(json!({"name": "azure"}))).await?;
        secure.await_uploaded("s", 1, ARRIVED).await?;
        secure.compare("s", &[file]).await
    })
    .await
}
