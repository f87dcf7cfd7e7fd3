//! Accounts: durable when they are answered, on a disk that fails, and in a database of an earlier version.

use super::*;

/// What the world sees of accounts.
pub fn seen(f: &Fixture) -> (Vec<User>, String) {
    let (users, count) = f.accounts(UserId(0), 100).now_or_never().unwrap().unwrap();
    assert_eq!(users.len(), count);
    (users.iter().map(|user| User::clone(user)).collect(), f.dump())
}

pub fn disable(id: i64) -> AccountCommand {
    AccountCommand::Update(UserId(id), AccountUpdate { enabled: Some(false), ..AccountUpdate::default() })
}

#[test]
fn every_command_is_on_disk_when_it_is_answered() {
    let mut f = Fixture::new();
    f.clock.set(7);
    let new = AccountUpdate { password_hash: Some("new".into()), ..AccountUpdate::default() };
    let change_password = AccountCommand::Update(UserId(4), new);
    let rehash = AccountCommand::Rehash { id: UserId(4), old: "new".into(), new: "better".into() };
    for command in [register("Alice"), change_password, rehash, disable(4), remove(4), register("bob")] {
        let account = f.apply_to_account(command).unwrap();
        if account.state == AccountState::Deleted {
            // It has no todos, so that is soon done.
            f.wait_until("the erasure", |f| f.is_erased(account.id.0));
        }
        let before = seen(&f);
        assert!(before.0.contains(&account));
        f.reopen();
        assert_eq!(seen(&f), before);
    }
    assert_eq!(f.account("BOB").unwrap().id, UserId(5));
    assert_eq!(f.apply_to_account(register("alice")), Err(StoreError::Refused(Refusal::NameTaken)));
    // An account that was made while the store is open is as good as one that was loaded.
    assert_eq!(numbers(&f.apply(5, vec![create("of bob")])), [(1, 1, 1)]);
    assert_eq!(f.unpublished()[0].created_by, "bob".into());
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
}

#[test]
fn a_command_that_cannot_be_stored_leaves_nothing_behind() {
    let f = Fixture::new();
    let before = seen(&f);
    f.database.break_table("users", "INSERT", "true");
    f.database.break_table("users", "UPDATE", "true");
    for command in [register("alice"), disable(2), remove(2)] {
        assert_eq!(f.apply_to_account(command), Err(StoreError::NotApplied));
        assert_eq!(seen(&f), before);
    }
    f.database.mend_table("users", "INSERT");
    f.database.mend_table("users", "UPDATE");
    assert_eq!(f.apply_to_account(register("alice")).unwrap().id, UserId(4));
}

#[test]
fn demo_users_are_not_found_without_debug_and_make_room() {
    let mut f = Fixture::new();
    f.create(1, "of the demo admin");
    f.demo_users = false;
    f.reopen();
    assert_eq!(f.account("admin"), None);
    assert_eq!(f.account_count(), 0);
    let admin = f.apply_to_account(register("Admin")).unwrap();
    assert_eq!(f.account("admin"), Some(Arc::clone(&admin)));
    // What the demo user had goes, with events.
    f.wait_until("the erasure", |f| f.todo_count() == 0);
    let erased = f.unpublished().pop().unwrap();
    assert_eq!((erased.kind, erased.scrubbed, erased.todo.owner), (Kind::Deleted, true, UserId(1)));
    f.reopen();
    assert_eq!(f.account("admin"), Some(Arc::clone(&admin)));
}

#[test]
fn a_database_of_production_gets_no_demo_users() {
    let mut f = Fixture::new();
    f.demo_users = false;
    f.reopen();
    // Nobody is in danger as long as nobody is there.
    f.demo_users = true;
    f.reopen();
    f.apply_to_account(register("alice")).unwrap();
    f.store = None;
    let before = f.dump();
    let refused = f.try_open(DemoUsers::Created(&|_| panic!("nobody is created")), true).err().unwrap().to_string();
    assert!(refused.starts_with("DEBUG is True, but people have accounts in the database "), "{refused}");
    assert_eq!(f.dump(), before);
    // What an earlier run in development created is not there either.
    assert_eq!(f.try_open(DemoUsers::Existing, true).unwrap().account_count(), 1);
}
