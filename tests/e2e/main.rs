//! End to end on the real daprd, dapr CLI, Kafka and PostgreSQL, which tests/stack/stack.sh finds or builds.
//! `E2E_SHOW_OUTPUT=1 cargo test --test e2e -- --nocapture` shows what the processes write.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod abuse;
mod cleanup;
mod clock;
mod consumers;
mod disk;
mod events;
mod faults;
mod import;
mod moving;
mod order;
mod output;
mod page;
mod poison;
mod postgres;
mod postgres_tls;
mod process;
mod production;
mod proof;
mod proxy;
mod readme;
#[path = "../replica/mod.rs"]
mod replica;
mod replicas;
mod resources;
mod seed;
mod settings;
mod stack;
mod streams;
mod unread;
mod users;
