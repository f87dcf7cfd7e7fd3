//! Which todos a client asks for.

use ring::digest::{SHA256, digest};

use super::cursor::{Cursor, ListId};
use crate::api::error::ApiError;
use crate::api::http::MAX_QUERY_LEN;
use crate::domain::clock::Timestamp;
use crate::domain::todo::due::Due;
use crate::domain::todo::filter::{Filter, Needle};
use crate::domain::todo::sort::Sort;
use crate::domain::todo::tags::{MAX_TAG_LEN, normalized};
use crate::domain::todo::{MAX_PRIORITY, MAX_TITLE_LEN};
use crate::domain::validation::{Query, ValidationError};
use crate::store::map::select::Selection;

/// Most todos of a page.
const MAX_LIMIT: i64 = 1000;
/// Parameters that say which todos a list has, and in which order.
const LIST: [&str; 8] = ["completed", "due_after", "due_before", "priority", "q", "sort", "tag", "updated_since"];
/// Those, and the ones that are the same on all its pages.
const PAGES: [&str; 10] =
    ["completed", "due_after", "due_before", "etags", "limit", "priority", "q", "sort", "tag", "updated_since"];

/// What a client asks for.
pub struct ListQuery {
    /// The list, or a page of it.
    pub selection: Selection,
    /// Whether each todo has its entity tag.
    pub with_etags: bool,
    /// What the first page said, on the others.
    pub cursor: Option<Cursor>,
    list: ListId,
    /// The query of all pages, without the cursor.
    pages: String,
    /// Short, and another one for each query that is answered with other todos; empty for all of them.
    pub tag: String,
}

impl ListQuery {
    /// Reads a query, or finds everything that is wrong with it.
    pub fn parse(encoded: &str) -> Result<Self, ApiError> {
        let mut query = Query::new(encoded);
        let (list, pages) = (list_id(&query.canonical(&LIST)), query.canonical(&PAGES));
        let cursor = query.last("cursor").and_then(|text| {
            let cursor = Cursor::decode(&text, list);
            if cursor.is_none() {
                let msg = "Value error, the cursor is not one of a list with this filter and order";
                query.refuse(ValidationError::new("value_error", &["query", "cursor"], msg, text));
            }
            cursor
        });
        let filter = filter(&mut query);
        let sort = sort(&mut query);
        let limit = query.integer("limit", 1..=MAX_LIMIT).and_then(|limit| usize::try_from(limit).ok());
        let with_etags = query.boolean("etags").unwrap_or(false);
        let tag = query.canonical(&["limit", "cursor"]);
        let tag = if tag.is_empty() && query.canonical(&LIST).is_empty() {
            String::new()
        } else {
            let hash = list_id(&format!("{} {tag}", query.canonical(&LIST)));
            format!("-{:016x}", u64::from_be_bytes(hash))
        };
        query.finish()?;
        // The query of the next page is longer, and must not be too long.
        let longest = MAX_QUERY_LEN - Cursor::MAX_LEN - "&cursor=".len();
        if limit.is_some() && pages.len() > longest {
            return Err(ApiError::QueryTooLong { limit: longest });
        }
        let after = cursor.as_ref().map(|cursor| cursor.after.clone());
        let tag = if with_etags { tag + "-etags" } else { tag };
        Ok(Self { selection: Selection { filter, sort, limit, after }, with_etags, cursor, list, pages, tag })
    }

    /// The query of the page that begins there.
    pub fn next(&self, cursor: &Cursor) -> String {
        format!("{}&cursor={}", self.pages, cursor.encode(self.list))
    }
}

fn filter(query: &mut Query) -> Filter {
    let text = query.last("q").map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let text = text.and_then(|text| query.check_text("q", text, 0, MAX_TITLE_LEN));
    let mut tags = Vec::new();
    for tag in query.all("tag") {
        tags.extend(query.check_text("tag", normalized(&tag), 1, MAX_TAG_LEN).map(Into::into));
    }
    let priorities = query.integers("priority", 0..=MAX_PRIORITY.into());
    Filter {
        text: text.as_deref().map(Needle::new),
        completed: query.boolean("completed"),
        // They are in range.
        priorities: priorities.into_iter().filter_map(|priority| u8::try_from(priority).ok()).collect(),
        tags,
        due_before: time(query, "due_before"),
        due_after: time(query, "due_after"),
        updated_since: time(query, "updated_since"),
    }
}

/// A date or a time, if it was sent.
fn time(query: &mut Query, name: &'static str) -> Option<Timestamp> {
    let text = query.last(name)?;
    // A plus sign that was not encoded, as in +01:00, is a space.
    let due = Due::parse(&text.replace(' ', "+"));
    if due.is_none() {
        let msg = format!("Input should be {}", Due::RULE);
        query.refuse(ValidationError::new("datetime_parsing", &["query", name], msg, text));
    }
    due.map(Due::time)
}

fn sort(query: &mut Query) -> Sort {
    let sent = query.all("sort");
    if sent.is_empty() {
        return Sort::default();
    }
    let text = sent.join(",");
    Sort::parse(&text).unwrap_or_else(|| {
        let error = ValidationError::not_one_of(vec!["query".into(), "sort".into()], Sort::RULE, text);
        query.refuse(error);
        Sort::default()
    })
}

/// The same for queries that have the same form.
fn list_id(canonical: &str) -> ListId {
    let mut id = ListId::default();
    let hash = digest(&SHA256, canonical.as_bytes());
    id.iter_mut().zip(hash.as_ref()).for_each(|(id, byte)| *id = *byte);
    id
}
