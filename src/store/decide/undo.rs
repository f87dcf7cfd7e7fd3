//! Undoing: the opposite of changes, as new changes.

use std::sync::Arc;

use super::todos::{Request, Whereabouts};
use super::{Group, Refusal, State, Undone};
use crate::domain::change::{Before, Change, Kind, Revision};
use crate::domain::etag::EntityTag;
use crate::domain::todo::field::{Field, FieldVersions, Part};
use crate::domain::todo::input::TodoPatch;
use crate::domain::todo::{Todo, Version};
use crate::store::outcome::Outcome;

// Two equal origins of a part mean that it is the same, whatever was done and undone in between.

/// What is to be done about one todo.
struct Plan {
    /// The todo as it is.
    now: Arc<Todo>,
    is_live: bool,
    /// Whether it was among its owner's todos.
    was_live: bool,
    /// The values that fields get back.
    values: TodoPatch,
    /// Which of them are different now.
    fields: Vec<Field>,
    /// Whether it has to go to the trash, or to come back.
    moves: bool,
    /// The origins that parts get back.
    origins: Vec<(Part, Version)>,
    /// What the changes together have changed.
    effect: Vec<Part>,
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
        match plans.iter().find(|plan| !plan.effect.is_empty()) {
            // All of it was changed back already.
            Some(plan) if changes.is_empty() => Err(self.changed_since(plan, &plan.effect)),
            _ => Ok(Outcome::Several { changes, more: false }),
        }
    }

    /// What has to be done about a todo, if no later change is in the way.
    fn plan(&self, request: &Request<'_>, Undone { changes }: &Undone) -> Result<Plan, Refusal> {
        let (Some((first, before)), Some((last, _))) = (changes.first(), changes.last()) else {
            return Err(Refusal::ChangeGone);
        };
        let (now, is_live) = match self.find(request, last.todo.id) {
            Whereabouts::Live(todo) => (todo, true),
            Whereabouts::Trashed(todo) => (todo, false),
            Whereabouts::Gone => return Err(Refusal::ChangeGone),
        };
        let was_live = matches!(first.kind, Kind::Updated | Kind::Deleted);
        let (values, parts) = replaced(changes);
        // What all of them together have changed.
        let mut earlier = Todo::clone(&last.todo);
        let fields = values.apply(&mut earlier).unwrap_or_default();
        let values = TodoPatch::to(&earlier, &fields);
        let have_moved = (last.kind != Kind::Deleted) != was_live;
        let effect = fields.into_iter().map(Part::Field).chain(have_moved.then_some(Part::Whereabouts)).collect();
        // What is as it was before already is left alone.
        let fields = values.clone().apply(&mut Todo::clone(&now)).unwrap_or_default();
        let moves = have_moved && is_live != was_live;
        let then = &last.todo.field_versions;
        let is_same = |part: &Part| now.field_versions.origin(*part) == then.origin(*part);
        let origin = |part: Part| (part, before.versions.origin(part));
        let origins = parts.into_iter().filter(is_same).map(origin).collect();
        let plan = Plan { now, is_live, was_live, values, fields, moves, origins, effect };
        let conflict = plan.conflict(then);
        if conflict.is_empty() { Ok(plan) } else { Err(self.changed_since(&plan, &conflict)) }
    }

    fn carry_out(&self, request: &mut Request<'_>, plan: &Plan, changes: &mut Vec<Arc<Change>>) -> Result<(), Refusal> {
        let Plan { now, is_live, was_live, values, fields, moves, origins, .. } = plan;
        let does_something = *moves || !fields.is_empty();
        // In the trash, a todo has to come back to be changed.
        let steps = [
            (Kind::Restored, !is_live && does_something),
            (Kind::Updated, !fields.is_empty()),
            (Kind::Deleted, !was_live && does_something),
        ];
        let mut steps = steps.into_iter().filter_map(|(kind, is_needed)| is_needed.then_some(kind)).peekable();
        let mut todo = Arc::clone(now);
        while let Some(kind) = steps.next() {
            // What goes back to the trash needs no room.
            self.has_room(request, usize::from(kind == Kind::Restored && *was_live))?;
            let mut after = self.next_version(request, &todo);
            let (version, mut changed) = (after.version, Vec::new());
            if kind == Kind::Updated {
                // Nothing is refused: it was tried when this was planned.
                changed = values.clone().apply(&mut after).unwrap_or_default();
                after.field_versions.set(changed.iter().copied().map(Part::Field), version);
            } else {
                after.field_versions.set([Part::Whereabouts], version);
            }
            // Not before all of it is as it was.
            if steps.peek().is_none() {
                origins.iter().for_each(|&(part, origin)| after.field_versions.set_origin(part, origin));
            }
            for change in self.change(request, kind, Some(&todo), after, changed).changes() {
                todo = Arc::clone(&change.todo);
                changes.push(Arc::clone(change));
            }
        }
        Ok(())
    }

    fn changed_since(&self, plan: &Plan, conflict: &[Part]) -> Refusal {
        let (current, is_trashed) = (Arc::clone(&plan.now), !plan.is_live);
        let etag = EntityTag::of(self.facts.epoch, &current);
        Refusal::ChangedSince { current, is_trashed, etag, conflict: conflict.iter().map(|part| part.name()).collect() }
    }
}

impl Plan {
    /// What was changed since, of what is to be changed now; `then`: the origins of the parts after the changes.
    fn conflict(&self, then: &FieldVersions) -> Vec<Part> {
        let is_other = |part: &Part| self.now.field_versions.origin(*part) != then.origin(*part);
        // To delete a todo is about all that it has.
        let fields: &[Field] = if self.moves && !self.was_live { &Field::ALL } else { &self.fields };
        // In the trash, nothing can be changed.
        let whereabouts = self.moves || (!self.is_live && !self.fields.is_empty());
        let parts = fields.iter().copied().map(Part::Field).chain(whereabouts.then_some(Part::Whereabouts));
        parts.filter(is_other).collect()
    }
}

/// The values that changes of one todo have replaced, and the parts that they were about.
fn replaced(changes: &[(Change, Before)]) -> (TodoPatch, Vec<Part>) {
    // What is created is deleted as it is.
    let is_created = changes.first().is_some_and(|(first, _)| first.kind == Kind::Created);
    let values = changes.iter().filter(|_| !is_created).fold(TodoPatch::default(), |values, (_, before)| {
        // The first one is right.
        values.or(before.values.clone())
    });
    let have_moved = changes.iter().any(|(change, _)| change.kind != Kind::Updated);
    let parts = values.fields().into_iter().map(Part::Field).chain(have_moved.then_some(Part::Whereabouts)).collect();
    (values, parts)
}
