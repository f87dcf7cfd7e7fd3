//! Conditional requests: `If-Match`, `If-None-Match` (RFC 9110, section 13) and `Prefer: merge` (RFC 7240).

use std::convert::Infallible;
use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::{FromRequest, HttpRequest};

use crate::domain::change::{Epoch, Revision};
use crate::domain::etag::EntityTag;
use crate::domain::todo::{TodoId, Version};
use crate::store::{Condition, Merge, Versions};

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
        self.meaning(|tag| version(tag, epoch, todo))
    }

    /// The same for a patch, which can be merged.
    pub fn on_patch(&self, epoch: Epoch, todo: TodoId) -> Condition {
        let merge = match &self.if_match {
            Some(Tags::Listed(tags)) if self.merge && tags.len() == 1 => Merge::Asked,
            Some(_) if self.merge => Merge::Impossible,
            // Without a version, there is nothing to merge with: the patch is applied to whatever there is.
            _ => Merge::No,
        };
        Condition { merge, ..self.on(epoch, todo) }
    }

    /// What they mean for all todos of a user, whose lists have tags that begin with `prefix` and the revision.
    pub fn on_list(&self, prefix: &str) -> Condition<Revision> {
        self.meaning(|tag| tag.strip_prefix(prefix)?.split('-').next()?.parse().ok().map(Revision))
    }

    /// What they mean for something that has no entity tag.
    pub fn on_untagged(&self) -> Condition {
        self.meaning(|_| None)
    }

    /// What they mean where a tag is one of these versions, or of something else.
    fn meaning<V>(&self, version: impl Fn(&str) -> Option<V>) -> Condition<V> {
        let versions = |tags: &Tags| tags.versions(&version);
        let (if_match, if_none_match) = (self.if_match.as_ref(), self.if_none_match.as_ref());
        Condition { if_match: if_match.map(versions), if_none_match: if_none_match.map(versions), merge: Merge::No }
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
    let versions = Tags::parse([text.as_bytes()]).versions(|tag| version(tag, epoch, todo));
    Condition { if_match: Some(versions), ..Condition::default() }
}

/// The version of a todo that a tag names.
fn version(tag: &str, epoch: Epoch, todo: TodoId) -> Option<Version> {
    EntityTag::parse(tag).filter(|tag| tag.epoch == epoch && tag.todo == todo).map(|tag| tag.version)
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
        let mut values = headers.get_all(name).map(|value| value.as_bytes()).peekable();
        values.peek()?;
        Some(Self::parse(values))
    }

    /// Tags are compared without regard to how strong they are: proxies that compress answers weaken `"x"` to `W/"x"`, or
    /// call it `"x-gzip"`. Ours name versions, not bytes, so all of these mean the same. Quotes may be missing.
    fn parse<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let tags: Vec<String> =
            values.into_iter().flat_map(|value| list(value, false)).filter(|tag| !tag.is_empty()).collect();
        if tags == ["*"] {
            return Self::Any;
        }
        Self::Listed(tags.into_iter().map(|tag| plain(&tag).to_owned()).collect())
    }

    fn versions<V>(&self, version: impl Fn(&str) -> Option<V>) -> Versions<V> {
        match self {
            Self::Any => Versions::Any,
            Self::Listed(tags) => Versions::Of(tags.iter().filter_map(|tag| version(tag)).collect()),
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

/// The elements of a header that is a list (RFC 9110, section 5.6.1). A comma inside quotes is none between elements;
/// bytes that are not ASCII, which may be there, are none of ours. `escapes`: whether a backslash inside quotes makes the
/// next character one like others, which is not so in entity tags.
fn list(value: &[u8], escapes: bool) -> Vec<String> {
    let (mut elements, mut in_quotes, mut is_escaped) = (vec![String::new()], false, false);
    for character in String::from_utf8_lossy(value).chars() {
        in_quotes ^= character == '"' && !is_escaped;
        is_escaped = escapes && in_quotes && character == '\\' && !is_escaped;
        match elements.last_mut() {
            Some(element) if in_quotes || character != ',' => element.push(character),
            _ => elements.push(String::new()),
        }
    }
    elements.into_iter().map(|element| element.trim().to_owned()).collect()
}

/// Whether `merge` is among the preferences (RFC 7240, section 2): its name has no case, the first one counts, an empty
/// value is none, and its parameters are not ours.
fn prefers_merge(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all("prefer").flat_map(|value| list(value.as_bytes(), true));
    let merge = preferences.into_iter().find_map(|preference| {
        let preference = preference.split(';').next().unwrap_or_default();
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        name.trim().eq_ignore_ascii_case("merge").then(|| value.trim().to_owned())
    });
    merge.is_some_and(|value| ["", "\"\""].contains(&value.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(0x1f);

    fn versions(values: &[&str]) -> Versions {
        Tags::parse(values.iter().map(|value| value.as_bytes())).versions(|tag| version(tag, EPOCH, TodoId(7)))
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
        assert_eq!(versions(&["*", ""]), Versions::Any);
    }

    #[test]
    fn commas_and_other_bytes_inside_a_tag_belong_to_it() {
        assert_eq!(versions(&[r#""a,000000000000001f-7-3,b""#]), Versions::Of(Vec::new()));
        let odd = [b"\"\xe9,x\", ".as_slice(), br#""000000000000001f-7-3""#].concat();
        assert_eq!(
            Tags::parse([odd.as_slice()]).versions(|tag| version(tag, EPOCH, TodoId(7))),
            Versions::Of(vec![Version(3)])
        );
    }

    #[test]
    fn only_the_preference_itself_asks_for_a_merge() {
        let prefers = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append(HeaderName::from_static("prefer"), header::HeaderValue::from_static(value));
            prefers_merge(&headers)
        };
        for asked in ["merge", "MERGE", "a=b, merge; x=1", "merge=", "merge=\"\"", "wait=10,merge"] {
            assert!(prefers(asked), "{asked}");
        }
        for other in [
            "",
            "merged",
            "merge=no",
            "merge=1",
            "foo=\"a, merge, b\"",
            "x; merge",
            "merge=no, merge",
            r#"foo="x\", merge, \"y""#,
        ] {
            assert!(!prefers(other), "{other}");
        }
    }
}
