//! SIGKILL and SIGTERM under load.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::load::{Account, Ledger, Load, state_from, state_of};
use super::{length, seed};
use crate::order::versions_in_order;
use crate::stack::{PATIENCE, Stack};

/// Waits until nothing is pending, and compares events, clients and store. Returns the account, after printing it.
pub async fn compare(stack: &mut Stack, ledger: &Ledger, what: &str) -> Account {
    stack.wait_until_published().await;
    let state = state_of(&stack.client("admin", "admin123").await).await;
    // Everything is published: the topic is complete when it agrees with the store.
    let events = stack.events_until(|events| state_from(events) == state).await;
    versions_in_order(&events);
    let account = Account::of(ledger, &events);
    println!("{what}: {account:?}, unknown {}, events {}", ledger.unknown.len(), events.len());
    assert_eq!((account.lost, account.phantom), (0, 0), "{what}");
    let check = stack.run_service(&["check"]);
    assert!(check.contains("is good"), "{check}");
    account
}

#[actix_web::test]
async fn sigkill_at_random_moments_loses_nothing() {
    let seed = seed("sigkill");
    let mut random = SmallRng::seed_from_u64(seed);
    let (cycles, clients) = (length(10, 200), 24);
    let mut stack = Stack::started();
    let load = Load::start(&stack.client("admin", "admin123").await, clients, seed, None);
    for cycle in 1..=cycles {
        tokio::time::sleep(Duration::from_millis(random.random_range(100..1200))).await;
        stack.service().kill();
        stack.start_service();
        if cycle % 10 == 0 {
            println!("sigkill: {cycle} of {cycles} cycles");
        }
    }
    let ledger = load.stop().await;
    assert!(ledger.acknowledged.len() > 20 * cycles, "only {} changes were made", ledger.acknowledged.len());
    compare(&mut stack, &ledger, &format!("sigkill, {cycles} cycles, {clients} clients")).await;
}

#[actix_web::test]
async fn sigterm_under_load_answers_what_was_begun_and_repeats_only_what_was_in_flight() {
    let seed = seed("sigterm");
    let mut stack = Stack::started();
    let mut repeats = 0;
    let mut all = Ledger::default();
    for _ in 0..length(2, 20) {
        let load = Load::start(&stack.client("admin", "admin123").await, 16, seed, None);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        stack.service().signal("TERM");
        assert_eq!(stack.service().wait(Duration::from_secs(30)).code(), Some(0));
        let lines = stack.service().lines();
        assert!(lines.iter().any(|line| line.contains("stopped; at most ")), "{lines:?}");
        let ledger = load.stop().await;
        // A request that was begun is answered; one that finds the door closed is refused, or its idle connection ends.
        let broken = |failure: &&String| !failure.contains("Connect") && !failure.contains("IncompleteMessage");
        assert_eq!(ledger.failures.iter().find(broken), None);
        all.add(ledger);
        repeats += 64;
        stack.start_service();
    }
    let account = compare(&mut stack, &all, "sigterm").await;
    assert!(account.duplicates <= repeats, "{account:?}");
    stack.service().wait_for("events to publish", PATIENCE);
}
