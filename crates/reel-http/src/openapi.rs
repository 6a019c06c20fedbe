//! The OpenAPI 3.1 document of an HTTP edge, generated from its handlers and completed with what
//! all edges have in common.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::http::StatusCode;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, HeaderBuilder, OpenApi, Ref, RefOr, Required, Response,
    ResponseBuilder, Schema,
};
use utoipa::{IntoParams, IntoResponses, PartialSchema, ToSchema};

use super::extract::MAX_KEY_BYTES;
use super::{IdempotencyKey, Problem};

const TOKEN: &str = "token";
const PROBLEM_TYPE: &str = "application/problem+json";

/// Completes the document of a service: its title, the tokens, and the errors that occur before any
/// handler or in every command.
pub fn complete(mut api: OpenApi, service: &str) -> OpenApi {
    api.info.title = format!("The {service} service");
    api.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let description = "Errors are problems (RFC 9457). Commands may be sent again under the same \
                       Idempotency-Key.";
    api.info.description = Some(description.into());
    api.info.license = None;

    let components = api.components.get_or_insert_with(Components::new);
    components.schemas.insert(Problem::name().into_owned(), Problem::schema());
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
    components.add_security_scheme(TOKEN, SecurityScheme::Http(bearer.build()));
    api.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>(TOKEN, [])]);

    for PathItem { get, post, .. } in api.paths.paths.values_mut() {
        for operation in [get.as_mut(), post.as_mut()].into_iter().flatten() {
            add(operation, StatusCode::UNAUTHORIZED, "The token is missing or not valid.");
            add(
                operation,
                StatusCode::TOO_MANY_REQUESTS,
                "The caller has too many requests in progress: try again after `Retry-After` seconds.",
            );
            if operation.parameters.is_some() || operation.request_body.is_some() {
                add(
                    operation,
                    StatusCode::BAD_REQUEST,
                    "The request is not valid; `field` names what is wrong.",
                );
            }

            if operation.request_body.is_some() {
                add(
                    operation,
                    StatusCode::REQUEST_TIMEOUT,
                    "The body did not arrive in time; nothing was done.",
                );
                add(
                    operation,
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "The body, or the event that would follow from it, is too large.",
                );
                add(
                    operation,
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "The body is not sent as application/json.",
                );
            }
        }

        if let Some(command) = post {
            add(
                command,
                StatusCode::INTERNAL_SERVER_ERROR,
                "An internal error. The request may be sent again; nothing is done twice.",
            );
            add(
                command,
                StatusCode::SERVICE_UNAVAILABLE,
                "The service takes no commands now: try again after `Retry-After` seconds.",
            );
        }

        [get.as_mut(), post.as_mut()].into_iter().flatten().for_each(add_headers);
    }

    api
}

/// Documents a status, unless the handler documents it.
fn add(operation: &mut Operation, status: StatusCode, description: &str) {
    let response = || RefOr::T(response(description));
    operation.responses.responses.entry(status.as_str().to_owned()).or_insert_with(response);
}

fn response(description: &str) -> Response {
    let problem = Ref::from_schema_name(Problem::name());
    ResponseBuilder::new()
        .description(description)
        .content(PROBLEM_TYPE, ContentBuilder::new().schema(Some(problem)).build())
        .build()
}

/// Documents the headers that come with a status.
fn add_headers(operation: &mut Operation) {
    for (status, name, description) in [
        (
            StatusCode::UNAUTHORIZED,
            "WWW-Authenticate",
            "`Bearer`, and `invalid_token` if a token was sent (RFC 6750).",
        ),
        (
            StatusCode::FORBIDDEN,
            "WWW-Authenticate",
            "`Bearer`, and the scope that a token would need (RFC 6750).",
        ),
        (StatusCode::TOO_MANY_REQUESTS, "Retry-After", "Seconds after which to try again."),
        (StatusCode::SERVICE_UNAVAILABLE, "Retry-After", "Seconds after which to try again."),
    ] {
        if let Some(RefOr::T(response)) = operation.responses.responses.get_mut(status.as_str()) {
            let header = HeaderBuilder::new().description(Some(description)).build();
            response.headers.insert(name.to_owned(), header.into());
        }
    }
}

/// The response to a command whose `Idempotency-Key` was used for another request, for
/// `responses(…)` of `utoipa::path`.
#[derive(Debug)]
pub enum KeyReused {}

/// The response to a query if the database is unreachable, for `responses(…)` of `utoipa::path`.
/// Commands have it in any case.
#[derive(Debug)]
pub enum NoAnswer {}

impl IntoResponses for KeyReused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(
            StatusCode::UNPROCESSABLE_ENTITY,
            "The Idempotency-Key was used for another request.",
        )
    }
}

impl IntoResponses for NoAnswer {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(StatusCode::SERVICE_UNAVAILABLE, "The database does not answer.")
    }
}

fn responses(status: StatusCode, description: &str) -> BTreeMap<String, RefOr<Response>> {
    BTreeMap::from([(status.as_str().to_owned(), RefOr::T(response(description)))])
}

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .min_length(Some(1))
            .max_length(Some(MAX_KEY_BYTES))
            .pattern(Some(r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$"));
        let parameter = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::True)
            .description(Some(
                "A text of your choice, the same for every retry of this request. `\"k\"` and `k` \
                 are the same.",
            ))
            .schema(Some(text))
            .example(Some("7f3c".into()));
        vec![parameter.build()]
    }
}

impl ToSchema for Problem {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Problem")
    }
}

impl PartialSchema for Problem {
    fn schema() -> RefOr<Schema> {
        let text = |description: &str, example: &str| {
            ObjectBuilder::new()
                .schema_type(SchemaType::Type(Type::String))
                .description(Some(description))
                .examples([example])
                .build()
        };
        let status = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Integer))
            .description(Some("The HTTP status."))
            .examples([400]);

        let problem = ObjectBuilder::new()
            .description(Some("An error (RFC 9457)."))
            .property("type", text("The kind of problem; stable.", "/problems/invalid-request"))
            .property("title", text("A summary, for people.", "The request is not valid"))
            .property("status", status.build())
            .property(
                "detail",
                text(
                    "What is wrong, and what would be right.",
                    "a quantity is 1 to 1000000, not 0",
                ),
            )
            .property(
                "field",
                text("The field of the request that is wrong, if it is one.", "lines[0].quantity"),
            );

        let required = ["type", "title", "status", "detail"];
        RefOr::T(required.into_iter().fold(problem, ObjectBuilder::required).build().into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use utoipa_axum::router::OpenApiRouter;
    use utoipa_axum::routes;

    use super::*;

    #[derive(ToSchema)]
    #[allow(dead_code, reason = "its fields are read by the derived schema alone")]
    struct Thing {
        name: String,
    }

    #[utoipa::path(get, path = "/things", responses((status = 200, body = [Thing])))]
    async fn list() {}

    #[utoipa::path(
        post,
        path = "/things",
        request_body = Thing,
        responses((status = 201, body = Thing), (status = 413, description = "own"))
    )]
    async fn make() {}

    fn statuses(document: &Value, method: &str) -> Vec<String> {
        document["paths"]["/things"][method]["responses"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(status, _)| status.clone())
            .collect()
    }

    #[test]
    fn what_all_edges_have_in_common_is_added_to_what_handlers_document() {
        let (_, api): (axum::Router, _) =
            OpenApiRouter::new().routes(routes!(list, make)).split_for_parts();
        let document = serde_json::to_value(complete(api, "thing")).expect("it is JSON");

        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(statuses(&document, "get"), ["200", "401", "429"]);
        assert_eq!(
            statuses(&document, "post"),
            ["201", "400", "401", "408", "413", "415", "429", "500", "503"]
        );
        assert_eq!(document["paths"]["/things"]["post"]["responses"]["413"]["description"], "own");

        let headers = |status: &str| {
            document["paths"]["/things"]["post"]["responses"][status]["headers"].clone()
        };
        assert!(
            headers("401")["WWW-Authenticate"].is_object()
                && headers("503")["Retry-After"].is_object()
                && headers("413").is_null()
        );
        assert_eq!(document["security"], json!([{"token": []}]));
        assert!(document["components"]["schemas"]["Problem"]["properties"]["field"].is_object());
    }
}
