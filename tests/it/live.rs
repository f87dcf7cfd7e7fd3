//! `GET /events`.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;
use futures_util::future::join_all;
use reqwest::RequestBuilder;
use serde_json::json;

use crate::app::{PREFIXES, TestApp, eventually, with_app, with_config, with_settings};
use crate::client::RequestExt;
use crate::clock::with_clock;
use crate::follow::{Stream, current, follow};

fn events(app: &TestApp, user: &str) -> RequestBuilder {
    app.get("/events").bearer_auth(app.token(user))
}

/// Changes that are more than sockets take: 20 MB.
const MUCH: usize = 20 * 95;

async fn write_much(app: &TestApp, token: &str) {
    let todo = json!({"op": "create", "todo": {"title": "x", "description": "x".repeat(10_000)}});
    let body = json!({"operations": vec![todo; 95]});
    for _ in 0..MUCH / 95 {
        assert_eq!(app.post("/batch").bearer_auth(token).send_json(body.clone()).await.status, 200);
    }
}

/// How many streams are open, as the metrics say.
async fn open(app: &TestApp) -> usize {
    let metrics = app.get("/metrics").answer().await.body;
    let line = metrics.lines().find_map(|line| line.strip_prefix("todo_backend_event_streams "));
    line.unwrap().parse().unwrap()
}

#[actix_web::test]
async fn a_client_hears_what_happens() {
    with_app(async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "before"})).await;
        let epoch = app.store().epoch();
        for prefix in PREFIXES {
            let call = app.get(&format!("{prefix}/events")).bearer_auth(&token);
            let answer = call.send().await.unwrap();
            let header = |name: &str| answer.headers()[name].to_str().unwrap();
            assert_eq!(header("content-type"), "text/event-stream");
            assert_eq!((header("cache-control"), header("x-accel-buffering")), ("no-store", "no"));
            let vary: Vec<_> = answer.headers().get_all("vary").iter().map(|it| it.to_str().unwrap()).collect();
            assert!(vary.join(",").contains("Authorization"), "{vary:?}");
        }
        let mut stream = Stream::open(events(app, "demo")).await;
        let ready = stream.expect("ready").await;
        assert_eq!((ready.id, ready.data), (Some(format!("{epoch}-1")), json!({"head": format!("{epoch}-1")})));
        assert!((1000..=5000).contains(&ready.retry.unwrap()));
        let call = app.patch("/todos/1").bearer_auth(&token).header("Idempotency-Key", "k");
        call.send_json(json!({"completed": true})).await;
        // Nobody else's.
        app.create(&app.token("admin"), json!({"title": "another's"})).await;
        app.delete("/todos/1").bearer_auth(&token).answer().await;
        app.post("/todos/1/restore").bearer_auth(&token).answer().await;
        let changes = app.get(&format!("/changes?since={epoch}-1")).bearer_auth(&token).answer().await.json();
        for (n, kind) in ["updated", "deleted", "restored"].into_iter().enumerate() {
            let event = stream.expect(kind).await;
            assert_eq!((event.id, event.retry), (Some(format!("{epoch}-{}", n + 2)), None));
            assert_eq!(event.data, changes["changes"][n], "it is what a client that asks gets");
        }
        let head = app.request("HEAD", "/events").bearer_auth(&token).answer().await;
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    })
    .await;
}

#[actix_web::test]
async fn who_comes_back_misses_nothing() {
    with_settings(&[("RATE_LIMIT_USER", "0")], async |app| {
        let token = app.token("demo");
        let mut replica = current(app, "demo").await;
        let titles: Vec<_> = (0..250).map(|n| json!({"op": "create", "todo": {"title": n.to_string()}})).collect();
        for part in titles.chunks(100) {
            let call = app.post("/batch").bearer_auth(&token);
            assert_eq!(call.send_json(json!({"operations": part})).await.status, 200);
        }
        let now = current(app, "demo").await;
        // The header counts more: a browser's code keeps its address.
        let call =
            app.get("/events?since=000000000000001f-1").bearer_auth(&token).header("Last-Event-ID", &replica.token);
        for call in [call, app.get(&format!("/events?since={}", replica.token)).bearer_auth(&token)] {
            let mut replica = replica.clone();
            let mut stream = Stream::open(call.header("Accept", "text/event-stream")).await;
            let ready = stream.expect("ready").await;
            assert_eq!((ready.id.as_ref(), &ready.data["head"]), (Some(&replica.token), &json!(now.token)));
            follow(&mut replica, &mut stream, &now.token).await;
            assert_eq!(replica, now);
        }
        // While others write.
        let mut stream = Stream::open(app.get(&format!("/events?since={}", replica.token)).bearer_auth(&token)).await;
        stream.expect("ready").await;
        let write = async {
            for id in 1..=250 {
                app.put(&format!("/todos/{id}")).bearer_auth(&token).send_json(json!({"completed": true})).await;
            }
            app.delete("/todos?completed=true").bearer_auth(&token).answer().await;
        };
        let until = format!("{}-750", app.store().epoch());
        futures_util::future::join(write, follow(&mut replica, &mut stream, &until)).await;
        assert_eq!(replica, current(app, "demo").await);
    })
    .await;
}

#[actix_web::test]
async fn who_can_not_catch_up_is_told_so_and_the_stream_ends() {
    with_app(async |app| {
        let token = app.token("demo");
        for title in ["a", "b", "c"] {
            app.create(&token, json!({"title": title})).await;
        }
        app.published().await;
        let epoch = app.store().epoch();
        let begin = async |since: String| Stream::open(events(app, "demo").header("Last-Event-ID", since)).await;
        for (since, reason) in [("000000000000001f-1".to_owned(), "foreign"), (format!("{epoch}-4"), "ahead")] {
            let mut stream = begin(since).await;
            let reset = stream.expect("reset").await;
            // A client that comes back at once is not told the same again.
            assert_eq!((reset.id, reset.data), (Some(String::new()), json!({"reason": reason})));
            assert!(reset.retry.is_some());
            assert_eq!(stream.next().await, None);
        }
        app.database()
            .execute("DELETE FROM changes WHERE revision <= 2; UPDATE users SET floor = 2 WHERE username = 'demo'");
        let mut stream = begin(format!("{epoch}-1")).await;
        stream.expect("ready").await;
        stream.expect_end("reset", "pruned").await;
        let mut stream = begin(format!("{epoch}-2")).await;
        stream.expect("ready").await;
        stream.expect("created").await;
        eventually("its end is noticed", async || open(app).await <= 1).await;
    })
    .await;
}

#[actix_web::test]
async fn what_is_wrong_with_the_request_is_said() {
    with_app(async |app| {
        let token = app.token("demo");
        let answer = app.get("/events?since=x&delivery=2").bearer_auth(&token).answer().await;
        assert_eq!(answer.problems(), ["value_error since", "bool_parsing delivery"]);
        let answer = app.get("/events").bearer_auth(&token).header("Last-Event-ID", "12").answer().await;
        assert_eq!(answer.json()["detail"][0]["loc"], json!(["header", "Last-Event-ID"]));
        let call = app.get("/events").bearer_auth(&token).header("Last-Event-ID", format!("{}-0", app.store().epoch()));
        let answer = call.header("Last-Event-ID", "12").answer().await;
        assert_eq!(answer.problems(), ["value_error Last-Event-ID"]);
        // As browsers send it when there was none.
        let mut stream = Stream::open(events(app, "demo").header("Last-Event-ID", "")).await;
        stream.expect("ready").await;
        let answer = app.get(&format!("/events?access_token={token}")).answer().await;
        answer.assert_refused(401, "Not authenticated");
    })
    .await;
}

#[actix_web::test]
async fn a_user_has_only_so_many_streams() {
    with_settings(&[("RATE_LIMIT_USER", "0")], async |app| {
        let mut streams = join_all((0..32).map(|_| Stream::open(events(app, "demo")))).await;
        let refused = events(app, "demo").answer().await;
        refused.assert_refused(429, "This user follows events 32 times already, the most allowed: close one first");
        assert_eq!(refused.header("retry-after"), Some("30"));
        assert_eq!(open(app).await, 32);
        Stream::open(events(app, "admin")).await.expect("ready").await;
        // One that the client has left makes room at once.
        streams.pop();
        eventually("there is room", async || events(app, "demo").send().await.unwrap().status() == 200).await;
        drop(streams);
        eventually("all have gone", async || open(app).await == 0).await;
    })
    .await;
}

#[actix_web::test]
async fn a_stream_ends_with_its_token() {
    let (config, now) = with_clock(&[("RATE_LIMIT_USER", "0")]);
    with_config(config, async |app| {
        let login = app.post("/auth/token");
        let login = login.send_form("grant_type=password&username=demo&password=demo123").await.json();
        let token = login["access_token"].as_str().unwrap().to_owned();
        let mut session = Stream::open(app.get("/events").bearer_auth(&token)).await;
        let mut plain = Stream::open(events(app, "demo")).await;
        let body = json!({"name": "x", "scope": "read"});
        let personal = app.post("/auth/tokens").bearer_auth(&token).send_json(body).await.json();
        let secret = personal["token"].as_str().unwrap();
        let mut reader = Stream::open(app.get("/events").bearer_auth(secret)).await;
        let mut admin = Stream::open(events(app, "admin")).await;
        for stream in [&mut session, &mut plain, &mut reader, &mut admin] {
            stream.expect("ready").await;
        }
        // What has nothing to do with their tokens.
        app.post("/auth/token").send_form("grant_type=password&username=demo&password=demo123").await;
        let path = format!("/auth/tokens/{}", personal["id"]);
        app.delete(&path).bearer_auth(&token).answer().await;
        reader.expect_end("end", "token_ended").await;
        let sessions = app.get("/auth/sessions").bearer_auth(&token).answer().await.json();
        let current = sessions.as_array().unwrap().iter().find(|it| it["current"] == true).unwrap()["id"].clone();
        app.delete(&format!("/auth/sessions/{current}")).bearer_auth(&token).answer().await;
        session.expect_end("end", "token_ended").await;
        app.create(&app.token("demo"), json!({"title": "still heard"})).await;
        plain.expect("created").await;
        app.post("/auth/logout-all").bearer_auth(app.token("demo")).answer().await;
        plain.expect_end("end", "token_ended").await;
        // Half an hour later, as the clock says; a change is not what makes it notice.
        let mut follower = Stream::open(events(app, "admin")).await;
        follower.expect("ready").await;
        now.fetch_add(31 * 60 * 1000, Ordering::Relaxed);
        app.post("/auth/token").send_form("grant_type=password&username=admin&password=admin123").await;
        follower.expect_end("end", "token_expired").await;
        admin.expect_end("end", "token_expired").await;
    })
    .await;
}

#[actix_web::test]
async fn a_stream_ends_when_its_token_expires_and_others_go_on() {
    with_app(async |app| {
        let begun = Instant::now();
        let keys = app.keys_with(&[]);
        let demo = app.account("demo").unwrap();
        // It expires in three seconds.
        let issued = app.now().seconds() - 1800 + 3;
        let mut stream = Stream::open(app.get("/events").bearer_auth(keys.issue(&demo, None, issued).unwrap())).await;
        stream.expect("ready").await;
        app.create(&app.token("demo"), json!({"title": "heard"})).await;
        stream.expect("created").await;
        stream.expect_end("end", "token_expired").await;
        assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    })
    .await;
}

#[actix_web::test]
async fn a_disabled_account_hears_nothing_more() {
    with_app(async |app| {
        let admin = app.token("admin");
        let mut stream = Stream::open(events(app, "demo")).await;
        stream.expect("ready").await;
        let path = format!("/admin/users/{}", app.user_id("demo"));
        assert_eq!(app.patch(&path).bearer_auth(&admin).send_json(json!({"state": "disabled"})).await.status, 200);
        stream.expect_end("end", "token_ended").await;
    })
    .await;
}

#[actix_web::test]
async fn who_hears_nothing_else_hears_a_heartbeat() {
    with_app(async |app| {
        let mut stream = Stream::open(events(app, "demo")).await;
        stream.expect("ready").await;
        let begun = Instant::now();
        let beat = stream.expect("heartbeat").await;
        assert_eq!((beat.id, beat.data), (None, json!({})));
        assert!((14..25).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    })
    .await;
}

#[actix_web::test]
async fn streams_end_when_the_service_stops() {
    let mut streams = with_app(async |app| {
        let mut streams = join_all((0..20).map(|_| Stream::open(events(app, "demo")))).await;
        for stream in &mut streams {
            stream.expect("ready").await;
        }
        // They are read while it stops.
        let ends = streams.into_iter().map(|mut stream| {
            actix_web::rt::spawn(async move {
                let end = stream.expect("end").await;
                assert_eq!((end.data, stream.next().await), (json!({"reason": "shutdown"}), None));
                end.retry.unwrap()
            })
        });
        ends.collect::<Vec<_>>()
    })
    .await;
    let mut retries = Vec::new();
    for end in &mut streams {
        retries.push(end.await.unwrap());
    }
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() > 10, "they don't come back at the same time: {retries:?}");
}

#[actix_web::test]
async fn who_asks_for_it_hears_where_events_have_come() {
    with_app(async |app| {
        let mut stream = Stream::open(app.get("/events?delivery=true").bearer_auth(app.token("demo"))).await;
        stream.expect("ready").await;
        app.create(&app.token("demo"), json!({"title": "x"})).await;
        stream.expect("created").await;
        let published = stream.expect("delivery").await;
        assert_eq!((published.id, &published.data["revision"]), (None, &json!(1)));
        assert!(published.data["published_at"].is_string());
        // The sidecar of these tests does not deliver: Dapr's way back.
        let event = |source: String, version: i64| {
            json!({
                "id": format!("1-{version}"), "source": source, "type": "todo.created", "subject": "todos/1",
                "time": "2025-01-15T10:30:00.000Z",
                "data": {"id": 1, "version": version, "revision": version, "owner": app.user_id("demo")},
            })
        };
        let source = format!("/todo-backend/{}", app.store().epoch());
        for event in [event("/todo-backend/000000000000001f".into(), 1), event(source.clone(), 1), event(source, 1)] {
            assert_eq!(app.post("/events/todos").send_json(event).await.status, 200);
        }
        let delivered = stream.expect("delivery").await;
        assert!(delivered.data["delivered_at"].is_string(), "{delivered:?}");
        app.delete("/todos/1").bearer_auth(app.token("demo")).answer().await;
        stream.expect("deleted").await;
    })
    .await;
}

/// What a client reads late was sent late: it has to be allowed then.
#[actix_web::test]
async fn who_is_behind_hears_nothing_that_was_changed_after_the_end_of_the_token() {
    with_settings(&[("RATE_LIMIT_USER", "0")], async |app| {
        let token = app.token("demo");
        let begin = current(app, "demo").await.token;
        write_much(app, &token).await;
        let mut stream = Stream::open(app.get("/events").bearer_auth(&token).header("Last-Event-ID", begin)).await;
        stream.expect("ready").await;
        let (mut last, mut heard) = (stream.expect("created").await, 1);
        assert_eq!(app.post("/auth/logout-all").bearer_auth(&token).answer().await.status, 204);
        app.create(&app.token("demo"), json!({"title": "secret"})).await;
        while let Some(event) = stream.next().await {
            assert_ne!(event.data["todo"]["title"], "secret");
            (last, heard) = (event, heard + 1);
        }
        assert_eq!((last.kind.as_str(), &last.data), ("end", &json!({"reason": "token_ended"})));
        assert!(heard < MUCH, "it was behind: {heard}");
    })
    .await;
}

/// Of a client that reads nothing, the service keeps nothing but its place; when it goes on, it has missed nothing.
#[actix_web::test]
async fn a_client_that_pauses_misses_nothing() {
    // It also pauses for as long as the writing takes, which on a busy machine may be more than the default.
    with_settings(&[("RATE_LIMIT_USER", "0"), ("CLIENT_READ_TIMEOUT", "300")], async |app| {
        let token = app.token("demo");
        let mut replica = current(app, "demo").await;
        let mut stream = Stream::open(events(app, "demo")).await;
        stream.expect("ready").await;
        write_much(app, &token).await;
        sleep(Duration::from_secs(1)).await;
        let now = current(app, "demo").await;
        follow(&mut replica, &mut stream, &now.token).await;
        assert_eq!(replica, now);
    })
    .await;
}

/// Clients that have stopped reading hold nothing that others need: neither turns nor readers of the log.
#[actix_web::test]
async fn clients_that_stop_reading_hold_up_nobody() {
    with_settings(&[("RATE_LIMIT_USER", "0")], async |app| {
        let (token, begin) = (app.token("demo"), current(app, "demo").await.token);
        write_much(app, &token).await;
        let mut streams = Vec::new();
        for _ in 0..32 {
            let call = app.get("/events").bearer_auth(&token).header("Last-Event-ID", &begin);
            streams.push(Stream::open(call).await);
        }
        sleep(Duration::from_secs(2)).await;
        let begun = Instant::now();
        for user in ["demo", "admin"] {
            let path = format!("/changes?since={}-0&limit=10", app.store().epoch());
            app.create(&app.token(user), json!({"title": "x"})).await;
            assert_eq!(app.get(&path).bearer_auth(app.token(user)).answer().await.status, 200);
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        drop(streams);
    })
    .await;
}

/// A client that never goes on is disconnected.
#[actix_web::test]
async fn a_client_that_stops_reading_is_cut() {
    with_settings(&[("RATE_LIMIT_USER", "0"), ("CLIENT_READ_TIMEOUT", "2")], async |app| {
        let token = app.token("demo");
        let mut socket = app.connect();
        socket
            .write_all(format!("GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n").as_bytes())
            .unwrap();
        eventually("the stream is open", async || open(app).await == 1).await;
        write_much(app, &token).await;
        eventually("it is cut", async || open(app).await == 0).await;
        let mut rest = Vec::new();
        let end = actix_web::rt::task::spawn_blocking(move || socket.read_to_end(&mut rest).map(|_| rest.len()));
        assert!(end.await.unwrap().is_err(), "it is reset");
    })
    .await;
}
