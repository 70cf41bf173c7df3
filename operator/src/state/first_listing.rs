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

    /// Whether everything was shown once.
    pub fn is_complete(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until everything was shown once; false if it never will be.
    pub async fn completes(&self) -> bool {
        self.0.clone().wait_for(|everything| *everything).await.is_ok()
    }
}

impl Listed {
    /// The watch has shown everything once.
    pub fn everything(&self) {
        self.0.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everyone_who_waits_is_told_when_everything_was_shown_and_that_it_never_will_be() {
        let (first, listed) = FirstListing::new();
        let waiting = [first.clone(), first.clone()].map(|first| tokio::spawn(async move { first.completes().await }));
        assert!(!first.is_complete());
        listed.everything();
        for waiting in waiting {
            assert!(waiting.await.unwrap());
        }
        drop(listed);
        assert!(first.is_complete() && first.completes().await);
        let (never, listed) = FirstListing::new();
        drop(listed);
        assert!(!never.completes().await);
    }
}
