//! What requests about todos change, and what is answered.

use std::sync::Arc;

use super::{Decided, Group, Head, Prior, Refusal, State, Undone};
use crate::domain::account::{AccountState, User, UserId};
use crate::domain::change::{Before, Change, Kind, Place, Revision, SCRUBBED_TITLE};
use crate::domain::clock::Timestamp;
use crate::domain::etag::EntityTag;
use crate::domain::todo::field::{Field, Part};
use crate::domain::todo::input::{NewTodo, TodoPatch};
use crate::domain::todo::{Todo, TodoId};
use crate::store::idempotency::{Answered, Idempotency, Kept, Known};
use crate::store::outcome::{Applied, Outcome};
use crate::store::{Command, Commands, Condition, Context, Merge, Target, Versions};

/// Where a todo is.
#[derive(Debug, Clone, PartialEq)]
pub enum Whereabouts {
    /// Among its owner's todos.
    Live(Arc<Todo>),
    /// In its owner's trash.
    Trashed(Arc<Todo>),
    /// Nowhere.
    Gone,
}

/// A request that changes nothing.
#[derive(Debug, PartialEq)]
pub struct Refused {
    /// The command that is refused; none: the request as a whole is.
    pub command: Option<usize>,
    /// Why.
    pub refusal: Refusal,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { command: None, refusal }
    }
}

/// A request that is being decided.
pub(super) struct Request<'a> {
    context: &'a Context,
    pub(super) account: &'a User,
    /// See [`Change::batch`].
    batch: Option<Revision>,
    /// See [`Change::op`].
    op: Option<Arc<str>>,
    /// See [`Prior::undone`].
    pub(super) undone: Vec<Undone>,
    pub(super) decided: Decided,
    outcomes: Vec<Outcome>,
}

impl<S: State> Group<'_, S> {
    /// What a request changes: all of its commands, or nothing.
    pub fn decide(&mut self, context: &Context, commands: Commands, prior: Prior) -> Result<Answered, Refused> {
        if let Some(authority) = context.authority {
            self.still_valid(authority)?;
        }
        let Commands { commands, is_batch, room, idempotency } = commands;
        // Before anything else: if the request was applied, its own change may be why it would be refused now.
        let of_this_group = idempotency.as_ref().and_then(|idempotency| self.answered(context.owner, idempotency));
        match of_this_group.or(prior.answer) {
            None => {}
            Some(Known::Answered(answer)) => return Ok(Answered::Repeated(answer)),
            Some(Known::Other) => return Err(Refusal::KeyReused.into()),
            Some(Known::Unreadable) => return Err(Refusal::Unanswerable.into()),
        }
        let account = self.account(context.owner).ok_or(Refusal::NoLongerAllowed)?;
        let decided = Decided::nothing(self.decided.next);
        let is_one = is_batch || commands.iter().any(Command::makes_several_changes);
        let mut request = Request {
            context,
            account: &account,
            batch: is_one.then(|| self.head(&decided, account.id).revision.next()),
            op: idempotency.as_ref().map(|idempotency| Arc::clone(&idempotency.key)),
            undone: prior.undone,
            decided,
            outcomes: Vec::with_capacity(commands.len()),
        };
        self.has_room(&request, room)?;
        for (index, command) in commands.into_iter().enumerate() {
            let outcome = self.decide_one(&mut request, command);
            let outcome = outcome.map_err(|refusal| Refused { command: Some(index), refusal })?;
            request.outcomes.push(outcome);
        }
        let revision = self.head(&request.decided, account.id).revision;
        let Request { mut decided, outcomes, .. } = request;
        let applied = Applied { outcomes, revision };
        let mut kept = None;
        if let Some(Idempotency { request, fingerprint, answer, .. }) = idempotency {
            let answer = Arc::new(answer(&applied).map_err(|_| Refusal::Unanswerable)?);
            decided.answers.insert((account.id, request), Kept { fingerprint, answer: Arc::clone(&answer) });
            kept = Some(answer);
        }
        self.decided.merge(decided);
        Ok(Answered::Applied(applied, kept))
    }

    fn answered(&self, owner: UserId, idempotency: &Idempotency) -> Option<Known> {
        let kept = self.decided.answers.get(&(owner, Arc::clone(&idempotency.request)))?;
        Some(kept.known(&idempotency.fingerprint))
    }

    fn decide_one(&self, request: &mut Request<'_>, command: Command) -> Result<Outcome, Refusal> {
        let owner = request.account.id;
        let expected = if matches!(command, Command::Erase(_)) { AccountState::Deleted } else { AccountState::Active };
        if request.account.state != expected {
            return Err(Refusal::NoLongerAllowed);
        }
        match command {
            Command::Create(new) => self.create(request, new),
            Command::Update { todo, patch, always, condition } => {
                let id = request.resolve(todo)?;
                let before = self.live(request, id)?;
                self.check(request, &condition, &before, &patch.fields())?;
                self.update(request, before, patch, always)
            }
            Command::Delete(todo, condition) => {
                let before = self.live(request, request.resolve(todo)?)?;
                self.check(request, &condition, &before, &[])?;
                Ok(self.delete(request, &before))
            }
            Command::DeleteMany { todos, completed, more, condition } => {
                let revision = self.head(&request.decided, owner).revision;
                if !condition.matches(revision) || !condition.is_new(revision) {
                    return Err(Refusal::ListChanged);
                }
                let mut changes = Vec::with_capacity(todos.len());
                for id in todos {
                    // Since they were chosen, some may have gone or changed.
                    let todo = self.live(request, id).ok();
                    if let Some(todo) = todo.filter(|todo| completed.is_none_or(|it| it == todo.completed)) {
                        changes.extend(self.delete(request, &todo).changes().iter().cloned());
                    }
                }
                Ok(Outcome::Several { changes, more })
            }
            Command::Restore(id, condition) => {
                let before = match self.find(request, id) {
                    Whereabouts::Trashed(todo) => todo,
                    Whereabouts::Live(_) => return Err(Refusal::NotInTrash),
                    Whereabouts::Gone => return Err(Refusal::TodoNotFound),
                };
                self.check(request, &condition, &before, &[])?;
                self.restore(request, &before)
            }
            Command::Undo { revision, whole_batch } => self.undo(request, revision, whole_batch),
            Command::Purge(id, condition) => {
                let Whereabouts::Trashed(todo) = self.find(request, id) else { return Err(Refusal::TodoNotFound) };
                self.check(request, &condition, &todo, &[])?;
                request.purge(id);
                Ok(Outcome::Purged { count: 1, more: false })
            }
            Command::EmptyTrash { todos, more, condition } => {
                let (if_match, if_none_match) = (condition.if_match, condition.if_none_match);
                if if_match.is_some_and(|it| it != Versions::Any) || if_none_match == Some(Versions::Any) {
                    return Err(Refusal::NoSuchTrash);
                }
                let is_there = |id: &TodoId| matches!(self.find(request, *id), Whereabouts::Trashed(_));
                let ids: Vec<TodoId> = todos.into_iter().filter(is_there).collect();
                ids.iter().for_each(|&id| request.purge(id));
                Ok(Outcome::Purged { count: ids.len(), more })
            }
            Command::Erase(id) => {
                let before = self.live(request, id)?;
                let empty = NewTodo { title: SCRUBBED_TITLE.into(), completed: before.completed, ..NewTodo::default() };
                let after = Todo { version: before.version, ..empty.create(id, owner, before.created_at) };
                let after = self.next_version(request, &after);
                Ok(self.change(request, Kind::Deleted, Some(&before), after, Vec::new()))
            }
        }
    }

    fn create(&self, request: &mut Request<'_>, new: NewTodo) -> Result<Outcome, Refusal> {
        self.has_room(request, 1)?;
        let id = request.decided.next.id;
        request.decided.next.id = TodoId(id.0 + 1);
        let changed = new.fields();
        let todo = new.create(id, request.account.id, self.now(request));
        Ok(self.change(request, Kind::Created, None, todo, changed))
    }

    fn delete(&self, request: &mut Request<'_>, todo: &Todo) -> Outcome {
        let after = self.moved(request, todo);
        self.change(request, Kind::Deleted, Some(todo), after, Vec::new())
    }

    fn restore(&self, request: &mut Request<'_>, todo: &Todo) -> Result<Outcome, Refusal> {
        self.has_room(request, 1)?;
        let after = self.moved(request, todo);
        Ok(self.change(request, Kind::Restored, Some(todo), after, Vec::new()))
    }

    /// The todo in its next version, in the trash or out of it.
    fn moved(&self, request: &Request<'_>, todo: &Todo) -> Todo {
        let mut after = self.next_version(request, todo);
        let version = after.version;
        after.field_versions.set([Part::Whereabouts], version);
        after
    }

    /// Whether the owner may have so many live todos more.
    pub(super) fn has_room(&self, request: &Request<'_>, more: usize) -> Result<(), Refusal> {
        if more == 0 {
            return Ok(());
        }
        let (owner, limit) = (request.account.id, self.facts.max_todos);
        let grown = |decided: &Decided| decided.grown.get(&owner).copied().unwrap_or_default();
        let grown = grown(&self.decided) + grown(&request.decided);
        let count = self.state.todo_count(owner).saturating_add_signed(grown);
        if count.saturating_add(more) <= limit { Ok(()) } else { Err(Refusal::TooManyTodos { limit }) }
    }

    fn update(
        &self,
        request: &mut Request<'_>,
        before: Arc<Todo>,
        patch: TodoPatch,
        always: bool,
    ) -> Result<Outcome, Refusal> {
        let mut after = self.next_version(request, &before);
        let changed = patch.apply(&mut after).map_err(|_| Refusal::TooManyTags)?;
        if changed.is_empty() && !always {
            return Ok(Outcome::Unchanged(before));
        }
        let version = after.version;
        after.field_versions.set(changed.iter().copied().map(Part::Field), version);
        Ok(self.change(request, Kind::Updated, Some(&before), after, changed))
    }

    /// Records a change of the owner. `before`: the todo, unless it is created.
    pub(super) fn change(
        &self,
        request: &mut Request<'_>,
        kind: Kind,
        before: Option<&Todo>,
        todo: Todo,
        changed: Vec<Field>,
    ) -> Outcome {
        let (owner, todo) = (request.account.id, Arc::new(todo));
        let head = self.head(&request.decided, owner);
        let scrubbed = request.account.state == AccountState::Deleted;
        let before = before
            .map(|before| Before { values: TodoPatch::to(before, &changed), versions: before.field_versions.clone() });
        let decided = &mut request.decided;
        let whereabouts = match kind {
            Kind::Created | Kind::Updated | Kind::Restored => Whereabouts::Live(Arc::clone(&todo)),
            Kind::Deleted if scrubbed => Whereabouts::Gone,
            Kind::Deleted => Whereabouts::Trashed(Arc::clone(&todo)),
        };
        let grown = decided.grown.entry(owner).or_default();
        match kind {
            Kind::Created | Kind::Restored => *grown += 1,
            Kind::Deleted => *grown -= 1,
            Kind::Updated => {}
        }
        decided.todos.insert(todo.id, (owner, whereabouts));
        let (revision, at) = (head.revision.next(), todo.updated_at);
        decided.heads.insert(owner, Head { revision, last_at: at, ..head });
        let change = Arc::new(Change {
            place: decided.next.place,
            epoch: self.facts.epoch,
            revision,
            kind,
            at,
            actor: Arc::clone(&request.context.actor),
            created_by: Arc::clone(&request.account.username),
            changed,
            batch: request.batch,
            op: request.op.clone(),
            trace: request.context.trace.clone(),
            scrubbed,
            todo,
        });
        decided.changes.push(Arc::clone(&change));
        decided.before.push(before);
        decided.next.place = Place(decided.next.place.0 + 1);
        Outcome::Changed(change)
    }

    pub(super) fn head(&self, request: &Decided, owner: UserId) -> Head {
        let decided = request.heads.get(&owner).or_else(|| self.decided.heads.get(&owner));
        decided.copied().unwrap_or_else(|| self.state.head(owner))
    }

    /// The time of the owner's next change: never before the last one, whatever the clock says.
    fn now(&self, request: &Request<'_>) -> Timestamp {
        self.facts.now.max(self.head(&request.decided, request.account.id).last_at)
    }

    /// Where the owner's todo is.
    pub(super) fn find(&self, request: &Request<'_>, id: TodoId) -> Whereabouts {
        self.find_among(&[&request.decided, &self.decided], request.account.id, id)
    }

    /// The same, on top of the committed state and of what is decided, the last first.
    fn find_among(&self, decided: &[&Decided], owner: UserId, id: TodoId) -> Whereabouts {
        match decided.iter().find_map(|decided| decided.todos.get(&id)) {
            Some((of, whereabouts)) if *of == owner => whereabouts.clone(),
            Some(_) => Whereabouts::Gone,
            None => self
                .state
                .todo(owner, id)
                .map(Whereabouts::Live)
                .or_else(|| self.state.trashed(owner, id).map(Whereabouts::Trashed))
                .unwrap_or(Whereabouts::Gone),
        }
    }

    fn live(&self, request: &Request<'_>, id: TodoId) -> Result<Arc<Todo>, Refusal> {
        match self.find(request, id) {
            Whereabouts::Live(todo) => Ok(todo),
            Whereabouts::Trashed(_) | Whereabouts::Gone => Err(Refusal::TodoNotFound),
        }
    }

    /// The todo in its next version, still to be changed.
    pub(super) fn next_version(&self, request: &Request<'_>, todo: &Todo) -> Todo {
        Todo { version: todo.version.next(), updated_at: self.now(request), ..todo.clone() }
    }

    /// Whether the todo is as the client expects; `sent`: the fields that it wants to change.
    fn check(
        &self,
        request: &Request<'_>,
        condition: &Condition,
        todo: &Arc<Todo>,
        sent: &[Field],
    ) -> Result<(), Refusal> {
        if condition.merge == Merge::Impossible {
            return Err(Refusal::CannotMerge);
        }
        if !condition.matches(todo.version) {
            let known = match &condition.if_match {
                Some(Versions::Of(known)) if condition.merge == Merge::Asked => {
                    known.iter().find(|known| **known < todo.version)
                }
                _ => None,
            };
            let Some(known) = known else { return Err(self.unexpected(request, todo.id, Vec::new())) };
            let is_newer = |field: &Field| todo.field_versions.get(*field) > *known;
            let conflict: Vec<Field> = sent.iter().copied().filter(is_newer).collect();
            if !conflict.is_empty() {
                return Err(self.unexpected(request, todo.id, conflict));
            }
        }
        if condition.is_new(todo.version) { Ok(()) } else { Err(self.unexpected(request, todo.id, Vec::new())) }
    }

    /// The todo is not as the client expects. What is shown of it is what there was before the request: what the request
    /// itself has made of it will never be.
    fn unexpected(&self, request: &Request<'_>, id: TodoId, conflict: Vec<Field>) -> Refusal {
        match self.find_among(&[&self.decided], request.account.id, id) {
            Whereabouts::Live(current) | Whereabouts::Trashed(current) => {
                let etag = EntityTag::of(self.facts.epoch, &current);
                Refusal::PreconditionFailed { current, etag, conflict }
            }
            Whereabouts::Gone => Refusal::TodoNotFound,
        }
    }
}

impl Request<'_> {
    /// The id of the todo that a command is about.
    fn resolve(&self, target: Target) -> Result<TodoId, Refusal> {
        match target {
            Target::Id(id) => Ok(id),
            Target::CreatedBy(command) => {
                let todo = self.outcomes.get(command).and_then(Outcome::todo);
                todo.map(|todo| todo.id).ok_or(Refusal::TodoNotFound)
            }
        }
    }

    fn purge(&mut self, id: TodoId) {
        let owner = self.account.id;
        self.decided.purged.insert((owner, id));
        self.decided.todos.insert(id, (owner, Whereabouts::Gone));
    }
}
