//! Clients that follow a user's changes while others make many and the service is killed again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::rt::task::JoinHandle;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{length, seed};
use crate::replica::{Received, Replica};
use crate::stack::{Client, PATIENCE, Stack};

const WRITERS: u64 = 8;
const PAUSE: Duration = Duration::from_millis(20);

/// What all have in common.
#[derive(Clone)]
struct World {
    client: Client,
    /// The writers have ended.
    quiet: Arc<AtomicBool>,
    changes: Arc<AtomicUsize>,
    restarts: Arc<AtomicUsize>,
    disconnections: Arc<AtomicUsize>,
}

impl World {
    /// What there is, once the service answers.
    async fn current(&self) -> Replica {
        loop {
            if let Ok(answer) = self.client.respond("GET", "/todos?etags=true", None, &[]).await
                && answer.status() == 200
            {
                let token = answer.headers()["sync-token"].to_str().unwrap().to_owned();
                if let Ok(body) = answer.bytes().await {
                    return Replica::new(&serde_json::from_slice(&body).unwrap(), &token);
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether the writers have ended and this token is of the last change.
    async fn is_over(&self, token: &str) -> bool {
        self.quiet.load(Ordering::Relaxed) && self.current().await.token == token
    }
}

/// Makes random changes, whatever becomes of them.
async fn write(world: World, mut random: SmallRng) {
    let mut ids: Vec<i64> = Vec::new();
    while !world.quiet.load(Ordering::Relaxed) {
        let id = if ids.is_empty() { 1 } else { ids[random.random_range(0..ids.len())] };
        let number = random.random_range(0..1000);
        let (method, path, body) = match random.random_range(0..12) {
            0..3 => ("POST", "/todos".to_owned(), json!({ "title": number.to_string() })),
            3 => ("DELETE", format!("/todos/{id}"), Value::Null),
            4 => ("POST", format!("/todos/{id}/restore"), Value::Null),
            5 => ("POST", format!("/changes/{number}/undo?batch=true"), Value::Null),
            6 if number < 100 => ("DELETE", "/todos?completed=true".to_owned(), Value::Null),
            6 => {
                let many =
                    (0..20).map(|n| json!({"op": "create", "todo": {"title": n.to_string(), "completed": true}}));
                ("POST", "/batch".to_owned(), json!({"operations": many.collect::<Vec<_>>()}))
            }
            _ => ("PATCH", format!("/todos/{id}"), json!({"title": number.to_string(), "completed": number % 9 == 0})),
        };
        let body = Some(body).filter(|body| !body.is_null());
        match world.client.try_send(method, &path, body, &[]).await {
            Ok((201, todo)) => ids.push(todo["id"].as_i64().unwrap()),
            Ok(_) => {}
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Hears each change, and connects again whenever the stream ends.
async fn listen(world: World, mut replica: Replica) -> Replica {
    loop {
        let headers = [("Last-Event-ID", replica.token.as_str())];
        let Ok(mut stream) = world.client.respond("GET", "/events", None, &headers).await else {
            sleep(PAUSE).await;
            continue;
        };
        assert_eq!(stream.status(), 200);
        let mut received = Received::default();
        loop {
            match tokio::time::timeout(Duration::from_millis(500), stream.chunk()).await {
                Ok(Ok(Some(chunk))) => received.add(&chunk),
                Ok(Ok(None) | Err(_)) => break,
                Err(_) if world.is_over(&replica.token).await => return replica,
                Err(_) => {}
            }
            while let Some(event) = received.next() {
                // Retention has gone past what this one knows.
                if event.kind == "reset" {
                    assert_eq!(event.data["reason"], "pruned");
                    world.restarts.fetch_add(1, Ordering::Relaxed);
                    replica = world.current().await;
                }
                replica.hear(&event);
                world.changes.fetch_add(usize::from(event.data.get("revision").is_some()), Ordering::Relaxed);
            }
        }
        world.disconnections.fetch_add(1, Ordering::Relaxed);
    }
}

/// Asks now and then, after `pause` milliseconds at most.
async fn ask(world: World, mut replica: Replica, (query, pause): (&'static str, u64), mut random: SmallRng) -> Replica {
    loop {
        let path = format!("/changes?since={}{query}", replica.token);
        match world.client.try_send("GET", &path, None, &[]).await {
            Ok((200, page)) => {
                let (entries, has_more) = replica.read(&page);
                world.changes.fetch_add(entries, Ordering::Relaxed);
                if !has_more && world.is_over(&replica.token).await {
                    return replica;
                }
                if !has_more {
                    sleep(Duration::from_millis(random.random_range(1..pause))).await;
                }
            }
            Ok((410, gap)) => {
                assert_eq!(gap["reason"], "pruned");
                world.restarts.fetch_add(1, Ordering::Relaxed);
                replica = world.current().await;
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

#[actix_web::test]
async fn whoever_follows_through_kills_misses_nothing() {
    let mut random = SmallRng::seed_from_u64(seed("feed"));
    let mut stack = Stack::new();
    // The log keeps little: ten times as many, of today.
    stack.service_env.push(("HISTORY_MAX_PER_USER", "100".to_owned()));
    stack.start_kafka();
    stack.start_sidecar();
    stack.start_service();
    let world = World {
        client: stack.client("demo", "demo123").await,
        quiet: Arc::default(),
        changes: Arc::default(),
        restarts: Arc::default(),
        disconnections: Arc::default(),
    };
    let start = world.current().await;
    let mut rng = || SmallRng::seed_from_u64(random.random());
    let writers: Vec<_> = (0..WRITERS).map(|_| actix_web::rt::spawn(write(world.clone(), rng()))).collect();
    let mut followers: Vec<JoinHandle<Replica>> =
        (0..3).map(|_| actix_web::rt::spawn(listen(world.clone(), start.clone()))).collect();
    // The last ones are away for longer than the log keeps changes.
    for asks in [("", 1500), ("&limit=7", 1500), ("&net=true&limit=50", 1500), ("", 8000), ("&net=true", 8000)] {
        followers.push(actix_web::rt::spawn(ask(world.clone(), start.clone(), asks, rng())));
    }
    let kills = length(8, 50);
    for _ in 0..kills {
        sleep(Duration::from_millis(random.random_range(300..1200))).await;
        stack.service().kill();
        stack.start_service();
    }
    // Long enough for the log to be pruned.
    sleep(Duration::from_secs(3)).await;
    world.quiet.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let end = world.current().await;
    for follower in followers {
        let follower = tokio::time::timeout(PATIENCE, follower).await;
        assert_eq!(follower.expect("it comes to the last change").unwrap(), end);
    }
    let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    println!(
        "feed: {} changes of {} todos, {kills} kills, 8 followers with {} entries, {} disconnections and {} gaps",
        crate::replica::revision(&end.token),
        end.todos.len(),
        count(&world.changes),
        count(&world.disconnections),
        count(&world.restarts)
    );
    assert!(count(&world.disconnections) >= kills, "the streams were not interrupted");
}
