//! The health endpoints of the internal port. Without one, the shards answer them.
//!
//! Owns no state: the node's vitals have it.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::base::vitals::{LifeFault, Vitals};
use crate::config::Health;
use crate::link::Link;
use crate::wire::http::health_body;

/// Routes that tell whether the node is alive, and whether it is ready for new clients.
pub fn router(health: &Health, link: &Arc<Link>, vitals: &Arc<Vitals>) -> Router {
    if !health.enabled {
        return Router::new();
    }
    let route = |check: fn(&Vitals, u64) -> Result<(), LifeFault>| {
        let (link, vitals) = (link.clone(), vitals.clone());
        get(move || async move { answer(check(&vitals, link.millis())) })
    };
    Router::new()
        .route(&health.handler_prefix, route(Vitals::check_alive))
        .route(&health.ready_path(), route(Vitals::check_ready))
}

fn answer(checked: Result<(), LifeFault>) -> Response {
    let fault = checked.err().map(|fault| fault.to_string());
    let status = if fault.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = health_body(fault.as_deref()).into_owned();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
