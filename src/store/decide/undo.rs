//! Undoing: the opposite of changes, as new changes.

use std::sync::Arc;

use super::todos::{Request, Whereabouts};
use super::{Group, Refusal, State};
use crate::domain::change::{Change, Kind, Revision};
use crate::domain::etag::EntityTag;
use crate::domain::todo::field::Field;
use crate::domain::todo::input::TodoPatch;
use crate::domain::todo::{Todo, TodoId};
use crate::store::outcome::Outcome;

/// What the log has about a todo of which changes are undone.
#[derive(Debug, Clone, PartialEq)]
pub struct Undone {
    /// The changes that are undone, in commit order: at least one, all of one todo, without others in between.
    pub changes: Vec<Change>,
    /// The todo before the first of them, if the log still has it; none before its creation.
    pub before: Option<Arc<Todo>>,
    /// Whether it was deleted or restored after the last of them. Needed only if one of them did that.
    pub moved_since: bool,
}

/// A part of a todo that changes can be about: a field, or whether it is in the trash, which is shown as `deleted_at`.
const WHEREABOUTS: &str = "deleted_at";

impl<S: State> Group<'_, S> {
    /// Undoes a change, or all that were made together with it. Refused where a later change is about the same: nothing
    /// that was done since is lost.
    pub(super) fn undo(&self, request: &mut Request<'_>, revision: Revision) -> Result<Outcome, Refusal> {
        let head = self.head(&request.decided, request.account.id);
        if !(Revision(1)..=head.revision).contains(&revision) {
            return Err(Refusal::ChangeNotFound);
        }
        let undone = std::mem::take(&mut request.undone);
        if undone.is_empty() {
            return Err(Refusal::ChangeGone);
        }
        let mut changes = Vec::new();
        // What was done last is undone first.
        for undone in undone.iter().rev() {
            changes.extend(self.undo_of_one(request, undone)?);
        }
        Ok(Outcome::Several { changes, more: false })
    }

    fn undo_of_one(&self, request: &mut Request<'_>, undone: &Undone) -> Result<Vec<Arc<Change>>, Refusal> {
        let (Some(first), Some(last)) = (undone.changes.first(), undone.changes.last()) else { return Ok(Vec::new()) };
        let id = last.todo.id;
        let (mut todo, is_live) = match self.find(request, id) {
            Whereabouts::Live(todo) => (todo, true),
            Whereabouts::Trashed(todo) => (todo, false),
            Whereabouts::Gone => return Err(Refusal::ChangeGone),
        };
        let was_live = matches!(first.kind, Kind::Updated | Kind::Deleted);
        // What is created is deleted as it is.
        let fields: Vec<Field> = Field::ALL
            .into_iter()
            .filter(|field| first.kind != Kind::Created && undone.changes.iter().any(|it| it.changed.contains(field)))
            .collect();
        let has_moved = undone.changes.iter().any(|change| change.kind != Kind::Updated);
        let is_elsewhere = is_live != (last.kind != Kind::Deleted) || (has_moved && undone.moved_since);
        // To delete a todo is about all that it has.
        let concerned = if was_live { fields.as_slice() } else { &Field::ALL };
        let is_newer = |field: &&Field| todo.field_versions.get(**field) > last.todo.version;
        let mut conflict: Vec<&str> = concerned.iter().filter(is_newer).map(|field| field.name()).collect();
        conflict.extend(is_elsewhere.then_some(WHEREABOUTS));
        if !conflict.is_empty() {
            return Err(self.changed_since(request, id, conflict));
        }
        let patch = match &undone.before {
            Some(before) => TodoPatch::to(before, &fields),
            None if fields.is_empty() => TodoPatch::default(),
            None => return Err(Refusal::ChangeGone),
        };
        let mut changes = Vec::new();
        let mut note = |todo: &mut Arc<Todo>, outcome: Outcome| {
            for change in outcome.changes() {
                *todo = Arc::clone(&change.todo);
                changes.push(Arc::clone(change));
            }
        };
        let is_different = patch.clone().apply(&mut Todo::clone(&todo)).is_ok_and(|changed| !changed.is_empty());
        if !is_live && (was_live || is_different) {
            let outcome = self.restore(request, &todo)?;
            note(&mut todo, outcome);
        }
        if is_different {
            let outcome = self.update(request, Arc::clone(&todo), patch, false)?;
            note(&mut todo, outcome);
        }
        if !was_live && (is_live || is_different) {
            let outcome = self.delete(request, &todo);
            note(&mut todo, outcome);
        }
        Ok(changes)
    }

    fn changed_since(&self, request: &Request<'_>, id: TodoId, conflict: Vec<&'static str>) -> Refusal {
        match self.find_before(request, id) {
            Whereabouts::Live(current) | Whereabouts::Trashed(current) => {
                let etag = EntityTag::of(self.facts.epoch, &current);
                Refusal::ChangedSince { current, etag, conflict }
            }
            Whereabouts::Gone => Refusal::ChangeGone,
        }
    }
}
