//! Undoing what the log has.

use super::*;
use crate::domain::todo::field::Field;

fn undo(revision: i64) -> Command {
    Command::Undo { revision: Revision(revision), whole_batch: false }
}

fn undo_batch(revision: i64) -> Command {
    Command::Undo { revision: Revision(revision), whole_batch: true }
}

fn delete_many(completed: Option<bool>) -> Command {
    Command::DeleteMany { completed, limit: 5, condition: Condition::default() }
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
    // That there and back is a change, too.
    assert_eq!(conflict(f.apply(1, vec![undo(3)])), ["priority"]);
    f.apply(1, vec![delete(1)]).unwrap();
    assert_eq!(conflict(f.apply(1, vec![undo(4)])), ["deleted_at"]);
    f.apply(1, vec![restore(1)]).unwrap();
    assert_eq!(kinds(&f.apply(1, vec![undo(4)])), [(1, Kind::Updated)], "it is there again");
    assert_eq!(conflict(f.apply(1, vec![undo(6)])), ["deleted_at"]);
    assert_eq!(conflict(f.apply(1, vec![undo(7)])), ["title"]);
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
    assert_eq!(kinds(&undone), [(2, Updated), (2, Deleted), (1, Restored), (1, Updated), (3, Deleted)]);
    let undone = undone.unwrap();
    assert!(undone.iter().all(|change| change.batch == Some(Revision(12))));
    let titles =
        |todos: Vec<Arc<Todo>>| todos.iter().map(|todo| (todo.id.0, todo.title.to_string())).collect::<Vec<_>>();
    assert_eq!(titles(f.todos(1)), [(1, "a".to_owned()), (4, "afterwards".to_owned())]);
    assert_eq!(titles(f.trash(1)), [(3, "c2".to_owned()), (2, "b".to_owned())]);
    // And so is the undo.
    f.apply(1, vec![undo_batch(14)]).unwrap();
    assert_eq!(titles(f.todos(1)), [(2, "b2".to_owned()), (3, "c2".to_owned()), (4, "afterwards".to_owned())]);
    // A change that was made alone is a batch of one.
    assert_eq!(kinds(&f.apply(1, vec![undo_batch(11)])), [(4, Deleted)]);
}

#[test]
fn what_many_were_deleted_with_is_undone_with_one_request() {
    let f = Fixture::new();
    f.apply(1, (0..4).map(|n| create(&n.to_string())).collect()).unwrap();
    f.apply(1, vec![set(2, None, Some(true)), set(3, None, Some(true))]).unwrap();
    assert_eq!(kinds(&f.apply(1, vec![delete_many(Some(true))])), [(2, Kind::Deleted), (3, Kind::Deleted)]);
    f.apply(1, vec![restore(3)]).unwrap();
    assert_eq!(conflict(f.apply(1, vec![undo_batch(7)])), ["deleted_at"]);
    f.apply(1, vec![undo(9)]).unwrap();
    assert_eq!(conflict(f.apply(1, vec![undo_batch(7)])), ["deleted_at"], "there and back");
    assert_eq!(kinds(&f.apply(1, vec![undo(7)])), [(2, Kind::Restored)]);
    assert_eq!(f.apply(2, vec![delete_many(None)]).unwrap(), []);
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
        f.connection().execute("DELETE FROM changes WHERE owner_id = 1 AND revision <= ?1", [through]).unwrap();
    };
    prune(2);
    assert_eq!(refused(2, false), Some(Refusal::ChangeGone));
    // What was before these is not there any more, or part of the batch isn't.
    assert_eq!(refused(4, false), Some(Refusal::ChangeGone));
    prune(4);
    assert_eq!(refused(5, true), Some(Refusal::ChangeGone));
    // Its creation would say what was before.
    assert_eq!(refused(6, false), Some(Refusal::ChangeGone));
    f.apply(1, vec![delete(3)]).unwrap();
    f.apply(1, vec![purge(3)]).unwrap();
    assert_eq!(refused(7, false), Some(Refusal::ChangeGone), "removed for good");
    f.apply(1, vec![delete(2)]).unwrap();
    prune(7);
    assert_eq!(refused(8, false), None, "what was deleted says itself what it was");
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
    f.apply(1, vec![delete_many(None)]).unwrap();
    f.create(1, "c");
    let full = Err(StoreError::Refused(Refusal::TooManyTodos { limit: 2 }));
    assert_eq!(f.apply(1, vec![undo_batch(3)]), full);
    assert_eq!(f.trash(1).len(), 2, "all or nothing");
    assert_eq!(kinds(&f.apply(1, vec![undo(4)])), [(2, Kind::Restored)]);
    assert_eq!(f.apply(1, vec![create("d")]), full);
}

#[test]
fn a_change_that_cannot_be_read_fails_only_the_request_that_needs_it() {
    let f = Fixture::new();
    f.create(1, "a");
    f.apply(1, vec![rename(1, "b")]).unwrap();
    f.connection().execute("UPDATE changes SET kind = 9 WHERE revision = 1", []).unwrap();
    assert_eq!(f.apply(1, vec![undo(2)]), Err(StoreError::Refused(Refusal::Unanswerable)));
    f.create(1, "c");
    assert!(f.writable());
}

/// The log of one owner, and where its todos are, as simply as it can be said.
#[derive(Default)]
struct Past {
    log: Vec<Arc<Change>>,
}

impl Past {
    fn of(&self, todo: TodoId) -> impl DoubleEndedIterator<Item = &Arc<Change>> {
        self.log.iter().filter(move |change| change.todo.id == todo)
    }

    /// What undoing these changes must give for one todo: whether it is there, and with which fields; or what is in the way.
    fn undo(&self, todo: TodoId, undone: &[&Arc<Change>]) -> Result<(bool, Todo), Vec<&'static str>> {
        let (first, last) = (undone[0], undone[undone.len() - 1]);
        let later: Vec<_> = self.of(todo).filter(|change| change.revision > last.revision).collect();
        let before = self.of(todo).rfind(|change| change.revision < first.revision);
        let was_live = before.is_some_and(|before| before.kind != Kind::Deleted);
        let now = self.of(todo).next_back().unwrap();
        let touches = |field: Field, changes: &[&Arc<Change>]| changes.iter().any(|it| it.changed.contains(&field));
        let moves = |changes: &[&Arc<Change>]| changes.iter().any(|it| it.kind != Kind::Updated);
        let mut conflict: Vec<&str> = Field::ALL
            .into_iter()
            .filter(|field| touches(*field, &later) && (!was_live || touches(*field, undone)))
            .map(Field::name)
            .collect();
        let is_gone = now.kind == Kind::Deleted && last.kind != Kind::Deleted;
        if is_gone || (moves(undone) && moves(&later)) {
            conflict.push("deleted_at");
        }
        if !conflict.is_empty() {
            return Err(conflict);
        }
        let mut expected = Todo::clone(&now.todo);
        if let Some(before) = before {
            let touched: Vec<Field> = Field::ALL.into_iter().filter(|field| touches(*field, undone)).collect();
            TodoPatch::to(&before.todo, &touched).apply(&mut expected).unwrap();
        }
        Ok((was_live, expected))
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
            let ids = past.log.iter().map(|change| change.todo.id.0).max().unwrap_or(0);
            if past.log.is_empty() || random.random_bool(0.6) {
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
                    1 if random.random_bool(0.1) => {
                        f.apply(1, vec![delete_many(random.random_bool(0.5).then_some(true))])
                    }
                    _ => f.apply(1, commands[..1].to_vec()),
                };
                past.log.extend(made.unwrap_or_default());
                continue;
            }
            let whole_batch = random.random_bool(0.5);
            let at = random.random_range(0..past.log.len());
            // More often something that was done lately.
            let target = Arc::clone(&past.log[at.max(random.random_range(0..past.log.len()))]);
            let of_undo = |change: &&Arc<Change>| {
                change.revision == target.revision
                    || (whole_batch && change.batch.is_some() && change.batch == target.batch)
            };
            let changes: Vec<_> = past.log.iter().filter(of_undo).cloned().collect();
            let mut todos: Vec<TodoId> = changes.iter().map(|change| change.todo.id).collect();
            todos.sort_unstable();
            todos.dedup();
            let expected: Vec<_> = todos
                .iter()
                .map(|id| {
                    let of_todo: Vec<_> = changes.iter().filter(|change| change.todo.id == *id).collect();
                    (*id, past.undo(*id, &of_todo))
                })
                .collect();
            let context = format!("seed {seed}, step {step}: undo {} {whole_batch}", target.revision);
            let before = f.dump();
            match f.apply(1, vec![Command::Undo { revision: target.revision, whole_batch }]) {
                Ok(made) => {
                    past.log.extend(made);
                    for (id, expected) in expected {
                        let (is_live, expected) = expected.unwrap_or_else(|conflict| panic!("{context}: {conflict:?}"));
                        let there =
                            f.todo(1, id).or_else(|| f.trash(1).into_iter().find(|todo| todo.id == id)).unwrap();
                        assert_eq!((f.todo(1, id).is_some(), shown(&there)), (is_live, shown(&expected)), "{context}");
                    }
                    undone += 1;
                }
                Err(StoreError::Refused(Refusal::ChangedSince { conflict, current, .. })) => {
                    let (_, expected) = expected.into_iter().find(|(id, _)| *id == current.id).unwrap();
                    assert_eq!(Err(conflict), expected.map(drop), "{context}");
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
