//! Accounts under SIGKILL: what was answered is kept, and a deletion goes on until nothing is left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::restart::fill;
use super::{length, seed};
use crate::order::versions_in_order;
use crate::stack::{Client, Event, PATIENCE, Stack};

/// How a person's account ended, as far as the person knows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Alive,
    Disabled,
    Deleted,
    /// One of these was sent and not answered.
    Unknown,
}

/// A person with an account that was acknowledged.
struct Person {
    name: String,
    /// One of these is the password.
    passwords: Vec<String>,
    /// Todos whose creation was acknowledged.
    todos: Vec<i64>,
    /// The last refresh token that was answered, if its session goes on.
    refresh: Option<String>,
    end: End,
}

/// Whether an answer says that the change is made.
fn acknowledged(answer: &Result<(u16, Value), reqwest::Error>) -> bool {
    let status = answer.as_ref().map_or(503, |(status, _)| *status);
    assert!(status < 300 || status == 503, "{answer:?}");
    status < 300
}

/// Logs in; `None` if the password is wrong. Waits while the service is down.
async fn log_in(anybody: &Client, name: &str, password: &str) -> Option<Client> {
    let deadline = Instant::now() + PATIENCE;
    let body = json!({"username": name, "password": password});
    loop {
        match anybody.try_send("POST", "/auth/login", Some(body.clone()), &[]).await {
            Ok((200, answer)) => return Some(anybody.with_token(answer["access_token"].as_str().unwrap())),
            Ok((401, _)) => return None,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks for tokens until there is an answer, and returns the refresh token. A 400 would log the person out.
async fn grant(anybody: &Client, form: &[(&str, &str)]) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match anybody.send_form("/auth/token", form).await {
            Ok((200, answer)) => return answer["refresh_token"].as_str().unwrap().to_owned(),
            Ok((status, answer)) if status < 500 => panic!("{status} {answer}"),
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn refreshed(anybody: &Client, token: &str) -> String {
    grant(anybody, &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
}

/// Lives of people, one after the other. What people can do for themselves, the admin does half of the time.
async fn live(admin: Client, number: usize, mut random: SmallRng, stop: Arc<AtomicBool>) -> Vec<Person> {
    let mut people = Vec::new();
    for life in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (name, password) =
            (format!("person-{number}-{life}"), format!("the first sentence of {number} and {life}"));
        let registration = json!({"username": name, "password": password});
        let path = if random.random() { "/auth/register" } else { "/admin/users" };
        let answer = admin.try_send("POST", path, Some(registration), &[]).await;
        if !acknowledged(&answer) {
            // Down: a short pause, or this loop is all that the machine does.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let account = format!("/admin/users/{}", answer.unwrap().1["id"]);
        let Some(mut client) = log_in(&admin, &name, &password).await else { panic!("{name} is lost") };
        let mut person =
            Person { name, passwords: vec![password.clone()], todos: Vec::new(), refresh: None, end: End::Alive };
        for n in 0..random.random_range(0..6) {
            let todo = json!({"title": format!("secret {n}"), "description": "secret"});
            if let Ok((201, todo)) = client.try_send("POST", "/todos", Some(todo), &[]).await {
                person.todos.push(todo["id"].as_i64().unwrap());
            }
        }
        let mut refresh =
            grant(&admin, &[("grant_type", "password"), ("username", &person.name), ("password", &password)]).await;
        for _ in 0..random.random_range(0..4) {
            refresh = refreshed(&admin, &refresh).await;
        }
        person.refresh = Some(refresh);
        if random.random() {
            person.refresh = None;
            let next = format!("the next sentence of {number} and {life}");
            let answer = if random.random() {
                let change = json!({"current_password": password, "new_password": next});
                client.try_send("POST", "/auth/password", Some(change), &[]).await
            } else {
                admin.try_send("PATCH", &account, Some(json!({"password": next})), &[]).await
            };
            if acknowledged(&answer) {
                let Some(again) = log_in(&admin, &person.name, &next).await else { panic!("{} is lost", person.name) };
                client = again;
                person.passwords = vec![next];
            } else {
                person.passwords.push(next);
            }
        }
        let (end, answer) = match random.random_range(0..4) {
            // Whoever does not know the password any more can't do it.
            0 if person.passwords.len() == 1 => {
                let body = json!({"password": person.passwords[0]});
                (End::Deleted, client.try_send("DELETE", "/auth/me", Some(body), &[]).await)
            }
            1 => (End::Deleted, admin.try_send("DELETE", &account, None, &[]).await),
            2 => {
                let body = json!({"state": "disabled"});
                (End::Disabled, admin.try_send("PATCH", &account, Some(body), &[]).await)
            }
            _ => (End::Alive, Ok((200, Value::Null))),
        };
        person.end = if acknowledged(&answer) { end } else { End::Unknown };
        people.push(person);
    }
    people
}

/// What the events in Kafka say of each todo: its owner's name, and whether its content was taken back.
fn fates(events: &[Event]) -> BTreeMap<i64, (String, bool)> {
    let mut fates = BTreeMap::new();
    for event in events {
        let data = &event.body["data"];
        let scrubbed = data["scrubbed"] == true;
        let says_nothing = data["title"] == "[deleted]" && data["description"].is_null();
        assert_eq!(scrubbed, says_nothing, "{}", event.body);
        let fate = fates.entry(event.number("id")).or_insert((data["created_by"].as_str().unwrap().to_owned(), false));
        fate.1 |= scrubbed;
    }
    fates
}

/// Waits until nothing is left of the deleted accounts, and everything is published.
async fn wait_until_erased(stack: &Stack) {
    let database = stack.directory.path().join("data/todos.db");
    let left = "SELECT count(*) FROM users WHERE state = 2 AND erased = 0";
    let deadline = Instant::now() + PATIENCE;
    while Connection::open(&database).unwrap().query_row(left, [], |row| row.get::<_, i64>(0)).unwrap() > 0 {
        assert!(Instant::now() < deadline, "deleted accounts are not erased");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stack.wait_until_published().await;
}

#[actix_web::test]
async fn accounts_are_kept_and_deletions_end_whatever_is_killed() {
    let seed = seed("accounts");
    let mut random = SmallRng::seed_from_u64(seed);
    let (cycles, clients) = (length(8, 100), 4);
    let mut stack = Stack::started();
    let admin = stack.client("admin", "admin123").await;
    let stop = Arc::new(AtomicBool::new(false));
    let lives: Vec<_> = (0..clients)
        .map(|number| {
            let random = SmallRng::seed_from_u64(seed ^ number as u64);
            tokio::spawn(live(admin.clone(), number, random, Arc::clone(&stop)))
        })
        .collect();
    for _ in 0..cycles {
        tokio::time::sleep(Duration::from_millis(random.random_range(300..1500))).await;
        stack.service().kill();
        stack.start_service();
    }
    stop.store(true, Ordering::Relaxed);
    let mut people = Vec::new();
    for life in lives {
        people.extend(life.await.unwrap());
    }

    let (mut alive, mut disabled, mut deleted, mut sessions) = (0, 0, 0, 0);
    for person in &people {
        let mut client = None;
        for password in &person.passwords {
            client = client.or(log_in(&admin, &person.name, password).await);
        }
        match (person.end, client) {
            (End::Alive, Some(client)) => {
                alive += 1;
                if let Some(token) = &person.refresh {
                    sessions += 1;
                    refreshed(&admin, token).await;
                }
                for todo in &person.todos {
                    assert_eq!(client.send("GET", &format!("/todos/{todo}"), None).await.0, 200, "{}", person.name);
                }
            }
            (End::Disabled, None) => disabled += 1,
            (End::Deleted, None) => deleted += 1,
            (End::Unknown, _) => {}
            (end, client) => panic!("{} is {end:?}, and logs in: {}", person.name, client.is_some()),
        }
    }
    println!(
        "accounts: {cycles} kills, {alive} alive ({sessions} in a session), {disabled} disabled, {deleted} deleted, \
         {} in all",
        people.len()
    );
    assert!(alive > 2 && sessions > 0 && disabled > 2 && deleted > 2);

    wait_until_erased(&stack).await;
    let gone: Vec<_> = people.iter().filter(|person| person.end == End::Deleted).collect();
    let complete = |events: &[Event]| {
        let fates = fates(events);
        let taken_back = |person: &&Person, todo| fates.get(todo) == Some(&(person.name.clone(), true));
        gone.iter().all(|person| person.todos.iter().all(|todo| taken_back(person, todo)))
    };
    let events = stack.events_until(complete).await;
    versions_in_order(&events);
    let check = stack.run_service(&["check"]);
    assert!(check.contains("is good"), "{check}");
}

#[actix_web::test]
async fn a_large_account_is_erased_however_often_it_is_interrupted() {
    let seed = seed("large account");
    let mut random = SmallRng::seed_from_u64(seed);
    let todos = length(8_000, 100_000);
    let mut stack = Stack::new();
    stack.start_service();
    stack.service().signal("TERM");
    stack.service().wait(PATIENCE);
    let user = 2;
    fill(&stack.directory.path().join("data/todos.db"), user, todos, todos / 10);
    stack.start_kafka();
    stack.start_sidecar();
    stack.start_service();
    let client = stack.client("user", "user123").await;
    let (status, _) = client.send("DELETE", "/auth/me", Some(json!({"password": "user123"}))).await;
    assert_eq!(status, 204);
    let mut kills = 0;
    let left = |stack: &Stack| {
        let connection = Connection::open(stack.directory.path().join("data/todos.db")).unwrap();
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        (count("SELECT count(*) FROM todos"), count("SELECT count(*) FROM changes WHERE scrubbed = 0"))
    };
    // While todos are deleted, and while the log is scrubbed.
    while left(&stack) != (0, 0) && kills < 12 {
        tokio::time::sleep(Duration::from_millis(random.random_range(20..200))).await;
        stack.service().kill();
        kills += 1;
        stack.start_service();
    }
    wait_until_erased(&stack).await;
    println!("large account: {todos} todos, {kills} kills");
    assert!(kills > 1, "it was erased before anything could be killed");
    assert_eq!(left(&stack), (0, 0));
    let all = usize::try_from(todos).unwrap();
    let scrubbed = |events: &[Event]| fates(events).values().filter(|(_, is_scrubbed)| *is_scrubbed).count();
    stack.events_until(|events| scrubbed(events) == all).await;
    let check = stack.run_service(&["check"]);
    assert!(check.contains("is good"), "{check}");
}
