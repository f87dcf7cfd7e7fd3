//! Takes all of a user's todos out, and many in.

pub mod export;
pub mod import;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// JSON values, each on a line (<https://github.com/ndjson/ndjson-spec>).
const NDJSON: &str = "application/x-ndjson";

/// The same in the document: what generated clients take from a file and write to one.
pub struct Ndjson;

impl PartialSchema for Ndjson {
    fn schema() -> RefOr<Schema> {
        let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
        RefOr::T(ObjectBuilder::new().schema_type(Type::String).format(Some(binary)).build().into())
    }
}

impl ToSchema for Ndjson {}
