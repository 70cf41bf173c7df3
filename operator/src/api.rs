//! (I/O) Calls to the API server: each with a deadline, each failure with the action and the object.

use std::{fmt, time::Duration};

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Config, Resource,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
    core::PartialObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};

/// A kind of object that the operator reads, makes or deletes.
pub trait Object: Resource<DynamicType = ()> + Clone + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<K> Object for K where K: Resource<DynamicType = ()> + Clone + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static {}

/// Within this time the client tries busy answers (429, 503, 504) again, and an API server says that a webhook does not answer, which it
/// does after half a minute at most. Requests that take it a minute it gives up itself
/// ([`--request-timeout`](https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/)).
pub const DEADLINE: Duration = Duration::from_secs(65);
/// A watch on which nothing happens gets a bookmark every minute, and is opened anew before it is five minutes old.
const IDLE: Duration = Duration::from_mins(6);

/// Objects of one page of a listing.
const PAGE: u32 = 500;

/// How an API server begins to tell that an admission webhook cannot be called, with the code 500.
const WEBHOOK_FAILED: &str = "failed calling webhook";

/// How an API server passes on that an admission webhook refuses, with whatever code that has chosen.
const DENIED: &str = "denied the request";

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub struct CallError {
    action: String,
    source: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Answer(Box<kube::Error>),
    #[error("no answer within {} seconds", DEADLINE.as_secs())]
    Silence,
}

impl CallError {
    /// What the API server answered, if it did.
    fn answer(&self) -> Option<&kube::core::Status> {
        match &self.source {
            Cause::Answer(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Cause::Silence => None,
        }
    }

    /// The object has changed since it was read, or one of the name exists.
    pub fn is_conflict(&self) -> bool {
        self.answer().is_some_and(|status| status.code == 409 && !status.message.contains(DENIED))
    }

    /// There is no such object.
    pub fn is_not_found(&self) -> bool {
        self.answer().is_some_and(kube::core::Status::is_not_found)
    }

    /// Nothing can be made in a namespace that is being deleted.
    pub fn is_of_ending_namespace(&self) -> bool {
        let causes = self.answer().and_then(|status| status.details.as_ref()).map(|details| details.causes.as_slice());
        causes.unwrap_or_default().iter().any(|cause| cause.reason == "NamespaceTerminating")
    }

    /// What people are told: this error with its causes.
    pub fn words(&self) -> String {
        let causes = std::iter::successors(Some(self as &dyn std::error::Error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }

    /// The words of an API server that refused what was sent, and will refuse it again until something else changes: it is forbidden or
    /// invalid, or an [admission webhook](https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#failure-policy)
    /// without which it is not taken does not work.
    pub fn refusal(&self) -> Option<&str> {
        let is_refusal = |status: &&kube::core::Status| {
            matches!(status.code, 400 | 403 | 422) || [WEBHOOK_FAILED, DENIED].iter().any(|words| status.message.contains(words))
        };
        self.answer().filter(is_refusal).map(|status| status.message.as_str())
    }
}

/// `config` of a client that takes a connection for broken when nothing comes for long: else a watch that is opened on one whose other
/// end went without a word waits for ever.
pub fn impatient(mut config: Config) -> Config {
    (config.read_timeout, config.reset_reader_on_write) = (Some(IDLE), true);
    config
}

/// Waits for `call`; `action` completes "cannot …". The client's futures are large, so they are boxed before anybody holds them.
pub fn call<T>(
    action: impl Into<String>,
    call: impl Future<Output = kube::Result<T>> + Send,
) -> impl Future<Output = Result<T, CallError>> + Send {
    let (action, call) = (action.into(), Box::pin(call));
    async move {
        let source = match tokio::time::timeout(DEADLINE, call).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Cause::Answer(Box::new(error)),
            Err(_) => Cause::Silence,
        };
        Err(CallError { action, source })
    }
}

/// Creates `object`; nothing if one of the name exists, of which the caller has to take a look.
pub async fn create<K: Object>(api: &Api<K>, object: &K) -> Result<Option<K>, CallError> {
    let name = object.meta().name.as_deref().unwrap_or_default();
    match call(format!("create {} {name}", K::kind(&())), api.create(&PostParams::default(), object)).await {
        Ok(created) => Ok(Some(created)),
        Err(error) if error.is_conflict() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What `params` select, without anything but its metadata, page by page.
pub async fn list_metadata<K: Object>(
    action: &str,
    api: &Api<K>,
    params: ListParams,
) -> Result<Vec<PartialObjectMeta<K>>, CallError> {
    let (mut all, mut page) = (Vec::new(), params.limit(PAGE));
    loop {
        let found = call(action, api.list_metadata(&page)).await?;
        all.extend(found.items);
        match found.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// Reads the object of this name, if there is one.
pub async fn get<K: Object>(api: &Api<K>, name: &str) -> Result<Option<K>, CallError> {
    call(format!("read {} {name}", K::kind(&())), api.get_opt(name)).await
}

/// Deletes exactly the object with `uid`. That it is gone, or another one by now, is success. `grace` is in seconds; none means
/// the object's own.
pub async fn delete<K: Object>(api: &Api<K>, name: &str, uid: &str, grace: Option<u32>) -> Result<(), CallError> {
    let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    let params = DeleteParams { preconditions, grace_period_seconds: grace, ..DeleteParams::background() };
    match call(format!("delete {} {name}", K::kind(&())), api.delete(name, &params)).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

/// Deletes `object` if it still is what was read; that it has changed meanwhile is a conflict, that it is gone is success.
pub async fn delete_version<K: Object>(api: &Api<K>, object: &K) -> Result<(), CallError> {
    let meta = object.meta();
    let name = meta.name.as_deref().unwrap_or_default();
    let preconditions = Some(Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() });
    let params = DeleteParams { preconditions, ..DeleteParams::background() };
    match call(format!("delete {} {name}", K::kind(&())), api.delete(name, &params)).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// The objects of one namespace.
pub fn namespaced<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Instant,
    };

    use axum::Router;
    use http::{StatusCode, header};
    use k8s_openapi::api::core::v1::Namespace;
    use kube::Config;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn busy_api_server_is_asked_again_no_earlier_than_it_says() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let asks = Arc::clone(&asked);
        let busy = Router::new().fallback(async move || {
            let mut asks = asks.lock().unwrap();
            asks.push(Instant::now());
            let code = if asks.len() == 1 { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
            (code, [(header::RETRY_AFTER, "2")], r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "cameras"}}"#)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, busy).into_future());
        let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
        call("read a namespace", Api::<Namespace>::all(client).get("cameras")).await.unwrap();
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 2);
        assert!(asked[1].duration_since(asked[0]) >= Duration::from_secs(2), "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn server_that_goes_without_a_word_lets_nobody_wait_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let _silent = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok(connection) = listener.accept().await {
                open.push(connection);
            }
        });
        let client = Client::try_from(impatient(Config::new(url.parse().unwrap()))).unwrap();
        let namespaces = Api::<Namespace>::all(client);
        // A watch lists and opens without any deadline of its own.
        let (began, listed) = (tokio::time::Instant::now(), namespaces.list(&ListParams::default()).await);
        assert!(listed.is_err());
        assert_eq!(began.elapsed().as_secs(), IDLE.as_secs());
    }
}
