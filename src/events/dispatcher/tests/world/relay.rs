//! The relay's loop, but for the polling, which would hide wake-ups that get lost.

use super::*;

impl World {
    pub fn turn(&mut self) {
        if self.me.paused > self.now {
            return;
        }
        let parts = self.me.held;
        self.me.reloading |= std::mem::take(&mut self.me.reload) | (parts != self.me.dispatcher.parts());
        if self.me.reloading && self.me.reading.is_none() && self.me.dispatcher.in_flight() == 0 {
            self.begin_again(parts);
        }
        if self.me.reading.is_none() {
            let announced = self.me.dispatcher.announced_through();
            let changes = std::mem::take(&mut self.me.inbox)
                .into_iter()
                .filter(|change| !announced.covers(change.place) && parts.have(change.todo.id))
                .collect();
            let before = self.lanes_of_no_suspects();
            self.me.dispatcher.committed(changes, std::mem::take(&mut self.me.overflowed));
            let most = before.max(self.plan.limits.buffered);
            assert!(self.lanes_of_no_suspects() <= most, "too many lanes");
        }
        while !self.me.reloading
            && let Some(change) = self.me.dispatcher.start(self.now)
        {
            self.publish(&change);
        }
        if self.me.reading.is_none() {
            self.start_reading();
        }
        let limits = self.plan.limits;
        assert!(self.me.dispatcher.buffered <= limits.buffered, "too much in memory");
        let hanging = |after: u64| {
            let hangs = |flight: &&Flight| self.now - flight.since >= after && flight.since < self.me.got_through;
            self.me.flights.values().filter(hangs).count().min(limits.hanging)
        };
        // What is usual changes, and what was once found to hang stays so.
        assert!(self.me.flights.len() <= limits.in_flight + hanging(HANGS_AFTER_MS), "too many in flight");
        let full = self.me.flights.len()
            >= limits.in_flight + hanging(HANGS_AFTER_MS.max(HANGS_AFTER_TIMES_USUAL * self.me.dispatcher.usual));
        assert!(
            self.me.reloading || self.me.dispatcher.nothing_is_ready() || full || self.me.open.is_some(),
            "something that could be sent waits"
        );
        let suspects = self.me.flights.keys().filter(|todo| self.me.suspects.contains(todo)).count();
        assert!(self.is_shared() || suspects <= 2 * limits.suspects, "too many suspects in flight");
        assert_eq!(self.me.dispatcher.in_flight(), self.me.flights.len());
        assert!(self.is_shared() || self.me.dispatcher.suspects() == self.me.suspects.len());
        assert!(self.me.wake_at().is_none_or(|wake| wake > self.now), "woken for nothing");
        self.totals.full += u64::from(self.me.dispatcher.buffered == limits.buffered);
        self.totals.hanging += u64::from(self.me.flights.len() > limits.in_flight);
        self.totals.crowded += u64::from(self.me.dispatcher.room_for_lanes() == 0);
        if self.random.random_ratio(1, if self.me.dispatcher.buffered > 100 { 4096 } else { 32 }) {
            self.assert_consistent();
        }
        let sleeps = self.me.reading.is_none() && !self.me.reloading && self.me.dispatcher.wake_at().is_none();
        if self.me.flights.is_empty() && sleeps {
            self.assert_nothing_to_do();
        }
    }

    /// Nothing is in flight, and nothing is being read.
    pub fn begin_again(&mut self, parts: Parts) {
        self.totals.moves += u64::from(parts != self.me.dispatcher.parts());
        let seed = self.random.random();
        self.me.begin_with(Dispatcher::with_limits(seed, parts, self.plan.limits));
        self.me.reloading = false;
        self.me.inbox.clear();
        self.me.overflowed = false;
        self.excuse();
    }

    pub fn lanes_of_no_suspects(&self) -> usize {
        self.me.dispatcher.lanes.len() - self.me.dispatcher.suspects()
    }

    pub fn start_reading(&mut self) {
        let Some(wanted) = self.me.dispatcher.start_reading() else { return };
        assert!(wanted.discover > 0 || (wanted.room > 0 && !wanted.wants.is_empty()), "reads for nothing");
        assert!(wanted.room <= self.plan.limits.reading && wanted.discover <= self.plan.limits.buffered);
        assert!(wanted.wants.len() <= wanted.room, "reads for more todos than there can be changes");
        let one_each =
            wanted.wants.iter().filter(|want| self.me.suspects.contains(&want.todo)).all(|want| want.limit == 1);
        assert!(one_each || self.is_shared(), "more is read of a suspect than it may send");
        self.totals.readings += 1;
        self.me.reading = Some(Reading { wanted, marked: self.me.marks.clone(), found: None });
        let (wait, more) = (self.up_to(self.plan.reading), self.up_to(self.plan.reading));
        if self.quiet.is_none() && self.random.random_bool(self.plan.reading_fails) {
            self.totals.failed_readings += 1;
            self.after(wait + READ_AGAIN, Event::ReadingEnds);
        } else {
            self.after(wait, Event::Snapshot);
            self.after(wait + more, Event::ReadingEnds);
        }
    }

    pub fn publish(&mut self, change: &Arc<Change>) {
        let (todo, place) = (change.todo.id, change.place.0);
        self.totals.attempts += 1;
        self.check_breaker(todo);
        let before = self.stored.get(&todo).copied().unwrap_or(0);
        assert!(before >= change.todo.version.0 - 1, "{todo}-{} is sent before an earlier one", change.todo.version);
        let poison = self.log[place as usize - 1].poison;
        let soonest = self.me.tries.get(&place).map_or(0, |tried| tried.again);
        assert!(self.now >= soonest, "a change that failed is sent again {} ms too early", soonest - self.now);
        let again = self.me.acknowledged.contains(&place) && !self.is_shared();
        assert!(!again, "{todo}-{} is sent again after it was stored", change.todo.version);
        let quiet = self.quiet.is_some();
        let bad_luck: f64 = if quiet { 1.0 } else { self.random.random() };
        let (refused, failed) = (self.plan.refused, self.plan.refused + self.plan.failed);
        let latency = 1 + self.up_to(self.plan.latency);
        // What the client sees, when, and when it lands in Kafka, if it does.
        let (result, answer, land) = match self.weather {
            Weather::NoAnswer => (PublishResult::NoAnswer, TIMEOUT, self.up_to(2 * LATE)),
            Weather::Refusing => (PublishResult::Refused, latency, u64::MAX),
            Weather::Unavailable => (PublishResult::Unavailable, latency, u64::MAX),
            Weather::Partly(Failure::NoAnswer, _) if self.is_hit(todo) => {
                (PublishResult::NoAnswer, TIMEOUT, self.up_to(2 * LATE))
            }
            Weather::Partly(Failure::Refused, _) if self.is_hit(todo) => (PublishResult::Refused, 100, u64::MAX),
            _ if poison || bad_luck < refused => (PublishResult::Refused, latency, u64::MAX),
            _ if bad_luck < failed => (PublishResult::Unavailable, latency, u64::MAX),
            _ if bad_luck < failed + self.plan.silent => (PublishResult::NoAnswer, TIMEOUT, self.up_to(2 * LATE)),
            _ => (PublishResult::Stored, latency, self.up_to(latency)),
        };
        self.totals.timeouts += u64::from(answer == TIMEOUT);
        let elsewhere = self.others.iter().filter_map(|other| other.flights.get(&todo));
        self.totals.together += elsewhere.filter(|flight| flight.place == place).count() as u64;
        // It may be stored all the same.
        self.log[place as usize - 1].excused += u32::from(result == PublishResult::NoAnswer);
        // Whatever is later than it ever was is taken as never.
        let land = (land <= LATE && !poison).then(|| self.at(self.now + land, Event::Land(place)));
        let answer = self.at(self.now + answer, Event::Answer(place, result));
        let other = self.me.flights.insert(todo, Flight { place, since: self.now, answer, land });
        assert!(other.is_none(), "two changes of todo {todo} are in flight");
    }

    /// Whether there is a partial outage, and it is about this todo.
    pub fn is_hit(&self, todo: TodoId) -> bool {
        let Weather::Partly(_, every) = self.weather else { return false };
        // Not in turn, as partitions are not either: many hit in a row happen.
        let scattered = todo.0.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        let one = scattered.is_multiple_of(every.unsigned_abs());
        self.bad.as_ref().is_none_or(|bad| bad.contains(&todo.0)) && (one == (every > 0))
    }

    /// With the breaker open, only one probe at a time, not at once, and ever less often.
    pub fn check_breaker(&mut self, todo: TodoId) {
        if self.is_shared() {
            return;
        }
        let Some((until, probe)) = &mut self.me.open else { return };
        assert!(self.now >= *until, "probes {} ms too early", *until - self.now);
        let hangs = probe.is_none_or(|(_, since)| self.now >= since + HANGS_AFTER_MS);
        assert!(hangs, "probes while another probe is in flight, and does not hang");
        *probe = Some((todo, self.now));
        if self.me.suspects.contains(&todo) {
            let others = self.me.dispatcher.ready.len() + self.me.dispatcher.backlog.len();
            assert!(others == 0, "a suspect is probed although there is another");
            return;
        }
        self.me.probes += 1;
        let lasted = self.now - self.me.outage_began;
        let most = 25 + lasted / 5_000 + 2 * self.me.ready_signals;
        assert!(self.me.probes <= most, "{} probes in an outage of {lasted} ms", self.me.probes);
    }

    pub fn answered(&mut self, place: i64, result: PublishResult) {
        let todo = self.log[place as usize - 1].change.todo.id;
        let flight = self.me.flights.remove(&todo).unwrap();
        let before = self.me.dispatcher.parked.len();
        let verdict = self.me.dispatcher.finish(todo, result, self.now);
        if self.is_shared() {
            assert_eq!(verdict.published, (result == PublishResult::Stored).then_some(Place(place)));
            if result == PublishResult::Stored {
                self.me.got_through = self.me.got_through.max(flight.since);
                self.me.acknowledged.insert(place);
                self.me.marks.insert(place, DeliveryState::Published);
            }
            self.totals.parked += verdict.parked.len() as u64;
            self.me.marks.extend(verdict.parked.iter().map(|place| (place.0, DeliveryState::Parked)));
            self.me.open = (!self.me.dispatcher.healthy()).then_some((0, None));
            return self.plan_marks();
        }
        if result == PublishResult::Stored {
            assert_eq!(verdict.published, Some(Place(place)));
            self.stored(place, flight.since, &verdict);
        } else {
            assert_eq!(verdict.published, None);
            self.not_stored(place, result, &verdict);
        }
        assert_eq!(self.me.dispatcher.healthy(), self.me.open.is_none());
        assert_eq!(self.me.dispatcher.parked.len(), before + verdict.parked.len());
        for &Place(place) in &verdict.parked {
            self.parked(place);
        }
        self.plan_marks();
    }

    pub fn stored(&mut self, place: i64, since: u64, verdict: &Verdict) {
        let todo = self.log[place as usize - 1].change.todo.id;
        let hit = self.is_hit(todo);
        self.me.acknowledged.insert(place);
        let waited = self.now - self.log[place as usize - 1].committed;
        if self.quiet.is_none() && !hit {
            self.longest_wait = self.longest_wait.max(waited);
        }
        if todo.0 != 1 {
            self.longest_of_fresh = self.longest_of_fresh.max(waited);
        }
        self.me.marks.insert(place, DeliveryState::Published);
        self.me.failed.remove(&place);
        self.me.suspects.remove(&todo);
        self.me.got_through = self.me.got_through.max(since);
        (self.me.open, self.me.failed_in_a_row) = (None, 0);
        for (other, (at, refused)) in std::mem::take(&mut self.me.failed) {
            if at > since {
                self.me.failed.insert(other, (at, refused));
                continue;
            }
            let todo = self.log[other as usize - 1].change.todo.id;
            let tried = self.me.tries.entry(other).or_default();
            tried.confirmed += 1;
            tried.refusals += u32::from(refused);
            let parks = tried.refusals >= MAX_REFUSALS && !self.me.flights.contains_key(&todo);
            assert_eq!(verdict.parked.contains(&Place(other)), parks);
        }
    }

    pub fn not_stored(&mut self, place: i64, result: PublishResult, verdict: &Verdict) {
        let todo = self.log[place as usize - 1].change.todo.id;
        let tried = self.me.tries.entry(place).or_default();
        let away = result == PublishResult::Unavailable;
        let first = !away && self.me.suspects.insert(todo);
        if !away {
            tried.again = self.now + (suspects::BACKOFF_MS << tried.confirmed.min(5));
            let (at, refused) = self.me.failed.entry(place).or_default();
            *at = self.now;
            *refused |= result == PublishResult::Refused;
        }
        let parks = result == PublishResult::Refused && tried.refusals >= MAX_REFUSALS;
        assert_eq!(verdict.parked, if parks { vec![Place(place)] } else { vec![] });
        self.me.failed_in_a_row += usize::from(first);
        let opens = match self.me.open {
            None if away || (first && self.me.failed_in_a_row >= self.plan.limits.failures) => {
                (self.me.probes, self.me.outage_began, self.me.ready_signals) = (0, self.now, 0);
                true
            }
            None => false,
            Some((_, probe)) => probe.is_some_and(|(probe, since)| probe == todo && self.now < since + HANGS_AFTER_MS),
        };
        if opens {
            self.me.open = Some((self.now + breaker::BACKOFF_MS.0, None));
        }
    }

    pub fn parked(&mut self, place: i64) {
        let entry = &self.log[place as usize - 1];
        let todo = &entry.change.todo;
        let refusals = self.me.tries.get(&place).map_or(0, |tried| tried.refusals);
        assert!(refusals >= MAX_REFUSALS, "parked after {refusals} confirmed refusals");
        assert!(!self.me.flights.contains_key(&todo.id), "parked while in flight");
        // It may be stored, too, by an attempt that nobody heard of again; and later ones, by a process that died
        // before it was committed.
        let stored = self.stored.get(&todo.id).copied().unwrap_or(0);
        assert!(stored >= todo.version.0 - 1, "not the first change is parked");
        // Each outage confirms one refusal when it ends.
        let partly = self.totals.partial_outages > 0 || self.totals.outages >= u64::from(MAX_REFUSALS);
        assert!(entry.poison || self.plan.refused > 0.0 || partly, "a good change is parked");
        self.totals.parked += 1;
        self.totals.parked_good += u64::from(!entry.poison);
        self.totals.parked_while_reading += u64::from(self.me.reading.is_some());
        self.me.suspects.remove(&todo.id);
        self.me.failed.remove(&place);
        self.me.marks.insert(place, DeliveryState::Parked);
    }
}
