//! Undoing: the opposite of changes, as new changes.

use std::sync::Arc;

use super::todos::{Request, Whereabouts};
use super::{Group, Refusal, State};
use crate::domain::change::{Before, Change, Kind, Revision};
use crate::domain::etag::EntityTag;
use crate::domain::todo::Todo;
use crate::domain::todo::field::{Field, FieldVersions, Part};
use crate::domain::todo::input::TodoPatch;
use crate::store::outcome::Outcome;

/// What the log has about a todo of which changes are undone.
#[derive(Debug, Clone, PartialEq)]
pub struct Undone {
    /// The changes that are undone, and what each has replaced if the log says it: in commit order, at least one, all of
    /// one todo, without others in between.
    pub changes: Vec<(Change, Option<Before>)>,
}

/// What is to be done about one todo.
struct Plan {
    /// The todo as it is.
    todo: Arc<Todo>,
    is_live: bool,
    /// Whether it was among its owner's todos.
    was_live: bool,
    /// Whether any of the changes has deleted or restored it, or created it.
    is_about_whereabouts: bool,
    /// The values that fields get back.
    values: TodoPatch,
    /// Which of them are different now.
    fields: Vec<Field>,
    /// Whether it has to go to the trash, or to come back.
    moves: bool,
    /// Where its parts were from.
    versions: FieldVersions,
    /// What the changes together have changed.
    touched: Vec<Part>,
}

impl<S: State> Group<'_, S> {
    /// Undoes a change, or all that were made together with it. Refused where a later change is about the same: nothing
    /// that was done since is lost.
    pub(super) fn undo(
        &self,
        request: &mut Request<'_>,
        revision: Revision,
        whole_batch: bool,
    ) -> Result<Outcome, Refusal> {
        let owner = request.account.id;
        // The group has changed something that the log doesn't have yet.
        if self.decided.heads.contains_key(&owner) || request.decided.heads.contains_key(&owner) {
            return Err(Refusal::Unanswerable);
        }
        let head = self.state.head(owner);
        if !(Revision(1)..=head.revision).contains(&revision) {
            return Err(Refusal::ChangeNotFound);
        }
        let mut plans = Vec::new();
        // What was done last is undone first.
        for undone in std::mem::take(&mut request.undone).iter().rev() {
            match self.plan(request, undone) {
                // What is not there any more can't be restored, but the others can.
                Err(Refusal::ChangeGone) if whole_batch => {}
                plan => plans.push(plan?),
            }
        }
        if plans.is_empty() {
            return Err(Refusal::ChangeGone);
        }
        // What goes makes room for what comes back.
        plans.sort_by_key(|plan| plan.was_live);
        let mut changes = Vec::new();
        for plan in &plans {
            self.carry_out(request, plan, &mut changes)?;
        }
        match plans.iter().find(|plan| !plan.touched.is_empty()) {
            // All of it was changed back already.
            Some(plan) if changes.is_empty() => Err(self.changed_since(plan, &plan.touched)),
            _ => Ok(Outcome::Several { changes, more: false }),
        }
    }

    /// What has to be done about a todo, if no later change is in the way.
    fn plan(&self, request: &Request<'_>, Undone { changes }: &Undone) -> Result<Plan, Refusal> {
        let (Some((first, before)), Some((last, _))) = (changes.first(), changes.last()) else {
            return Err(Refusal::ChangeGone);
        };
        let (todo, is_live) = match self.find(request, last.todo.id) {
            Whereabouts::Live(todo) => (todo, true),
            Whereabouts::Trashed(todo) => (todo, false),
            Whereabouts::Gone => return Err(Refusal::ChangeGone),
        };
        let was_live = matches!(first.kind, Kind::Updated | Kind::Deleted);
        let is_about_whereabouts = changes.iter().any(|(change, _)| change.kind != Kind::Updated);
        let mut values = TodoPatch::default();
        for (change, before) in changes {
            match before {
                Some(before) => values = values.or(before.values.clone()),
                None if change.kind == Kind::Updated => return Err(Refusal::ChangeGone),
                None => {}
            }
        }
        if first.kind == Kind::Created {
            // It is deleted as it is.
            values = TodoPatch::default();
        }
        // What all of them together have changed.
        let mut then = Todo::clone(&last.todo);
        let touched = values.apply(&mut then).unwrap_or_default();
        let values = TodoPatch::to(&then, &touched);
        let was_moved = (last.kind != Kind::Deleted) != was_live;
        // What is as it was before already is left alone.
        let fields = values.clone().apply(&mut Todo::clone(&todo)).unwrap_or_default();
        let moves = was_moved && is_live != was_live;
        let touched = touched.into_iter().map(Part::Field).chain(was_moved.then_some(Part::Whereabouts)).collect();
        let versions = before.as_ref().map(|before| before.versions.clone()).unwrap_or_default();
        let plan = Plan { todo, is_live, was_live, is_about_whereabouts, values, fields, moves, versions, touched };
        let conflict = plan.conflict(&last.todo.field_versions);
        if conflict.is_empty() { Ok(plan) } else { Err(self.changed_since(&plan, &conflict)) }
    }

    fn carry_out(&self, request: &mut Request<'_>, plan: &Plan, changes: &mut Vec<Arc<Change>>) -> Result<(), Refusal> {
        let Plan { is_live, was_live, fields, moves, .. } = plan;
        let mut todo = Arc::clone(&plan.todo);
        // In the trash, a todo has to come back to be changed.
        if !is_live && (*moves || !fields.is_empty()) {
            // What goes back to the trash needs no room.
            self.has_room(request, usize::from(*was_live))?;
            todo = self.step(request, plan, &todo, Kind::Restored, changes);
        }
        if !fields.is_empty() {
            todo = self.step(request, plan, &todo, Kind::Updated, changes);
        }
        if !was_live && (*moves || !fields.is_empty()) {
            self.step(request, plan, &todo, Kind::Deleted, changes);
        }
        Ok(())
    }

    /// One change of an undo; the todo after it.
    fn step(
        &self,
        request: &mut Request<'_>,
        plan: &Plan,
        todo: &Todo,
        kind: Kind,
        changes: &mut Vec<Arc<Change>>,
    ) -> Arc<Todo> {
        let mut after = self.next_version(request, todo);
        let changed = if kind == Kind::Updated { plan.fields.as_slice() } else { &[] };
        let parts: Vec<Part> = match kind {
            Kind::Updated => changed.iter().copied().map(Part::Field).collect(),
            _ => vec![Part::Whereabouts],
        };
        if kind == Kind::Updated {
            // It was tried when this was planned.
            let _ = plan.values.clone().apply(&mut after);
        }
        let version = after.version;
        after.field_versions.set(parts.iter().copied(), version);
        for part in parts {
            after.field_versions.set_origin(part, plan.versions.origin(part));
        }
        let outcome = self.change(request, kind, after, changed.to_vec());
        changes.extend(outcome.changes().iter().cloned());
        outcome.todo().cloned().unwrap_or_else(|| Arc::clone(&plan.todo))
    }

    fn changed_since(&self, plan: &Plan, conflict: &[Part]) -> Refusal {
        let (current, is_trashed) = (Arc::clone(&plan.todo), !plan.is_live);
        let etag = EntityTag::of(self.facts.epoch, &current);
        Refusal::ChangedSince { current, is_trashed, etag, conflict: conflict.iter().map(|part| part.name()).collect() }
    }
}

impl Plan {
    /// What was changed since; `then`: where the parts of the todo were from after the changes. An undo in between counts
    /// as if neither it nor what it has undone had been.
    fn conflict(&self, then: &FieldVersions) -> Vec<Part> {
        let now = &self.todo.field_versions;
        let is_other = |part: &Part| now.origin(*part) != then.origin(*part);
        // To delete a todo is about all that it has.
        let fields: &[Field] = if self.moves && !self.was_live { &Field::ALL } else { &self.fields };
        let mut conflict: Vec<Part> = fields.iter().copied().map(Part::Field).filter(is_other).collect();
        let is_needed = self.moves || (!self.is_live && !self.fields.is_empty());
        let was_moved = is_other(&Part::Whereabouts) || !self.is_about_whereabouts;
        conflict.extend((is_needed && was_moved).then_some(Part::Whereabouts));
        conflict
    }
}
