//! The OpenAPI 3.1 document: made from the handlers' annotations and the types that they read and write.
//!
//! A route and its description are one thing (`routes!` in [`crate::app`]). What every operation shares is added here:
//! errors that can happen everywhere, and the headers of every answer.

pub(crate) mod bodies;
mod described;
pub(crate) mod refusals;
mod shared;

use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, body::Bytes};
use utoipa::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::problem::ProblemDocument;
pub(crate) use described::wire;
use shared::Bearer;

/// What the document says about the whole API.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Firstcome",
        description = include_str!("openapi/introduction.md"),
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "/", description = "This node")),
    components(schemas(ProblemDocument<'_>)),
    modifiers(&Bearer),
    tags(
        (name = "orders", description = "A customer's own orders. Role `customer`."),
        (name = "catalogue", description = "Products, for everybody."),
        (name = "admin", description = "Products and stock. Role `admin`."),
        (name = "health", description = "What operators ask a node.")
    )
)]
pub(crate) struct Document;

impl Document {
    /// What the routes are added to.
    pub(crate) fn begun() -> utoipa::openapi::OpenApi {
        Self::openapi()
    }

    /// The document of all routes, with what they share.
    pub(crate) fn finished(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
        shared::complete(&mut document);
        document
    }
}

/// `/openapi.json`, and `/docs`: a page to read and try it, with all that it needs.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(document: &utoipa::openapi::OpenApi) -> Router<S> {
    let json = Bytes::from(document.to_json().unwrap_or_default());
    let page = SwaggerUi::new("/docs").config(
        // No validator: the page calls nobody but this node.
        Config::from("/openapi.json").validator_url("none").try_it_out_enabled(true).deep_linking(true),
    );
    let serve = move || {
        let json = json.clone();
        async move {
            let media_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
            (media_type, json).into_response()
        }
    };
    Router::new().route("/openapi.json", get(serve)).merge(page)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::app;

    /// Not part of what a shop builds on: the document itself, and the page that shows it.
    const ABOUT_ITSELF: [&str; 4] = ["/openapi.json", "/docs", "/docs/", "/docs/{*rest}"];

    fn document() -> Value {
        serde_json::to_value(app::documented().1).unwrap()
    }

    /// The paths that a router knows, from its own words about itself.
    fn routed() -> Vec<String> {
        let (routes, document) = app::documented();
        let words = format!("{:?}", routes.merge(super::routes(&document)));
        let is_path = |word: &&str| word.starts_with('/') && word.len() > 1 && !word.contains("__private");
        let mut paths: Vec<String> = words.split('"').filter(is_path).map(str::to_owned).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    #[test]
    fn x5_every_route_is_documented_and_every_documented_path_is_routed() {
        let document = document();
        let mut documented: Vec<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
        documented.extend(ABOUT_ITSELF.map(str::to_owned));
        documented.sort();
        assert_eq!(routed(), documented);
        assert!(documented.len() > 12, "{documented:?}");
    }

    #[test]
    fn stated_limits_are_the_ones_that_are_enforced() {
        let document = document();
        let schema =
            |name: &str, field: &str| document["components"]["schemas"][name]["properties"][field].clone();
        assert_eq!(schema("NewOrder", "lines")["maxItems"], crate::orders::validate::MAX_LINES);
        assert_eq!(schema("NewLine", "quantity")["maximum"], domain_types::MAX_QUANTITY);
        assert_eq!(schema("NewPayment", "method")["maxLength"], crate::orders::validate::MAX_METHOD);
        assert_eq!(schema("ProductDefinition", "name")["maxLength"], crate::products::validate::MAX_NAME);
        assert_eq!(schema("ProductDefinition", "category")["maxLength"], crate::products::validate::MAX_WORD);
        assert_eq!(
            schema("ProductDefinition", "initial_stock")["maximum"],
            crate::products::validate::MAX_UNITS
        );
        assert_eq!(schema("StockIncrement", "quantity")["minimum"], -crate::products::validate::MAX_UNITS);
        let parameters = document["paths"]["/v1/orders"]["get"]["parameters"].as_array().unwrap();
        let limit = parameters.iter().find(|parameter| parameter["name"] == "limit").unwrap();
        assert_eq!(limit["schema"]["maximum"], crate::http::query::MAX_LIMIT);
        assert_eq!(limit["schema"]["default"], crate::http::query::DEFAULT_LIMIT);
    }

    #[test]
    fn bodies_say_that_unknown_fields_are_errors() {
        let document = document();
        for name in bodies::CLOSED {
            assert_eq!(document["components"]["schemas"][name]["additionalProperties"], false, "{name}");
        }
    }

    #[test]
    fn every_operation_says_who_may_call_it_and_what_can_go_wrong() {
        let document = document();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let what = format!("{method} {path}");
                for field in ["operationId", "summary", "tags"] {
                    assert!(!operation[field].is_null(), "{what} has no {field}");
                }
                let responses = operation["responses"].as_object().unwrap();
                assert!(path == "/healthz" || responses.contains_key("503"), "{what}");
                let secured = !operation["security"].is_null();
                assert_eq!(secured, responses.contains_key("401"), "{what}");
                assert_eq!(
                    secured,
                    path.starts_with("/v1/orders") || path.starts_with("/v1/admin"),
                    "{what}"
                );
                for (status, response) in responses {
                    assert!(!response["headers"]["x-request-id"].is_null(), "{what} {status}");
                    assert!(!response["description"].as_str().unwrap().is_empty(), "{what} {status}");
                    if status.as_str() >= "400" {
                        let examples = &response["content"]["application/problem+json"]["examples"];
                        for (code, example) in
                            examples.as_object().unwrap_or_else(|| panic!("{what} {status}"))
                        {
                            assert_eq!(&example["value"]["code"], code, "{what}");
                            assert_eq!(example["value"]["status"].to_string(), *status, "{what}");
                        }
                    }
                }
            }
        }
    }
}
