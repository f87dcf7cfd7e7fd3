//! The real binary under a wall clock that jumps, which libfaketime shows it. The in-process tests go further.

use rusqlite::Connection;

use crate::disk::{assert_good, database};
use crate::stack::{PATIENCE, Stack, tool};

#[actix_web::test]
async fn a_wall_clock_that_jumps_stops_nothing() {
    let library = tool("FAKETIME");
    assert!(!library.is_empty(), "libfaketime is not there (Debian: apt-get install libfaketime)");
    let mut stack = Stack::new();
    let offset = stack.directory.path().join("offset");
    std::fs::write(&offset, "+0").unwrap();
    stack.service_env = vec![
        ("LD_PRELOAD", library.to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", offset.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".into()),
        // The monotonic clock never jumps.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ];
    stack.start_service();
    let mut ids = Vec::new();
    for jump in ["+0", "+1y", "-3y", "+100y", "-20y", "+0"] {
        std::fs::write(&offset, jump).unwrap();
        // Tokens of another year are not valid: a client logs in again.
        let client = stack.client("demo", "demo123").await;
        ids.push(client.create(&format!("at {jump}")).await);
        assert_eq!(client.send("GET", "/todos", None).await.1.as_array().unwrap().len(), ids.len());
    }
    let text = stack.service().lines().join("\n");
    assert!(!text.contains("panicked"), "{text}");
    let year = |line: &String| line.get(..4).and_then(|year| year.parse::<i32>().ok());
    let mut years: Vec<i32> = stack.service().lines().iter().filter_map(year).collect();
    years.dedup();
    assert!(years.len() > 4, "the service saw the jumps: {years:?}");
    stack.service().signal("TERM");
    assert_eq!(stack.service().wait(PATIENCE).code(), Some(0));
    assert_good(&database(&stack));
    let connection = Connection::open(database(&stack)).unwrap();
    let mut statement = connection.prepare("SELECT at FROM changes ORDER BY seq").unwrap();
    let times: Vec<i64> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(times.is_sorted() && times.len() == ids.len(), "{times:?}");
}
