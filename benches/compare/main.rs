//! `make bench`: this service, a bare actix handler, PocketBase and this service on Postgres under the same load, in
//! interleaved rounds on this machine. What counts is ratios: absolute figures depend on the machine and on what else it does.
//! docs/performance.md says how to read the table.
//!
//! `QUICK=1` is a shorter run; `SAVE=1` keeps its ratios in benches/results, with which later runs are compared.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod bare;
mod contenders;
mod load;
mod machine;
mod report;

use std::path::Path;

use contenders::{Contender, Work};
use report::Report;

struct Plan {
    name: &'static str,
    rounds: usize,
    /// Length of one measurement.
    seconds: u32,
    /// Each with its number of connections.
    works: &'static [(Work, u32)],
}

const QUICK: Plan = Plan {
    name: "quick",
    rounds: 7,
    seconds: 1,
    works: &[(Work::Get, 32), (Work::List, 32), (Work::Create, 1), (Work::Create, 32)],
};

const FULL: Plan = Plan {
    name: "full",
    rounds: 10,
    seconds: 2,
    works: &[
        (Work::Get, 1),
        (Work::Get, 32),
        (Work::Get, 128),
        (Work::List, 32),
        (Work::Create, 1),
        (Work::Create, 32),
        (Work::Create, 128),
        (Work::Update, 32),
    ],
};

#[actix_web::main]
async fn main() {
    // cargo passes --bench.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [mode, port, todo, list] = &arguments[..] {
        assert_eq!(mode, "bare", "what can be asked for is: nothing, or bare PORT TODO LIST");
        return bare::serve(port.parse().unwrap(), todo.clone(), list.clone()).await;
    }
    let set = |name| std::env::var(name).is_ok_and(|value| value == "1");
    let plan = if set("QUICK") { QUICK } else { FULL };
    // Not in /tmp, which may be in memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    compare(&plan, directory.path(), set("SAVE")).await;
}

async fn compare(plan: &Plan, directory: &Path, save: bool) {
    // Before anything is started, with its progress in sight.
    assert!(machine::oha().arg("--version").status().unwrap().success(), "there is no oha");
    let facts = machine::facts(directory);
    println!("{facts}");
    let service = contenders::service(directory).await;
    let bare = contenders::bare(&service).await;
    let pocketbase = contenders::pocketbase(directory).await;
    // The service is first: the others' ratios are to it.
    let on_postgres = contenders::on_postgres(directory).await;
    let contenders = [&service, &bare, &pocketbase, &on_postgres];

    let mut report = Report::new(contenders.map(|contender| contender.name));
    for round in 0..plan.rounds {
        for &(work, connections) in plan.works {
            for turn in 0..contenders.len() {
                // Each goes first as often as the others.
                let index = (turn + round) % contenders.len();
                let contender: &Contender = contenders[index];
                let measured = load::run(contender, work, connections, plan.seconds);
                report.add(&work.label(connections), index, measured);
            }
            eprintln!("round {} of {}: {}", round + 1, plan.rounds, work.label(connections));
        }
    }
    let table = report.table();
    print!("{table}");

    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
    let ratios = results.join(plan.name).with_extension("json");
    if save {
        std::fs::write(&ratios, report.ratios()).unwrap();
        std::fs::write(ratios.with_extension("md"), format!("{facts}\n\n{table}")).unwrap();
        println!("kept in {}", results.display());
    } else if let Ok(kept) = std::fs::read_to_string(&ratios) {
        print!("{}", report.compared_with(&kept));
    }
}
