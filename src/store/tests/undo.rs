//! Undoing what the log has.

use std::collections::BTreeSet;

use super::*;
use crate::domain::todo::field::Field;

fn undo(revision: i64) -> Command {
    Command::Undo { revision: Revision(revision), whole_batch: false }
}

fn undo_batch(revision: i64) -> Command {
    Command::Undo { revision: Revision(revision), whole_batch: true }
}

/// As DELETE /todos does, for the first five.
fn delete_many(f: &Fixture, owner: i64, completed: Option<bool>) -> Command {
    let wanted = f.todos(owner).into_iter().filter(|todo| completed.is_none_or(|it| it == todo.completed));
    let todos = wanted.map(|todo| todo.id).take(5).collect();
    Command::DeleteMany { todos, completed, more: false, condition: Condition::default() }
}

fn set(id: i64, priority: Option<u8>, completed: Option<bool>) -> Command {
    patch(id, TodoPatch { priority: priority.map(Some), completed, ..TodoPatch::default() })
}

/// What is refused because of a later change.
fn conflict(answer: Answer) -> Vec<&'static str> {
    match answer {
        Err(StoreError::Refused(Refusal::ChangedSince { conflict, .. })) => conflict,
        other => panic!("{other:?}"),
    }
}

fn kinds(answer: &Answer) -> Vec<(i64, Kind)> {
    answer.as_ref().unwrap().iter().map(|change| (change.todo.id.0, change.kind)).collect()
}

impl Fixture {
    fn apply_batch(&self, owner: i64, commands: Vec<Command>) -> Answer {
        let commands = Commands { commands, is_batch: true, ..Commands::default() };
        changes(self.submit_request(owner, commands).blocking_recv().unwrap())
    }
}

#[test]
fn each_kind_of_change_has_an_opposite_which_has_one_itself() {
    let mut f = Fixture::new();
    f.create(1, "a");
    f.apply(1, vec![set(1, Some(3), None)]).unwrap();
    let undone = f.apply(1, vec![undo(2)]).unwrap();
    assert_eq!(
        (undone[0].kind, &*undone[0].changed, undone[0].todo.priority),
        (Kind::Updated, &[Field::Priority][..], None)
    );
    assert_eq!((undone[0].revision, undone[0].todo.version, undone[0].batch), (Revision(3), Version(3), None));
    let redone = f.apply(1, vec![undo(3)]).unwrap();
    assert_eq!(redone[0].todo.priority, Some(3));

    f.apply(1, vec![delete(1)]).unwrap();
    assert_eq!(kinds(&f.apply(1, vec![undo(5)])), [(1, Kind::Restored)]);
    assert_eq!(kinds(&f.apply(1, vec![undo(6)])), [(1, Kind::Deleted)]);
    assert_eq!(kinds(&f.apply(1, vec![undo(7)])), [(1, Kind::Restored)]);

    f.create(1, "b");
    assert_eq!(kinds(&f.apply(1, vec![undo(9)])), [(2, Kind::Deleted)]);
    assert_eq!(kinds(&f.apply(1, vec![undo(10)])), [(2, Kind::Restored)]);
    f.reopen();
    assert_eq!((f.todos(1).len(), f.check().unwrap()), (2, Vec::<String>::new()));
}

#[test]
fn what_was_changed_since_is_kept() {
    let f = Fixture::new();
    f.create(1, "a");
    f.apply(1, vec![set(1, Some(3), Some(true))]).unwrap();
    f.apply(1, vec![set(1, Some(4), None)]).unwrap();
    f.apply(1, vec![rename(1, "b")]).unwrap();
    let before = f.dump();
    assert_eq!(conflict(f.apply(1, vec![undo(2)])), ["priority"]);
    assert_eq!(conflict(f.apply(1, vec![undo(1)])), ["title", "completed", "priority"]);
    assert_eq!(f.dump(), before);
    // Another field has changed since, and keeps its value.
    let undone = f.apply(1, vec![undo(3)]).unwrap();
    assert_eq!((undone[0].todo.priority, &*undone[0].todo.title), (Some(3), "b"));
    assert_eq!(conflict(f.apply(1, vec![undo(3)])), ["priority"], "it is undone");
    // There and back, by hand, is a change, too.
    f.apply(1, vec![set(1, Some(4), None)]).unwrap();
    f.apply(1, vec![set(1, Some(3), None)]).unwrap();
    assert_eq!(conflict(f.apply(1, vec![undo(2)])), ["priority"]);
    f.apply(1, vec![delete(1)]).unwrap();
    assert_eq!(conflict(f.apply(1, vec![undo(4)])), ["deleted_at"]);
    f.apply(1, vec![restore(1)]).unwrap();
    assert_eq!(kinds(&f.apply(1, vec![undo(4)])), [(1, Kind::Updated)], "it is there again");
    assert_eq!(conflict(f.apply(1, vec![undo(8)])), ["deleted_at"]);
    assert_eq!(conflict(f.apply(1, vec![undo(9)])), ["title"]);
    f.apply(1, vec![undo(10)]).unwrap();
    assert_eq!(kinds(&f.apply(1, vec![undo(9)])), [(1, Kind::Deleted)]);
}

#[test]
fn changes_are_undone_one_after_the_other_back_to_the_beginning_and_done_again() {
    let mut f = Fixture::new();
    f.create(1, "a");
    for title in ["b", "c", "d"] {
        f.apply(1, vec![rename(1, title)]).unwrap();
    }
    f.apply(1, vec![delete(1)]).unwrap();
    let title = |f: &Fixture| f.todo(1, TodoId(1)).map(|todo| todo.title.to_string());
    let mut redo = Vec::new();
    for (revision, expected) in [(5, Some("d")), (4, Some("c")), (3, Some("b")), (2, Some("a")), (1, None)] {
        let undone = f.apply(1, vec![undo(revision)]).unwrap();
        redo.push(undone[0].revision.0);
        assert_eq!(title(&f).as_deref(), expected, "{revision}");
        f.reopen();
    }
    for expected in ["a", "b", "c", "d"] {
        f.apply(1, vec![undo(redo.pop().unwrap())]).unwrap();
        assert_eq!(title(&f).as_deref(), Some(expected));
    }
    // As if nothing had happened since.
    assert_eq!(conflict(f.apply(1, vec![undo(3)])), ["title"]);
    f.apply(1, vec![undo(4)]).unwrap();
    assert_eq!(title(&f).as_deref(), Some("c"));
    // To merge with, an undo is a change like others.
    let stale =
        Condition { if_match: Some(Versions::Of(vec![Version(14)])), merge: Merge::Asked, ..Condition::default() };
    let stale = Command::Update { todo: TodoId(1).into(), patch: title_patch("e"), always: false, condition: stale };
    assert!(matches!(f.apply(1, vec![stale]), Err(StoreError::Refused(Refusal::PreconditionFailed { .. }))));
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
}

fn title_patch(title: &str) -> TodoPatch {
    TodoPatch { title: Some(title.into()), ..TodoPatch::default() }
}

#[test]
fn a_batch_is_undone_as_one_from_any_of_its_changes() {
    let f = Fixture::new();
    f.create(1, "a");
    f.create(1, "b");
    f.apply(1, vec![delete(2)]).unwrap();
    let batch =
        vec![create("c"), rename(1, "a2"), rename(1, "a3"), rename(3, "c2"), restore(2), rename(2, "b2"), delete(1)];
    let made = f.apply_batch(1, batch).unwrap();
    assert!(made.iter().all(|change| change.batch == Some(Revision(4))));
    f.create(1, "afterwards");
    // One of them can be undone alone, if nothing came after it.
    assert_eq!(conflict(f.apply(1, vec![undo(5)])), ["title", "deleted_at"]);
    let undone = f.apply(1, vec![undo_batch(7)]);
    use Kind::{Deleted, Restored, Updated};
    // What goes makes room for what comes back.
    assert_eq!(kinds(&undone), [(2, Updated), (2, Deleted), (3, Deleted), (1, Restored), (1, Updated)]);
    let undone = undone.unwrap();
    assert!(undone.iter().all(|change| change.batch == Some(Revision(12))));
    let titles =
        |todos: Vec<Arc<Todo>>| todos.iter().map(|todo| (todo.id.0, todo.title.to_string())).collect::<Vec<_>>();
    assert_eq!(titles(f.todos(1)), [(1, "a".to_owned()), (4, "afterwards".to_owned())]);
    assert_eq!(titles(f.trash(1)), [(3, "c2".to_owned()), (2, "b".to_owned())]);
    assert_eq!(conflict(f.apply(1, vec![undo_batch(8)])), ["title", "deleted_at"], "all of it is undone");
    // And so is the undo.
    f.apply(1, vec![undo_batch(14)]).unwrap();
    assert_eq!(titles(f.todos(1)), [(2, "b2".to_owned()), (3, "c2".to_owned()), (4, "afterwards".to_owned())]);
    // A change that was made alone is a batch of one.
    assert_eq!(kinds(&f.apply(1, vec![undo_batch(11)])), [(4, Deleted)]);
}

#[test]
fn to_and_fro_in_a_batch_is_undone_with_it() {
    let f = Fixture::new();
    f.create(1, "a");
    // Nothing of the title is changed by it.
    f.apply_batch(1, vec![rename(1, "b"), rename(1, "a"), set(1, None, Some(true))]).unwrap();
    f.apply(1, vec![undo_batch(2)]).unwrap();
    assert_eq!(kinds(&f.apply(1, vec![undo(1)])), [(1, Kind::Deleted)]);
}

#[test]
fn a_creation_that_is_undone_is_not_the_same_as_a_todo_that_was_deleted() {
    let f = Fixture::new();
    f.create(1, "a");
    f.apply_batch(1, vec![rename(1, "b"), delete(1)]).unwrap();
    let undone = f.apply(1, vec![undo_batch(2)]);
    assert_eq!(kinds(&undone), [(1, Kind::Restored), (1, Kind::Updated)]);
    let gone = f.apply(1, vec![undo(1)]).unwrap();
    assert_eq!(conflict(f.apply(1, vec![undo_batch(4)])), ["deleted_at"]);
    f.apply(1, vec![undo(gone[0].revision.0)]).unwrap();
    assert_eq!(kinds(&f.apply(1, vec![undo_batch(4)])), [(1, Kind::Updated), (1, Kind::Deleted)]);
}

#[test]
fn what_many_were_deleted_with_is_undone_with_one_request() {
    let f = Fixture::new();
    f.apply(1, (0..4).map(|n| create(&n.to_string())).collect()).unwrap();
    f.apply(1, vec![set(2, None, Some(true)), set(3, None, Some(true))]).unwrap();
    assert_eq!(kinds(&f.apply(1, vec![delete_many(&f, 1, Some(true))])), [(2, Kind::Deleted), (3, Kind::Deleted)]);
    // What is back already is left alone.
    f.apply(1, vec![restore(3)]).unwrap();
    assert_eq!(kinds(&f.apply(1, vec![undo_batch(7)])), [(2, Kind::Restored)]);
    assert_eq!(conflict(f.apply(1, vec![undo_batch(7)])), ["deleted_at"]);
    // What was removed for good is left out, unless that is all.
    f.apply(1, vec![delete_many(&f, 1, Some(true))]).unwrap();
    f.apply(1, vec![purge(2)]).unwrap();
    assert_eq!(f.apply(1, vec![undo(11)]), Err(StoreError::Refused(Refusal::ChangeGone)));
    assert_eq!(kinds(&f.apply(1, vec![undo_batch(11)])), [(3, Kind::Restored)]);
    f.apply(1, vec![delete(3)]).unwrap();
    f.apply(1, vec![purge(3)]).unwrap();
    assert_eq!(f.apply(1, vec![undo_batch(11)]), Err(StoreError::Refused(Refusal::ChangeGone)));
    assert_eq!(f.apply(2, vec![delete_many(&f, 2, None)]).unwrap(), []);
}

#[test]
fn what_the_log_does_not_have_is_not_undone() {
    let f = Fixture::new();
    for title in ["a", "b", "c"] {
        f.create(1, title);
    }
    f.apply_batch(1, vec![rename(1, "a2"), rename(2, "b2")]).unwrap();
    f.apply(1, vec![rename(3, "c2")]).unwrap();
    f.apply(2, vec![create("another owner's")]).unwrap();
    let refused = |revision: i64, whole_batch| {
        let command = Command::Undo { revision: Revision(revision), whole_batch };
        match f.apply(1, vec![command]) {
            Err(StoreError::Refused(refusal)) => Some(refusal),
            Ok(_) => None,
            other => panic!("{other:?}"),
        }
    };
    for revision in [0, -1, 7, i64::MAX, i64::MIN] {
        assert_eq!(refused(revision, revision > 0), Some(Refusal::ChangeNotFound));
    }
    // As retention does it.
    let prune = |through: i64| {
        f.database.execute(&format!("DELETE FROM changes WHERE owner_id = 1 AND revision <= {through}"));
    };
    prune(4);
    assert_eq!(refused(2, false), Some(Refusal::ChangeGone));
    assert_eq!(refused(5, true), Some(Refusal::ChangeGone), "part of the batch is gone");
    // A change says itself what it has replaced.
    assert_eq!(refused(5, false), None);
    assert_eq!(f.todo(1, TodoId(2)).unwrap().title, "b".into());
    // Those from before it did can't be undone.
    f.database.execute("UPDATE changes SET before = NULL WHERE revision = 6");
    assert_eq!(refused(6, false), Some(Refusal::ChangeGone));
    f.apply(1, vec![delete(3)]).unwrap();
    f.apply(1, vec![purge(3)]).unwrap();
    assert_eq!(refused(8, false), Some(Refusal::ChangeGone), "removed for good");
}

#[test]
fn an_undo_sees_what_came_before_it_in_the_queue() {
    let f = Fixture::new();
    f.create(1, "a");
    let (gate, held) = f.hold();
    let requests = [vec![rename(1, "b")], vec![undo(3)], vec![rename(1, "c")], vec![undo(3)], vec![undo(5)]];
    let answers: Vec<_> = requests.into_iter().map(|commands| f.submit(1, commands)).collect();
    drop(gate);
    held.blocking_recv().unwrap().unwrap();
    let answers = wait(answers);
    assert_eq!(answers[1].as_ref().unwrap()[0].todo.title, "a".into());
    assert_eq!(conflict(answers[3].clone()), ["title"]);
    assert_eq!(answers[4].as_ref().unwrap()[0].todo.title, "a".into());
    assert_eq!(f.head(1), 6);
}

#[test]
fn an_undo_needs_room_for_what_it_restores() {
    let mut f = Fixture::new();
    f.max_todos = 2;
    f.reopen();
    f.create(1, "a");
    f.create(1, "b");
    f.apply(1, vec![delete_many(&f, 1, None)]).unwrap();
    f.create(1, "c");
    let full = Err(StoreError::Refused(Refusal::TooManyTodos { limit: 2 }));
    assert_eq!(f.apply(1, vec![undo_batch(3)]), full);
    assert_eq!(f.trash(1).len(), 2, "all or nothing");
    assert_eq!(kinds(&f.apply(1, vec![undo(4)])), [(2, Kind::Restored)]);
    assert_eq!(f.apply(1, vec![create("d")]), full);
    // What goes makes room for what comes back, and what goes back to the trash needs none.
    f.apply(1, vec![delete(3)]).unwrap();
    f.apply_batch(1, vec![create("e"), delete(2), restore(3), rename(3, "f"), delete(3)]).unwrap();
    f.create(1, "g");
    let undone = f.apply(1, vec![undo_batch(8)]);
    use Kind::{Deleted, Restored, Updated};
    assert_eq!(kinds(&undone), [(3, Restored), (3, Updated), (3, Deleted), (4, Deleted), (2, Restored)]);
}

#[test]
fn a_change_that_cannot_be_read_fails_only_the_request_that_needs_it() {
    let f = Fixture::new();
    f.create(1, "a");
    f.apply(1, vec![rename(1, "b")]).unwrap();
    f.database.execute("UPDATE changes SET kind = 9 WHERE revision = 2");
    assert_eq!(f.apply(1, vec![undo(2)]), Err(StoreError::Refused(Refusal::Unanswerable)));
    f.create(1, "c");
    assert!(f.writable());
}

/// A todo at some time, as simply as it can be said.
#[derive(Debug, Clone)]
struct Moment {
    is_live: bool,
    todo: Todo,
    /// The version that each part is from.
    origins: BTreeMap<&'static str, i64>,
}

const FIELDS: [&str; 3] = ["title", "completed", "priority"];

impl Moment {
    fn field(&self, name: &str) -> serde_json::Value {
        serde_json::to_value(&self.todo).unwrap()[name].clone()
    }

    /// It came about by this change; `back`: the origins that parts get back if it is an undo.
    fn after(change: &Change, previous: Option<&Self>, back: &BTreeMap<&'static str, i64>) -> Self {
        let mut origins = previous.map(|it| it.origins.clone()).unwrap_or_default();
        let mut parts = parts(change);
        if change.kind == Kind::Created {
            parts.extend(FIELDS);
        }
        origins.extend(parts.into_iter().map(|part| (part, change.todo.version.0)));
        origins.extend(back);
        Self { is_live: change.kind != Kind::Deleted, todo: Todo::clone(&change.todo), origins }
    }
}

/// What a change is about.
fn parts(change: &Change) -> Vec<&'static str> {
    let is_moved = (change.kind != Kind::Updated).then_some("deleted_at");
    change.changed.iter().map(|field| field.name()).chain(is_moved).collect()
}

/// The log of one owner with what was after each change, as simply as it can be said.
#[derive(Default)]
struct Past {
    log: Vec<(Arc<Change>, Moment)>,
}

impl Past {
    fn moment(&self, todo: TodoId, before: Revision) -> Option<&Moment> {
        self.log.iter().rfind(|(it, _)| it.todo.id == todo && it.revision < before).map(|(_, moment)| moment)
    }

    /// These changes were made; if that was an undo, of these.
    fn made(&mut self, changes: Vec<Arc<Change>>, undone: &[Arc<Change>]) {
        let ids: BTreeSet<i64> = changes.iter().map(|change| change.todo.id.0).collect();
        let back: BTreeMap<i64, _> = ids.into_iter().map(|id| (id, self.back(TodoId(id), undone))).collect();
        let last = |change: &Change| changes.iter().rfind(|it| it.todo.id == change.todo.id).map(|it| it.revision);
        for change in &changes {
            let id = change.todo.id;
            let back = if last(change) == Some(change.revision) { back[&id.0].clone() } else { BTreeMap::new() };
            let moment = Moment::after(change, self.moment(id, Revision::MAX), &back);
            self.log.push((Arc::clone(change), moment));
        }
    }

    /// The origins that parts of a todo get back when these changes are undone: of those that are as they were then.
    fn back(&self, id: TodoId, undone: &[Arc<Change>]) -> BTreeMap<&'static str, i64> {
        let of_todo: Vec<_> = undone.iter().filter(|change| change.todo.id == id).collect();
        let (Some(first), Some(last)) = (of_todo.first(), of_todo.last()) else { return BTreeMap::new() };
        let (then, now) = (self.moment(id, last.revision.next()).unwrap(), self.moment(id, Revision::MAX).unwrap());
        let mut about: Vec<&str> = of_todo.iter().flat_map(|change| parts(change)).collect();
        let before = self.moment(id, first.revision);
        if before.is_none() {
            // Where something is that is not there yet is from no version. It is deleted as it is.
            about = vec!["deleted_at"];
        }
        let origin = |part: &'static str| before.map_or(0, |before| before.origins[part]);
        let is_same = |part: &&str| now.origins[*part] == then.origins[*part];
        about.into_iter().filter(is_same).map(|part| (part, origin(part))).collect()
    }

    /// What undoing these changes must give for one todo: whether it is there, and with which fields; or what is in the way.
    /// `None`: there is nothing to be done.
    fn undo(&self, todo: TodoId, undone: &[&Arc<Change>]) -> Option<Result<(bool, Todo), Vec<&'static str>>> {
        let (first, last) = (undone[0], undone[undone.len() - 1]);
        let before = self.moment(todo, first.revision);
        let then = self.moment(todo, last.revision.next()).unwrap();
        let now = self.moment(todo, Revision::MAX).unwrap();
        let was_live = before.is_some_and(|before| before.is_live);
        let changed = |name: &&str| before.is_some_and(|before| before.field(name) != then.field(name));
        let changed: Vec<&str> = FIELDS.into_iter().filter(changed).collect();
        let to_change: Vec<&str> =
            changed.iter().copied().filter(|name| before.unwrap().field(name) != now.field(name)).collect();
        let moved = then.is_live != was_live;
        let moves = moved && now.is_live != was_live;
        if changed.is_empty() && !moved {
            return None;
        }
        let is_other = |name: &&str| now.origins[*name] != then.origins[*name];
        let concerned = if moves && !was_live { FIELDS.to_vec() } else { to_change.clone() };
        let mut conflict: Vec<&str> = concerned.into_iter().filter(is_other).collect();
        if (moves || (!now.is_live && !to_change.is_empty())) && is_other(&"deleted_at") {
            conflict.push("deleted_at");
        }
        if !conflict.is_empty() {
            return Some(Err(conflict));
        }
        if to_change.is_empty() && !moves {
            // It is as it was already.
            return Some(Err(changed.into_iter().chain(moved.then_some("deleted_at")).collect()));
        }
        let mut expected = now.todo.clone();
        let fields: Vec<Field> = Field::ALL.into_iter().filter(|field| to_change.contains(&field.name())).collect();
        if let Some(before) = before {
            TodoPatch::to(&before.todo, &fields).apply(&mut expected).unwrap();
        }
        Some(Ok((if moves { was_live } else { now.is_live }, expected)))
    }
}

/// What clients see of a todo, but for its times.
fn shown(todo: &Todo) -> String {
    let times = Todo { created_at: Timestamp(0), updated_at: Timestamp(0), ..todo.clone() };
    serde_json::to_string(&times).unwrap()
}

#[test]
fn random_changes_are_undone_or_refused_as_a_simple_model_says() {
    let (mut undone, mut refused) = (0, 0);
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut f, mut past) = (Fixture::new(), Past::default());
        for step in 0..60 {
            let ids = past.log.iter().map(|(change, _)| change.todo.id.0).max().unwrap_or(0);
            if past.log.is_empty() || random.random_bool(0.5) {
                let made = random_changes(&f, &mut random, ids);
                past.made(made, &[]);
                continue;
            }
            let whole_batch = random.random_bool(0.5);
            let at = random.random_range(0..past.log.len());
            // More often something that was done lately.
            let target = Arc::clone(&past.log[at.max(random.random_range(0..past.log.len()))].0);
            let is_undone = |change: &Arc<Change>| {
                change.revision == target.revision
                    || (whole_batch && change.batch.is_some() && change.batch == target.batch)
            };
            let changes: Vec<_> =
                past.log.iter().map(|(change, _)| change).filter(|it| is_undone(it)).cloned().collect();
            let ids: BTreeSet<i64> = changes.iter().map(|change| change.todo.id.0).collect();
            let expected: BTreeMap<i64, _> = ids
                .into_iter()
                .filter_map(|id| {
                    let of_todo: Vec<_> = changes.iter().filter(|change| change.todo.id.0 == id).collect();
                    Some((id, past.undo(TodoId(id), &of_todo)?))
                })
                .collect();
            // Of several, those that are as they were are no reason to refuse.
            let is_worth_it = expected.values().any(Result::is_ok);
            let context = format!("seed {seed}, step {step}: undo {} {whole_batch}", target.revision);
            let before = f.dump();
            match f.apply(1, vec![Command::Undo { revision: target.revision, whole_batch }]) {
                Ok(made) => {
                    past.made(made, &changes);
                    for (id, expected) in expected {
                        let id = TodoId(id);
                        let there =
                            f.todo(1, id).or_else(|| f.trash(1).into_iter().find(|todo| todo.id == id)).unwrap();
                        match expected {
                            Ok((is_live, expected)) => {
                                let found = (f.todo(1, id).is_some(), shown(&there));
                                assert_eq!(found, (is_live, shown(&expected)), "{context}");
                            }
                            Err(_) => assert!(is_worth_it, "{context}"),
                        }
                    }
                    undone += 1;
                }
                Err(StoreError::Refused(Refusal::ChangedSince { conflict, current, .. })) => {
                    assert_eq!(Some(&Err(conflict)), expected.get(&current.id.0), "{context}");
                    assert_eq!(f.dump(), before, "{context}");
                    refused += 1;
                }
                Err(other) => panic!("{context}: {other:?}"),
            }
            if random.random_bool(0.05) {
                f.reopen();
            }
        }
        assert_eq!(f.check().unwrap(), Vec::<String>::new());
    }
    assert!(undone > 300 && refused > 300, "{undone} {refused}");
}

fn random_changes(f: &Fixture, random: &mut SmallRng, ids: i64) -> Vec<Arc<Change>> {
    let mut one = || {
        let id = random.random_range(1..=ids.max(1));
        match random.random_range(0..9) {
            0..2 => create("new"),
            2..6 => set(
                id,
                random.random_bool(0.6).then(|| random.random_range(0..3)),
                random.random_bool(0.6).then(|| random.random()),
            ),
            6 => rename(id, "other"),
            7 => delete(id),
            _ => restore(id),
        }
    };
    let commands: Vec<_> = (0..4).map(|_| one()).collect();
    let made = match random.random_range(0..4) {
        0 => f.apply_batch(1, commands),
        1 if random.random_bool(0.1) => f.apply(1, vec![delete_many(f, 1, random.random_bool(0.5).then_some(true))]),
        _ => f.apply(1, commands[..1].to_vec()),
    };
    made.unwrap_or_default()
}
