//! Waiting until a watch has shown everything once.

use std::sync::Arc;

use kube::runtime::reflector::{Lookup, Store};
use tokio::sync::Mutex;

/// A store wakes nobody but the last that waits for its first listing; so only one at a time does, and the others wait for that one.
#[derive(Clone, Debug, Default)]
pub struct FirstListing(Arc<Mutex<()>>);

impl FirstListing {
    /// Waits until `watched` was filled once; false if it never will be.
    pub async fn shown_by<K>(&self, watched: &Store<K>) -> bool
    where
        K: Lookup + Clone + 'static,
        K::DynamicType: std::hash::Hash + Eq + Clone,
    {
        let _alone = self.0.lock().await;
        watched.wait_until_ready().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join_all;
    use k8s_openapi::api::core::v1::Pod;
    use kube::runtime::{reflector, watcher::Event};

    use super::*;

    #[tokio::test]
    async fn everyone_who_waits_for_the_first_listing_is_woken() {
        let (watched, mut writer) = reflector::store::<Pod>();
        let first = FirstListing::default();
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let (watched, first) = (watched.clone(), first.clone());
                tokio::spawn(async move { first.shown_by(&watched).await })
            })
            .collect();
        tokio::task::yield_now().await;
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        let all = tokio::time::timeout(Duration::from_mins(1), join_all(tasks)).await.unwrap();
        assert!(all.into_iter().all(Result::unwrap));
    }

    #[tokio::test]
    async fn one_who_gives_up_waiting_keeps_nobody_else_from_it() {
        let (watched, mut writer) = reflector::store::<Pod>();
        let first = FirstListing::default();
        assert!(tokio::time::timeout(Duration::from_millis(1), first.shown_by(&watched)).await.is_err());
        let waiting = tokio::spawn({
            let (watched, first) = (watched.clone(), first.clone());
            async move { first.shown_by(&watched).await }
        });
        tokio::task::yield_now().await;
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        assert!(tokio::time::timeout(Duration::from_mins(1), waiting).await.unwrap().unwrap());
    }
}
