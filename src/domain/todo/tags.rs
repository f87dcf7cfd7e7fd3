//! A todo's tags.

use icu_normalizer::ComposingNormalizerBorrowed;
use serde::Serialize;

/// Most tags of a todo.
pub const MAX_TAGS: usize = 20;
/// Longest tag, in characters.
pub const MAX_TAG_LEN: usize = 50;

/// The tags of a todo, in the order in which they were given: each once, without white space around it, in Unicode's
/// normalization form C, so that what looks the same is the same. Case matters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Tags(Box<[Box<str>]>);

/// A todo would have more than [`MAX_TAGS`].
#[derive(Debug, PartialEq, Eq)]
pub struct TooManyTags;

/// What a change does to a todo's tags.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TagsChange {
    /// It has these and no others.
    Replace(Tags),
    /// It loses some, then gets others, unless it has them.
    #[serde(skip)]
    Edit {
        /// Those that it gets.
        add: Tags,
        /// Those that it loses.
        remove: Tags,
    },
}

impl Tags {
    /// The tags of these texts, which [`normalized`] gave.
    pub fn new(tags: impl IntoIterator<Item = Box<str>>) -> Self {
        let mut unique: Vec<Box<str>> = Vec::new();
        for tag in tags {
            if !unique.contains(&tag) {
                unique.push(tag);
            }
        }
        Self(unique.into())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// These tags after a change.
    pub fn changed(&self, change: TagsChange) -> Result<Self, TooManyTags> {
        let tags = match change {
            TagsChange::Replace(tags) => tags,
            TagsChange::Edit { add, remove } => {
                let kept = self.0.iter().filter(|tag| !remove.0.contains(tag)).cloned();
                Self::new(kept.chain(add.0))
            }
        };
        if tags.0.len() > MAX_TAGS { Err(TooManyTags) } else { Ok(tags) }
    }
}

/// A tag as it is kept.
pub fn normalized(tag: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc().normalize(tag.trim()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(tags: &[&str]) -> Tags {
        Tags::new(tags.iter().map(|tag| normalized(tag).into()))
    }

    #[test]
    fn what_looks_the_same_is_one_tag() {
        let same = tags(&["café", "cafe\u{301}", "  café\u{3000}", "Café"]);
        assert_eq!(same.iter().collect::<Vec<_>>(), ["café", "Café"]);
        assert_eq!(normalized(" \t\u{a0}"), "");
    }

    #[test]
    fn tags_are_removed_before_others_are_added() {
        let before = tags(&["a", "b", "c"]);
        let edit = TagsChange::Edit { add: tags(&["d", "a", "b"]), remove: tags(&["b", "x"]) };
        assert_eq!(before.changed(edit).unwrap(), tags(&["a", "c", "d", "b"]));
        let replace = TagsChange::Replace(tags(&["z"]));
        assert_eq!(before.changed(replace).unwrap(), tags(&["z"]));
    }

    #[test]
    fn there_can_be_too_many() {
        let twenty: Vec<String> = (0..MAX_TAGS).map(|n| n.to_string()).collect();
        let twenty = tags(&twenty.iter().map(String::as_str).collect::<Vec<_>>());
        let add = |more: &[&str]| twenty.changed(TagsChange::Edit { add: tags(more), remove: Tags::default() });
        assert_eq!(add(&["7"]), Ok(twenty.clone()));
        assert_eq!(add(&["x"]), Err(TooManyTags));
    }
}
