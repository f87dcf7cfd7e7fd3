//! A wall clock that jumps, stands still, or is out of every range.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::future::join_all;
use serde_json::json;
use todo_backend::config::Config;

use crate::app::{Clock, Timestamp, config, eventually, with_config};
use crate::client::RequestExt;
use crate::database::TestDatabase;

/// 2025-01-15, in ms.
const NOW: i64 = 1_736_937_000_000;
const YEAR: i64 = 365 * 86_400_000;
/// 10000-01-01T00:00:00Z.
const YEAR_10000: i64 = 253_402_300_800_000;

/// Settings with a clock that the test sets, in milliseconds.
pub fn with_clock(variables: &[(&str, &str)]) -> (Config, Arc<AtomicI64>) {
    let (now, clock) = settable();
    (Config { clock, ..config(variables) }, now)
}

/// A clock that the test sets.
fn settable() -> (Arc<AtomicI64>, Clock) {
    let now = Arc::new(AtomicI64::new(NOW));
    let shown = Arc::clone(&now);
    (now, Clock::new(move || Timestamp(shown.load(Ordering::Relaxed))))
}

#[actix_web::test]
async fn whatever_the_clock_shows_everything_goes_on() {
    let (now, clock) = settable();
    let mut config = config(&[]);
    config.clock = clock;
    with_config(config, async |app| {
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
            let changed =
                app.put(&format!("/todos/{id}")).bearer_auth(&token).send_json(json!({"completed": true})).await;
            assert_eq!(changed.status, 200, "at {time}: {}", changed.body);
            let list = app.get("/todos").bearer_auth(&token).answer().await;
            assert_eq!((list.status, list.json().as_array().unwrap().len()), (200, n + 1), "at {time}");
            for path in ["/health/ready", "/metrics"] {
                assert_eq!(app.get(path).answer().await.status, 200, "{path} at {time}");
            }
            app.store().sample(Timestamp(time)).unwrap();
            // Marks take up to a second: not every time.
            if n % 5 == 4 {
                eventually("everything is published", async || app.store().outbox().pending() == 0).await;
            }
        }
        let at = app.database().numbers("SELECT at FROM changes ORDER BY revision");
        assert_eq!(at.len(), 2 * times.len());
        assert!(at.is_sorted(), "an owner's times never go back: {at:?}");
        // What one owner saw of the future does not reach another's changes.
        let other = app.token("user");
        app.create(&other, json!({"title": "of another"})).await;
        assert!(app.get("/todos").bearer_auth(&other).answer().await.body.contains("2025-01-15T"));
    })
    .await;
}

#[actix_web::test]
async fn a_token_is_refused_outside_its_time_and_valid_again_when_the_clock_is_right_again() {
    let (now, clock) = settable();
    let mut config = config(&[]);
    config.clock = clock;
    with_config(config, async |app| {
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
    })
    .await;
}

#[actix_web::test]
async fn a_clock_a_year_ahead_prunes_nothing_that_is_young_in_running_time() {
    let database = TestDatabase::new();
    let (now, clock) = settable();
    let mut config =
        config(&[("DATABASE_URL", database.url()), ("HISTORY_RETENTION_DAYS", "2"), ("HISTORY_MAX_PER_USER", "100")]);
    config.clock = clock;
    with_config(config.clone(), async |app| {
        for (username, count) in [("demo", 103), ("user", 5)] {
            let token = app.token(username);
            join_all((0..count).map(|_| app.create(&token, json!({"title": "x"})))).await;
        }
    })
    .await;

    // More than 24 hours of running time ago, from when on there can be too many.
    database.execute("UPDATE changes SET uptime = uptime - 90000 WHERE revision <= 5");
    for time in [NOW + YEAR, NOW - YEAR] {
        now.store(time, Ordering::Relaxed);
        with_config(config.clone(), async |_| {
            let floor =
                |username: &str| database.number(&format!("SELECT floor FROM users WHERE username = '{username}'"));
            // One more than an owner may have tells that a round was made: it is pruned in the same one.
            eventually("the log was pruned", async || floor("demo") >= 3).await;
            assert_eq!((floor("demo"), floor("user")), (3, 0));
        })
        .await;
    }
}
