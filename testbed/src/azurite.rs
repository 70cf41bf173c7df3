//! A storage account of a test's own: Azurite over TLS, which takes the tokens of [`crate::entra`] besides the published key.

use std::{
    env,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use url::Url;

use crate::{authority::Authority, blobs::Account, wait};

const LONGEST_START: Duration = Duration::from_mins(3);

/// A running program; it ends with this value.
#[derive(Debug)]
pub struct SecureAzurite {
    child: Child,
    address: SocketAddr,
    authority: String,
    _folder: TempDir,
}

impl SecureAzurite {
    /// Starts one at a free port of `host`, with a certificate of `authority`.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub async fn start(host: IpAddr, authority: &Authority) -> Result<Self> {
        let program = env::var_os("BLOBFERRY_AZURITE").context("BLOBFERRY_AZURITE is not set: run `make e2e`")?;
        let folder = TempDir::new()?;
        let address = TcpListener::bind((host, 0))?.local_addr()?;
        let mut command = Command::new(program);
        command.args(["--disableTelemetry", "--silent", "--oauth", "basic", "--blobHost", &host.to_string()]);
        command.args(["--blobPort", &address.port().to_string()]).arg("--location").arg(folder.path());
        command.arg("--cert").arg(authority.path("certificate.pem")).arg("--key").arg(authority.path("key.pem"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot start Azurite")?;
        let azurite = Self { child, address, authority: authority.pem().to_owned(), _folder: folder };
        wait::until(LONGEST_START, "Azurite answers", async || Ok(TcpStream::connect(address).ok())).await?;
        Ok(azurite)
    }

    /// The account with the key of `of`, over TLS.
    ///
    /// # Errors
    ///
    /// When the authority cannot be trusted.
    pub fn account(&self, of: &Account) -> Result<Account> {
        let url = Url::parse(&format!("https://{}/{}", self.address, of.name()))?;
        of.at(url, &self.authority)
    }
}

impl Drop for SecureAzurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
