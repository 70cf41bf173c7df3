//! The network between pods and the storage account, as a door that a test closes and opens.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use url::Url;

/// Passes connections on to an account. While it is closed nobody listens, and connections that were open are gone, as after a
/// restart of the service.
#[derive(Debug)]
pub struct Line {
    url: Url,
    here: SocketAddr,
    there: SocketAddr,
    passing: Option<JoinHandle<()>>,
}

impl Line {
    /// A closed line to `account`, by a port of this machine's address `host`.
    ///
    /// # Errors
    ///
    /// When the account is not named by an address, or `host` is no address of this machine.
    pub async fn closed(host: IpAddr, account: &str) -> Result<Self> {
        let mut url = Url::parse(account).context("the account's URL is none")?;
        let there = url.socket_addrs(|| None)?.first().copied().context("the account has no address")?;
        // The port stays free: whoever asks for any port gets another one first.
        let here =
            TcpListener::bind(SocketAddr::new(host, 0)).await.with_context(|| format!("cannot listen on {host}"))?.local_addr()?;
        url.set_ip_host(host).and_then(|()| url.set_port(Some(here.port()))).ok().context("the account's URL takes no address")?;
        Ok(Self { url, here, there, passing: None })
    }

    /// URL of the account by this line, as a session names it.
    pub fn url(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Lets connections pass from now on.
    ///
    /// # Errors
    ///
    /// When somebody else took the port meanwhile.
    pub async fn open(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.here).await.with_context(|| format!("cannot listen on {}", self.here))?;
        self.close();
        self.passing = Some(tokio::spawn(pass(listener, self.there)));
        Ok(())
    }

    /// Cuts what passes and refuses what comes.
    pub fn close(&mut self) {
        if let Some(passing) = self.passing.take() {
            passing.abort();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.close();
    }
}

/// The connections end with this future.
async fn pass(listener: TcpListener, there: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut far) = TcpStream::connect(there).await {
                // A connection that breaks is for its two ends to notice.
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn closing_a_line_cuts_what_passes_and_opening_it_lets_new_connections_pass() {
        let mut line = Line::closed(Ipv4Addr::LOCALHOST.into(), &format!("http://{}/account", echo().await)).await.unwrap();
        assert!(line.url().ends_with("/account"));
        assert!(TcpStream::connect(line.here).await.is_err());
        for _ in 0..2 {
            line.open().await.unwrap();
            let mut stream = TcpStream::connect(line.here).await.unwrap();
            stream.write_all(b"x").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'x');
            line.close();
            assert!(stream.read_u8().await.is_err());
            while TcpStream::connect(line.here).await.is_ok() {
                tokio::task::yield_now().await;
            }
        }
    }
}
