//! The parameters of `GET /todos` as the document shows them.

// They are parsed one by one.
#![allow(dead_code, reason = "for the document")]

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::domain::todo::MAX_PRIORITY;
use crate::domain::todo::schema::date_or_time;

/// Which todos are asked for.
// Without examples: Swagger UI would send them.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// Only todos that are done, or only those that are not.
    #[param(required = false)]
    completed: bool,
    /// Only todos with this text in their title or description. Case, width and how accents were typed make no difference
    /// (Unicode's NFKC and default case folding); accents do. White space around it does not count. Up to 200 characters.
    #[param(required = false, max_length = 200)]
    q: String,
    /// Only todos with this priority; of several (`priority=3&priority=4`), with one of them.
    #[param(required = false, inline, max_items = 5, style = Form, explode)]
    priority: Vec<Priority>,
    /// Only todos with this tag; case matters. Of several (`tag=a&tag=b`), with all of them; at most 20.
    #[param(required = false, inline, max_items = 20, style = Form, explode)]
    tag: Vec<Tag>,
    /// Only todos that are due before this date (`2025-02-01`) or time (`2025-02-01T08:00:00Z`). A date counts as its 00:00 in UTC.
    #[param(required = false, inline)]
    due_before: DateOrTime,
    /// Only todos that are due at this date or time, or later.
    #[param(required = false, inline)]
    due_after: DateOrTime,
    /// Only todos that have changed at this date or time, or later.
    #[param(required = false, inline)]
    updated_since: DateOrTime,
    /// By what the list is sorted, such as `-priority,due_at`: `id`, `title`, `completed`, `created_at`, `updated_at`, `due_at`, `priority`, `order`; several are
    /// separated by commas. `-` before a name sorts in descending order. Todos without the field are last in both; those that
    /// are equal are sorted by id.
    #[param(
        required = false,
        pattern = r"^-?(id|title|completed|created_at|updated_at|due_at|priority|order)(,-?(id|title|completed|created_at|updated_at|due_at|priority|order))*$"
    )]
    sort: String,
    /// Todos of a page, at most: 1 to 1000. Without it, the answer has all of them.
    #[param(required = false, minimum = 1, maximum = 1000)]
    limit: i64,
    /// Where the page begins: from the `Link` of the page before, with the same parameters.
    #[param(required = false)]
    cursor: String,
    /// Whether each todo has its entity tag, as `etag`.
    #[param(required = false)]
    etags: bool,
}

struct Priority;

// Swagger UI complains about integers of a format in an array.
impl PartialSchema for Priority {
    fn schema() -> RefOr<Schema> {
        let integer = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(MAX_PRIORITY));
        RefOr::T(integer.build().into())
    }
}

impl ToSchema for Priority {}

#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 50, pattern = r"\S")]
struct Tag(String);

struct DateOrTime;

impl PartialSchema for DateOrTime {
    fn schema() -> RefOr<Schema> {
        RefOr::T(date_or_time().build().into())
    }
}

impl ToSchema for DateOrTime {}
