//! Nothing acknowledged is lost, and every change reaches Kafka in order: shown by attack. Short by default;
//! `TORTURE=1` makes the long versions. Every test prints its figures and its seed (`PROOF_SEED=N` runs that seed).

mod accounts;
mod feed;
mod imports;
mod kill;
mod linearizability;
mod load;
mod outages;
mod postgres;
mod replicas;
mod restart;
mod retries;

use rand::RngExt;
use rand::rngs::SmallRng;

/// The length of a test: `short` normally, `long` under TORTURE=1.
pub fn length<T>(short: T, long: T) -> T {
    if std::env::var_os("TORTURE").is_some() { long } else { short }
}

/// The seed of this run, printed so that it can be run again.
pub fn seed(test: &str) -> u64 {
    let given = std::env::var("PROOF_SEED").ok();
    let seed = given.map_or_else(rand::random, |seed| seed.parse().expect("PROOF_SEED is a number"));
    println!("{test}: PROOF_SEED={seed}");
    seed
}

/// Faults in any order, each as often as its two lengths say.
pub fn shuffled(faults: &[(&'static str, (usize, usize))], random: &mut SmallRng) -> Vec<&'static str> {
    let times = |(fault, (short, long)): &(&'static str, (usize, usize))| vec![*fault; length(*short, *long)];
    let mut faults: Vec<&str> = faults.iter().flat_map(times).collect();
    for last in (1..faults.len()).rev() {
        faults.swap(last, random.random_range(0..=last));
    }
    faults
}
