//! A service principal and a workload identity over TLS: a token service and Azurite, both with certificates of an authority of our own.
//!
//! Which authorities are trusted is a variable of the process, so the store runs in another process, which is this program again.

use std::{
    env, fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use blobferry_uploader::{
    azure::{AccountUrl, AzureSettings, AzureStore, CredentialSource, Variables},
    blob::{BlobError, BlobStore as _, Condition, Properties},
    formats::blob_name,
};
use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::azurite::{ACCOUNT, Process};

const ACCOUNT_URL: &str = "BLOBFERRY_TEST_ACCOUNT_URL";
const FOLDER: &str = "BLOBFERRY_TEST_CREDENTIALS";
const SECRET: &str = "hunter2";

/// An authority, and the certificate and key of this machine.
struct Certificates {
    folder: TempDir,
    server: ServerConfig,
}

fn certificates() -> Certificates {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &authority).unwrap();
    fs::write(folder.path().join("authority.pem"), authority.pem()).unwrap();
    fs::write(folder.path().join("certificate.pem"), certificate.pem()).unwrap();
    fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    Certificates { folder, server }
}

/// A token as Azurite wants it; it does not check the signature.
fn token() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = format!(
        r#"{{"aud":"https://storage.azure.com","iss":"https://sts.windows.net/tenant/","iat":{now},"nbf":{},"exp":{}}}"#,
        now - 60,
        now + 3600
    );
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"HS256","typ":"JWT"}"#), part(&claims), part("signature"))
}

/// Gives a token to whoever knows the secret; the URL of the service.
async fn token_service(config: ServerConfig) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let mut request = vec![0; 8192];
            let mut length = 0;
            while !String::from_utf8_lossy(&request[..length]).contains("scope=") {
                length += socket.read(&mut request[length..]).await.unwrap();
            }
            let request = String::from_utf8_lossy(&request[..length]);
            let (status, body) = if request.starts_with("POST /tenant/oauth2/v2.0/token") && request.contains(SECRET) {
                ("200 OK", format!(r#"{{"token_type":"Bearer","expires_in":3600,"access_token":"{}"}}"#, token()))
            } else {
                let error = "AADSTS7000215: Invalid client secret provided. Trace ID: 1";
                ("401 Unauthorized", format!(r#"{{"error_codes":[7000215],"error_description":"{error}"}}"#))
            };
            let reply = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            socket.write_all(reply.as_bytes()).await.unwrap();
            let _ = socket.shutdown().await;
        }
    });
    url
}

fn secret_folder(authority_url: &str, secret: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let keys = [("TENANT_ID", "tenant"), ("CLIENT_ID", "client"), ("CLIENT_SECRET", secret), ("AUTHORITY_HOST", authority_url)];
    for (key, value) in keys {
        fs::write(folder.path().join(format!("AZURE_{key}")), value).unwrap();
    }
    folder
}

/// What a store does in a process that trusts `authority`: what it printed.
async fn run_store(azurite: &Process, authority: &Path, credentials: &Path) -> String {
    run_store_with(azurite, authority, credentials, &[]).await
}

async fn run_store_with(azurite: &Process, authority: &Path, credentials: &Path, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "entra::store_of_another_test", "--ignored", "--nocapture"]);
    command.env("SSL_CERT_FILE", authority).env_remove("SSL_CERT_DIR").env(FOLDER, credentials);
    command.env(ACCOUNT_URL, format!("https://{}/{ACCOUNT}", azurite.address)).envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

async fn use_store() -> Result<(), BlobError> {
    let account_url = AccountUrl::parse(&env::var(ACCOUNT_URL).unwrap()).unwrap();
    let credential = match env::var("AZURE_FEDERATED_TOKEN_FILE") {
        Ok(_) => CredentialSource::WorkloadIdentity(Variables::of_process()),
        Err(_) => CredentialSource::Folder(env::var_os(FOLDER).unwrap().into()),
    };
    let container = format!("c{}", uuid::Uuid::new_v4().simple());
    let settings = AzureSettings { account_url, container, prefix: String::new(), credential };
    let store = AzureStore::new(settings).unwrap();
    store.prepare().await?;
    let name = blob_name("", "20261121", "s", b"a").unwrap();
    let crc64 = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, b"x");
    store.put_blob(&name, Bytes::from_static(b"x"), crc64, &Condition::Absent, &Properties::default()).await?;
    assert_eq!(store.look(&name).await?.unwrap().size, 1);
    Ok(())
}

#[tokio::test]
#[ignore = "runs in the process that the other test starts; on its own it has nothing to do"]
async fn store_of_another_test() {
    if env::var_os(ACCOUNT_URL).is_some() {
        println!("outcome: {:?}", use_store().await);
    }
}

#[tokio::test]
#[ignore = "needs Azurite: set BLOBFERRY_AZURITE to its azurite-blob program"]
async fn a_workload_identity_writes_over_tls_with_the_token_of_its_file() {
    let certificates = certificates();
    let path = |file: &str| certificates.folder.path().join(file);
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    let arguments = ["--oauth", "basic", "--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let azurite = Process::start(&arguments);
    let entra = token_service(certificates.server.clone()).await;
    for (token, expected) in [(SECRET, "outcome: Ok(())"), ("strange", "workload identity: ")] {
        fs::write(path("token"), token).unwrap();
        let file = path("token");
        let variables = [
            ("AZURE_TENANT_ID", "tenant"),
            ("AZURE_CLIENT_ID", "client"),
            ("AZURE_AUTHORITY_HOST", entra.as_str()),
            ("AZURE_FEDERATED_TOKEN_FILE", file.to_str().unwrap()),
        ];
        let outcome = run_store_with(&azurite, &path("authority.pem"), certificates.folder.path(), &variables).await;
        assert!(outcome.contains(expected) && outcome.contains("Denied") == (token != SECRET), "{outcome}");
    }
}

#[tokio::test]
#[ignore = "needs Azurite: set BLOBFERRY_AZURITE to its azurite-blob program"]
async fn a_service_principal_writes_over_tls_if_its_secret_and_the_certificates_are_right() {
    let certificates = certificates();
    let path = |file: &str| certificates.folder.path().join(file);
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    let arguments = ["--oauth", "basic", "--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let azurite = Process::start(&arguments);
    let entra = token_service(certificates.server.clone()).await;
    let (right, wrong) = (secret_folder(&entra, SECRET), secret_folder(&entra, "wrong-secret"));

    let outcome = run_store(&azurite, &path("authority.pem"), right.path()).await;
    assert!(outcome.contains("outcome: Ok(())"), "{outcome}");

    let outcome = run_store(&azurite, &path("authority.pem"), wrong.path()).await;
    assert!(outcome.contains("Denied") && outcome.contains("AADSTS7000215: Invalid client secret provided."), "{outcome}");
    assert!(!outcome.contains("wrong-secret"), "{outcome}");

    let stranger = self::certificates();
    let outcome = run_store(&azurite, &stranger.folder.path().join("authority.pem"), right.path()).await;
    assert!(
        outcome.contains("Transient") && outcome.contains("cannot connect to localhost: invalid peer certificate"),
        "{outcome}"
    );
}
