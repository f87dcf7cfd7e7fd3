//! The OpenAPI 3.1 document, assembled from the handlers' annotations.

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{
    Flow, HttpAuthScheme, HttpBuilder, OAuth2, Password, Scopes, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::server::ServerBuilder;
use utoipa::openapi::{Content, ObjectBuilder, RefOr, Required, Schema, Type};
use utoipa::{IntoResponses, Modify, OpenApi};

use crate::api::health::VERSION;
use crate::api::responses::{
    BatchErrors, ErrorBody, ImportErrorBody, Limited, OperationError, OperationPreconditionFailed,
    PreconditionFailedBody, QueryTooLong, SyncGapBody, TooSlow, UndoConflictBody, ValidationErrors,
};

/// What the document says about the service as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Todo Backend API",
        description = "Todos whose every change is durable before it is answered, and published to Kafka through Dapr.\n\n\
            Log in with `POST /auth/login` or `POST /auth/token`, and send the token as `Authorization: Bearer TOKEN`. \
            Todos belong to the user who created them. HEAD works where GET does. Times are RFC 3339 in UTC with \
            milliseconds. Unknown fields are ignored.\n\n\
            The events that changes cause are described in `docs/events.md`; the routes that the Dapr sidecar calls \
            are not part of this document.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
        contact(name = "todo-backend"),
    ),
    external_docs(
        url = "https://docs.dapr.io/developing-applications/building-blocks/pubsub/",
        description = "How Dapr delivers events."
    ),
    // Relative to the document's own address (OpenAPI 3.1, section 4.8.5): a proxy may serve all of it under a prefix.
    servers(
        (url = ".", description = "This service."),
        (url = "./v1", description = "The same, under a version prefix."),
    ),
    tags(
        (name = "auth", description = "Logging in, and one's own account."),
        (name = "todos", description = "The todos of the user who is logged in."),
        (name = "trash", description = "What the user has deleted, and can restore."),
        (name = "changes", description = "What has changed, what changes now, and its undoing."),
        (name = "admin", description = "For operators: requires the role admin."),
        (name = "health", description = "Whether the service works. Served at the root only."),
    ),
    paths(
        crate::api::health::root,
        crate::api::health::health,
        crate::api::health::live,
        crate::api::health::ready,
        crate::api::auth::login::login,
        crate::api::auth::login::token,
        crate::api::auth::sessions::revoke,
        crate::api::auth::sessions::log_out,
        crate::api::auth::sessions::list,
        crate::api::auth::sessions::end,
        crate::api::auth::personal_tokens::list,
        crate::api::auth::personal_tokens::create,
        crate::api::auth::personal_tokens::revoke,
        crate::api::auth::account::register,
        crate::api::auth::account::me,
        crate::api::auth::account::delete,
        crate::api::auth::account::change_password,
        crate::api::todos::list::list,
        crate::api::todos::create,
        crate::api::todos::read,
        crate::api::todos::update,
        crate::api::todos::patch,
        crate::api::todos::delete,
        crate::api::todos::bulk::delete,
        crate::api::todos::batch::apply,
        crate::api::sync::changes::list,
        crate::api::sync::live::follow,
        crate::api::sync::history::list,
        crate::api::todos::undo::undo,
        crate::api::todos::transfer::export::export,
        crate::api::todos::transfer::import::import,
        crate::api::todos::trash::restore,
        crate::api::todos::trash::list,
        crate::api::todos::trash::empty,
        crate::api::todos::trash::purge,
        crate::api::admin::events::parked,
        crate::api::admin::events::retry,
        crate::api::admin::events::skip,
        crate::api::admin::events::republish,
        crate::api::admin::users::list,
        crate::api::admin::users::create,
        crate::api::admin::users::read,
        crate::api::admin::users::update,
        crate::api::admin::users::delete,
    ),
    // The answers in `responses` refer to these: utoipa collects only schemas that paths name themselves.
    components(schemas(
        ErrorBody,
        ImportErrorBody,
        ValidationErrors,
        BatchErrors,
        OperationError,
        OperationPreconditionFailed,
        PreconditionFailedBody,
        SyncGapBody,
        UndoConflictBody
    )),
    modifiers(&WholeDocument)
)]
struct Document;

/// What all operations have in common.
struct WholeDocument;

impl Modify for WholeDocument {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        document.info.version = VERSION.to_owned();
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
            "An access token (`POST /auth/login`, `POST /auth/token`) or, for todos, a personal access token \
                 (`POST /auth/tokens`).",
        ));
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
        let password = Flow::Password(Password::new("auth/token", Scopes::new()));
        components.add_security_scheme(
            "password",
            SecurityScheme::OAuth2(OAuth2::with_description([password], "Username and password.")),
        );
        for (path, item) in &mut document.paths.paths {
            let reading = item.get.iter_mut().map(|operation| (operation, true));
            let changing = [&mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
            let changing = changing.into_iter().flatten().map(|operation| (operation, false));
            for (operation, is_safe) in reading.chain(changing) {
                if path == "/" || path.starts_with("/health") {
                    operation.servers = Some(vec![ServerBuilder::new().url(".").build()]);
                }
                // Name and password may be in the query: utoipa has no attribute for a body that can be left out.
                if path == "/auth/login"
                    && let Some(RefOr::T(body)) = &mut operation.request_body
                {
                    body.required = Some(Required::False);
                }
                // utoipa writes "no security" as `[{}]`, which some code generators misread; they all understand `[]`.
                if operation.security.as_deref() == Some(&[SecurityRequirement::default()]) {
                    operation.security = Some(Vec::new());
                }
                if !path.starts_with("/health") {
                    add_missing::<Limited>(operation);
                }
                if operation.request_body.is_some() {
                    add_missing::<TooSlow>(operation);
                }
                if operation.parameters.iter().flatten().any(is_query) {
                    add_missing::<QueryTooLong>(operation);
                }
                add_request_id(operation);
                if operation.tags.iter().flatten().any(|tag| ["todos", "trash", "changes"].contains(&tag.as_str())) {
                    add_conditions(operation, is_safe);
                }
            }
        }
        // A list has it where that is asked for.
        if let Some(RefOr::T(Schema::Object(todo))) =
            document.components.get_or_insert_default().schemas.get_mut("Todo")
        {
            let about = "Its entity tag: in the trash, and in lists with `etags=true`.";
            let etag = ObjectBuilder::new().schema_type(Type::String).description(Some(about)).build();
            todo.properties.insert("etag".to_owned(), etag.into());
        }
    }
}

/// Adds the headers by which requests about todos can be made safe, and those of their answers.
fn add_conditions(operation: &mut Operation, is_safe: bool) {
    let answers_412 = operation.responses.responses.contains_key("412");
    let is_batch = operation.operation_id.as_deref() == Some("applyBatch");
    let parameters = operation.parameters.get_or_insert_default();
    let mut add = |name: &str, about: &str, schema: ObjectBuilder| {
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header);
        let parameter = parameter.required(Required::False).description(Some(about)).schema(Some(schema.build()));
        parameters.push(RefOr::T(parameter.build()));
    };
    let text = || ObjectBuilder::new().schema_type(Type::String);
    if answers_412 && !is_batch {
        add("If-Match", "Entity tags, or `*`: the request is refused unless one of them is the present one.", text());
        let about = "Entity tags, or `*`: the request is refused if one of them is the present one.";
        add(
            "If-None-Match",
            if is_safe { "Entity tags: nothing is sent if one of them is the present one." } else { about },
            text(),
        );
    }
    if !is_safe {
        let about = "The client's name for this request, such as a UUID. If it is sent again within 24 hours, it is not \
            applied again, but answered as the first time.";
        // With or without quotation marks.
        let key = text().pattern(Some(r#"^("[ !#-\[\]-~]{1,255}"|[!#-~]([ -~]{0,253}[!-~])?)$"#));
        add("Idempotency-Key", about, key);
    }
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if !status.starts_with('2') {
            continue;
        }
        let is_todo = |content: &RefOr<Content>| match content {
            RefOr::T(Content { schema: Some(RefOr::Ref(schema)), .. }) => schema.ref_location.ends_with("/Todo"),
            _ => false,
        };
        let has_todo = response.content.values().any(is_todo);
        let mut add = |name: &str, about: &str| {
            let header = HeaderBuilder::new().schema(Some(text().build())).description(Some(about)).build();
            response.headers.entry(name.to_owned()).or_insert(header.into());
        };
        if has_todo {
            add("ETag", "The entity tag of the todo as it is answered.");
        }
        if !is_safe {
            add("Sync-Token", "How far the user's changes have come; opaque.");
            add(
                "Change-Revision",
                "The number of the change, or of the last of several, with which they can be undone.",
            );
            add("Idempotent-Replayed", "`true`: the request was applied before, and this is what was answered then.");
        }
    }
}

fn is_query(parameter: &RefOr<Parameter>) -> bool {
    matches!(parameter, RefOr::T(Parameter { parameter_in: ParameterIn::Query, .. }))
}

/// Adds an answer that many operations have, unless this one says more about that status.
fn add_missing<R: IntoResponses>(operation: &mut Operation) {
    for (status, response) in R::responses() {
        operation.responses.responses.entry(status).or_insert(response);
    }
}

/// Every answer carries `X-Request-Id`.
fn add_request_id(operation: &mut Operation) {
    let text = ObjectBuilder::new().schema_type(Type::String).build();
    let header = HeaderBuilder::new()
        .schema(Some(text))
        .description(Some("The request's `X-Request-Id`, or a new one; it is in the service's log."))
        .build();
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            response.headers.insert("X-Request-Id".to_owned(), RefOr::T(header.clone()));
        }
    }
}

/// The document as indented JSON.
pub fn json() -> serde_json::Result<String> {
    serde_json::to_string_pretty(&Document::openapi())
}
