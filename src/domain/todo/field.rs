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

/// A part of a todo that changes can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The value of a field.
    Field(Field),
    /// Whether it is in the trash.
    Whereabouts,
}

/// The number of parts of a todo.
const PARTS: usize = Field::ALL.len() + 1;

impl Part {
    /// Its name in JSON: where it is shows in `deleted_at`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Field(field) => field.name(),
            Self::Whereabouts => "deleted_at",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Field(field) => field as usize,
            Self::Whereabouts => Field::ALL.len(),
        }
    }
}

/// Which version of a todo each part of it is from. Compact for those that never changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldVersions(Option<Box<Versions>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Versions {
    /// The version that last changed the part, in whatever way.
    changed: [Version; PARTS],
    /// The version that first made it what it is: an undo gives a part back the one that it had. `None`: the same.
    origins: Option<Box<[Version; PARTS]>>,
}

impl Versions {
    /// Keeps no origins that say nothing.
    fn tidy(&mut self) {
        self.origins.take_if(|origins| **origins == self.changed);
    }
}

impl FieldVersions {
    /// The version that last changed this field.
    pub fn get(&self, field: Field) -> Version {
        self.0.as_ref().map_or(Version::FIRST, |versions| versions.changed[Part::Field(field).index()])
    }

    /// The version that made this part what it is, not counting those that were undone since.
    pub fn origin(&self, part: Part) -> Version {
        let Some(versions) = &self.0 else { return Version::FIRST };
        versions.origins.as_deref().unwrap_or(&versions.changed)[part.index()]
    }

    /// Records that a version changed these parts.
    pub fn set(&mut self, parts: impl IntoIterator<Item = Part>, version: Version) {
        for part in parts {
            let versions = self.versions();
            versions.changed[part.index()] = version;
            if let Some(origins) = &mut versions.origins {
                origins[part.index()] = version;
            }
            versions.tidy();
        }
    }

    /// Records that a part is what that version made it, again.
    pub fn set_origin(&mut self, part: Part, origin: Version) {
        let versions = self.versions();
        let changed = versions.changed;
        versions.origins.get_or_insert_with(|| Box::new(changed))[part.index()] = origin;
        versions.tidy();
    }

    fn versions(&mut self) -> &mut Versions {
        self.0.get_or_insert_with(|| Box::new(Versions { changed: [Version::FIRST; PARTS], origins: None }))
    }

    /// The versions that last changed the fields, in the order of [`Field::ALL`], and where the todo is, separated by
    /// commas; then, behind a semicolon, the origins, if they are others. `None`: all are the first.
    pub fn to_text(&self) -> Option<String> {
        let list = |versions: &[Version]| versions.iter().map(Version::to_string).collect::<Vec<_>>().join(",");
        let Versions { changed, origins } = &**self.0.as_ref()?;
        let origins = origins.as_ref().map(|origins| format!(";{}", list(&**origins)));
        Some(format!("{}{}", list(changed), origins.unwrap_or_default()))
    }

    /// Reads what [`FieldVersions::to_text`] wrote; parts that are missing at the end of a list never changed.
    pub fn parse(text: &str) -> Option<Self> {
        let list = |text: &str| {
            let mut versions = [Version::FIRST; PARTS];
            for (index, version) in text.split(',').enumerate() {
                *versions.get_mut(index)? = Version(version.parse().ok()?);
            }
            Some(versions)
        };
        let (changed, origins) = match text.split_once(';') {
            Some((changed, origins)) => (changed, Some(Box::new(list(origins)?))),
            None => (text, None),
        };
        Some(Self(Some(Box::new(Versions { changed: list(changed)?, origins }))))
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
        versions.set([], Version(9));
        assert_eq!((versions.to_text(), versions.get(Field::Tags)), (None, Version::FIRST));
        versions.set([Part::Field(Field::Title), Part::Field(Field::Order)], Version(12));
        versions.set([Part::Field(Field::Order)], Version(13));
        versions.set([Part::Whereabouts], Version(14));
        let text = versions.to_text().unwrap();
        assert_eq!(text, "12,1,1,1,1,1,13,14");
        assert_eq!(FieldVersions::parse(&text), Some(versions));
        assert_eq!(FieldVersions::parse("5,2").unwrap().to_text().unwrap(), "5,2,1,1,1,1,1,1");
        for bad in ["", "x", "1,2,3,4,5,6,7,8,9", "1;", "1;2;3", "1;1,2,3,4,5,6,7,8,9"] {
            assert_eq!(FieldVersions::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_undone_has_its_origin_again_and_is_changed_nevertheless() {
        let title = Part::Field(Field::Title);
        let mut versions = FieldVersions::default();
        versions.set([title], Version(2));
        assert_eq!((versions.get(Field::Title), versions.origin(title)), (Version(2), Version(2)));
        versions.set([title], Version(3));
        versions.set_origin(title, Version::FIRST);
        assert_eq!((versions.get(Field::Title), versions.origin(title)), (Version(3), Version(1)));
        versions.set([Part::Whereabouts], Version(4));
        let text = versions.to_text().unwrap();
        assert_eq!(text, "3,1,1,1,1,1,1,4;1,1,1,1,1,1,1,4");
        assert_eq!(FieldVersions::parse(&text), Some(versions.clone()));
        versions.set([title], Version(5));
        assert_eq!((versions.get(Field::Title), versions.origin(title)), (Version(5), Version(5)));
        assert_eq!(versions.to_text().unwrap(), "5,1,1,1,1,1,1,4");
    }
}
