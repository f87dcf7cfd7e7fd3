//! A wall clock that jumps, stands still, or is out of every range.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::{HttpResponse, HttpServer, web};
use futures_util::future::join_all;
use rusqlite::Connection;
use serde_json::json;
use todo_backend::domain::clock::{Clock, Timestamp};

use crate::app::{TestApp, config};
use crate::client::RequestExt;

/// 2025-01-15, in ms.
const NOW: i64 = 1_736_937_000_000;
const YEAR: i64 = 365 * 86_400_000;
/// 10000-01-01T00:00:00Z.
const YEAR_10000: i64 = 253_402_300_800_000;

/// A clock that the test sets.
fn settable() -> (Arc<AtomicI64>, Clock) {
    let now = Arc::new(AtomicI64::new(NOW));
    let shown = Arc::clone(&now);
    (now, Clock::new(move || Timestamp(shown.load(Ordering::Relaxed))))
}

/// A sidecar that takes everything; returns its address.
fn sidecar() -> (String, ServerHandle) {
    let server = HttpServer::new(|| {
        actix_web::App::new().default_service(web::to(|| async { HttpResponse::NoContent().finish() }))
    });
    let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    (url, handle)
}

async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not so after 30 s: {what}");
        actix_web::rt::time::sleep(Duration::from_millis(10)).await;
    }
}

#[actix_web::test]
async fn whatever_the_clock_shows_everything_goes_on() {
    let (now, clock) = settable();
    let (url, sidecar) = sidecar();
    let mut config = config(&[("DAPR_HTTP_ENDPOINT", &url)]);
    config.clock = clock;
    let app = TestApp::try_start(config).unwrap();
    let times = [
        NOW,
        NOW - 10 * YEAR,
        NOW + 5 * YEAR,
        // Stands still.
        NOW + 5 * YEAR,
        0,
        -1,
        -YEAR,
        -YEAR_10000,
        NOW,
        YEAR_10000 - 1,
        YEAR_10000,
        3 * YEAR_10000,
        i64::MAX,
        i64::MIN,
        NOW,
    ];
    for (n, time) in times.into_iter().enumerate() {
        now.store(time, Ordering::Relaxed);
        let token = app.token("demo");
        let id = app.create(&token, json!({"title": "x"})).await;
        let changed = app.put(&format!("/todos/{id}")).bearer_auth(&token).send_json(json!({"completed": true})).await;
        assert_eq!(changed.status, 200, "at {time}: {}", changed.body);
        let list = app.get("/todos").bearer_auth(&token).answer().await;
        assert_eq!((list.status, list.json().as_array().unwrap().len()), (200, n + 1), "at {time}");
        for path in ["/health/ready", "/metrics"] {
            assert_eq!(app.get(path).answer().await.status, 200, "{path} at {time}");
        }
        app.store().sample(Timestamp(time)).unwrap();
        // Marks take up to a second: not every time.
        if n % 5 == 4 {
            wait_until("everything is published", || app.store().outbox().pending() == 0).await;
        }
    }
    let log = Connection::open(app.store().path()).unwrap();
    let at: Vec<i64> = log
        .prepare("SELECT at FROM changes ORDER BY revision")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(at.len(), 2 * times.len());
    assert!(at.is_sorted(), "an owner's times never go back: {at:?}");
    // What one owner saw of the future does not reach another's changes.
    let other = app.token("user");
    app.create(&other, json!({"title": "of another"})).await;
    assert!(app.get("/todos").bearer_auth(&other).answer().await.body.contains("2025-01-15T"));
    app.stop().await;
    sidecar.stop(false).await;
}

#[actix_web::test]
async fn a_token_is_refused_outside_its_time_and_valid_again_when_the_clock_is_right_again() {
    let (now, clock) = settable();
    let mut config = config(&[]);
    config.clock = clock;
    let app = TestApp::try_start(config).unwrap();
    let token = app.token("demo");
    let never = [NOW - YEAR, NOW + YEAR, 0, -YEAR, YEAR_10000, i64::MIN, i64::MAX];
    for time in never {
        now.store(time, Ordering::Relaxed);
        let answer = app.get("/todos").bearer_auth(&token).answer().await;
        answer.assert_refused(401, "Invalid or expired token");
        // Issued by the wrong clock, valid by the wrong clock.
        assert_eq!(app.get("/todos").bearer_auth(app.token("demo")).answer().await.status, 200, "at {time}");
    }
    now.store(NOW, Ordering::Relaxed);
    assert_eq!(app.get("/todos").bearer_auth(&token).answer().await.status, 200);
    app.stop().await;
}

#[actix_web::test]
async fn a_clock_a_year_ahead_prunes_nothing_that_is_young_in_running_time() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("todos.db");
    let (now, clock) = settable();
    let (url, sidecar) = sidecar();
    let start = || {
        let mut config = config(&[
            ("DAPR_HTTP_ENDPOINT", &url),
            ("DATABASE_URL", &format!("sqlite:{}", file.display())),
            ("HISTORY_RETENTION_DAYS", "1"),
            ("HISTORY_MAX_PER_USER", "100"),
        ]);
        config.clock = clock.clone();
        TestApp::try_start(config).unwrap()
    };
    let app = start();
    for (username, count) in [("demo", 103), ("user", 5)] {
        let token = app.token(username);
        join_all((0..count).map(|_| app.create(&token, json!({"title": "x"})))).await;
    }
    wait_until("everything is published", || app.store().outbox().pending() == 0).await;
    app.stop().await;

    for time in [NOW + YEAR, NOW - YEAR] {
        now.store(time, Ordering::Relaxed);
        let app = start();
        let log = Connection::open(&file).unwrap();
        let floor = |username: &str| -> i64 {
            log.query_row("SELECT floor FROM users WHERE username = ?1", [username], |row| row.get(0)).unwrap()
        };
        // One more than an owner may have tells that a round was made: it is pruned in the same one.
        wait_until("the log was pruned", || floor("demo") >= 3).await;
        assert_eq!((floor("demo"), floor("user")), (3, 0));
        app.stop().await;
    }
    sidecar.stop(false).await;
}
