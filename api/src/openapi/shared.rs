//! What operations share: how callers say who they are, errors that can happen everywhere, headers of every answer.

use utoipa::Modify;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ArrayBuilder, Content, Header, ObjectBuilder, OpenApi, Ref, RefOr, Required, Response, Schema, Type,
};

use crate::openapi::bodies::CLOSED;
use crate::openapi::refusals::{PROBLEM_JSON, Refusal, of};

/// Adds the security scheme.
#[derive(Debug)]
pub(crate) struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(
                "Claims: `sub` (the customer's id, a UUID), `roles` (`customer`, `admin`), `iss`, `aud`, `exp`; a `kid` in \
                 the header. A call needs exactly the role it is for. For development: `firstcome token --customer UUID`.",
            ))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

const EVERYWHERE: [Refusal; 4] = [
    (408, "request_timeout", "the request took too long"),
    (
        429,
        "too_many_requests",
        "this customer or this address sends too many; `Retry-After` tells when to come back",
    ),
    (500, "internal", "something went wrong here, not in the request"),
    (
        503,
        "unavailable",
        "a dependency is away, or this node has too much to do; nothing was kept; `Retry-After`",
    ),
];
const SECURED: [Refusal; 2] =
    [(401, "unauthorized", "no bearer token, or a bad one"), (403, "forbidden", "the token lacks the role")];
const WITH_BODY: [Refusal; 5] = [
    (400, "invalid_json", "the body is not JSON"),
    (400, "incomplete_body", "the body ended before its time"),
    (413, "body_too_large", "a body may have 64 KiB"),
    (415, "unsupported_media_type", "send `application/json`"),
    (422, "invalid_request", "`errors` lists the fields that are wrong"),
];
const WITH_PATH: [Refusal; 1] = [(404, "not_found", "there is no such thing, or it is somebody else's")];
const WITH_QUERY: [Refusal; 2] = [
    (400, "invalid_query", "the query string is malformed"),
    (422, "invalid_request", "`errors` lists the parameters that are wrong"),
];
const WITH_KEY: [Refusal; 1] = [(422, "invalid_request", "`errors` lists the headers that are wrong")];

/// Pages and what they are of, by name: written out they would be repeated.
const PAGES: [(&str, &str); 2] = [("Page_Order", "Order"), ("Page_Product", "Product")];
/// Answers as they look.
const EXAMPLES: [(&str, &str); 2] =
    [("Order", include_str!("example-order.json")), ("Product", include_str!("example-product.json"))];

/// Adds to each operation what it shares with others, and closes what has no room for unknown fields.
pub(crate) fn complete(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    for name in CLOSED {
        if let Some(RefOr::T(Schema::Object(body))) = components.schemas.get_mut(name) {
            body.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
    }
    for (page, item) in PAGES {
        if let Some(RefOr::T(Schema::Object(page))) = components.schemas.get_mut(page) {
            let items = ArrayBuilder::new().items(RefOr::Ref(Ref::from_schema_name(item))).build();
            page.properties.insert("items".to_owned(), items.into());
        }
    }
    for (name, example) in EXAMPLES {
        if let Some(RefOr::T(Schema::Object(schema))) = components.schemas.get_mut(name) {
            schema.examples = serde_json::from_str(example).into_iter().collect();
        }
    }
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            if let Some(RefOr::T(body)) = &mut operation.request_body
                && body.content.values().any(is_nothing)
            {
                body.required = Some(Required::False);
            }
            if path.starts_with("/v1/") {
                for refusal in shared_by(operation) {
                    add(operation, &refusal);
                }
            }
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response {
                    finish(status, response);
                }
            }
        }
    }
}

/// A body that may be left out.
fn is_nothing(content: &RefOr<Content>) -> bool {
    match content {
        RefOr::T(Content { schema: Some(RefOr::Ref(schema)), .. }) => {
            schema.ref_location.ends_with("/Nothing")
        }
        RefOr::T(_) | RefOr::Ref(_) => false,
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}

fn shared_by(operation: &Operation) -> Vec<Refusal> {
    let mut refusals = EVERYWHERE.to_vec();
    if operation.security.is_some() {
        refusals.extend(SECURED);
    }
    if operation.request_body.is_some() {
        refusals.extend(WITH_BODY);
    }
    let parameters = operation.parameters.iter().flatten();
    for parameter in parameters {
        let RefOr::T(parameter) = parameter else { continue };
        match parameter.parameter_in {
            ParameterIn::Path => refusals.extend(WITH_PATH),
            ParameterIn::Query => refusals.extend(WITH_QUERY),
            ParameterIn::Header if parameter.name == "Idempotency-Key" => refusals.extend(WITH_KEY),
            _ => {}
        }
    }
    refusals
}

/// One more code of a status.
fn add(operation: &mut Operation, refusal: &Refusal) {
    for (status, new) in of(std::slice::from_ref(refusal)) {
        let there = operation.responses.responses.get_mut(&status).and_then(problem);
        match (there, new) {
            (Some(there), RefOr::T(mut new)) => {
                if let Some(RefOr::T(content)) = new.content.shift_remove(PROBLEM_JSON) {
                    there.examples.extend(content.examples);
                }
            }
            (None, new) => {
                operation.responses.responses.insert(status, new);
            }
            (Some(_), RefOr::Ref(_)) => {}
        }
    }
}

fn problem(response: &mut RefOr<Response>) -> Option<&mut Content> {
    let RefOr::T(response) = response else { return None };
    match response.content.get_mut(PROBLEM_JSON) {
        Some(RefOr::T(content)) => Some(content),
        Some(RefOr::Ref(_)) | None => None,
    }
}

/// Headers; and, of an error, its codes in words.
fn finish(status: &str, response: &mut Response) {
    let mut codes = Vec::new();
    if let Some(RefOr::T(content)) = response.content.get(PROBLEM_JSON) {
        for (code, example) in &content.examples {
            if let RefOr::T(example) = example {
                codes.push(format!("`{code}`: {}", example.summary));
            }
        }
    }
    if response.description.is_empty() {
        response.description = codes.join("\n\n");
    }
    let mut header = |name: &str, text: &str, kind: Type| {
        response.headers.insert(name.to_owned(), RefOr::T(described(text, kind)));
    };
    header("x-request-id", "The request's id: the caller's own, if it sent one.", Type::String);
    header("traceresponse", "W3C trace context of this request.", Type::String);
    match status {
        "401" => header("WWW-Authenticate", "RFC 6750.", Type::String),
        "429" | "503" => header("Retry-After", "Seconds until it is worth trying again.", Type::Integer),
        _ => {}
    }
}

fn described(text: &str, kind: Type) -> Header {
    let schema = ObjectBuilder::new().schema_type(kind).build();
    HeaderBuilder::new().description(Some(text)).schema(Some(schema)).build()
}
