//! Time, restarts, and long random lives.

use super::*;

#[test]
fn a_clock_that_jumps_back_does_not_take_changes_with_it() {
    let mut f = Fixture::new();
    let mut at = Vec::new();
    let mut apply = |f: &Fixture, now: i64, owner: i64, command: Command| {
        f.clock.set(now);
        let change = Arc::clone(&f.apply(owner, vec![command]).unwrap()[0]);
        at.push((change.at.0, change.todo.created_at.0, change.todo.updated_at.0));
    };
    apply(&f, 5_000, 1, create("a"));
    apply(&f, 1_000, 1, create("b"));
    apply(&f, 1_000, 1, rename(1, "a2"));
    // Owners have their own time.
    apply(&f, 2_000, 2, create("c"));
    f.reopen();
    apply(&f, 3_000, 1, delete(2));
    apply(&f, 6_000, 1, create("d"));
    assert_eq!(
        at,
        [
            (5_000, 5_000, 5_000),
            (5_000, 5_000, 5_000),
            (5_000, 5_000, 5_000),
            (2_000, 2_000, 2_000),
            (5_000, 5_000, 5_000),
            (6_000, 6_000, 6_000)
        ]
    );
}

#[test]
fn the_id_of_a_deleted_todo_is_never_used_again() {
    let mut f = Fixture::new();
    let todo = f.create(1, "last");
    f.apply(1, vec![delete(todo.id.0)]).unwrap();
    f.reopen();
    assert_eq!(f.create(2, "next").id.0, todo.id.0 + 1);
}

/// What the store must hold after some commands, as simply as it can be said.
#[derive(Default)]
struct Model {
    todos: BTreeMap<(i64, i64), (i64, String, bool)>,
    trash: BTreeMap<(i64, i64), (i64, String, bool)>,
    revisions: BTreeMap<i64, i64>,
    last_id: i64,
    /// (owner, todo, version, revision, kind), in commit order.
    log: Vec<(i64, i64, i64, i64, Kind)>,
}

impl Model {
    fn apply(&mut self, owner: i64, commands: &[Command]) -> Option<Vec<(i64, i64, i64)>> {
        let (mut todos, mut trash) = (self.todos.clone(), self.trash.clone());
        let (mut revision, mut last_id) = (*self.revisions.get(&owner).unwrap_or(&0), self.last_id);
        let mut log = Vec::new();
        for command in commands {
            let (id, version, kind) = match command {
                Command::Create(new) => {
                    last_id += 1;
                    todos.insert((owner, last_id), (1, new.title.to_string(), new.completed));
                    (last_id, 1, Kind::Created)
                }
                Command::Update { todo: Target::Id(id), patch, .. } => {
                    let todo = todos.get_mut(&(owner, id.0))?;
                    todo.0 += 1;
                    todo.1 = patch.title.as_deref().unwrap_or(&todo.1).to_owned();
                    todo.2 = patch.completed.unwrap_or(todo.2);
                    (id.0, todo.0, Kind::Updated)
                }
                Command::Delete(Target::Id(id), _) => {
                    let mut todo = todos.remove(&(owner, id.0))?;
                    todo.0 += 1;
                    let version = todo.0;
                    trash.insert((owner, id.0), todo);
                    (id.0, version, Kind::Deleted)
                }
                Command::Restore(id, _) => {
                    let mut todo = trash.remove(&(owner, id.0))?;
                    todo.0 += 1;
                    let version = todo.0;
                    todos.insert((owner, id.0), todo);
                    (id.0, version, Kind::Restored)
                }
                Command::DeleteMany { todos: wanted, completed, .. } => {
                    let is_wanted = |(of, id): &(i64, i64), todo: &(i64, String, bool)| {
                        *of == owner && wanted.contains(&TodoId(*id)) && completed.is_none_or(|it| it == todo.2)
                    };
                    for ((_, id), mut todo) in
                        todos.extract_if(.., |key, todo| is_wanted(key, todo)).collect::<Vec<_>>()
                    {
                        (revision, todo.0) = (revision + 1, todo.0 + 1);
                        log.push((owner, id, todo.0, revision, Kind::Deleted));
                        trash.insert((owner, id), todo);
                    }
                    continue;
                }
                Command::Purge(id, _) => {
                    trash.remove(&(owner, id.0))?;
                    continue;
                }
                Command::EmptyTrash { todos: wanted, .. } => {
                    trash.retain(|(of, id), _| *of != owner || !wanted.contains(&TodoId(*id)));
                    continue;
                }
                // All accounts are active, no command is about what another one creates, and undo has its own test.
                Command::Erase(_) | Command::Update { .. } | Command::Delete(..) | Command::Undo { .. } => return None,
            };
            revision += 1;
            log.push((owner, id, version, revision, kind));
        }
        (self.todos, self.trash) = (todos, trash);
        self.revisions.insert(owner, revision);
        self.last_id = last_id;
        self.log.extend(&log);
        Some(log.into_iter().map(|(_, id, version, revision, _)| (id, version, revision)).collect())
    }
}

pub(super) fn random_commands(random: &mut SmallRng, ids: i64) -> Vec<Command> {
    let count = if random.random_bool(0.8) { 1 } else { random.random_range(2..5) };
    let one = |_| {
        // Some that never were.
        let id = random.random_range(1..=ids + 2);
        let title = random.random_range(0..1000).to_string();
        match random.random_range(0..13) {
            0..3 => create(&title),
            3..5 => delete(id),
            5 => put(id, TodoPatch { completed: Some(random.random()), ..TodoPatch::default() }),
            6..8 => restore(id),
            8 => purge(id),
            9 if random.random_bool(0.2) => empty_trash(ids),
            9 if random.random_bool(0.2) => Command::DeleteMany {
                todos: (1..=ids).filter(|_| random.random()).map(TodoId).collect(),
                completed: random.random_bool(0.5).then(|| random.random()),
                more: false,
                condition: Condition::default(),
            },
            _ => rename(id, &title),
        }
    };
    (0..count).map(one).collect()
}

#[test]
fn random_lives_of_a_store_agree_with_a_simple_model() {
    for seed in 0..40 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut f, mut model) = (Fixture::new(), Model::default());
        for _ in 0..random.random_range(1..6) {
            f.clock.set(random.random_range(0..1_000));
            let (gate, held) = f.hold();
            let mut expected = vec![model.apply(OWNERS[0], &[create("holds the writer")])];
            let mut answers = vec![held];
            for _ in 0..random.random_range(0..40) {
                let owner = OWNERS[random.random_range(0..3)];
                let commands = random_commands(&mut random, model.last_id);
                expected.push(model.apply(owner, &commands));
                answers.push(f.submit(owner, commands));
            }
            drop(gate);
            let answers: Vec<_> = wait(answers).iter().map(|answer| answer.is_ok().then(|| numbers(answer))).collect();
            assert_eq!(answers, expected, "seed {seed}");
            if random.random_bool(0.5) {
                f.reopen();
            }
            check(&f, &model, seed);
        }
    }
}

fn check(f: &Fixture, model: &Model, seed: u64) {
    let as_model = |of: &dyn Fn(i64) -> Vec<Arc<Todo>>| -> BTreeMap<_, _> {
        let todos = OWNERS.iter().flat_map(|owner| of(*owner));
        let todo = |todo: &Todo| (todo.version.0, todo.title.to_string(), todo.completed);
        todos.map(|it| ((it.owner.0, it.id.0), todo(&it))).collect()
    };
    assert_eq!(as_model(&|owner| f.todos(owner)), model.todos, "seed {seed}");
    assert_eq!(as_model(&|owner| f.trash(owner)), model.trash, "seed {seed}");
    assert_eq!(f.todo_count(), model.todos.len());
    for owner in OWNERS {
        let view = f.view(UserId(owner)).now_or_never().unwrap().unwrap();
        assert_eq!(view.revision.0, model.revisions.get(&owner).copied().unwrap_or(0), "seed {seed}");
    }
    assert_eq!(f.outbox().pending(), model.log.len());
    let unpublished = f.unpublished();
    let log: Vec<_> = unpublished
        .iter()
        .map(|change| (change.todo.owner.0, change.todo.id.0, change.todo.version.0, change.revision.0, change.kind))
        .collect();
    assert_eq!(log, model.log, "seed {seed}");
    for owner in OWNERS {
        let at: Vec<_> = unpublished.iter().filter(|c| c.todo.owner.0 == owner).map(|c| c.at).collect();
        assert!(at.is_sorted(), "seed {seed}: time goes back");
    }
}
