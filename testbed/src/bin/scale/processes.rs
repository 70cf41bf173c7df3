//! What the operator, the API server and etcd use.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use blobferry_testbed::processes::of_bed;

use crate::{Arguments, PATIENCE};

/// What the operator has used so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Requests to the API server by method, watches left out.
    pub(crate) requests: BTreeMap<String, f64>,
    /// Seconds of processor time.
    pub(crate) processor: f64,
    /// Megabytes.
    pub(crate) resident: f64,
    /// Megabytes.
    pub(crate) peak: f64,
}

impl Sample {
    pub(crate) fn all_requests(&self) -> f64 {
        self.requests.values().sum()
    }
}

/// The operator as a process.
pub(crate) struct Operator {
    child: Child,
    pages: String,
}

impl Operator {
    pub(crate) fn start(arguments: &Arguments) -> Result<Self> {
        let listen = "127.0.0.1:18080";
        let child = Command::new(&arguments.operator)
            .args(["--uploader-image=localhost/blobferry-uploader:dev", "--listen", listen])
            .env("KUBECONFIG", &arguments.kubeconfig)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", arguments.operator.display()))?;
        Ok(Self { child, pages: format!("http://{listen}") })
    }

    async fn page(&self, path: &str) -> Result<String> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(client.get(format!("{}{path}", self.pages)).send().await?.error_for_status()?.text().await?)
    }

    pub(crate) async fn until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.page("/readyz").await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the operator has ended: {status}");
            }
            ensure!(Instant::now() < deadline, "the operator is not ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub(crate) async fn sample(&self) -> Result<Sample> {
        let metrics = self.page("/metrics").await?;
        let request = |line: &str| {
            let (method, rest) = line.strip_prefix("blobferry_api_requests_total{method=\"")?.split_once('"')?;
            Some((method.to_owned(), rest.rsplit(' ').next()?.parse::<f64>().ok()?))
        };
        let requests = metrics.lines().filter_map(request).filter(|(method, _)| method != "WATCH").collect();
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(process.join("status"))?;
        let megabytes = |field: &str| {
            let line = status.lines().find(|line| line.starts_with(field));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
        };
        Ok(Sample { requests, processor: processor(&process)?, resident: megabytes("VmRSS"), peak: megabytes("VmHWM") })
    }

    /// Waits until it makes no more requests.
    pub(crate) async fn until_quiet(&self) -> Result<Sample> {
        let mut last = self.sample().await?;
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let now = self.sample().await?;
            if now.requests == last.requests {
                return Ok(now);
            }
            last = now;
        }
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Seconds of processor time of the process in this folder of `/proc`.
fn processor(process: &Path) -> Result<f64> {
    let stat = fs::read_to_string(process.join("stat"))?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

/// The processes of a bed's control plane.
pub(crate) struct ControlPlane {
    api_server: PathBuf,
    etcd: PathBuf,
    database: PathBuf,
}

impl ControlPlane {
    /// Those of the bed in `folder`.
    pub(crate) fn of_bed(folder: &Path) -> Result<Self> {
        let database = folder.join("etcd/member/snap/db");
        Ok(Self { api_server: process_of(folder, "kube-apiserver")?, etcd: process_of(folder, "etcd")?, database })
    }

    /// Seconds of processor time of the API server and of etcd, and bytes of etcd's database.
    pub(crate) fn used(&self) -> Result<(f64, f64, u64)> {
        Ok((processor(&self.api_server)?, processor(&self.etcd)?, fs::metadata(&self.database)?.len()))
    }
}

fn process_of(bed: &Path, program: &str) -> Result<PathBuf> {
    Ok(Path::new("/proc").join(of_bed(program, bed)?.as_raw_nonzero().to_string()))
}
