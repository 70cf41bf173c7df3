//! The bed that a test runs on, as `testbed/bed env` describes it.

use std::{
    env,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};
use url::Url;

use crate::blobs::Account;

/// A running cluster with a node, a share that its pods see, and a storage account.
#[derive(Clone)]
pub struct Bed {
    /// Name of the bed.
    pub name: String,
    /// Administrator of the cluster.
    pub client: Client,
    /// Folder of this machine that pods see through volumes of the node.
    pub share: PathBuf,
    /// Address of this machine, as pods reach it.
    pub host: IpAddr,
    /// State and logs of the bed.
    pub folder: PathBuf,
    /// The storage account, by the address that pods use too.
    pub account: Account,
}

impl std::fmt::Debug for Bed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Bed").field("folder", &self.folder).field("account", &self.account).finish_non_exhaustive()
    }
}

impl Bed {
    /// The bed whose exports are in the environment.
    ///
    /// # Errors
    ///
    /// When they are missing; a test that was asked for never passes because there was nothing to test on.
    pub async fn from_environment() -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(variable("BLOBFERRY_BED_KUBECONFIG")?)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Self {
            name: variable("BLOBFERRY_BED")?,
            client: Client::try_from(config)?,
            share: variable("BED_SHARE")?.into(),
            host: variable("BED_HOST_ADDRESS")?.parse().context("BED_HOST_ADDRESS is no address")?,
            folder: variable("BED_DIR")?.into(),
            account: Account::from_environment()?,
        })
    }

    /// Runs a command of `testbed/bed` on this bed, and returns what it says.
    ///
    /// # Errors
    ///
    /// When it fails; the error has its words.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("bed");
        let output = Command::new(program).args(arguments).env("BLOBFERRY_BED", &self.name).output();
        let output = output.context("cannot start testbed/bed")?;
        ensure!(output.status.success(), "testbed/bed {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Account {
    /// The account whose URL, name and key are in the environment.
    ///
    /// # Errors
    ///
    /// When one of them is missing or malformed.
    pub fn from_environment() -> Result<Self> {
        let url = Url::parse(&variable("AZURITE_ACCOUNT_URL")?).context("AZURITE_ACCOUNT_URL is no URL")?;
        Self::new(url, variable("AZURITE_ACCOUNT_NAME")?, variable("AZURITE_ACCOUNT_KEY")?)
    }
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set: run `make e2e`, or eval \"$(testbed/bed env)\" first"))
}
