//! Requests that are sent twice.

use super::*;

/// A request with a key, which the fingerprint is made of `content` for. Its answer is what it did, as text.
pub fn keyed(key: &str, content: &str, commands: Vec<Command>) -> Commands {
    let mut fingerprint = [0; 32];
    for (byte, of) in fingerprint.iter_mut().zip(content.bytes()) {
        *byte = of;
    }
    let idempotency = Idempotency {
        request: format!("POST /todos {key}").into(),
        key: key.into(),
        fingerprint,
        answer: Box::new(|applied| {
            let todos: Vec<_> = applied.outcomes.iter().filter_map(Outcome::todo).collect();
            let headers = vec![("Revision".to_owned(), applied.revision.to_string())];
            Ok(KeptAnswer { status: 201, headers, body: serde_json::to_vec(&todos)? })
        }),
    };
    Commands { commands, idempotency: Some(idempotency), ..Commands::default() }
}

impl Fixture {
    pub fn send(&self, owner: i64, key: &str, content: &str, command: Command) -> Result<Answered, StoreError> {
        self.submit_request(owner, keyed(key, content, vec![command])).blocking_recv().unwrap()
    }

    pub fn kept(&self) -> i64 {
        self.database.number("SELECT count(*) FROM idempotency")
    }
}

fn applied(answered: Result<Answered, StoreError>) -> Vec<Arc<Change>> {
    changes(answered).unwrap()
}

pub fn repeated(answered: Result<Answered, StoreError>) -> Arc<KeptAnswer> {
    match answered.unwrap() {
        Answered::Repeated(answer) => answer,
        Answered::Applied(applied, _) => panic!("it was applied again: {applied:?}"),
    }
}

#[test]
fn a_request_that_is_sent_again_is_answered_and_not_applied_again() {
    let mut f = Fixture::new();
    let first = applied(f.send(1, "k", "a", create("a")));
    assert_eq!(first[0].op.as_deref(), Some("k"));
    f.create(1, "meanwhile");
    let again = repeated(f.send(1, "k", "a", create("a")));
    assert_eq!((again.status, again.headers[0].1.as_str()), (201, "1"));
    assert_eq!(again.body, serde_json::to_vec(&[&first[0].todo]).unwrap());
    f.reopen();
    assert_eq!(repeated(f.send(1, "k", "a", create("a"))), again);
    assert_eq!((f.todo_count(), f.head(1)), (2, 2));
    // The change in the log says which request made it.
    assert_eq!(f.unpublished()[0].op.as_deref(), Some("k"));
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
}

#[test]
fn another_request_with_the_same_key_is_refused_and_other_users_have_their_own_keys() {
    let f = Fixture::new();
    applied(f.send(1, "k", "a", create("a")));
    assert_eq!(f.send(1, "k", "b", create("b")), Err(StoreError::Refused(Refusal::KeyReused)));
    applied(f.send(2, "k", "b", create("b")));
    assert_eq!(f.todo_count(), 2);
}

#[test]
fn what_was_refused_is_not_kept_and_can_be_sent_again() {
    let f = Fixture::new();
    assert_eq!(f.send(1, "k", "a", rename(1, "b")), Err(StoreError::Refused(Refusal::TodoNotFound)));
    assert_eq!(f.kept(), 0);
    f.create(1, "a");
    applied(f.send(1, "k", "a", rename(1, "b")));
}

#[test]
fn twins_in_one_group_are_one() {
    let f = Fixture::new();
    let (gate, held) = f.hold();
    let send = |key, content, commands| f.submit_request(1, keyed(key, content, commands));
    let twins: Vec<_> = (0..20).map(|_| send("k", "a", vec![create("a")])).collect();
    // The first one is refused: the twin is applied.
    let refused = send("l", "b", vec![rename(2, "b"), delete(99)]);
    let other = send("l", "b", vec![rename(2, "b")]);
    let reused = send("k", "c", vec![create("c")]);
    drop(gate);
    held.blocking_recv().unwrap().unwrap();
    let mut answers = twins.into_iter().map(|twin| twin.blocking_recv().unwrap());
    applied(answers.next().unwrap());
    let again: Vec<_> = answers.map(repeated).collect();
    assert!(again.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(refused.blocking_recv().unwrap(), Err(StoreError::Refused(Refusal::TodoNotFound)));
    applied(other.blocking_recv().unwrap());
    assert_eq!(reused.blocking_recv().unwrap(), Err(StoreError::Refused(Refusal::KeyReused)));
    assert_eq!((f.head(1), f.kept()), (3, 2));
}

#[test]
fn a_request_that_changes_nothing_is_kept_too() {
    let mut f = Fixture::new();
    f.create(1, "a");
    let same = patch(1, TodoPatch { title: Some("a".into()), ..TodoPatch::default() });
    assert_eq!(applied(f.send(1, "k", "a", same.clone())), []);
    f.apply(1, vec![rename(1, "b")]).unwrap();
    f.reopen();
    let again = repeated(f.send(1, "k", "a", same));
    assert_eq!((again.headers[0].1.as_str(), f.head(1)), ("1", 2));
}

#[test]
fn an_answer_that_cannot_be_read_concerns_its_request_alone() {
    let f = Fixture::new();
    applied(f.send(1, "k", "a", create("a")));
    f.database.execute("UPDATE idempotency SET headers = 'no JSON'");
    let (gate, held) = f.hold();
    let other = f.submit(2, vec![create("in the same group")]);
    let unreadable = f.submit_request(1, keyed("k", "a", vec![create("a")]));
    drop(gate);
    held.blocking_recv().unwrap().unwrap();
    other.blocking_recv().unwrap().unwrap();
    assert_eq!(unreadable.blocking_recv().unwrap(), Err(StoreError::Refused(Refusal::Unanswerable)));
    assert!(f.writable());
    // Whether it was the same request can still be told.
    assert_eq!(f.send(1, "k", "b", create("b")), Err(StoreError::Refused(Refusal::KeyReused)));
}

#[test]
fn what_was_answered_is_repeated_while_nothing_can_be_stored() {
    let f = Fixture::new();
    applied(f.send(1, "k", "a", create("a")));
    f.database.break_table("changes", "INSERT", "true");
    let (gate, held) = f.hold();
    let again = f.submit_request(1, keyed("k", "a", vec![create("a")]));
    let other = f.submit(2, vec![create("in the same group")]);
    drop(gate);
    assert_eq!(held.blocking_recv().unwrap(), Err(StoreError::NotApplied));
    repeated(again.blocking_recv().unwrap());
    assert_eq!(other.blocking_recv().unwrap(), Err(StoreError::NotApplied));
}

/// A request whose answer has so many bytes.
fn with_answer(key: &str, bytes: usize) -> Commands {
    let mut commands = keyed(key, "a", Vec::new());
    commands.idempotency.as_mut().unwrap().answer =
        Box::new(move |_| Ok(KeptAnswer { status: 200, headers: Vec::new(), body: vec![b'x'; bytes] }));
    commands
}

#[test]
fn only_so_many_bytes_are_kept_of_a_user_and_the_oldest_go_first() {
    let mut f = Fixture::new();
    let send = |f: &Fixture, owner, key: &str, bytes| {
        f.submit_request(owner, with_answer(key, bytes)).blocking_recv().unwrap().unwrap()
    };
    send(&f, 2, "of another user", 5 << 20);
    // 60 MiB are below the limit, 70 are not.
    for n in 0..6 {
        send(&f, 1, &n.to_string(), 10 << 20);
    }
    f.a_minute_passes();
    f.create(3, "afterwards");
    assert_eq!(f.kept(), 7);
    f.reopen();
    send(&f, 1, "6", 10 << 20);
    f.wait_until("the oldest is gone", |f| f.kept() == 7);
    let bodies: u64 = 65 << 20;
    let counted = |f: &Fixture| f.shared.kept_bytes.load(Ordering::Relaxed);
    // Once it is committed.
    f.wait_until("the rest is counted", |f| (bodies..bodies + 7 * 300).contains(&counted(f)));
    let before = counted(&f);
    f.reopen();
    assert_eq!(counted(&f), before, "as it was counted");
    let is_kept = |f: &Fixture, owner, key: &str| matches!(send(f, owner, key, 1), Answered::Repeated(_));
    assert!(is_kept(&f, 2, "of another user") && is_kept(&f, 1, "1") && is_kept(&f, 1, "6"));
    assert!(!is_kept(&f, 1, "0"));
}

#[test]
fn answers_are_kept_for_a_day_of_running_time() {
    let mut f = Fixture::new();
    for n in 0..1_200 {
        f.submit_request(1, keyed(&n.to_string(), "a", vec![create("a")]));
    }
    applied(f.send(1, "young", "a", create("a")));
    f.reopen_after(Duration::from_secs(23 * 3600));
    repeated(f.send(1, "7", "a", create("a")));
    f.store = None;
    // What is older than a day in the database is that by meta.uptime, which the last change can be ahead of.
    f.database.execute("UPDATE idempotency SET uptime = uptime + 7200 WHERE request LIKE '%young'");
    f.reopen_after(Duration::from_secs(2 * 3600));
    f.wait_until("all parts of the purge", |f| f.kept() == 1);
    repeated(f.send(1, "young", "a", create("a")));
    applied(f.send(1, "7", "a", create("a")));
}
