//! Conditional requests: `If-Match`, `If-None-Match` (RFC 9110, section 13) and `Prefer: merge` (RFC 7240).

use std::convert::Infallible;
use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::{FromRequest, HttpRequest};
use serde_json::Value;

use crate::domain::change::Epoch;
use crate::domain::etag::EntityTag;
use crate::domain::todo::TodoId;
use crate::domain::validation::ValidationError;
use crate::store::{Condition, Versions};

/// What proxies append to a tag when they compress what it stands for.
const CODINGS: [&str; 4] = ["-gzip", "-br", "-zstd", "-deflate"];

/// The conditions of a request.
#[derive(Debug, Default)]
pub struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    merge: bool,
}

impl FromRequest for Conditions {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let headers = request.headers();
        ready(Ok(Self {
            if_match: Tags::of(headers, header::IF_MATCH),
            if_none_match: Tags::of(headers, header::IF_NONE_MATCH),
            merge: prefers_merge(headers),
        }))
    }
}

impl Conditions {
    /// What they mean for a todo.
    pub fn on(&self, epoch: Epoch, todo: TodoId) -> Condition {
        let versions = |tags: &Tags| tags.versions(epoch, todo);
        let (if_match, if_none_match) = (self.if_match.as_ref(), self.if_none_match.as_ref());
        Condition { if_match: if_match.map(versions), if_none_match: if_none_match.map(versions), merge: false }
    }

    /// The same for a patch, which can be merged; and whether that was asked for.
    pub fn on_patch(&self, epoch: Epoch, todo: TodoId) -> Result<(Condition, bool), Vec<ValidationError>> {
        let condition = self.on(epoch, todo);
        match &self.if_match {
            // Nothing to merge with: the patch is applied to whatever there is.
            None => Ok((condition, false)),
            Some(Tags::Listed(tags)) if self.merge && tags.len() == 1 => {
                Ok((Condition { merge: true, ..condition }, true))
            }
            Some(_) if self.merge => {
                let msg = "With Prefer: merge, If-Match should be the one entity tag that the client knows";
                Err(vec![ValidationError::new("value_error", &["header", "If-Match"], msg, Value::Null)])
            }
            Some(_) => Ok((condition, false)),
        }
    }

    /// Whether `If-Match` allows what has this tag, without its quotes.
    pub fn matches(&self, tag: &str) -> bool {
        self.if_match.as_ref().is_none_or(|tags| tags.include(tag))
    }

    /// Whether `If-None-Match` allows what has this tag, without its quotes.
    pub fn is_new(&self, tag: &str) -> bool {
        !self.if_none_match.as_ref().is_some_and(|tags| tags.include(tag))
    }
}

/// Which version of a todo a client knows, as it says in a body: like `If-Match`.
pub fn parse_if_match(text: &str, epoch: Epoch, todo: TodoId) -> Condition {
    Condition { if_match: Some(Tags::parse([text]).versions(epoch, todo)), ..Condition::default() }
}

/// A tag as it is sent in a header.
pub fn quoted(tag: &EntityTag) -> String {
    format!("\"{tag}\"")
}

/// The value of `If-Match` or `If-None-Match`.
#[derive(Debug, PartialEq)]
enum Tags {
    /// `*`.
    Any,
    /// These, without quotes.
    Listed(Vec<String>),
}

impl Tags {
    fn of(headers: &HeaderMap, name: HeaderName) -> Option<Self> {
        // A field that can't be read names nothing that we have.
        let mut values = headers.get_all(name).map(|value| value.to_str().unwrap_or_default()).peekable();
        values.peek()?;
        Some(Self::parse(values))
    }

    /// Tags are compared without regard to how strong they are: proxies that compress answers weaken `"x"` to `W/"x"`, or
    /// call it `"x-gzip"`. Ours name versions, not bytes, so all of these mean the same. Quotes may be missing.
    fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let tags: Vec<&str> = values.into_iter().flat_map(|value| value.split(',')).map(str::trim).collect();
        if tags == ["*"] {
            return Self::Any;
        }
        Self::Listed(tags.into_iter().filter(|tag| !tag.is_empty()).map(|tag| plain(tag).to_owned()).collect())
    }

    fn versions(&self, epoch: Epoch, todo: TodoId) -> Versions {
        match self {
            Self::Any => Versions::Any,
            Self::Listed(tags) => {
                let tags = tags.iter().filter_map(|tag| EntityTag::parse(tag));
                Versions::Of(tags.filter(|tag| tag.epoch == epoch && tag.todo == todo).map(|tag| tag.version).collect())
            }
        }
    }

    fn include(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => tags.iter().any(|listed| listed == tag),
        }
    }
}

/// The tag inside what was sent. None of ours has a comma or ends like a coding.
fn plain(tag: &str) -> &str {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
    CODINGS.into_iter().find_map(|coding| tag.strip_suffix(coding)).unwrap_or(tag)
}

/// Whether `merge` is among the preferences (RFC 7240, section 2): names have no case, and parameters are not ours.
fn prefers_merge(headers: &HeaderMap) -> bool {
    let values = headers.get_all("prefer").filter_map(|value| value.to_str().ok());
    let mut names =
        values.flat_map(|value| value.split(',')).map(|item| item.split([';', '=']).next().unwrap_or_default());
    names.any(|name| name.trim().eq_ignore_ascii_case("merge"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::todo::Version;

    const EPOCH: Epoch = Epoch(0x1f);

    fn versions(values: &[&str]) -> Versions {
        Tags::parse(values.iter().copied()).versions(EPOCH, TodoId(7))
    }

    #[test]
    fn whatever_a_proxy_made_of_a_tag_it_means_its_version() {
        for sent in [
            r#""000000000000001f-7-3""#,
            r#"W/"000000000000001f-7-3""#,
            r#""000000000000001f-7-3-gzip""#,
            r#"W/"000000000000001f-7-3-br""#,
            r#""000000000000001f-7-3-zstd""#,
            "000000000000001f-7-3",
            r#" "000000000000001f-7-3" , "#,
        ] {
            assert_eq!(versions(&[sent]), Versions::Of(vec![Version(3)]), "{sent}");
        }
    }

    #[test]
    fn tags_of_something_else_and_nonsense_match_nothing() {
        for sent in [
            "",
            "\"\"",
            ",",
            r#""000000000000001e-7-3""#,
            r#""000000000000001f-8-3""#,
            r#""000000000000001f-7""#,
            r#""000000000000001f-7-3-gzip-br""#,
            "*, *",
            "\"*\"",
            "3",
        ] {
            assert_eq!(versions(&[sent]), Versions::Of(Vec::new()), "{sent}");
        }
    }

    #[test]
    fn a_list_can_be_on_several_lines_and_a_star_stands_alone() {
        let both = versions(&[r#""x", "000000000000001f-7-3""#, r#"W/"000000000000001f-7-5""#]);
        assert_eq!(both, Versions::Of(vec![Version(3), Version(5)]));
        assert_eq!(versions(&[" * "]), Versions::Any);
    }
}
