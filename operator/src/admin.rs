//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use blobferry_crds::telemetry::MetricsText;

use crate::{
    context::Context,
    leader::{Leadership, Role},
};

/// The operator's pages. It is healthy while it answers, and ready once its watches have shown everything, or another operator leads.
pub fn router(context: Arc<Context>, leadership: Leadership, metrics: MetricsText) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state((context, leadership))
        .merge(Router::new().route("/metrics", get(show_metrics)).with_state(metrics))
}

async fn ready(State((context, leadership)): State<(Arc<Context>, Leadership)>) -> Response {
    let missing = |what: &'static str| (StatusCode::SERVICE_UNAVAILABLE, what).into_response();
    match leadership.role() {
        Role::Unknown => return missing("the API server has not shown the lease yet\n"),
        Role::Standby => return "standing by\n".into_response(),
        Role::Leader => {}
    }
    if context.is_ready() {
        "leading\n".into_response()
    } else {
        missing("the API server has not shown all sessions and pods yet\n")
    }
}

async fn show_metrics(State(metrics): State<MetricsText>) -> Response {
    match metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, MetricsText::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot render metrics: {error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        fixtures,
        metrics::Metrics,
        state::{pods::Pods, sessions::Sessions},
    };

    #[tokio::test]
    async fn operator_is_ready_when_it_stands_by_and_when_its_watches_have_shown_everything() {
        let ((sessions_shown, sessions), (pods_shown, pods)) = (Sessions::new(), Pods::new());
        let (service, _server) = tower_test::mock::pair::<Request<kube::client::Body>, http::Response<kube::client::Body>>();
        let client = kube::Client::new(service, "default");
        let metrics = Metrics::new(&opentelemetry::global::meter("test"));
        let context = Context::new(client, fixtures::settings(), sessions_shown, pods_shown, None, metrics);
        let leadership = Leadership::default();
        let (text, _reader) = MetricsText::new().unwrap();
        let pages = router(Arc::new(context), leadership.clone(), text);
        let code = async || {
            let request = Request::builder().uri("/readyz").body(Body::empty()).unwrap();
            pages.clone().oneshot(request).await.unwrap().status().as_u16()
        };
        assert_eq!(code().await, 503, "it has not seen the lease");
        leadership.set(Role::Standby);
        assert_eq!(code().await, 200);
        leadership.set(Role::Leader);
        assert_eq!(code().await, 503);
        sessions.everything();
        assert_eq!(code().await, 503, "pods are missing");
        pods.everything();
        assert_eq!(code().await, 200);
    }
}
