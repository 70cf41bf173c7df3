//! The credentials of the table: how each is given to a process, in which states, and what must be said of it.

use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::doubles::{Metadata, cli_token, make_cli, metadata_token};
use crate::{
    azurite::{ACCOUNT, KEY, Process, Sas},
    certificates::Certificates,
    child::{FOLDER, Remote, WORKLOAD_IDENTITY},
    entra::{Entra, LIFE, SHORT, Standing, signed},
};

/// The account's key after it was replaced.
const NEW_KEY: &str = "cmVuZXdlZC1rZXktcmVuZXdlZC1rZXktcmVuZXdlZC1rZXk=";
const WRONG_KEY: &str = "d3Jvbmcta2V5LXdyb25nLWtleS13cm9uZy1rZXktd3Jvbmc=";
const RSA: &str = include_str!("../../../src/azure/credential/certificate/test.pem");

/// What is where the credential is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Right,
    Wrong,
    Expired,
    /// The successor of [`State::Right`].
    Renewed,
}

const STATES: [State; 4] = [State::Right, State::Wrong, State::Expired, State::Renewed];

/// A row of the table.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Requests for a token until the first blob is written.
    pub(crate) tokens: usize,
    variables: fn(&World, &Place) -> Vec<(&'static str, String)>,
    write: fn(&World, &Place, State),
    wrong: &'static str,
    expired: Option<&'static str>,
}

impl Kind {
    /// What must be said of a credential in this state; `None` where there is no such thing.
    pub(crate) fn refusal(&self, state: State) -> Option<&'static str> {
        if state == State::Expired { self.expired } else { Some(self.wrong) }
    }
}

/// Whether `text` has a secret of any kind in any state.
pub(crate) fn shows_a_secret(text: &str) -> bool {
    let secrets = STATES.map(secret);
    let marks = [KEY, NEW_KEY, WRONG_KEY, "sig=", "eyJ", "PRIVATE"].map(str::to_owned);
    secrets.iter().chain(&marks).any(|secret| text.contains(secret.as_str()))
}

/// Everybody that processes of the table talk to.
pub(crate) struct World {
    certificates: Certificates,
    azurite: Mutex<Process>,
    entra: Entra,
    client_certificates: [String; 4],
}

impl World {
    pub(crate) async fn start() -> Self {
        let certificates = Certificates::make(&[]);
        let path = |file: &str| certificates.path(file).display().to_string();
        let (certificate, key) = (path("certificate.pem"), path("key.pem"));
        let azurite = Process::start(&["--oauth", "basic", "--cert", &certificate, "--key", &key], KEY);
        let entra = Entra::start(std::sync::Arc::clone(&certificates.server)).await;
        let client_certificates = STATES.map(client_certificate);
        for (state, standing) in [(State::Right, Standing::Valid), (State::Expired, Standing::Expired)] {
            for credential in [secret(state), subject(state), thumbprint(&client_certificates[state as usize])] {
                entra.set(&credential, Some(standing));
            }
        }
        Self { certificates, azurite: Mutex::new(azurite), entra, client_certificates }
    }

    /// A store of a new container, in a process with these variables.
    pub(crate) fn store(&self, container: &str, variables: &[(String, String)]) -> Remote {
        let address = self.azurite().address;
        Remote::start(&format!("https://{address}/{ACCOUNT}"), container, &self.certificates.path("authority.pem"), variables)
    }

    /// From now on what was right counts no more, and its successor does.
    pub(crate) fn replace_key(&self) {
        for credential in [secret, subject] {
            self.entra.set(&credential(State::Right), None);
            self.entra.set(&credential(State::Renewed), Some(Standing::Valid));
        }
        self.entra.set(&thumbprint(&self.client_certificates[State::Right as usize]), None);
        self.entra.set(&thumbprint(&self.client_certificates[State::Renewed as usize]), Some(Standing::Valid));
        self.azurite().restart(NEW_KEY);
        // Tokens that hold for a short time have ended.
        std::thread::sleep(Duration::from_secs(4));
    }

    /// Requests to the account that a place's store has sent.
    pub(crate) fn requests(&self, place: &Place) -> usize {
        self.azurite().requests(&place.container)
    }

    fn azurite(&self) -> std::sync::MutexGuard<'_, Process> {
        self.azurite.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A PEM file with a certificate of its own and the same key.
fn client_certificate(state: State) -> String {
    let key = RSA.get(RSA.find("-----BEGIN PRIVATE KEY").unwrap()..).unwrap();
    let certificate = CertificateParams::new(vec![subject(state)]).unwrap().self_signed(&KeyPair::from_pem(key).unwrap()).unwrap();
    format!("{}{key}", certificate.pem())
}

/// What an assertion names its certificate by.
fn thumbprint(pem: &str) -> String {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    URL_SAFE_NO_PAD.encode(Sha256::digest(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()))
}

fn secret(state: State) -> String {
    format!("{state:?}-secret")
}

fn subject(state: State) -> String {
    format!("{state:?}-subject")
}

/// Where one store of a kind reads its credential.
pub(crate) struct Place {
    folder: TempDir,
    client: String,
    container: String,
    metadata: Option<Metadata>,
    variables: fn(&World, &Self) -> Vec<(&'static str, String)>,
    write: fn(&World, &Self, State),
}

impl Place {
    /// A place with a credential in this state; `ending` is that of the client's name.
    pub(crate) fn new(world: &World, kind: &Kind, state: State, ending: &str) -> Self {
        let (folder, unique) = (tempfile::tempdir().unwrap(), uuid::Uuid::new_v4().simple().to_string());
        let metadata = (kind.name == MANAGED).then(|| Metadata::start(folder.path().join("answer")));
        let (client, container) = (format!("{unique}{ending}"), format!("c{unique}"));
        let place = Self { folder, client, container, metadata, variables: kind.variables, write: kind.write };
        place.write(world, state);
        place
    }

    /// Puts a credential in this state where the store reads it.
    pub(crate) fn write(&self, world: &World, state: State) {
        (self.write)(world, self, state);
    }

    pub(crate) fn start(&self, world: &World) -> Remote {
        let variables = (self.variables)(world, self);
        let variables: Vec<_> = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        world.store(&self.container, &variables)
    }

    /// Requests for a token so far.
    pub(crate) fn tokens(&self, world: &World) -> usize {
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default().lines().count();
        world.entra.requests(&self.client) + self.metadata.as_ref().map_or(0, Metadata::requests) + calls
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn text(&self, file: &str) -> String {
        self.path().join(file).display().to_string()
    }

    fn put(&self, files: &[(&str, &str)]) {
        for (file, content) in files {
            fs::write(self.path().join(file), content).unwrap();
        }
    }

    /// How long the tokens hold that are made on the machine itself.
    fn lifetime(&self) -> i64 {
        if self.client.ends_with(SHORT) { 3 } else { i64::try_from(LIFE.as_secs()).unwrap() }
    }
}

const MANAGED: &str = "managed identity";
const CLI: &str = "Azure CLI";
const EXPIRED_TOKEN: i64 = -30;

/// The rows, in the order of the chain and of the Secret's keys.
pub(crate) fn all() -> Vec<Kind> {
    of_tokens().into_iter().chain(of_the_account()).collect()
}

fn of_tokens() -> [Kind; 5] {
    [
        Kind {
            name: "client secret",
            tokens: 1,
            variables: secret_folder,
            write: |world, place, state| principal(world, place, "AZURE_CLIENT_SECRET", &secret(state)),
            wrong: "AADSTS7000215: Invalid client secret provided.",
            expired: Some("AADSTS7000222: The provided client secret keys for app 'app' are expired."),
        },
        Kind {
            name: "client certificate",
            tokens: 1,
            variables: secret_folder,
            write: |world, place, state| {
                place.put(&[("tls.pem", &world.client_certificates[state as usize])]);
                principal(world, place, "AZURE_CLIENT_CERTIFICATE_PATH", "tls.pem");
            },
            wrong: "AADSTS700027: The certificate with identifier used to sign the client assertion is not registered",
            expired: Some("AADSTS700027: Client assertion contains an invalid signature. [Reason - The key used is expired.]"),
        },
        Kind {
            name: "workload identity",
            tokens: 1,
            variables: |world, place| {
                let mut all = vec![("AZURE_TENANT_ID", "tenant".to_owned()), ("AZURE_CLIENT_ID", place.client.clone())];
                all.push(("AZURE_AUTHORITY_HOST", world.entra.url()));
                all.push(("AZURE_FEDERATED_TOKEN_FILE", place.text("token")));
                all.push((WORKLOAD_IDENTITY, "true".to_owned()));
                all
            },
            write: |_, place, state| {
                let claims = format!(r#"{{"iss":"https://issuer","sub":"{}","aud":["api://x"]}}"#, subject(state));
                place.put(&[("token", &signed(&claims))]);
            },
            wrong: "AADSTS700213: the federated credential needs subject Wrong-subject, issuer https://issuer, audience api://x",
            expired: Some("AADSTS700024: Client assertion is not within its valid time range."),
        },
        Kind {
            name: MANAGED,
            tokens: 1,
            variables: |_, place| {
                let address = place.metadata.as_ref().unwrap().address;
                let endpoint = format!("http://{address}/metadata/identity/oauth2/token");
                vec![("IDENTITY_ENDPOINT", endpoint), ("IDENTITY_HEADER", "header".to_owned())]
            },
            write: |_, place, state| {
                let answer = match state {
                    State::Right => metadata_token(place.lifetime()),
                    State::Wrong => "400 Bad Request\n{\"error\":\"invalid_request\"}".to_owned(),
                    State::Expired => metadata_token(EXPIRED_TOKEN),
                    State::Renewed => metadata_token(i64::try_from(LIFE.as_secs()).unwrap()),
                };
                place.put(&[("answer", &answer)]);
            },
            wrong: "managed identity: The requested identity has not been assigned to this resource",
            expired: Some("(403 AuthenticationFailed)"),
        },
        Kind {
            name: CLI,
            // The credential of the library keeps no token; the policy does.
            tokens: 2,
            variables: |_, place| {
                make_cli(place.path());
                vec![("PATH", format!("{}:/usr/bin:/bin", place.path().display()))]
            },
            write: |_, place, state| {
                let answer = match state {
                    State::Right => cli_token(place.lifetime()),
                    State::Wrong => "ERROR: Please run 'az login' to setup account.\n".to_owned(),
                    State::Expired => "ERROR: AADSTS700082: The refresh token has expired due to inactivity.\n".to_owned(),
                    State::Renewed => cli_token(i64::try_from(LIFE.as_secs()).unwrap()),
                };
                place.put(&[("answer", &answer)]);
            },
            wrong: "Please run 'az login' to setup account.",
            expired: Some("AADSTS700082: The refresh token has expired due to inactivity."),
        },
    ]
}

fn of_the_account() -> [Kind; 3] {
    [
        Kind {
            name: "connection string",
            tokens: 0,
            variables: secret_folder,
            write: |_, place, state| {
                place.put(&[("connectionString", &format!("AccountName={ACCOUNT};AccountKey={}", account_key(state)))]);
            },
            wrong: "(400 InvalidAuthenticationInfo): the credential is not taken",
            expired: None,
        },
        Kind {
            name: "account key",
            tokens: 0,
            variables: secret_folder,
            write: |_, place, state| place.put(&[("accountName", ACCOUNT), ("accountKey", account_key(state))]),
            wrong: "(400 InvalidAuthenticationInfo): the credential is not taken",
            expired: None,
        },
        Kind {
            name: "SAS token",
            tokens: 0,
            variables: secret_folder,
            write: |_, place, state| {
                let end = if state == State::Expired { "2020-01-01T00:00:00Z" } else { Sas::default().end };
                let sas = Sas { permissions: "rwc", end, key: account_key(state) };
                place.put(&[("sasToken", &sas.of_account("co"))]);
            },
            wrong: "403 AuthorizationFailure",
            expired: Some("403 AuthorizationFailure"),
        },
    ]
}

fn secret_folder(_: &World, place: &Place) -> Vec<(&'static str, String)> {
    vec![(FOLDER, place.path().display().to_string())]
}

fn account_key(state: State) -> &'static str {
    match state {
        State::Right | State::Expired => KEY,
        State::Wrong => WRONG_KEY,
        State::Renewed => NEW_KEY,
    }
}

/// The keys of a Secret with a service principal.
fn principal(world: &World, place: &Place, key: &str, value: &str) {
    let authority = world.entra.url();
    let who = [("AZURE_TENANT_ID", "tenant"), ("AZURE_CLIENT_ID", place.client.as_str()), ("AZURE_AUTHORITY_HOST", &authority)];
    place.put(&who);
    place.put(&[(key, value)]);
}
