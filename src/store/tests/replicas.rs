//! Several stores on one Postgres, as several processes have them. Run with TEST_POSTGRES.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::accounts::disable;
use super::idempotency::{keyed, repeated};
use super::sessions::start_session;
use super::*;
use crate::domain::session::SessionKey;
use crate::store::feed::News;
use crate::store::leases::{Leases, PARTS};

/// Three of them. The first one keeps house.
struct Replicas {
    stores: Vec<Arc<Store>>,
    // After the stores, which use its database.
    fixture: Fixture,
    runtime: Runtime,
}

impl Replicas {
    fn new() -> Self {
        let mut fixture = Fixture::on_postgres();
        let others = [(); 2].map(|()| Arc::new(fixture.try_open(DemoUsers::Existing, true).unwrap()));
        let mut stores = vec![Arc::new(fixture.store.take().unwrap())];
        stores.extend(others);
        Self { stores, fixture, runtime: Builder::new_current_thread().enable_all().build().unwrap() }
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    fn apply(&self, store: usize, owner: i64, commands: Vec<Command>) -> Answer {
        changes(self.wait(self.stores[store].apply(context(owner), commands.into())))
    }

    /// What a strict read of one of them sees.
    fn seen(&self, store: usize) -> String {
        self.wait(seen(&self.stores[store]))
    }

    fn assert_same(&self) {
        let first = self.seen(0);
        for other in 1..self.stores.len() {
            assert_eq!(self.seen(other), first, "store {other}");
        }
        let new = self.fixture.try_open(DemoUsers::Existing, true).unwrap();
        assert_eq!(self.wait(seen(&new)), first, "what is stored");
        assert_eq!(new.check().unwrap(), Vec::<String>::new());
    }
}

/// All that a store has of the first users, after it has caught up.
async fn seen(store: &Store) -> String {
    store.catch_up().await.unwrap();
    let (accounts, _) = store.accounts(UserId(0), 1000).await.unwrap();
    let mut all = format!("{accounts:#?}");
    for account in accounts {
        let (view, trash) = store.view_with_trash(account.id).await.unwrap();
        let todos: Vec<_> = view.todos.into_todos().collect();
        let sessions = store.sessions(account.id).await.unwrap();
        let tokens = store.personal_tokens(account.id).await.unwrap();
        all += &format!("{:?} {todos:#?} {:#?} {sessions:?} {tokens:?}\n", view.revision, trash.todos);
    }
    all
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn what_one_has_answered_a_read_of_another_sees() {
    let all = Replicas::new();
    let mut random = SmallRng::seed_from_u64(1);
    let follow = |store: &Arc<Store>| all.wait(store.follow(UserId(1))).unwrap().0;
    let mut followers: Vec<Follower> = all.stores.iter().map(follow).collect();
    let mut heard = [0; 3];
    for round in 0..300 {
        let (writer, owner, id) = (random.random_range(0..3), random.random_range(1..=3), random.random_range(1..=20));
        let command = match random.random_range(0..6) {
            0 | 1 => create(&format!("{round}")),
            2 => delete(id),
            3 => restore(id),
            4 => purge(id),
            _ => rename(id, &format!("renamed {round}")),
        };
        let answer = all.apply(writer, owner, vec![command]);
        for (reader, store) in all.stores.iter().enumerate() {
            all.wait(store.catch_up()).unwrap();
            for change in answer.iter().flatten() {
                let todo = all.wait(store.todo(UserId(owner), change.todo.id)).unwrap();
                assert_eq!(todo, (change.kind != Kind::Deleted).then(|| Arc::clone(&change.todo)));
            }
            while let Some(news) = followers[reader].try_next() {
                let News::Changed(change) = news else { panic!("{news:?}") };
                heard[reader] += 1;
                assert_eq!(change.revision, Revision(heard[reader]), "in their order, each once");
            }
        }
    }
    assert_eq!(heard, [all.fixture.head(1); 3]);
    all.assert_same();
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn what_all_do_at_once_is_one_log() {
    let all = Replicas::new();
    let made = all.wait(async {
        let mut tasks = JoinSet::new();
        for task in 0..24 {
            let store = Arc::clone(&all.stores[task % 3]);
            tasks.spawn(async move {
                let mut random = SmallRng::seed_from_u64(task as u64);
                let mut made = 0;
                for round in 0..50 {
                    let (owner, id) = (random.random_range(1..=3), random.random_range(1..=100));
                    let title = format!("{task} {round}");
                    let commands = match random.random_range(0..6) {
                        // Of this one nothing else.
                        _ if owner == 2 => vec![create(&title), create(&title)],
                        0 | 1 => vec![create(&title)],
                        2 => vec![delete(id)],
                        3 => vec![restore(id)],
                        4 => vec![purge(id)],
                        _ => vec![rename(id, &title)],
                    };
                    match changes(store.apply(context(owner), commands.into()).await) {
                        Ok(changes) => made += changes.len(),
                        Err(StoreError::Refused(_)) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
                made
            });
        }
        // What was made together is seen together, and never less than before.
        let reader = Arc::clone(&all.stores[2]);
        let reading = tokio::spawn(async move {
            let mut last = Revision(0);
            loop {
                reader.catch_up().await.unwrap();
                let view = reader.view(UserId(2)).await.unwrap();
                assert!(view.revision >= last);
                last = view.revision;
                let mut count: BTreeMap<String, usize> = BTreeMap::new();
                view.todos.into_todos().for_each(|todo| *count.entry(todo.title.to_string()).or_default() += 1);
                assert!(count.values().all(|count| *count == 2), "{count:?}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let made = tasks.join_all().await.into_iter().sum::<usize>();
        reading.abort();
        assert!(reading.await.unwrap_err().is_cancelled());
        made
    });
    assert!(made > 500, "only {made} changes were made");
    assert_eq!(all.fixture.database.number("SELECT count(*) FROM changes"), i64::try_from(made).unwrap());
    all.assert_same();
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn rules_about_all_accounts_hold_over_all_stores() {
    let all = Replicas::new();
    let both = |one: AccountCommand, other: AccountCommand| {
        let (first, second) = (&all.stores[1], &all.stores[2]);
        all.wait(async { tokio::join!(first.apply_to_account(None, one), second.apply_to_account(None, other)) })
    };
    for round in 0..20 {
        let name = format!("name{round}");
        let (one, other) = both(register(&name), register(&name.to_uppercase()));
        let refused = [&one, &other].iter().filter(|it| ***it == Err(StoreError::Refused(Refusal::NameTaken))).count();
        assert_eq!((refused, one.is_ok() != other.is_ok()), (1, true), "{one:?} {other:?}");
    }
    // Two admins take each other's role at once: one is left.
    let role = |id: UserId, role| AccountCommand::Update(id, AccountUpdate { role: Some(role), ..Default::default() });
    let ids: Vec<UserId> = ["name0", "name1"]
        .map(|name| {
            all.wait(all.stores[0].catch_up()).unwrap();
            all.wait(all.stores[0].account_named(name)).unwrap().unwrap().id
        })
        .into();
    let demo_admin = all.wait(all.stores[0].account_named("admin")).unwrap().unwrap();
    for _ in 0..20 {
        for id in &ids {
            all.wait(all.stores[0].apply_to_account(None, role(*id, Role::Admin))).unwrap();
        }
        if demo_admin.is_active() {
            let _ = all.wait(all.stores[0].apply_to_account(None, disable(demo_admin.id.0)));
        }
        let (one, other) = both(role(ids[0], Role::User), role(ids[1], Role::User));
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    }
    all.assert_same();
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn what_ends_on_one_is_over_on_all() {
    let all = Replicas::new();
    let (key, secret) = (SessionKey([7; 32]), [8; 32]);
    let started = all.wait(all.stores[0].apply_to_session(None, start_session(1, &key, secret))).unwrap();
    let SessionOutcome::Started(session) = started else { panic!("{started:?}") };
    let session = session.id;
    let of_session = Authority { account: UserId(1), epoch: TokenEpoch(0), means: Means::Session(session) };
    let context = || Context { authority: Some(of_session), ..context(1) };
    let create = |store: usize| all.wait(all.stores[store].apply(context(), vec![create("x")].into()));
    // Also without a read before: whoever writes catches up.
    assert!(create(1).is_ok() && create(2).is_ok());
    let end = SessionCommand::End { user: UserId(1), session };
    all.wait(all.stores[1].apply_to_session(None, end)).unwrap();
    for store in [2, 0] {
        assert_eq!(create(store).unwrap_err(), StoreError::Refused(Refusal::NoLongerAllowed));
        all.wait(all.stores[store].catch_up()).unwrap();
        assert_eq!(all.wait(all.stores[store].session(session)).unwrap(), None);
    }
    // Of an account that is disabled, everywhere.
    all.wait(all.stores[2].apply_to_account(None, disable(2))).unwrap();
    assert_eq!(all.apply(1, 2, vec![super::create("x")]), Err(StoreError::Refused(Refusal::NoLongerAllowed)));
    all.assert_same();
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn a_request_that_is_sent_to_two_at_once_is_applied_once() {
    let all = Replicas::new();
    for round in 0..30 {
        let send = |store: usize| {
            let commands = keyed(&format!("key {round}"), "same", vec![create(&format!("{round}"))]);
            all.stores[store].apply(context(1), commands)
        };
        let (one, other) = all.wait(async { tokio::join!(send(1), send(2)) });
        let (first, again) = if matches!(one, Ok(Answered::Applied(..))) { (one, other) } else { (other, one) };
        assert_eq!(changes(first).unwrap().len(), 1);
        repeated(again);
    }
    assert_eq!(all.fixture.database.number("SELECT count(*) FROM changes"), 30);
    all.assert_same();
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn one_keeps_house_and_the_next_one_does_when_it_ends() {
    let mut all = Replicas::new();
    all.apply(1, 1, vec![create("old"), delete(1)]).unwrap();
    all.wait(all.stores[1].apply_to_account(None, remove(2))).unwrap();
    all.fixture.wait_until("the erasure", |f| f.is_erased(2));
    let others: Vec<bool> = all.stores.iter().map(|store| store.leases().keep_house()).collect();
    assert_eq!(others, [true, false, false]);
    all.stores[1].take_leases();
    drop(all.stores.remove(0));
    let begin = Instant::now();
    while !all.stores[0].leases().keep_house() {
        assert!(begin.elapsed() < Duration::from_secs(5), "nobody keeps house");
        std::thread::sleep(Duration::from_millis(10));
    }
    // It does what the other one has left, and what it hears of.
    all.wait(all.stores[1].apply_to_account(None, remove(3))).unwrap();
    all.fixture.wait_until("the erasure", |f| f.is_erased(3));
    all.assert_same();
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn who_keeps_house_next_prunes_from_where_the_one_before_has_stopped() {
    let mut f = Fixture::on_postgres();
    f.published(1, 30);
    f.retention.per_owner = 1;
    let floor = |f: &Fixture| f.database.number("SELECT floor FROM users WHERE id = 1");
    // It has loaded what there was before anything was pruned.
    let next = f.try_open(DemoUsers::Existing, true).unwrap();
    f.reopen();
    f.wait_until("what is far too much to be pruned", |f| floor(f) == 20);
    let again = (0..5).map(|_| rename(1, "again")).collect::<Vec<_>>();
    for change in f.apply(1, again).unwrap() {
        f.outbox().mark(change.place, DeliveryState::Published);
    }
    f.store = None;
    next.take_leases();
    f.store = Some(next);
    let first = |f: &Fixture| f.database.number("SELECT min(revision) FROM changes");
    f.wait_until("the rest to be pruned", |f| first(f) > 21);
    assert_eq!((first(&f), floor(&f)), (26, 25), "who has missed something is told so");
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn what_becomes_of_parked_events_the_relays_of_all_hear() {
    let all = Replicas::new();
    let all_hear = |what: &str| {
        for store in &all.stores {
            let begin = Instant::now();
            while !store.outbox().take_reload() {
                assert!(begin.elapsed() < Duration::from_secs(10), "{what}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    };
    // The first one publishes.
    let park = |owner: i64| {
        let todo = Arc::clone(&all.apply(1, owner, vec![create("x")]).unwrap()[0].todo);
        let seq = all.fixture.database.number("SELECT max(seq) FROM changes");
        all.stores[0].outbox().mark(Place(seq), DeliveryState::Parked);
        all.apply(0, owner, vec![create("commits the mark")]).unwrap();
        assert_eq!(states(&all.fixture)[usize::try_from(seq).unwrap() - 1], 2);
        (todo.id, todo.version)
    };
    let (todo, version) = park(1);
    let retry = OutboxCommand::Retry { todo, version };
    assert_eq!(all.wait(all.stores[1].run_admin_command(None, retry)), Ok(1));
    all_hear("retried");
    park(2);
    all.wait(all.stores[2].apply_to_account(None, remove(2))).unwrap();
    all_hear("given up with the account");
    // What two operators do at once, one of them has done.
    for _ in 0..20 {
        let (todo, version) = park(1);
        let retry = all.stores[1].run_admin_command(None, OutboxCommand::Retry { todo, version });
        let skip = all.stores[2].run_admin_command(None, OutboxCommand::Skip { todo, version });
        let (retried, skipped) = all.wait(async { tokio::join!(retry, skip) });
        assert_eq!(retried.unwrap() + skipped.unwrap(), 1);
    }
    all.assert_same();
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn a_mark_of_a_part_that_another_process_has_is_refused_and_the_relay_looks_again() {
    let f = Fixture::on_postgres();
    let todo = f.create(1, "x");
    assert_eq!(todo.id, TodoId(1));
    f.database.execute("UPDATE leases SET process = -1, until = 'infinity' WHERE part = 1");
    f.marked([1], DeliveryState::Parked);
    assert_eq!(states(&f), [0]);
    assert!(f.outbox().take_reload(), "the relay takes it for parked");
    f.database.execute("UPDATE leases SET process = NULL, until = '-infinity' WHERE part = 1");
    let held = "SELECT count(*) FROM leases WHERE process > 0 AND until > clock_timestamp()";
    f.wait_until("the lease", |f| f.database.number(held) == 65);
    f.marked([1], DeliveryState::Parked);
    assert_eq!(states(&f), [2]);
    assert!(!f.outbox().take_reload());
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn who_publishes_what_another_process_has_published_looks_at_once_whether_it_still_has_the_part() {
    let f = Fixture::on_postgres();
    let has_it = |f: &Fixture| f.leases().parts().have(TodoId(1));
    f.create(1, "x");
    for place in 1.. {
        f.wait_until("the lease", has_it);
        f.database.execute("UPDATE leases SET process = -1, until = 'infinity' WHERE part = 1");
        f.database.execute("DELETE FROM outbox");
        f.marked([place], DeliveryState::Published);
        let begin = Instant::now();
        f.wait_until("it has given the part up", |f| !has_it(f));
        // Otherwise it does within two seconds, so that one round might be luck.
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        if place == 4 {
            break;
        }
        f.database.execute("UPDATE leases SET process = NULL, until = '-infinity' WHERE part = 1");
        f.apply(1, vec![rename(1, &format!("x{place}"))]).unwrap();
    }
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn records_that_all_have_heard_of_are_not_kept() {
    let all = Replicas::new();
    all.wait(all.stores[1].apply_to_account(None, register("before"))).unwrap();
    let records = || all.fixture.database.number("SELECT count(*) FROM records");
    let old = records();
    assert!(old > 0);
    all.assert_same();
    all.fixture.database.execute("UPDATE records SET at = at - interval '25 hours'");
    all.wait(all.stores[2].apply_to_account(None, register("today"))).unwrap();
    assert!(all.stores[0].queue.send(Job::MinuteIsOver).is_ok());
    let begin = Instant::now();
    while records() > 1 {
        assert!(begin.elapsed() < Duration::from_secs(10), "{} of {old}", records());
        std::thread::sleep(Duration::from_millis(5));
    }
    all.wait(all.stores[1].apply_to_account(None, register("after"))).unwrap();
    assert_eq!(records(), 2);
    all.assert_same();
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn demo_users_that_one_creates_all_hear_of() {
    let mut f = Fixture { demo_users: false, ..Fixture::on_postgres() };
    f.database.execute("DELETE FROM users; UPDATE meta SET production = false");
    f.store = None;
    let hash = |_: &str| "hash".to_owned();
    let first = f.try_open(DemoUsers::Existing, true).unwrap();
    let second = f.try_open(DemoUsers::Created(&hash), true).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let taken = runtime.block_on(first.apply_to_account(None, register("ADMIN"))).unwrap_err();
    assert_eq!(taken, StoreError::Refused(Refusal::NameTaken));
    assert_eq!(runtime.block_on(seen(&first)), runtime.block_on(seen(&second)));
    assert_eq!(first.account_count(), DEMO_USERS.len());
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn who_publishes_shares_the_parts_fairly_and_nobody_has_the_same() {
    let mut all = Replicas::new();
    // As the relay does: what is in flight has always ended.
    let use_what_is_held = |store: &Arc<Store>| {
        let store = Arc::downgrade(store);
        std::thread::spawn(move || {
            while let Some(store) = store.upgrade() {
                store.leases().used(store.leases().parts());
                drop(store);
                std::thread::sleep(Duration::from_millis(300));
            }
        })
    };
    let relays: Vec<_> = all.stores.iter().map(use_what_is_held).collect();
    let settle = |all: &Replicas, wanted: &[usize]| {
        let begin = Instant::now();
        loop {
            let parts: Vec<_> = all.stores.iter().map(|store| store.leases().parts()).collect();
            let mut counts: Vec<usize> = parts.iter().map(|parts| parts.count()).collect();
            let all_of_them: HashSet<i16> = parts.iter().flat_map(|parts| parts.numbers()).collect();
            let held = counts.iter().sum::<usize>();
            assert!(held <= PARTS, "two have the same: {parts:?}");
            counts.sort_unstable();
            if counts == wanted && all_of_them.len() == PARTS {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{counts:?} and not {wanted:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // Nobody knows whether they can publish: all may try.
    all.stores[1].take_leases();
    all.stores[2].take_leases();
    settle(&all, &[20, 22, 22]);
    let can_publish = |all: &Replicas, can: &[bool]| {
        all.stores.iter().zip(can).for_each(|(store, can)| Leases::can_publish(store.leases(), *can));
    };
    // Whose sidecar is away leaves them to the others.
    can_publish(&all, &[true, true, false]);
    settle(&all, &[0, 32, 32]);
    can_publish(&all, &[true, false, false]);
    settle(&all, &[0, 0, 64]);
    can_publish(&all, &[true, true, true]);
    settle(&all, &[20, 22, 22]);
    // Who ends gives them up at once.
    drop(all.stores.pop());
    settle(&all, &[32, 32]);
    all.stores.clear();
    relays.into_iter().for_each(|relay| relay.join().unwrap());
}
