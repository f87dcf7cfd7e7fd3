//! Groups: what is decided together, refused, and how many wait.

use super::*;

#[test]
fn a_group_decides_each_command_on_top_of_the_earlier_ones() {
    let f = Fixture::new();
    let todo = f.create(2, "v1");
    let (gate, held) = f.hold();
    let answers = vec![
        f.submit(2, vec![rename(todo.id.0, "v2")]),
        f.submit(2, vec![rename(todo.id.0, "v3")]),
        f.submit(3, vec![create("of another owner")]),
        f.submit(2, vec![delete(todo.id.0)]),
        f.submit(2, vec![rename(todo.id.0, "too late")]),
        f.submit(2, vec![delete(todo.id.0)]),
        f.submit(2, vec![create("next")]),
    ];
    drop(gate);
    assert!(held.blocking_recv().unwrap().is_ok());
    let answers = wait(answers);
    let id = todo.id.0;
    assert_eq!(numbers(&answers[0]), [(id, 2, 2)]);
    assert_eq!(numbers(&answers[1]), [(id, 3, 3)]);
    assert_eq!(numbers(&answers[2]), [(id + 2, 1, 1)]);
    assert_eq!(numbers(&answers[3]), [(id, 4, 4)]);
    assert_eq!(answers[4], Err(StoreError::Refused(Refusal::TodoNotFound)));
    assert_eq!(answers[5], Err(StoreError::Refused(Refusal::TodoNotFound)));
    assert_eq!(numbers(&answers[6]), [(id + 3, 1, 5)]);
    let titles = |answer: &Answer| answer.as_ref().unwrap()[0].todo.title.to_string();
    assert_eq!([titles(&answers[0]), titles(&answers[1]), titles(&answers[3])], ["v2", "v3", "v3"]);
    assert_eq!(f.todo(2, todo.id), None);
    assert_eq!(f.todos(2).len(), 1);
}

#[test]
fn one_batch_sees_its_own_changes() {
    let f = Fixture::new();
    let todo = f.create(1, "v1");
    let batch = vec![rename(todo.id.0, "v2"), create("new"), rename(todo.id.0 + 1, "newer"), delete(todo.id.0)];
    let answer = f.apply(1, batch);
    assert_eq!(numbers(&answer), [(1, 2, 2), (2, 1, 3), (2, 2, 4), (1, 3, 5)]);
    assert_eq!(f.todos(1).iter().map(|todo| (todo.id.0, &*todo.title)).collect::<Vec<_>>(), [(2, "newer")]);
}

#[test]
fn a_refused_command_leaves_no_trace() {
    let f = Fixture::new();
    let todo = f.create(1, "mine");
    let (gate, held) = f.hold();
    let answers = vec![
        f.submit(1, vec![create("before")]),
        // The batch creates, changes and deletes before it is refused.
        f.submit(1, vec![create("never"), rename(todo.id.0, "never"), delete(todo.id.0), rename(77, "x")]),
        // Another owner's todo is no todo.
        f.submit(2, vec![rename(todo.id.0, "stolen")]),
        f.submit(1, vec![rename(todo.id.0, "after"), create("after")]),
    ];
    drop(gate);
    held.blocking_recv().unwrap().unwrap();
    let answers = wait(answers);
    assert_eq!(numbers(&answers[0]), [(3, 1, 3)]);
    assert_eq!(answers[1], Err(StoreError::Refused(Refusal::TodoNotFound)));
    assert_eq!(answers[2], Err(StoreError::Refused(Refusal::TodoNotFound)));
    assert_eq!(numbers(&answers[3]), [(1, 2, 4), (4, 1, 5)]);
    assert_eq!((f.head(1), f.head(2)), (5, 0));
}

#[test]
fn a_group_has_at_most_512_operations_and_the_next_takes_the_rest() {
    let f = Fixture::new();
    // Seq 1 holds the writer; with batches of two, the groups are 2..=513, 514..=1025, 1026..=1201.
    f.database.break_table("changes", "INSERT", "new.seq = 1000");
    let (gate, held) = f.hold();
    let answers: Vec<_> = (0..600).map(|_| f.submit(2, vec![create("a"), create("b")])).collect();
    drop(gate);
    held.blocking_recv().unwrap().unwrap();
    let answers = wait(answers);
    let (first, rest) = answers.split_at(256);
    assert!(first.iter().all(Result::is_ok));
    assert_eq!(numbers(&first[255]), [(512, 1, 511), (513, 1, 512)]);
    // The second group fails with all its members; the third takes over its numbers, and reaches seq 689.
    let (second, third) = rest.split_at(256);
    assert!(second.iter().all(|answer| *answer == Err(StoreError::NotApplied)));
    assert!(third.iter().all(Result::is_ok));
    assert_eq!(numbers(&third[0]), [(514, 1, 513), (515, 1, 514)]);
    assert_eq!(f.head(2), 512 + 176);
}

#[test]
fn a_full_queue_is_busy_and_works_again_once_it_is_not() {
    let f = Fixture::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let apply = || runtime.block_on(Store::apply(&f, context(3), vec![create("one more")].into()));
    let (gate, held) = f.hold();
    let answers: Vec<_> = (0..MAX_QUEUED).map(|_| f.submit(2, vec![create("queued")])).collect();
    assert_eq!(apply(), Err(StoreError::Busy));
    drop(gate);
    held.blocking_recv().unwrap().unwrap();
    for (index, answer) in wait(answers).iter().enumerate() {
        assert_eq!(numbers(answer), [(index as i64 + 2, 1, index as i64 + 1)]);
    }
    assert_eq!(numbers(&changes(apply())), [(MAX_QUEUED as i64 + 2, 1, 1)]);
    assert_eq!(f.todo_count(), MAX_QUEUED + 2);
    assert_eq!(f.outbox().pending(), MAX_QUEUED + 2);
}

#[test]
fn what_was_queued_before_the_end_is_still_done() {
    let mut f = Fixture::new();
    let (gate, held) = f.hold();
    let answers: Vec<_> = (0..3).map(|_| f.submit(2, vec![create("late")])).collect();
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| f.close());
        drop(gate);
        closing.join().unwrap();
    });
    assert!(held.blocking_recv().unwrap().is_ok());
    assert!(wait(answers).iter().all(Result::is_ok));
    f.reopen();
    assert_eq!(f.todo_count(), 4);
}
