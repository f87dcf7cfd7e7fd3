//! The fields of a todo that clients can set, and the versions that set them.

use serde::Serialize;

use super::Version;

/// A field of a todo that a client can set.
// The numbers are indexes into `todos.field_versions` in the database: only append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// [`super::Todo::title`].
    Title = 0,
    /// [`super::Todo::description`].
    Description = 1,
    /// [`super::Todo::completed`].
    Completed = 2,
    /// [`super::Todo::due_at`].
    DueAt = 3,
    /// [`super::Todo::priority`].
    Priority = 4,
    /// [`super::Todo::tags`].
    Tags = 5,
    /// [`super::Todo::order`].
    Order = 6,
}

impl Field {
    /// All fields, each at the index that is its number, in the order in which events list them.
    pub const ALL: [Self; 7] =
        [Self::Title, Self::Description, Self::Completed, Self::DueAt, Self::Priority, Self::Tags, Self::Order];

    /// The field's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::Description => "description",
            Self::Completed => "completed",
            Self::DueAt => "due_at",
            Self::Priority => "priority",
            Self::Tags => "tags",
            Self::Order => "order",
        }
    }
}

/// The version of a todo that last changed each field. Compact for those whose fields never changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldVersions(Option<Box<[Version; Field::ALL.len()]>>);

impl FieldVersions {
    /// The version that last changed this field.
    pub fn get(&self, field: Field) -> Version {
        self.0.as_ref().map_or(Version::FIRST, |versions| versions[field as usize])
    }

    /// Records that a version changed these fields.
    pub fn set(&mut self, fields: &[Field], version: Version) {
        if !fields.is_empty() {
            let versions = self.0.get_or_insert_with(|| Box::new([Version::FIRST; Field::ALL.len()]));
            fields.iter().for_each(|&field| versions[field as usize] = version);
        }
    }

    /// The versions in the order of [`Field::ALL`], separated by commas; `None`: all are the first.
    pub fn to_text(&self) -> Option<String> {
        Some(self.0.as_ref()?.map(|version| version.to_string()).join(","))
    }

    /// Reads what [`FieldVersions::to_text`] wrote; fields that are missing at its end never changed.
    pub fn parse(text: &str) -> Option<Self> {
        let mut versions = [Version::FIRST; Field::ALL.len()];
        for (index, version) in text.split(',').enumerate() {
            *versions.get_mut(index)? = Version(version.parse().ok()?);
        }
        Some(Self(Some(Box::new(versions))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_fields_are_their_indexes() {
        for (index, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, index);
        }
    }

    #[test]
    fn versions_are_read_as_they_were_written() {
        let mut versions = FieldVersions::default();
        versions.set(&[], Version(9));
        assert_eq!((versions.to_text(), versions.get(Field::Tags)), (None, Version::FIRST));
        versions.set(&[Field::Title, Field::Order], Version(12));
        versions.set(&[Field::Order], Version(13));
        let text = versions.to_text().unwrap();
        assert_eq!(text, "12,1,1,1,1,1,13");
        assert_eq!(FieldVersions::parse(&text), Some(versions));
        assert_eq!(FieldVersions::parse("5,2").unwrap().to_text().unwrap(), "5,2,1,1,1,1,1");
        for bad in ["", "x", "1,2,3,4,5,6,7,8"] {
            assert_eq!(FieldVersions::parse(bad), None, "{bad}");
        }
    }
}
