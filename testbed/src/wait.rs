//! Waiting for something that happens elsewhere, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const PAUSE: Duration = Duration::from_millis(200);

/// Asks until the answer is `Ok(Some(..))`. What is waited for is said in `what`, as in "pod truck-7-uploader runs".
///
/// # Errors
///
/// When `within` is over, with the last answer; an error on the way counts as "not yet".
pub async fn until<T>(within: Duration, what: &str, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let answer = ask().await;
        let last = match answer {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "not yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > deadline {
            bail!("waited {within:?} in vain until {what}: {last}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
