//! The circuit breaker in front of all lanes: while the sidecar is not available, one probe at a time finds out whether
//! it is back.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::HANGS_AFTER_MS;
use crate::domain::todo::TodoId;

/// The first wait of an open breaker and its longest, in milliseconds.
pub const BACKOFF_MS: (u64, u64) = (100, 30_000);

/// Closed until failures open it; then it lets one probe through at a time, after longer and longer waits, until one
/// succeeds.
#[cfg_attr(test, derive(Clone, PartialEq))]
pub struct Breaker {
    state: State,
    random: SmallRng,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// This many failures that count have come since the last success.
    Closed { failures: usize },
    /// After `attempts` failures in a row, nothing is sent before `until`; then a probe: its todo, and when it was
    /// sent.
    Open { attempts: u32, until: u64, probe: Option<(TodoId, u64)> },
}

/// What may be sent now.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Everything.
    All,
    /// One change, as a probe: see [`Breaker::probe`].
    Probe,
    /// Nothing.
    Nothing,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(seed: u64) -> Self {
        Self { state: State::Closed { failures: 0 }, random: SmallRng::seed_from_u64(seed) }
    }

    /// Whether all lanes may send.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// What may be sent at `now`.
    pub fn admits(&self, now: u64) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::All,
            State::Open { until, probe: None, .. } if until <= now => Admission::Probe,
            State::Open { .. } => Admission::Nothing,
        }
    }

    /// When something may be sent again if nothing else happens; 0: now.
    pub fn admits_at(&self) -> u64 {
        match self.state {
            State::Closed { .. } => 0,
            State::Open { until, probe, .. } => until.max(probe.map_or(0, |(_, sent)| sent + HANGS_AFTER_MS)),
        }
    }

    /// A change of `todo` is sent as the probe.
    pub fn probe(&mut self, todo: TodoId, now: u64) {
        if let State::Open { probe, .. } = &mut self.state {
            *probe = Some((todo, now));
        }
    }

    /// Gives up a probe that hangs: another one may get through.
    pub fn give_up_hanging_probe(&mut self, now: u64) {
        if let State::Open { probe: Some((todo, sent)), .. } = self.state
            && sent + HANGS_AFTER_MS <= now
        {
            self.failed(todo, true, 1, now);
        }
    }

    /// A publish succeeded.
    pub fn succeeded(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// A publish of `todo` failed. Opens a closed breaker after `limit` failures that count. Of an open one, only the
    /// probe's failure matters: what was sent before it opened says nothing new.
    pub fn failed(&mut self, todo: TodoId, counts: bool, limit: usize, now: u64) {
        let attempts = match &mut self.state {
            State::Closed { failures } => {
                *failures += usize::from(counts);
                if *failures < limit {
                    return;
                }
                1
            }
            State::Open { attempts, probe: Some((probe, _)), .. } if *probe == todo => *attempts + u32::from(counts),
            State::Open { .. } => return,
        };
        let longest = (BACKOFF_MS.0 << attempts.min(16)).min(BACKOFF_MS.1);
        // Full jitter, but never at once (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
        let until = now + self.random.random_range(BACKOFF_MS.0..=longest);
        self.state = State::Open { attempts, until, probe: None };
    }

    /// The sidecar reports that it is ready: the next probe need not wait.
    pub fn sidecar_ready(&mut self, now: u64) {
        if let State::Open { until, .. } = &mut self.state {
            *until = (*until).min(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODO: TodoId = TodoId(1);

    /// Opened at 0.
    fn opened(seed: u64) -> Breaker {
        let mut breaker = Breaker::new(seed);
        breaker.failed(TODO, true, 1, 0);
        breaker
    }

    #[test]
    fn it_opens_after_as_many_failures_as_the_limit_says_and_closes_at_a_success() {
        let mut breaker = Breaker::new(1);
        for _ in 0..2 {
            breaker.failed(TODO, true, 3, 0);
            breaker.failed(TODO, false, 3, 0);
        }
        assert_eq!(breaker.admits(0), Admission::All);
        breaker.failed(TODO, true, 3, 0);
        assert_eq!(breaker.admits(0), Admission::Nothing);
        breaker.succeeded();
        assert_eq!((breaker.admits(0), breaker.admits_at()), (Admission::All, 0));
    }

    #[test]
    fn it_waits_a_random_time_which_grows_with_each_probe_that_fails() {
        let waits: Vec<u64> = (0..50).map(|seed| opened(seed).admits_at()).collect();
        assert!(waits.iter().all(|wait| (100..=200).contains(wait)) && waits.iter().any(|wait| *wait != waits[0]));
        let (mut breaker, mut now, mut longest) = (opened(1), 0, 0);
        for _ in 0..20 {
            now = breaker.admits_at();
            assert_eq!((breaker.admits(now - 1), breaker.admits(now)), (Admission::Nothing, Admission::Probe));
            breaker.probe(TODO, now);
            breaker.failed(TODO, true, 1, now);
            longest = longest.max(breaker.admits_at() - now);
        }
        assert!((10_000..=30_000).contains(&longest), "{longest} ms at most, at {now}");
    }

    #[test]
    fn one_probe_is_let_through_at_a_time_and_another_one_when_it_hangs() {
        let mut breaker = opened(1);
        breaker.sidecar_ready(50);
        assert_eq!(breaker.admits(50), Admission::Probe);
        breaker.probe(TODO, 50);
        assert_eq!((breaker.admits(60), breaker.admits_at()), (Admission::Nothing, 50 + HANGS_AFTER_MS));
        // What was sent before it opened changes nothing.
        breaker.failed(TodoId(2), true, 1, 70);
        assert_eq!(breaker.admits_at(), 50 + HANGS_AFTER_MS);
        breaker.give_up_hanging_probe(50 + HANGS_AFTER_MS - 1);
        assert_eq!(breaker.admits_at(), 50 + HANGS_AFTER_MS);
        breaker.give_up_hanging_probe(50 + HANGS_AFTER_MS);
        assert!(breaker.admits_at() > 50 + HANGS_AFTER_MS);
        assert_eq!(breaker.admits(breaker.admits_at()), Admission::Probe);
    }
}
