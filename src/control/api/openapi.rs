//! The OpenAPI document, made from the handlers.

mod forms;

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::header;
use serde_json::Value;
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, OpenApi, Ref, RefOr, ResponseBuilder, SecurityRequirement,
    path::Operation,
    schema::Components,
    security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

/// Adds what all handlers have in common.
pub(crate) fn finish(mut document: OpenApi) -> String {
    document.info = InfoBuilder::new()
        .title("relayered")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "A relay of the AT Protocol. Routes under `/xrpc` are public; those under `/admin` need \
             an admin key, as bearer token or as the password of user `admin`. Every route takes \
             its parameters from the query, a JSON body or a form body alike. The event stream, \
             `/xrpc/com.atproto.sync.subscribeRepos`, is a WebSocket and not described here; nor is \
             `/admin/stats/stream`, server-sent events with what `/admin/stats` tells.",
        ))
        .build();
    let components = document.components.get_or_insert_with(Components::new);
    for (name, scheme) in [("bearer", HttpAuthScheme::Bearer), ("basic", HttpAuthScheme::Basic)] {
        let scheme = HttpBuilder::new().scheme(scheme).build();
        components.add_security_scheme(name, SecurityScheme::Http(scheme));
    }
    for (path, item) in &mut document.paths.paths {
        let operations = [&mut item.get, &mut item.post];
        for operation in operations.into_iter().flatten() {
            finish_operation(operation, path.starts_with("/admin/"));
        }
    }
    let mut document = serde_json::to_value(document).unwrap_or_else(|error| {
        // It holds nothing that JSON cannot.
        tracing::error!(%error, "the OpenAPI document could not be written");
        Value::Null
    });
    forms::complete(&mut document);
    document.to_string()
}

fn finish_operation(operation: &mut Operation, admin: bool) {
    let error = ResponseBuilder::new()
        .description("The request failed")
        .content(
            "application/json",
            ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build(),
        )
        .build();
    operation.responses.responses.insert("default".to_owned(), RefOr::T(error));
    if admin {
        operation.security =
            Some(["bearer", "basic"].map(|name| SecurityRequirement::new(name, [""; 0])).to_vec());
    }
}

pub(crate) fn reply(document: &Arc<str>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}
