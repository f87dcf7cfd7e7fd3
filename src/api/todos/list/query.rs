//! Which todos a client asks for.

use super::cursor::{Cursor, short_hash};
use crate::api::error::ApiError;
use crate::api::http::MAX_QUERY_LEN;
use crate::domain::clock::Timestamp;
use crate::domain::todo::MAX_PRIORITY;
use crate::domain::todo::due::Due;
use crate::domain::todo::filter::{Filter, Needle};
use crate::domain::todo::sort::Sort;
use crate::domain::todo::tags::{MAX_TAG_LEN, MAX_TAGS, Tags, normalized};
use crate::domain::validation::{Query, ValidationError, location};
use crate::store::map::select::Selection;

/// Most todos of a page.
const MAX_LIMIT: i64 = 1000;
/// Longest text that is searched for, in characters.
const MAX_TEXT_LEN: usize = 200;
/// Most values of `priority`: each that there is.
const MAX_PRIORITIES: usize = MAX_PRIORITY as usize + 1;
/// Parameters that say which todos a list has, and in which order.
const LIST: [&str; 8] = ["completed", "due_after", "due_before", "priority", "q", "sort", "tag", "updated_since"];
/// Parameters that all pages of a list have in common besides those.
const SHAPE: [&str; 2] = ["etags", "limit"];

/// What a client asks for.
pub struct ListQuery {
    /// The list, or a page of it.
    pub selection: Selection,
    /// Whether each todo has its entity tag.
    pub with_etags: bool,
    /// What the first page said, on the others.
    pub cursor: Option<Cursor>,
    /// What the list's entity tag ends with, so that each query has one of its own.
    pub etag_suffix: String,
    /// What all pages of a list ask for, encoded, but for their shape.
    list: String,
    /// The query of the next page, without its cursor.
    next: String,
}

impl ListQuery {
    /// Reads a query, or finds everything that is wrong with it.
    pub fn parse(encoded: &str) -> Result<Self, ApiError> {
        let mut query = Query::new(encoded);
        let (list, next) = (query.canonical(&LIST), query.canonical(&[&LIST[..], &SHAPE].concat()));
        let cursor = cursor(&mut query, &list);
        let filter = filter(&mut query);
        let sort = sort(&mut query);
        let limit = query.integer("limit", 1..=MAX_LIMIT).and_then(|limit| usize::try_from(limit).ok());
        let with_etags = query.boolean("etags").unwrap_or(false);
        let etag_suffix = etag_suffix(&list, &query.canonical(&["cursor", "limit"]), with_etags);
        query.finish()?;
        // The query of the next page is longer, and must not be too long.
        let longest = MAX_QUERY_LEN - Cursor::MAX_LEN - "&cursor=".len();
        if limit.is_some() && next.len() > longest {
            return Err(ApiError::QueryTooLong { limit: longest });
        }
        let after = cursor.as_ref().map(|cursor| cursor.after.clone());
        Ok(Self { selection: Selection { filter, sort, limit, after }, with_etags, cursor, etag_suffix, list, next })
    }

    /// The query of the page that begins there.
    pub fn next(&self, cursor: &Cursor) -> String {
        format!("{}&cursor={}", self.next, cursor.encode(&self.list))
    }
}

fn etag_suffix(list: &str, page: &str, with_etags: bool) -> String {
    let etags = if with_etags { "-etags" } else { "" };
    if list.is_empty() && page.is_empty() {
        return etags.to_owned();
    }
    format!("-{:016x}{etags}", u64::from_be_bytes(short_hash(list, page.as_bytes())))
}

fn cursor(query: &mut Query, list: &str) -> Option<Cursor> {
    let text = query.last("cursor")?;
    let cursor = Cursor::decode(&text, list);
    if cursor.is_none() {
        let msg =
            "Value error, this is no cursor of a list with these parameters: leave it out to begin with the first page";
        query.refuse(ValidationError::new("value_error", &["query", "cursor"], msg, text));
    }
    cursor
}

fn filter(query: &mut Query) -> Filter {
    let text = query.last("q").map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let text = text.and_then(|text| query.check_text(location(&["query", "q"]), text, 0, MAX_TEXT_LEN));
    let tag = |query: &mut Query, loc, tag: String| query.check_text(loc, normalized(&tag), 1, MAX_TAG_LEN);
    let tags = query.array("tag", MAX_TAGS, tag);
    let priority = |query: &mut Query, loc, text| query.parse_integer(loc, text, 0..=MAX_PRIORITY.into());
    let priorities = query.array("priority", MAX_PRIORITIES, priority);
    Filter {
        text: text.as_deref().map(Needle::new),
        completed: query.boolean("completed"),
        // They are in range.
        priorities: priorities.into_iter().filter_map(|priority| u8::try_from(priority).ok()).collect(),
        tags: Tags::new(tags.into_iter().map(Into::into)),
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
        query.refuse(Due::error(location(&["query", name]), text));
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
        query.refuse(ValidationError::not_one_of(location(&["query", "sort"]), Sort::RULE, text));
        Sort::default()
    })
}
