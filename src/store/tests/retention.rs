//! What the log keeps, and what operators do about events.

use super::*;

impl Fixture {
    pub fn marked(&self, seqs: impl IntoIterator<Item = i64>, state: DeliveryState) {
        for seq in seqs {
            self.mark(seq, state);
        }
        self.wait_until("marks to be committed", |f| f.outbox().marks().is_empty());
    }

    /// The revisions that the log has of an owner.
    fn revisions(&self, owner: i64) -> Vec<i64> {
        self.database.numbers(&format!("SELECT revision FROM changes WHERE owner_id = {owner} ORDER BY revision"))
    }

    /// Queues what an operator asks and does not wait.
    pub fn ask(&self, command: OutboxCommand) -> oneshot::Receiver<Result<usize, StoreError>> {
        let (reply, answer) = oneshot::channel();
        assert!(self.queue.try_send(Job::RunAdminCommand { authority: None, command, reply }).is_ok());
        answer
    }

    pub fn operate(&self, command: OutboxCommand) -> usize {
        self.ask(command).blocking_recv().unwrap().unwrap()
    }

    /// Makes changes of one todo of `owner`; all of them are published.
    pub fn published(&self, owner: i64, changes: usize) {
        let first = self.apply(owner, vec![create("busy")]).unwrap();
        let todo = first[0].todo.id.0;
        let mut seqs = vec![nth(first[0].place)];
        for group in vec![(); changes - 1].chunks(500) {
            let changes = self.apply(owner, group.iter().map(|_| rename(todo, "again")).collect()).unwrap();
            seqs.extend(changes.iter().map(|change| nth(change.place)));
        }
        self.marked(seqs, DeliveryState::Published);
    }

    /// The age of the oldest pending change that the metrics show, in seconds.
    fn oldest(&self, now: i64) -> i64 {
        self.sample(Timestamp(now)).unwrap();
        self.shared.metrics.samples.outbox_oldest_seconds.get()
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
    f.marked((1..=20).filter(|seq| *seq != 13), DeliveryState::Published);
    let unpublished = Place(13);
    f.retention.per_owner = 3;
    f.reopen_after(DAY + TICK);
    f.wait_until("the prefix to be pruned", |f| f.revisions(1).len() == 4);
    assert_eq!(f.revisions(1), [7, 8, 9, 10], "up to the unpublished one");
    assert_eq!(f.revisions(2), [8, 9, 10]);
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
    f.outbox().mark(unpublished, DeliveryState::Published);
    f.reopen();
    f.wait_until("the rest to be pruned", |f| f.revisions(1) == [8, 9, 10]);
    // What follows goes on where it was.
    let change = &f.apply(1, vec![create("the next")]).unwrap()[0];
    assert_eq!(change.revision, Revision(11));
    assert!(!f.database.is_sqlite() || change.place == Place(21));
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
    f.reopen();
    assert_eq!((f.todos(1).len(), f.head(1)), (11, 11));
}

#[test]
fn what_was_done_today_is_kept_unless_it_is_far_too_much() {
    let mut f = Fixture::new();
    f.published(1, 60);
    f.published(2, 15);
    f.retention.per_owner = 5;
    f.reopen();
    f.wait_until("what is far too much to be pruned", |f| f.revisions(1).len() == 50);
    assert_eq!(f.revisions(2).len(), 15);
    f.reopen_after(DAY + TICK);
    f.wait_until("the rest to be pruned", |f| (f.revisions(1).len(), f.revisions(2).len()) == (5, 5));
}

#[test]
fn parked_changes_and_what_follows_them_are_kept() {
    let mut f = Fixture::new();
    for _ in 0..6 {
        f.create(1, "x");
    }
    f.marked([1, 2, 4, 5, 6], DeliveryState::Published);
    f.marked([3], DeliveryState::Parked);
    f.retention.per_owner = 1;
    f.reopen_after(DAY + TICK);
    f.wait_until("the prefix to be pruned", |f| f.revisions(1).len() == 4);
    assert_eq!(f.revisions(1), [3, 4, 5, 6]);
}

#[test]
fn age_is_running_time_and_no_wall_clock_makes_anything_old() {
    let mut f = Fixture::new();
    f.create(1, "x");
    f.marked([1], DeliveryState::Published);
    // A thousand years later, says the wall clock.
    f.clock.set(31_556_952_000_000);
    f.create(1, "y");
    f.create(2, "another owner's");
    f.marked([2, 3], DeliveryState::Published);
    f.retention.keep = Duration::from_secs(3600);
    f.reopen();
    let uptime = || f.database.number("SELECT uptime FROM meta");
    let before = uptime();
    f.create(3, "to be marked");
    f.wait_until("running time to pass", |f| {
        f.mark(4, DeliveryState::Published);
        uptime() >= before + 2
    });
    assert_eq!(f.revisions(1), [1, 2]);
    // Two seconds of running time are old when that is the rule.
    f.retention.keep = Duration::from_secs(1);
    f.reopen();
    f.wait_until("old changes to be pruned", |f| f.revisions(1).is_empty());
    assert_eq!(f.todos(1).len(), 2);
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
}

#[test]
fn an_operator_retries_and_skips_parked_changes_and_publishes_again() {
    let f = Fixture::new();
    let todo = f.create(1, "x");
    f.apply(1, vec![rename(todo.id.0, "y")]).unwrap();
    f.create(2, "z");
    f.marked([1, 3], DeliveryState::Parked);
    assert_eq!(f.outbox().pending(), 1, "the second change of the first todo waits behind the parked one");
    let parked = |f: &Fixture| f.parked(10).unwrap().iter().map(|change| nth(change.place)).collect::<Vec<_>>();
    assert_eq!(parked(&f), [1, 3]);
    assert!(f.unpublished().is_empty());

    // Only what is parked can be retried or skipped.
    assert_eq!(f.operate(OutboxCommand::Retry { todo: todo.id, version: Version(2) }), 0);
    assert_eq!(f.operate(OutboxCommand::Skip { todo: TodoId(99), version: Version(1) }), 0);
    assert!(!f.outbox().take_reload());

    assert_eq!(f.operate(OutboxCommand::Retry { todo: todo.id, version: Version(1) }), 1);
    assert!(f.outbox().take_reload() && !f.outbox().take_reload());
    assert_eq!((parked(&f), f.outbox().pending()), (vec![3], 2));
    assert_eq!(f.operate(OutboxCommand::Skip { todo: TodoId(2), version: Version(1) }), 1);
    assert_eq!((parked(&f), f.outbox().pending()), (vec![], 2));
    assert_eq!(f.unpublished().iter().map(|change| nth(change.place)).collect::<Vec<_>>(), [1, 2]);

    // Marks that are not committed yet don't undo what is published again.
    f.mark(1, DeliveryState::Published);
    f.mark(2, DeliveryState::Published);
    assert_eq!(f.operate(OutboxCommand::Republish { owner: UserId(1), from_revision: Revision(2) }), 1);
    assert_eq!(states(&f), [1, 0, 3]);
    assert_eq!(f.outbox().pending(), 1);
    // A skipped change is not published by that.
    assert_eq!(f.operate(OutboxCommand::Republish { owner: UserId(2), from_revision: Revision(1) }), 0);
}

#[test]
fn pruning_catches_up_with_what_came_in_a_burst() {
    let mut f = Fixture::new();
    for owner in OWNERS {
        f.published(owner, 10_000);
    }
    f.retention.per_owner = 100;
    f.reopen_after(DAY + TICK);
    f.wait_until("all owners to be pruned", |f| OWNERS.iter().all(|owner| f.revisions(*owner).len() == 100));
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
}

#[test]
fn changes_go_on_while_many_events_are_published_again() {
    let f = Fixture::new();
    f.published(2, 2500);
    let (gate, held) = f.hold();
    let mut again = f.ask(OutboxCommand::Republish { owner: UserId(2), from_revision: Revision(101) });
    let between = f.submit(1, vec![create("is not kept waiting")]);
    drop(gate);
    held.blocking_recv().unwrap().unwrap();
    between.blocking_recv().unwrap().unwrap();
    assert!(again.try_recv().is_err(), "all of it was done before");
    assert_eq!(again.blocking_recv().unwrap(), Ok(2400));
    assert_eq!(f.outbox().pending(), 2402);
    assert!(f.outbox().take_reload());
    let waiting: Vec<_> = f
        .unpublished()
        .iter()
        .filter(|change| change.todo.owner == UserId(2))
        .map(|change| change.revision.0)
        .collect();
    assert_eq!(waiting, Vec::from_iter(101..=2500));
}

#[test]
fn what_waits_behind_a_parked_change_is_not_late() {
    let f = Fixture::new();
    f.clock.set(10_000);
    let poison = f.create(1, "poison");
    f.clock.set(20_000);
    f.apply(1, vec![rename(poison.id.0, "behind it")]).unwrap();
    assert_eq!(f.oldest(100_000), 90);
    f.marked([1], DeliveryState::Parked);
    assert_eq!(f.oldest(100_000), 0);
    f.clock.set(30_000);
    f.create(1, "late");
    assert_eq!(f.oldest(100_000), 70);
    f.operate(OutboxCommand::Skip { todo: poison.id, version: Version(1) });
    assert_eq!(f.oldest(100_000), 80);
}

#[test]
fn a_state_that_this_version_does_not_know_is_kept_and_holds_up_no_other_owner() {
    let mut f = Fixture::new();
    f.published(1, 10);
    f.published(2, 10);
    f.database.set_state(7, "owner_id = 1 AND revision = 2");
    f.retention.per_owner = 3;
    f.reopen_after(DAY + TICK);
    f.wait_until("the other owner's to be pruned", |f| f.revisions(2) == [8, 9, 10]);
    assert_eq!(f.revisions(1), [2, 3, 4, 5, 6, 7, 8, 9, 10], "up to the unknown one");
}
