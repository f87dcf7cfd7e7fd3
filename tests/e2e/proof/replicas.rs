//! The same promises of several replicas on one Postgres, and those that they make together: what one has answered all know, and
//! the events of one that is gone are published by others.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::kill::compare;
use super::linearizability::assert_linearizable;
use super::load::{Load, quantiles, state_of};
use super::retries::ask;
use super::{length, seed, shuffled};
use crate::order::{Versions, versions_in_order};
use crate::replica::{Event, Received};
use crate::replicas::{COUNT, Replicas};
use crate::stack::{Client, PATIENCE, Stack};
use crate::users::{PASSWORD, done};

/// What measuring adds to the times that are promised, on a machine that is busy with three services, their sidecars, Kafka and
/// Postgres: a new holder reads the backlog of its partitions and publishes it, and the topic is read 20 times a second.
const TOLERANCE: Duration = Duration::from_secs(2);

/// So many that each of the 64 partitions most likely has some of them, whatever the rule is that gives it to them.
const TODOS: usize = 640;

fn random_replica(random: &mut SmallRng) -> usize {
    random.random_range(0..COUNT)
}

/// Another replica: each of the others in its turn.
fn other(n: usize) -> usize {
    (n + 1 + n / COUNT % 2) % COUNT
}

/// Says whether a goal was met. Figures depend on the machine: only absurd ones fail a test.
fn report(what: &str, value: f64, goal: f64, absurd: f64) {
    let met = if value <= goal { "met" } else { "missed" };
    println!("replicas: {what}: {value:.2} ms, goal {goal} ms: {met}");
    assert!(value < absurd, "{what}: {value} ms");
}

#[actix_web::test]
async fn faults_of_replicas_and_database_lose_nothing() {
    let seed = seed("replicas");
    let mut random = SmallRng::seed_from_u64(seed);
    let faults = shuffled(&[("kill", (3, 50)), ("freeze", (1, 20)), ("restart", (1, 10))], &mut random);
    let mut replicas = Replicas::started();
    // One account, so that replicas get in each other's way. The long version is paced: an account has room for 100,000 todos.
    let pace = length(None, Some(Duration::from_millis(100)));
    let load = Load::start(&replicas.client("admin", "admin123").await, 16, seed, pace);
    for (n, fault) in faults.iter().enumerate() {
        sleep(Duration::from_millis(random.random_range(300..1500))).await;
        let replica = random_replica(&mut random);
        println!("replicas: fault {} of {}: {fault}", n + 1, faults.len());
        match *fault {
            "kill" => {
                replicas.each[replica].service().kill();
                sleep(Duration::from_millis(random.random_range(0..3000))).await;
                replicas.meanwhile(replica, Stack::start_service).await;
            }
            "restart" => replicas.meanwhile(0, |first| first.postgres().restart()).await,
            _ => {
                replicas.each[replica].service().signal("STOP");
                sleep(Duration::from_secs(length(10, 60))).await;
                replicas.each[replica].service().signal("CONT");
            }
        }
    }
    sleep(Duration::from_secs(2)).await;
    let ledger = load.stop().await;
    for stack in &mut replicas.each {
        assert!(stack.service().running(), "{:?}", stack.service().lines());
    }
    assert!(ledger.acknowledged.len() > 20 * faults.len(), "only {} changes were made", ledger.acknowledged.len());
    replicas.wait_until_published().await;
    compare(&mut replicas.each[0], &ledger, &format!("replicas, {} faults", faults.len())).await;
    let mut states = Vec::new();
    for client in replicas.clients("admin", "admin123").await {
        states.push(state_of(&client).await);
    }
    assert!(states.iter().all(|state| *state == states[0]), "replicas show different todos");
}

#[actix_web::test]
async fn reads_and_writes_are_linearizable_also_when_replicas_are_killed_or_paused() {
    let seed = seed("linearizability of replicas");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut replicas = Replicas::without_events();
    let client = replicas.client("admin", "admin123").await;
    assert_linearizable(client, seed, async {
        for n in 0..length(6, 40) {
            sleep(Duration::from_millis(random.random_range(100..500))).await;
            let replica = random_replica(&mut random);
            // One that wakes must not answer from what it knew.
            if n % 3 == 2 {
                replicas.each[replica].service().signal("STOP");
                sleep(Duration::from_millis(random.random_range(500..4000))).await;
                replicas.each[replica].service().signal("CONT");
            } else {
                replicas.each[replica].service().kill();
                sleep(Duration::from_millis(random.random_range(0..1000))).await;
                replicas.meanwhile(replica, Stack::start_service).await;
            }
        }
    })
    .await;
}

/// Makes todos at once, and returns their ids.
async fn create(client: &Client, count: usize) -> Vec<i64> {
    let titles: Vec<String> = (0..count).map(|n| format!("todo {n}")).collect();
    let mut ids = Vec::new();
    for titles in titles.chunks(16) {
        ids.extend(join_all(titles.iter().map(|title| client.create(title))).await);
    }
    ids
}

/// Waits for the events of all these todos, which were just made, prints how long after `begun` the last one came, and returns that.
async fn last_arrival(replicas: &Replicas, ids: &[i64], begun: Instant, what: &str) -> Duration {
    let (made, arrivals) = (begun.elapsed(), RefCell::new(BTreeMap::new()));
    let all_came = |events: &[crate::stack::Event]| {
        let mut arrivals = arrivals.borrow_mut();
        for event in events {
            arrivals.entry(event.number("id")).or_insert_with(|| begun.elapsed());
        }
        ids.iter().all(|id| arrivals.contains_key(id))
    };
    versions_in_order(&replicas.each[0].events_until(all_came).await);
    let mut times: Vec<Duration> = ids.iter().map(|id| arrivals.borrow()[id]).collect();
    times.sort();
    let late = times.iter().filter(|time| **time > made + TOLERANCE).count();
    let last = times[times.len() - 1];
    println!("replicas: {what}: {late} of {} events had to wait, and the last one came after {last:.1?}", ids.len());
    last
}

#[actix_web::test]
async fn others_publish_for_a_replica_that_is_dead_or_has_no_sidecar() {
    let seed = seed("takeover");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut replicas = Replicas::started();
    let clients = replicas.clients("admin", "admin123").await;
    for _ in 0..length(2, 20) {
        replicas.wait_until_shared().await;
        sleep(Duration::from_millis(random.random_range(0..3000))).await;
        let dead = random_replica(&mut random);
        // It dies with events that are not published.
        let mut ids = create(&clients[dead], TODOS / 10).await;
        replicas.each[dead].service().kill();
        let killed = Instant::now();
        ids.extend(create(&clients[other(dead)], TODOS).await);
        let last = last_arrival(&replicas, &ids, killed, "a replica was killed (goal 11 s)").await;
        assert!(last <= Duration::from_secs(11) + TOLERANCE, "{last:?}");
        replicas.meanwhile(dead, Stack::start_service).await;
    }
    for _ in 0..length(1, 10) {
        replicas.wait_until_shared().await;
        let alone = random_replica(&mut random);
        replicas.each[alone].sidecar().kill();
        let killed = Instant::now();
        let ids = create(&clients[alone], TODOS).await;
        let last = last_arrival(&replicas, &ids, killed, "a sidecar was killed (goal 15 s)").await;
        assert!(last <= Duration::from_secs(15) + TOLERANCE, "{last:?}");
        replicas.each[alone].start_sidecar_meanwhile().await;
    }
    // Who can publish again gets partitions again.
    replicas.wait_until_shared().await;
}

/// Changes todos of its own one after the other as long as there are changes `left`; returns how many each has.
async fn change(client: Client, left: Arc<AtomicI64>) -> BTreeMap<i64, i64> {
    let mut versions: BTreeMap<i64, i64> = create(&client, 16).await.into_iter().map(|id| (id, 1)).collect();
    loop {
        for (id, version) in &mut versions {
            if left.fetch_sub(1, Ordering::Relaxed) <= 0 {
                return versions;
            }
            let body = json!({"title": format!("version {version}")});
            let (status, answer) = client.send("PUT", &format!("/todos/{id}"), Some(body)).await;
            assert_eq!(status, 200, "{answer}");
            *version += 1;
        }
    }
}

#[actix_web::test]
async fn partitions_that_are_stolen_again_and_again_cost_repeats_and_nothing_else() {
    let (writers, changes) = (16, length(10_000, 1_000_000));
    let mut replicas = Replicas::started();
    replicas.wait_until_shared().await;
    let client = replicas.client("admin", "admin123").await;
    let left = Arc::new(AtomicI64::new(changes - writers * 16));
    let begun = Instant::now();
    let writers: Vec<JoinHandle<_>> =
        (0..writers).map(|_| tokio::spawn(change(client.clone(), Arc::clone(&left)))).collect();
    let mut thefts = 0;
    while !writers.iter().all(JoinHandle::is_finished) {
        sleep(Duration::from_secs(2)).await;
        // All from everybody; some for somebody else, who knows nothing of it.
        replicas
            .psql(if thefts % 2 == 0 {
                "UPDATE leases SET until = '-infinity'"
            } else {
                "UPDATE leases SET process = (SELECT process FROM leases WHERE until > clock_timestamp() ORDER BY random() LIMIT 1)
                 WHERE random() < 0.3 AND until > clock_timestamp()"
            })
            .await;
        thefts += 1;
    }
    let mut expected = BTreeMap::new();
    for writer in writers {
        expected.extend(writer.await.unwrap());
    }
    let took = begun.elapsed();
    // A million events are not kept.
    let (mut versions, mut repeats) = (Versions::default(), 0);
    let reading = replicas.each[0].each_event(|events| {
        repeats += events.iter().filter(|event| versions.take(event)).count();
        versions.0 == expected
    });
    let read = timeout(length(PATIENCE, 60 * PATIENCE), reading).await;
    let published: i64 = versions.0.values().sum();
    // Who has lost a lease goes on until it is renewed the next time, and so does who has got it.
    let percent = 100.0 * repeats as f64 / changes as f64;
    println!(
        "replicas: {changes} changes in {:.1} s, {thefts} thefts: {published} events, {repeats} repeated ({percent:.3} %, goal \
         1 %: {}), none before its turn",
        took.as_secs_f64(),
        if percent < 1.0 { "met" } else { "missed" }
    );
    assert!(read.is_ok(), "{} events are missing", changes - published);
    assert!(thefts > 1, "it was over before anything was stolen");
    assert!(percent < 5.0, "{repeats} of {changes}");
    let check = replicas.each[0].run_service(&["check"]);
    assert!(check.contains("is good"), "{check}");
}

/// Whether a token is accepted; it is refused in no other way than with 401.
async fn accepted(client: &Client) -> bool {
    match client.send("GET", "/todos", None).await.0 {
        200 => true,
        401 => false,
        status => panic!("{status}"),
    }
}

/// The next pair of tokens, or what is said instead.
async fn refresh(client: &Client, token: &str) -> (u16, Value) {
    client.send_form("/auth/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await.unwrap()
}

/// Logs in, and returns an access token and a refresh token.
async fn begin(client: &Client) -> (String, String) {
    let form = [("grant_type", "password"), ("username", "demo"), ("password", "demo123")];
    let (status, tokens) = client.send_form("/auth/token", &form).await.unwrap();
    assert_eq!(status, 200, "{tokens}");
    (tokens["access_token"].as_str().unwrap().to_owned(), tokens["refresh_token"].as_str().unwrap().to_owned())
}

#[actix_web::test]
async fn what_ends_on_one_replica_has_ended_on_all() {
    let replicas = Replicas::without_events();
    let clients = replicas.clients("admin", "admin123").await;
    let (_, users) = clients[0].send("GET", "/admin/users", None).await;
    let demo = users.as_array().unwrap().iter().find(|user| user["username"] == "demo").unwrap();
    let path = format!("/admin/users/{}", demo["id"]);
    for n in 0..length(12, 200) {
        let (here, there) = (&clients[n % COUNT], &clients[other(n)]);
        let (access, token) = begin(here).await;
        let its = there.with_token(&access);
        assert!(accepted(&its).await, "round {n}: a session that has begun here is unknown there");
        assert_eq!(here.send_form("/auth/revoke", &[("token", &token)]).await.unwrap().0, 200);
        assert!(!accepted(&its).await, "round {n}: a session that has ended here goes on there");
        assert_eq!(refresh(there, &token).await.0, 400, "round {n}: its refresh token");

        let its = there.with_token(&begin(here).await.0);
        assert!(accepted(&its).await, "round {n}");
        assert_eq!(here.send("PATCH", &path, Some(json!({"state": "disabled"}))).await.0, 200);
        assert!(!accepted(&its).await, "round {n}: an account that was disabled here is accepted there");
        let login = there.send("POST", "/auth/login?username=demo&password=demo123", None).await;
        assert_eq!(login.0, 401, "round {n}: {}", login.1);
        assert_eq!(there.send("PATCH", &path, Some(json!({"state": "active"}))).await.0, 200);
        // It logs in here at the beginning of the next round.
    }
    begin(&clients[0]).await;
}

#[actix_web::test]
async fn a_refresh_token_is_used_once_on_all_replicas_together() {
    let replicas = Replicas::without_events();
    let clients = replicas.clients("demo", "demo123").await;
    let (here, there, elsewhere) = (&clients[0], &clients[1 % COUNT], &clients[2 % COUNT]);
    let next = |(status, tokens): (u16, Value)| {
        assert_eq!(status, 200, "{tokens}");
        tokens["refresh_token"].as_str().unwrap().to_owned()
    };
    let (_, first) = begin(here).await;
    let second = next(refresh(here, &first).await);
    assert_eq!(next(refresh(there, &first).await), second, "for a minute, the old one gives the same new one");
    let third = next(refresh(there, &second).await);
    assert_eq!(next(refresh(elsewhere, &second).await), third, "also where the new one was never seen");
    assert_eq!(next(refresh(elsewhere, &first).await), second, "each gives its own successor");
    if length(false, true) {
        // After that minute, the one before the last is in other hands: that ends the session everywhere.
        sleep(Duration::from_secs(61)).await;
        for (n, token) in [&first, &third, &third, &third].into_iter().enumerate() {
            assert_eq!(refresh(&clients[n % COUNT], token).await.0, 400, "request {n}");
        }
    }
    // Tabs that refresh at once, each through another replica.
    let mut token = begin(there).await.1;
    for _ in 0..length(20, 200) {
        let answers = join_all(clients.iter().map(|client| refresh(client, &token))).await;
        let successors: Vec<String> = answers.into_iter().map(next).collect();
        assert!(successors.iter().all(|successor| *successor == successors[0]), "{successors:?}");
        token.clone_from(&successors[0]);
    }
}

#[actix_web::test]
async fn accounts_are_added_while_replicas_run_and_log_in_everywhere() {
    let replicas = Replicas::without_events();
    for (n, stack) in replicas.each.iter().enumerate() {
        let name = format!("late-{n}");
        done(stack, &["add", &name], PASSWORD);
        for at in &replicas.each {
            at.client(&name, PASSWORD).await;
        }
        assert!(done(stack, &["list"], "").contains(&name));
    }
    // The same name is taken wherever it was.
    let admin = replicas.client("admin", "admin123").await;
    let again = json!({"username": "late-0", "password": PASSWORD});
    assert_eq!(admin.send("POST", "/admin/users", Some(again)).await.0, 409);
    // What the command line ends has ended at the next request.
    let clients = replicas.clients("late-0", PASSWORD).await;
    assert!(accepted(&clients[0]).await);
    done(&replicas.each[0], &["disable", "late-0"], "");
    for (n, client) in clients.iter().enumerate() {
        assert!(!accepted(client).await, "replica {n}");
    }
}

/// The next event of a stream that is a change, or its first one.
async fn hear(stream: &mut reqwest::Response, received: &mut Received) -> Event {
    loop {
        match received.next() {
            Some(event) if ["ready", "created"].contains(&event.kind.as_str()) => return event,
            Some(_) => {}
            None => {
                let chunk = timeout(PATIENCE, stream.chunk()).await.expect("it is not silent");
                received.add(&chunk.unwrap().expect("it goes on"));
            }
        }
    }
}

#[actix_web::test]
async fn what_one_replica_has_answered_the_others_show() {
    let replicas = Replicas::without_events();
    let clients = replicas.clients("demo", "demo123").await;
    for n in 0..length(500, 20_000) {
        let title = format!("todo {n}");
        let id = clients[n % COUNT].create(&title).await;
        let (status, todo) = clients[other(n)].send("GET", &format!("/todos/{id}"), None).await;
        assert_eq!((status, &todo["title"]), (200, &json!(title)), "todo {n}, {} does not show it", other(n));
    }

    for n in 0..COUNT {
        let (here, there) = (&clients[n], &clients[other(n)]);
        let mut stream = there.respond("GET", "/events", None, &[]).await.unwrap();
        let mut received = Received::default();
        assert_eq!(hear(&mut stream, &mut received).await.kind, "ready");
        let mut times = Vec::new();
        for _ in 0..length(20, 200) {
            let begun = Instant::now();
            let id = here.create("new").await;
            assert_eq!(hear(&mut stream, &mut received).await.data["id"], id);
            times.push(begun.elapsed());
        }
        let last = times.iter().max().unwrap().as_secs_f64() * 1000.0;
        let (median, p99, _) = quantiles(times.into_iter());
        println!(
            "replicas: a follower elsewhere hears of a change: p50 {median:.1} ms, p99 {p99:.1} ms, max {last:.1} ms"
        );
        assert!(last < 1000.0, "{last} ms");
    }

    for n in 0..length(30, 300) {
        let key = format!("key {n}");
        let body = json!({ "title": key });
        let first = ask(&clients[n % COUNT], "POST", "/todos", &body, &key).await.unwrap();
        assert!(first.0 == 201 && !first.3, "{first:?}");
        let again = ask(&clients[other(n)], "POST", "/todos", &body, &key).await.unwrap();
        assert_eq!(again, (first.0, first.1, first.2, true), "{key}, on another replica");
        // At the same time, on all of them.
        let key = format!("{key}, at once");
        let body = json!({ "title": key });
        let answers = join_all(clients.iter().map(|client| ask(client, "POST", "/todos", &body, &key))).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers.iter().filter(|answer| !answer.3).count(), 1, "{answers:?}");
        assert!(answers.iter().all(|answer| answer.0 == 201 && answer.2 == answers[0].2), "{answers:?}");
    }
    let (_, todos) = clients[0].send("GET", "/todos", None).await;
    let kept = todos.as_array().unwrap().iter().filter(|todo| todo["title"].as_str().unwrap().starts_with("key"));
    assert_eq!(kept.count(), 2 * length(30, 300), "each key has made one todo");
}

/// Reads a todo again and again for a while, and in turn with it what needs no database: median, 99th percentile and number of each.
async fn read(client: &Client, todo: i64, seconds: u64) -> [(f64, f64, usize); 2] {
    let (paths, until) =
        ([format!("/todos/{todo}"), "/health/live".to_owned()], Instant::now() + Duration::from_secs(seconds));
    let mut times = [Vec::new(), Vec::new()];
    while Instant::now() < until {
        for (path, times) in paths.iter().zip(&mut times) {
            let begun = Instant::now();
            assert_eq!(client.send("GET", path, None).await.0, 200);
            times.push(begun.elapsed());
        }
    }
    times.map(|times| quantiles(times.into_iter()))
}

#[actix_web::test]
async fn reads_are_quick_while_others_write_and_while_one_replica_is_frozen() {
    let seconds = length(8, 60);
    // 200 changes a second in all.
    let pace = Some(Duration::from_millis(40));
    let replicas = Replicas::started();
    let clients = replicas.clients("admin", "admin123").await;
    let todo = clients[0].create("read").await;
    let load = Load::start(&replicas.client("admin", "admin123").await, 8, 1, pace);
    sleep(Duration::from_secs(1)).await;
    let [with, without] = read(&clients[0], todo, seconds).await;
    load.stop().await;
    for (what, (median, p99, count)) in [("of a todo", with), ("of what needs no database", without)] {
        println!("replicas: GET {what} while others write: p50 {median:.2} ms, p99 {p99:.2} ms, {count} requests");
    }
    println!("replicas: what the barrier and the rest of a read add (p50): {:.2} ms", with.0 - without.0);
    report("what the barrier and the rest of a read add (p99)", with.1 - without.1, 1.0, 500.0);

    // The frozen one is in the middle of something.
    let loads: Vec<Load> = clients.iter().map(|client| Load::start(client, 4, 1, pace)).collect();
    sleep(Duration::from_secs(1)).await;
    let frozen = &replicas.each[COUNT - 1];
    frozen.service.as_ref().unwrap().signal("STOP");
    let from = Instant::now();
    let [reads, _] = read(&clients[0], todo, seconds).await;
    let until = Instant::now();
    frozen.service.as_ref().unwrap().signal("CONT");
    let (mut writes, mut failures) = (Vec::new(), Vec::new());
    for (n, load) in loads.into_iter().enumerate() {
        let ledger = load.stop().await;
        if n != COUNT - 1 {
            let within = ledger.answers.iter().filter(|(at, _)| *at >= from && *at < until);
            writes.extend(within.map(|(_, took)| *took));
            failures.extend(ledger.failures);
        }
    }
    let longest = writes.iter().max().unwrap().as_secs_f64() * 1000.0;
    let writes = quantiles(writes.into_iter());
    for (what, (median, p99, count)) in [("GET", reads), ("changes", writes)] {
        println!("replicas: {what} while a replica is frozen: p50 {median:.2} ms, p99 {p99:.2} ms, {count} requests");
    }
    println!("replicas: the longest change while a replica is frozen: {longest:.0} ms; {} failed", failures.len());
    assert!(failures.len() < writes.2 / 20, "{failures:?}");
    report("reads while a replica is frozen (p99)", reads.1, 100.0, 2000.0);
    report("changes while a replica is frozen (p99)", writes.1, 100.0, 5000.0);
}
