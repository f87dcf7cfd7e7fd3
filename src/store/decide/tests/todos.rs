//! Conditions, versions of fields, batches and requests that are repeated.

use super::*;
use crate::domain::etag::EntityTag;
use crate::domain::todo::tags::{MAX_TAGS, Tags, TagsChange};
use crate::store::idempotency::{Idempotency, KeptAnswer};
use crate::store::outcome::{Applied, Outcome};
use crate::store::{Commands, Merge, Target};

impl Committed {
    fn send(&mut self, owner: i64, commands: Commands) -> Result<Answered, Refused> {
        let (context, _) = request(owner, Vec::new());
        self.commit(1, true, |group| group.decide(&context, commands, Prior::default()))
    }

    fn one(&mut self, command: Command) -> Result<Outcome, Refusal> {
        match self.send(1, vec![command].into()).map_err(|refused| refused.refusal)? {
            Answered::Applied(applied, _) => Ok(applied.outcomes.into_iter().next().unwrap()),
            Answered::Repeated(_) => panic!("no request is repeated"),
        }
    }
}

fn patch(id: i64, patch: TodoPatch, condition: Condition) -> Command {
    Command::Update { todo: TodoId(id).into(), patch, always: false, condition }
}

fn title(text: &str) -> TodoPatch {
    TodoPatch { title: Some(text.into()), ..TodoPatch::default() }
}

fn completed() -> TodoPatch {
    TodoPatch { completed: Some(true), ..TodoPatch::default() }
}

fn if_match(version: i64) -> Condition {
    Condition { if_match: Some(Versions::Of(vec![Version(version)])), ..Condition::default() }
}

fn if_none_match(versions: Versions) -> Condition {
    Condition { if_none_match: Some(versions), ..Condition::default() }
}

fn merge(version: i64) -> Condition {
    Condition { merge: Merge::Asked, ..if_match(version) }
}

/// The fields that are in conflict; `None`: it is not refused for its condition.
fn conflict(outcome: Result<Outcome, Refusal>) -> Option<Vec<Field>> {
    match outcome {
        Err(Refusal::PreconditionFailed { conflict, .. }) => Some(conflict),
        _ => None,
    }
}

#[test]
fn a_condition_that_does_not_hold_is_refused_with_what_there_is() {
    let mut state = Committed::nothing();
    state.one(create("a")).unwrap();
    state.one(rename(1, "b")).unwrap();
    let current = Arc::clone(&state.todos[&TodoId(1)]);
    let etag = EntityTag { epoch: Epoch(7), todo: TodoId(1), version: Version(2) };
    let failed = Err(Refusal::PreconditionFailed { current, etag, conflict: Vec::new() });
    let none = || Versions::Of(Vec::new());
    for condition in [
        if_match(1),
        if_match(3),
        Condition { if_match: Some(none()), ..Condition::default() },
        Condition { if_match: Some(none()), merge: Merge::Asked, ..Condition::default() },
        merge(3),
        if_none_match(Versions::Any),
        if_none_match(Versions::Of(vec![Version(9), Version(2)])),
        Condition { if_none_match: Some(Versions::Any), ..if_match(2) },
        Condition { if_none_match: Some(Versions::Any), ..merge(1) },
    ] {
        assert_eq!(state.one(patch(1, completed(), condition.clone())), failed, "{condition:?}");
        assert_eq!(state.one(Command::Delete(TodoId(1).into(), condition.clone())), failed, "{condition:?}");
        // Whatever the condition, a todo that isn't there is not found.
        assert_eq!(state.one(patch(7, completed(), condition)), Err(Refusal::TodoNotFound));
    }
    for (version, condition) in (2..).zip([
        if_match(2),
        Condition { if_match: Some(Versions::Any), ..Condition::default() },
        Condition { if_match: Some(Versions::Of(vec![Version(1), Version(4)])), ..Condition::default() },
        if_none_match(Versions::Of(vec![Version(1)])),
        if_none_match(none()),
    ]) {
        let outcome = state.one(patch(1, title(&version.to_string()), condition.clone())).unwrap();
        assert_eq!(outcome.todo().unwrap().version, Version(version + 1), "{condition:?}");
    }
}

#[test]
fn conditions_are_about_what_is_in_the_trash_too() {
    let mut state = Committed::nothing();
    state.one(create("a")).unwrap();
    state.one(delete(1)).unwrap();
    assert!(conflict(state.one(Command::Restore(TodoId(1), if_match(1)))).is_some());
    assert!(conflict(state.one(Command::Purge(TodoId(1), if_match(1)))).is_some());
    state.one(Command::Restore(TodoId(1), if_match(2))).unwrap();
    state.one(Command::Delete(TodoId(1).into(), if_match(3))).unwrap();
    assert_eq!(state.one(Command::Purge(TodoId(1), if_match(4))), Ok(Outcome::Purged { count: 1, more: false }));
    assert_eq!(state.one(restore(1)), Err(Refusal::TodoNotFound));
}

#[test]
fn a_patch_that_changes_nothing_takes_no_version_and_a_put_does() {
    let mut state = Committed::nothing();
    state.one(create("a")).unwrap();
    let todo = Arc::clone(&state.todos[&TodoId(1)]);
    for same in [title("a"), TodoPatch::default(), TodoPatch { priority: Some(None), ..TodoPatch::default() }] {
        assert_eq!(state.one(patch(1, same, Condition::default())), Ok(Outcome::Unchanged(Arc::clone(&todo))));
    }
    assert!(conflict(state.one(patch(1, title("a"), if_match(9)))).is_some());
    let outcome = state.one(put(1, title("a"))).unwrap();
    let change = &outcome.changes()[0];
    assert_eq!((change.todo.version, &*change.changed), (Version(2), &[][..]));
    assert_eq!(state.head(UserId(1)).revision, Revision(2));
}

#[test]
fn a_stale_patch_is_merged_if_nobody_has_changed_its_fields() {
    let mut state = Committed::nothing();
    state.one(create("a")).unwrap();
    state.one(patch(1, title("b"), Condition::default())).unwrap();
    state.one(put(1, title("b"))).unwrap();
    // The title is of version 2, everything else of version 1.
    assert_eq!(conflict(state.one(patch(1, completed(), merge(1)))), None);
    assert_eq!(conflict(state.one(patch(1, title("c"), merge(1)))), Some(vec![Field::Title]));
    assert_eq!(conflict(state.one(patch(1, title("c"), merge(2)))), None);
    // Back to what it was is a change too.
    state.one(patch(1, title("b"), Condition::default())).unwrap();
    let both = TodoPatch { completed: Some(false), ..title("b") };
    assert_eq!(conflict(state.one(patch(1, both, merge(3)))), Some(vec![Field::Title, Field::Completed]));
    // Deleted and restored, the fields are as old as before.
    state.one(delete(1)).unwrap();
    state.one(restore(1)).unwrap();
    assert_eq!(
        conflict(state.one(patch(1, TodoPatch { completed: Some(false), ..TodoPatch::default() }, merge(4)))),
        None
    );
    let tags = TagsChange::Edit { add: Tags::new(["x".into()]), remove: Tags::default() };
    let tag = TodoPatch { tags: Some(tags), ..TodoPatch::default() };
    assert_eq!(conflict(state.one(patch(1, tag.clone(), merge(1)))), None);
    assert_eq!(
        state.one(patch(1, tag, Condition { merge: Merge::Impossible, ..Condition::default() })),
        Err(Refusal::CannotMerge)
    );
    let other = TagsChange::Edit { add: Tags::new(["y".into()]), remove: Tags::default() };
    let other = TodoPatch { tags: Some(other), ..TodoPatch::default() };
    assert_eq!(conflict(state.one(patch(1, other, merge(1)))), Some(vec![Field::Tags]));
}

#[test]
fn a_batch_can_go_on_with_what_it_has_created() {
    let mut state = Committed::nothing();
    state.one(create("first")).unwrap();
    let created = |command| Target::CreatedBy(command);
    let on = |todo, patch| Command::Update { todo, patch, always: false, condition: Condition::default() };
    let commands = vec![
        create("a"),
        create("b"),
        on(created(0), title("a2")),
        on(created(0), title("a2")),
        Command::Delete(created(1), Condition::default()),
        on(TodoId(1).into(), completed()),
    ];
    let batch = Commands { commands, is_batch: true, ..Commands::default() };
    let Answered::Applied(Applied { outcomes, revision }, _) = state.send(1, batch).unwrap() else { panic!() };
    let ids: Vec<i64> = outcomes.iter().map(|outcome| outcome.todo().unwrap().id.0).collect();
    assert_eq!((ids, revision), (vec![2, 3, 2, 2, 3, 1], Revision(6)));
    let changes: Vec<_> = outcomes.iter().flat_map(Outcome::changes).collect();
    assert_eq!(changes.len(), 5);
    assert!(changes.iter().all(|change| change.batch == Some(Revision(2))));
    let before = state.clone();
    for (index, bad) in [(1, on(created(7), completed())), (1, on(created(1), completed())), (1, restore(2))] {
        let batch = Commands { commands: vec![create("never"), bad], is_batch: true, ..Commands::default() };
        assert_eq!(state.send(1, batch).unwrap_err().command, Some(index));
    }
    assert_eq!(state, before);
}

#[test]
fn a_batch_that_is_refused_shows_nothing_that_it_would_have_made() {
    let mut state = Committed::nothing();
    state.one(create("committed")).unwrap();
    state.one(create("deleted")).unwrap();
    state.one(delete(2)).unwrap();
    let shown = |state: &mut Committed, commands: Vec<Command>| {
        let batch = Commands { commands, is_batch: true, ..Commands::default() };
        match state.send(1, batch).unwrap_err().refusal {
            Refusal::PreconditionFailed { current, etag, .. } => Some((current, etag.version)),
            Refusal::TodoNotFound => None,
            other => panic!("{other:?}"),
        }
    };
    let (live, trashed) = (Arc::clone(&state.todos[&TodoId(1)]), Arc::clone(&state.trash[&TodoId(2)]));
    let changed = patch(1, title("never"), Condition::default());
    let stale = vec![changed.clone(), patch(1, completed(), if_match(1))];
    assert_eq!(shown(&mut state, stale), Some((Arc::clone(&live), Version(1))));
    let stale = vec![delete(1), Command::Restore(TodoId(1), if_match(1))];
    assert_eq!(shown(&mut state, stale), Some((live, Version(1))));
    let stale = vec![restore(2), patch(2, completed(), if_match(2))];
    assert_eq!(shown(&mut state, stale), Some((trashed, Version(2))));
    // A todo that would only have been created by it was never there.
    assert_eq!(shown(&mut state, vec![create("never"), patch(3, completed(), if_match(9))]), None);
}

#[test]
fn a_todo_cannot_get_too_many_tags_bit_by_bit() {
    let mut state = Committed::nothing();
    state.one(create("a")).unwrap();
    let add = |from: usize, to: usize| {
        let add = Tags::new((from..to).map(|n| n.to_string().into()));
        let tags = Some(TagsChange::Edit { add, remove: Tags::default() });
        patch(1, TodoPatch { tags, ..TodoPatch::default() }, Condition::default())
    };
    state.one(add(0, MAX_TAGS - 1)).unwrap();
    assert_eq!(state.one(add(30, 32)), Err(Refusal::TooManyTags));
    state.one(add(30, 31)).unwrap();
    assert_eq!(state.one(add(31, 32)), Err(Refusal::TooManyTags));
}

#[test]
fn many_are_deleted_in_one_batch_if_nothing_has_changed_since() {
    let mut state = Committed::nothing();
    for title in ["a", "b", "c", "d"] {
        state.one(create(title)).unwrap();
    }
    state.apply(1, &[request(2, vec![create("another owner's")])]);
    state.one(patch(2, completed(), Condition::default())).unwrap();
    let many = |ids: &[i64], completed, condition| {
        let todos = ids.iter().copied().map(TodoId).collect();
        Command::DeleteMany { todos, completed, more: true, condition }
    };
    let at = |revision| Condition { if_match: Some(Versions::Of(vec![Revision(revision)])), ..Condition::default() };
    assert_eq!(state.one(many(&[1], None, at(4))), Err(Refusal::ListChanged));
    let deleted = |outcome: Outcome| {
        let Outcome::Several { changes, more: true } = outcome else { panic!("{outcome:?}") };
        let batch = changes.first().map(|first| first.revision);
        assert!(changes.iter().all(|change| change.batch == batch && change.kind == Kind::Deleted));
        changes.iter().map(|change| change.todo.id.0).collect::<Vec<_>>()
    };
    // What has changed or gone since it was chosen is left out.
    assert_eq!(deleted(state.one(many(&[1, 2, 3, 5, 99], Some(false), at(5))).unwrap()), [1, 3]);
    assert_eq!(deleted(state.one(many(&[1, 2, 4], None, Condition::default())).unwrap()), [2, 4]);
    assert_eq!(deleted(state.one(many(&[1, 2], None, Condition::default())).unwrap()), [0; 0]);
    assert_eq!(state.todo_count(UserId(2)), 1);
}

#[test]
fn what_the_log_does_not_have_yet_is_not_undone() {
    let mut state = Committed::nothing();
    state.one(create("a")).unwrap();
    let undo = Command::Undo { revision: Revision(1), whole_batch: false };
    let answers =
        state.apply(1, &[request(2, vec![create("b")]), request(1, vec![rename(1, "c")]), request(1, vec![undo])]);
    assert_eq!(answers[2], Err(Refusal::Unanswerable));
}

#[test]
fn an_owner_has_only_so_many_live_todos() {
    let mut state = Committed::nothing();
    let full = Err(Refusal::TooManyTodos { limit: MAX_TODOS });
    let many = |count| vec![create("a"); count];
    assert_eq!(state.apply(1, &[request(1, many(MAX_TODOS + 1))])[0], full);
    // Counted over what is committed, what the group has decided, and the request itself.
    let answers = state.apply(1, &[request(1, many(5)), request(2, many(1)), request(1, many(MAX_TODOS - 4))]);
    assert_eq!((answers[0].is_ok(), answers[1].is_ok(), &answers[2]), (true, true, &full));
    state.apply(1, &[request(1, many(MAX_TODOS - 6))])[0].as_ref().unwrap();
    assert_eq!(state.apply(1, &[request(1, many(2))])[0], full);
    state.one(create("the last")).unwrap();
    assert_eq!(state.apply(1, &[request(1, vec![create("never"), delete(1)])])[0], full);
    // Whoever makes room first may.
    state.apply(1, &[request(1, vec![delete(1), create("b")])])[0].as_ref().unwrap();
    assert_eq!(state.apply(1, &[request(1, vec![restore(1)])])[0], full);
    state.apply(1, &[request(1, vec![delete(2), restore(1)])])[0].as_ref().unwrap();
    let room = |room, commands| Commands { commands, room, ..Commands::default() };
    state.one(delete(1)).unwrap();
    assert_eq!(state.send(1, room(2, many(1))).map_err(|refused| refused.refusal).map(drop), full.map(drop));
    assert!(state.send(1, room(1, many(1))).is_ok());
}

/// A request whose content is its number, and whose answer is what it did.
fn keyed(content: u8, commands: Vec<Command>) -> Commands {
    let answer = |applied: &Applied| {
        Ok(KeptAnswer { status: 200, headers: Vec::new(), body: format!("{applied:?}").into_bytes() })
    };
    let request = format!("key {}", content % 8).into();
    let idempotency = Idempotency { request, key: "key".into(), fingerprint: [content; 32], answer: Box::new(answer) };
    Commands { commands, idempotency: Some(idempotency), ..Commands::default() }
}

impl Committed {
    /// Decides a request, of which what was committed before the group is known.
    fn decide(
        &self,
        group: &mut Group<'_, Self>,
        (content, (context, commands)): &(u8, Request),
    ) -> Result<Answered, Refused> {
        let request = keyed(*content, commands.clone());
        let idempotency = request.idempotency.as_ref().unwrap();
        let kept = self.answers.get(&(context.owner, Arc::clone(&idempotency.request)));
        let known = kept.map(|kept| kept.known(&idempotency.fingerprint));
        group.decide(context, request, Prior { answer: known, undone: Vec::new() })
    }
}

#[test]
fn a_group_repeats_answers_as_its_requests_would_one_at_a_time() {
    let mut repeated = 0;
    for seed in 0..200 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut grouped, mut single) = (Committed::nothing(), Committed::nothing());
        for _ in 0..random.random_range(1..6) {
            let requests: Vec<_> = (0..random.random_range(0..20))
                .map(|_| (random.random_range(0..12), random_request(&mut random, grouped.next.id.0)))
                .collect();
            let before = grouped.clone();
            let answers: Vec<_> =
                grouped.commit(1, true, |group| requests.iter().map(|it| before.decide(group, it)).collect());
            let one_by_one = |it| {
                let before = single.clone();
                single.commit(1, true, |group| before.decide(group, it))
            };
            let expected: Vec<_> = requests.iter().map(one_by_one).collect();
            assert_eq!(answers, expected, "seed {seed}");
            assert_eq!(grouped, single, "seed {seed}");
            repeated += answers.iter().filter(|answer| matches!(answer, Ok(Answered::Repeated(_)))).count();
        }
    }
    assert!(repeated > 100, "{repeated}");
}
