//! What `make bench` concludes from its measurements.

#[path = "../../benches/compare/report.rs"]
mod report;

use report::{Measured, Report};

/// One work, this service's rates and another's.
fn report(ours: &[f64], theirs: &[f64]) -> Report<2> {
    let mut report = Report::new(["todo-backend", "other"]);
    for (contender, rates) in [ours, theirs].into_iter().enumerate() {
        for &rate in rates {
            report.add("GET", contender, Measured { rate, p99: 1.0, cpu: Some(5.0) });
        }
    }
    report
}

#[test]
fn the_table_has_medians_and_the_median_of_the_rounds_ratios() {
    let table = report(&[100.0, 900.0, 200.0], &[400.0, 450.0, 400.0]).table();
    assert!(table.ends_with("| GET | 200, 1.00, 5.0 | 400, 1.00, 5.0 | 0.50 |\n"), "{table}");
    let slow_rounds = report(&[100.0, 10.0, 50.0], &[200.0, 20.0, 100.0]).table();
    assert!(slow_rounds.ends_with(" 0.50 |\n"), "{slow_rounds}");
}

#[test]
fn what_fell_by_more_than_15_percent_is_reported() {
    let kept = report(&[100.0], &[200.0]).ratios();
    assert_eq!(report(&[84.0], &[200.0]).compared_with(&kept), "SLOWER: GET, to other: 0.42, was 0.50\n");
    for rate in [86.0, 100.0, 300.0] {
        assert!(report(&[rate], &[200.0]).compared_with(&kept).starts_with("no ratio fell"), "{rate}");
    }
}

#[test]
fn work_that_was_not_measured_before_is_not_compared() {
    assert!(report(&[1.0], &[200.0]).compared_with("{}").starts_with("no ratio fell"));
}
