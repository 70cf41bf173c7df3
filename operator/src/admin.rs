//! `/healthz`, `/readyz` and `/metrics`.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use blobferry_crds::telemetry::MetricsText;

use crate::context::Context;

/// How long a watch that has shown everything may take to say so.
const SOON: Duration = Duration::from_millis(100);

/// The operator's pages. It is healthy while it answers, and ready once its watches have shown everything.
pub fn router(context: Arc<Context>, metrics: MetricsText) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(context)
        .merge(Router::new().route("/metrics", get(show_metrics)).with_state(metrics))
}

async fn ready(State(context): State<Arc<Context>>) -> Response {
    let shown = async { context.sessions.wait_until_ready().await && context.pods.wait_until_ready().await };
    match tokio::time::timeout(SOON, shown).await {
        Ok(true) => "ok\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the API server has not shown all sessions and pods yet\n").into_response(),
    }
}

async fn show_metrics(State(metrics): State<MetricsText>) -> Response {
    match metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, MetricsText::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot render metrics: {error}\n")).into_response(),
    }
}
