//! Medians over the rounds, ratios, and how those have changed.

use std::fmt::Write;

use serde_json::{Map, Value, json};

/// How far a ratio may fall below the kept one before it is reported. Runs of the same code differ by up to 12 %
/// of the ratio to the bare handler.
const TOLERANCE: f64 = 0.15;

/// What one measurement has shown.
pub struct Measured {
    /// Answers per second.
    pub rate: f64,
    /// 99th percentile of the time to an answer, in milliseconds.
    pub p99: f64,
    /// CPU time of the contender per answer, in microseconds; none where it can't be known.
    pub cpu: Option<f64>,
}

pub struct Report<const N: usize> {
    names: [&'static str; N],
    /// In the order in which they were measured first; of each contender, its rounds.
    works: Vec<(String, [Vec<Measured>; N])>,
}

impl<const N: usize> Report<N> {
    /// `names`: the contenders; the first is compared with the others.
    pub fn new(names: [&'static str; N]) -> Self {
        Self { names, works: Vec::new() }
    }

    pub fn add(&mut self, work: &str, contender: usize, measured: Measured) {
        let known = self.works.iter().position(|(name, _)| name == work);
        let index = known.unwrap_or_else(|| {
            self.works.push((work.to_owned(), std::array::from_fn(|_| Vec::new())));
            self.works.len() - 1
        });
        self.works[index].1[contender].push(measured);
    }

    /// Markdown: a line per work; per contender the answers per second, their 99th percentile and the CPU they took.
    pub fn table(&self) -> String {
        let mut table = String::from("| work, connections |");
        for name in self.names {
            write!(table, " {name}: answers/s, p99 ms, CPU µs |").unwrap();
        }
        for name in &self.names[1..] {
            write!(table, " to {name} |").unwrap();
        }
        table.push_str("\n|---|");
        table.push_str(&"---|".repeat(2 * N - 1));
        table.push('\n');
        for (work, rounds) in &self.works {
            write!(table, "| {work} |").unwrap();
            for rounds in rounds {
                let (rate, p99) = (median(rounds.iter().map(|m| m.rate)), median(rounds.iter().map(|m| m.p99)));
                let cpu = rounds.iter().map(|m| m.cpu).collect::<Option<Vec<f64>>>();
                let cpu = cpu.map_or("?".to_owned(), |cpu| format!("{:.1}", median(cpu.into_iter())));
                write!(table, " {rate:.0}, {p99:.2}, {cpu} |").unwrap();
            }
            for ratio in self.ratios_of(rounds) {
                write!(table, " {ratio:.2} |").unwrap();
            }
            table.push('\n');
        }
        table
    }

    /// Of the first contender to each other one: the median of what they were in each round, so that it matters little
    /// what else the machine did in some of them.
    fn ratios_of(&self, rounds: &[Vec<Measured>; N]) -> Vec<f64> {
        let ratio = |(ours, theirs): (&Measured, &Measured)| ours.rate / theirs.rate;
        rounds[1..].iter().map(|others| median(rounds[0].iter().zip(others).map(ratio))).collect()
    }

    /// JSON, as it is kept: work, other contender, ratio.
    pub fn ratios(&self) -> String {
        let mut all = Map::new();
        for (work, rounds) in &self.works {
            let ratios = self.names[1..].iter().zip(self.ratios_of(rounds));
            let ratios: Map<_, _> =
                ratios.map(|(name, ratio)| ((*name).to_owned(), json!((ratio * 1000.0).round() / 1000.0))).collect();
            all.insert(work.clone(), Value::Object(ratios));
        }
        serde_json::to_string_pretty(&all).unwrap() + "\n"
    }

    /// What is slower than in `kept`, ratios from another run.
    pub fn compared_with(&self, kept: &str) -> String {
        let kept: Value = serde_json::from_str(kept).unwrap();
        let mut slower = String::new();
        for (work, rounds) in &self.works {
            for (name, now) in self.names[1..].iter().zip(self.ratios_of(rounds)) {
                let Some(before) = kept[work][name].as_f64() else { continue };
                if now < before * (1.0 - TOLERANCE) {
                    writeln!(slower, "SLOWER: {work}, to {name}: {now:.2}, was {before:.2}").unwrap();
                }
            }
        }
        if slower.is_empty() {
            return format!("no ratio fell by more than {:.0} % of what it was\n", TOLERANCE * 100.0);
        }
        slower
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { (sorted[middle - 1] + sorted[middle]) / 2.0 } else { sorted[middle] }
}
