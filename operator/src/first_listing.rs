//! Whether a watch has shown everything once.

use tokio::sync::watch;

/// Waits for the first listing of a watch.
#[derive(Clone, Debug)]
pub struct FirstListing(watch::Receiver<bool>);

/// Held by the watch: tells when it has shown everything, and with its own end that it never will.
#[derive(Debug)]
pub struct Listed(watch::Sender<bool>);

impl FirstListing {
    /// The first listing of the watch that holds the other half.
    pub fn new() -> (Self, Listed) {
        let (listing, listed) = watch::channel(false);
        (Self(listed), Listed(listing))
    }

    /// Waits until everything was shown once; false if it never will be.
    pub async fn is_complete(&self) -> bool {
        self.0.clone().wait_for(|everything| *everything).await.is_ok()
    }
}

impl Listed {
    /// The watch has shown everything once.
    pub fn everything(&self) {
        self.0.send_replace(true);
    }
}
