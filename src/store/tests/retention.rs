//! What the log keeps, and what operators do about events.

use super::*;
use crate::store::maintenance;

impl Fixture {
    fn marked(&self, seqs: impl IntoIterator<Item = i64>, mark: Mark) {
        for seq in seqs {
            self.outbox().mark(seq, mark);
        }
        self.wait_until("marks to be committed", |f| f.outbox().marks().is_empty());
    }

    /// The revisions that the log has of an owner.
    fn revisions(&self, owner: UserId) -> Vec<i64> {
        let connection = self.connection();
        let mut statement =
            connection.prepare("SELECT revision FROM changes WHERE owner_id = ?1 ORDER BY revision").unwrap();
        statement.query_map([owner], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn operate(&self, command: OutboxCommand) -> usize {
        let (reply, answer) = oneshot::channel();
        assert!(self.queue.try_send(Job::Operate { command, reply }).is_ok());
        answer.blocking_recv().unwrap().unwrap()
    }
}

#[test]
fn only_a_published_prefix_of_what_is_too_many_is_pruned() {
    let mut f = Fixture::new();
    for n in 1..=10 {
        f.create(1, &format!("todo {n}"));
        f.create(2, "another owner's");
    }
    // Owner 1 has the odd places of the log: its 7th change stays unpublished.
    f.marked((1..=20).filter(|seq| *seq != 13), Mark::Published);
    f.retention.per_owner = 3;
    f.reopen();
    f.wait_until("the prefix to be pruned", |f| f.revisions(1).len() == 4);
    assert_eq!(f.revisions(1), [7, 8, 9, 10], "up to the unpublished one");
    assert_eq!(f.revisions(2), [8, 9, 10]);
    assert_eq!(maintenance::check(f.path()).unwrap(), Vec::<String>::new());
    f.marked([13], Mark::Published);
    f.reopen();
    f.wait_until("the rest to be pruned", |f| f.revisions(1) == [8, 9, 10]);
    // What follows goes on where it was.
    let change = &f.apply(1, vec![create("the next")]).unwrap()[0];
    assert_eq!((change.revision, change.seq), (11, 21));
    assert_eq!(maintenance::check(f.path()).unwrap(), Vec::<String>::new());
    f.reopen();
    assert_eq!((f.todos(1).len(), f.head(1)), (11, 11));
}

#[test]
fn parked_changes_and_what_follows_them_are_kept() {
    let mut f = Fixture::new();
    for _ in 0..6 {
        f.create(1, "x");
    }
    f.marked([1, 2, 4, 5, 6], Mark::Published);
    f.marked([3], Mark::Parked);
    f.retention.per_owner = 1;
    f.reopen();
    f.wait_until("the prefix to be pruned", |f| f.revisions(1).len() == 4);
    assert_eq!(f.revisions(1), [3, 4, 5, 6]);
}

#[test]
fn age_is_running_time_and_no_wall_clock_makes_anything_old() {
    let mut f = Fixture::new();
    f.create(1, "x");
    f.marked([1], Mark::Published);
    // A thousand years later, says the wall clock.
    f.clock.set(31_556_952_000_000);
    f.create(1, "y");
    f.create(2, "another owner's");
    f.marked([2, 3], Mark::Published);
    f.retention.keep = Duration::from_secs(3600);
    f.reopen();
    let uptime = || f.connection().query_row("SELECT uptime FROM meta", [], |row| row.get::<_, i64>(0)).unwrap();
    f.create(3, "to be marked");
    f.wait_until("running time to pass", |f| {
        f.outbox().mark(4, Mark::Published);
        uptime() >= 2
    });
    assert_eq!(f.revisions(1), [1, 2]);
    // Two seconds of running time are old when that is the rule.
    f.retention.keep = Duration::from_secs(1);
    f.reopen();
    f.wait_until("old changes to be pruned", |f| f.revisions(1).is_empty());
    assert_eq!(f.todos(1).len(), 2);
    assert_eq!(maintenance::check(f.path()).unwrap(), Vec::<String>::new());
}

#[test]
fn an_operator_retries_and_skips_parked_changes_and_publishes_again() {
    let f = Fixture::new();
    let todo = f.create(1, "x");
    f.apply(1, vec![rename(todo.id, "y")]).unwrap();
    f.create(2, "z");
    f.marked([1, 3], Mark::Parked);
    assert_eq!(f.outbox().pending(), 1, "the second change of the first todo waits behind the parked one");
    let parked = |f: &Fixture| f.parked(10).unwrap().iter().map(|change| change.seq).collect::<Vec<_>>();
    assert_eq!(parked(&f), [1, 3]);
    assert!(f.unpublished().is_empty());

    // Only what is parked can be retried or skipped.
    assert_eq!(f.operate(OutboxCommand::Retry { todo: todo.id, version: 2 }), 0);
    assert_eq!(f.operate(OutboxCommand::Skip { todo: 99, version: 1 }), 0);
    assert!(!f.outbox().take_reload());

    assert_eq!(f.operate(OutboxCommand::Retry { todo: todo.id, version: 1 }), 1);
    assert!(f.outbox().take_reload() && !f.outbox().take_reload());
    assert_eq!((parked(&f), f.outbox().pending()), (vec![3], 2));
    assert_eq!(f.operate(OutboxCommand::Skip { todo: 2, version: 1 }), 1);
    assert_eq!((parked(&f), f.outbox().pending()), (vec![], 2));
    assert_eq!(f.unpublished().iter().map(|change| change.seq).collect::<Vec<_>>(), [1, 2]);

    // Marks that are not committed yet don't undo what is published again.
    f.outbox().mark(1, Mark::Published);
    f.outbox().mark(2, Mark::Published);
    assert_eq!(f.operate(OutboxCommand::Republish { owner: 1, from_revision: 2 }), 1);
    assert_eq!(states(&f), [1, 0, 3]);
    assert_eq!(f.outbox().pending(), 1);
    // A skipped change is not published by that.
    assert_eq!(f.operate(OutboxCommand::Republish { owner: 2, from_revision: 1 }), 0);
}
