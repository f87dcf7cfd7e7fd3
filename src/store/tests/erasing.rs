//! Deleted accounts: everything that their owners wrote goes, whatever happens meanwhile, and consumers learn of it.

use super::idempotency::keyed;
use super::*;
use crate::domain::todo::tags::Tags;

pub const OWNER: i64 = 2;
const SECRET: &str = "something private";

impl Fixture {
    /// Makes `count` todos of [`OWNER`] with a secret in title and description.
    pub fn create_secrets(&self, count: usize) {
        let new = NewTodo {
            title: SECRET.into(),
            description: Some(SECRET.into()),
            tags: Tags::new([SECRET.into()]),
            ..NewTodo::default()
        };
        self.apply(OWNER, vec![Command::Create(new); count]).unwrap();
    }

    /// Marks everything that is pending as published.
    pub fn publish_all(&self) {
        for change in self.unpublished() {
            self.outbox().mark(change.place, DeliveryState::Published);
        }
    }

    /// What is left of [`OWNER`]: todos, and changes that say what was in them.
    pub fn left(&self) -> (usize, i64) {
        let changes =
            self.database.number(&format!("SELECT count(*) FROM changes WHERE owner_id = {OWNER} AND NOT scrubbed"));
        (self.todos(OWNER).len(), changes)
    }

    /// Rows that still have the secret.
    pub fn secrets(&self) -> usize {
        self.dump().matches(SECRET).count()
    }
}

#[test]
fn todos_go_at_once_and_their_changes_when_they_are_published() {
    let mut f = Fixture::new();
    f.create_secrets(1_200);
    f.create(1, SECRET);
    f.apply_to_account(remove(OWNER)).unwrap();
    f.wait_until("the deletions", |f| f.todos(OWNER).is_empty());
    let pending = f.unpublished();
    assert_eq!(pending.len(), 2 * 1_200 + 1);
    let deleted: Vec<_> = pending.iter().filter(|change| change.kind == Kind::Deleted).collect();
    assert_eq!(deleted.len(), 1_200);
    assert!(deleted.iter().all(|change| change.scrubbed && &*change.actor == "user" && &*change.created_by == "user"));
    // What was acknowledged and is not published yet is published as it was.
    assert!(pending.iter().filter(|change| change.kind == Kind::Created).all(|change| *change.todo.title == *SECRET));
    assert!(!f.is_erased(OWNER));
    f.publish_all();
    f.wait_until("the rest", |f| f.is_erased(OWNER));
    // The todo of the other owner and its change.
    assert_eq!(f.secrets(), 2);
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
    let before = f.dump();
    f.reopen();
    f.apply(1, vec![delete(9_999)]).unwrap_err();
    assert_eq!(f.dump(), before, "nothing is left to do");
}

#[test]
fn the_trash_and_the_answers_that_were_kept_go_too() {
    let f = Fixture::new();
    f.create_secrets(1_200);
    f.apply(OWNER, (1..=1_100).map(delete).collect()).unwrap();
    for n in 0..600 {
        let request = keyed(&format!("{SECRET} {n}"), SECRET, vec![rename(1_101, SECRET)]);
        f.submit_request(OWNER, request).blocking_recv().unwrap().unwrap();
    }
    f.publish_all();
    f.apply_to_account(remove(OWNER)).unwrap();
    f.wait_until("the deletions", |f| f.todos(OWNER).is_empty() && f.trash(OWNER).is_empty());
    f.publish_all();
    f.wait_until("the rest", |f| f.is_erased(OWNER));
    assert_eq!(f.secrets(), 0);
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
}

#[test]
fn a_restart_at_any_moment_goes_on_where_it_was() {
    let mut f = Fixture::new();
    f.create_secrets(4_000);
    f.publish_all();
    f.apply_to_account(remove(OWNER)).unwrap();
    let mut lives = 1;
    while !f.is_erased(OWNER) {
        f.publish_all();
        let before = f.left();
        f.wait_until("a part", |f| f.left() != before || f.is_erased(OWNER));
        f.reopen();
        lives += 1;
    }
    // Parts are of 500; on a busy machine, several are done before it is looked.
    assert!(lives > 2, "{lives}");
    assert_eq!((f.secrets(), f.todo_count()), (0, 0));
    assert_eq!(f.head(OWNER), 2 * 4_000);
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
}

#[test]
fn a_parked_event_is_given_up_and_the_deletion_behind_it_is_published() {
    let f = Fixture::new();
    f.create_secrets(2);
    f.mark(1, DeliveryState::Parked);
    f.mark(2, DeliveryState::Published);
    f.apply(1, vec![delete(9)]).unwrap_err();
    f.apply_to_account(remove(OWNER)).unwrap();
    f.wait_until("the rest", |f| f.is_erased(OWNER));
    assert_eq!(f.secrets(), 0);
    assert_eq!(states(&f), [3, 1, 0, 0]);
    f.wait_until("the relay to look again", |f| f.outbox().take_reload());
    assert_eq!(f.unpublished().len(), 2);
    // Its own event is no secret: if it is parked, an operator can still retry it.
    f.mark(3, DeliveryState::Parked);
    f.apply(1, vec![delete(9)]).unwrap_err();
    assert_eq!(f.parked(10).unwrap().len(), 1);
}

#[test]
fn a_failing_disk_only_delays_it() {
    let f = Fixture::new();
    f.create_secrets(600);
    f.publish_all();
    f.database.break_table("todos", "DELETE", "true");
    f.apply_to_account(remove(OWNER)).unwrap();
    f.wait_until("a failure", |f| !f.writable());
    assert_eq!(f.todos(OWNER).len(), 600);
    f.database.mend_table("todos", "DELETE");
    f.wait_until("the deletions", |f| f.todos(OWNER).is_empty());
    f.publish_all();
    f.wait_until("the rest", |f| f.is_erased(OWNER));
    assert_eq!(f.secrets(), 0);
}

#[test]
fn a_state_that_a_later_version_wrote_is_waited_for() {
    let f = Fixture::new();
    f.create_secrets(1);
    f.create(3, SECRET);
    f.database.set_state(9, "true");
    f.apply_to_account(remove(OWNER)).unwrap();
    f.apply_to_account(remove(3)).unwrap();
    f.wait_until("the deletions", |f| f.todo_count() == 0);
    f.database.set_state(1, "owner_id = 3");
    f.wait_until("the one that can be erased", |f| f.is_erased(3));
    assert!(f.writable() && !f.is_erased(OWNER));
}

#[test]
fn what_is_published_again_while_its_account_is_deleted_ends() {
    let f = Fixture::new();
    f.create_secrets(2_500);
    f.publish_all();
    f.apply(1, vec![delete(9)]).unwrap_err();
    // Both are queued while the writer is busy: the command has its first part, then the account is deleted.
    let (gate, held) = f.hold();
    let (reply, answer) = oneshot::channel();
    let command = OutboxCommand::Republish { owner: UserId(OWNER), from_revision: Revision(1) };
    assert!(f.queue.try_send(Job::RunAdminCommand { authority: None, command, reply }).is_ok());
    let (reply, deleted) = oneshot::channel();
    let request = Request::Account { authority: None, command: remove(OWNER), reply };
    assert!(f.queue.try_send(Job::Apply(request)).is_ok());
    drop(gate);
    held.blocking_recv().unwrap().unwrap();
    deleted.blocking_recv().unwrap().unwrap();
    let refused = Err(StoreError::Refused(Refusal::AccountDeleted));
    assert_eq!(answer.blocking_recv().unwrap(), refused);
    let again = f.unpublished().iter().filter(|change| *change.todo.title == *SECRET).count();
    assert!(again <= 1_000, "{again} changes are published again");
}

#[test]
fn what_is_published_goes_although_something_before_it_is_not() {
    let f = Fixture::new();
    f.create_secrets(1_200);
    f.publish_all();
    f.apply(1, vec![delete(9)]).unwrap_err();
    // All but the first and one in the middle, of which nobody knows whether they can be published.
    let some = "seq IN (1, 700)";
    f.database.set_state(0, some);
    f.apply_to_account(remove(OWNER)).unwrap();
    f.wait_until("the rest of what is published", |f| f.left() == (0, 2));
    assert!(!f.is_erased(OWNER));
    f.database.set_state(1, some);
    f.wait_until("the rest", |f| f.is_erased(OWNER));
    assert_eq!(f.secrets(), 0);
}

#[test]
fn a_new_deletion_does_not_wait_for_those_that_wait() {
    let f = Fixture::new();
    let names: Vec<String> = (0..40).map(|n| format!("waits{n}")).collect();
    for name in &names {
        let id = f.apply_to_account(register(name)).unwrap().id.0;
        f.create(id, "never published");
        f.apply_to_account(remove(id)).unwrap();
    }
    f.wait_until("their deletions", |f| f.todo_count() == 0);
    f.create_secrets(1_200);
    let begin = Instant::now();
    f.apply_to_account(remove(OWNER)).unwrap();
    f.wait_until("the deletions", |f| f.todos(OWNER).is_empty());
    // A second for each that waits would be 40.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn two_accounts_do_not_wait_for_each_others_events() {
    let f = Fixture::new();
    f.create(1, "never published");
    f.create_secrets(1);
    f.apply_to_account(AccountCommand::Update(
        UserId(3),
        AccountUpdate { role: Some(Role::Admin), ..AccountUpdate::default() },
    ))
    .unwrap();
    f.apply_to_account(remove(1)).unwrap();
    f.apply_to_account(remove(OWNER)).unwrap();
    f.wait_until("the deletions", |f| f.todo_count() == 0);
    f.mark(2, DeliveryState::Published);
    f.wait_until("the rest of one", |f| f.is_erased(OWNER));
    assert_eq!(f.secrets(), 0);
}
