//! The relay's loop, but for the polling, which would hide wake-ups that get lost.

use super::*;

impl World {
    pub fn turn(&mut self) {
        if self.reading.is_none() {
            let announced = self.dispatcher.announced_through();
            let changes =
                std::mem::take(&mut self.inbox).into_iter().filter(|change| !announced.covers(change.place)).collect();
            let before = self.lanes_of_no_suspects();
            self.dispatcher.committed(changes, std::mem::take(&mut self.overflowed));
            let most = before.max(self.plan.limits.buffered);
            assert!(self.lanes_of_no_suspects() <= most, "too many lanes");
        }
        while let Some(change) = self.dispatcher.start(self.now) {
            self.publish(&change);
        }
        if self.reading.is_none() {
            self.start_reading();
        }
        let limits = self.plan.limits;
        assert!(self.dispatcher.buffered <= limits.buffered, "too much in memory");
        let hanging = |after: u64| {
            let hangs = |flight: &&Flight| self.now - flight.since >= after && flight.since < self.got_through;
            self.flights.values().filter(hangs).count().min(limits.hanging)
        };
        // What is usual changes, and what was once found to hang stays so.
        assert!(self.flights.len() <= limits.in_flight + hanging(HANGS_AFTER_MS), "too many in flight");
        let full = self.flights.len()
            >= limits.in_flight + hanging(HANGS_AFTER_MS.max(HANGS_AFTER_TIMES_USUAL * self.dispatcher.usual));
        assert!(
            self.dispatcher.nothing_is_ready() || full || self.open.is_some(),
            "something that could be sent waits"
        );
        let suspects = self.flights.keys().filter(|todo| self.suspects.contains(todo)).count();
        assert!(suspects <= 2 * limits.suspects, "too many suspects in flight");
        assert_eq!(self.dispatcher.in_flight(), self.flights.len());
        assert_eq!(self.dispatcher.suspects(), self.suspects.len());
        assert!(self.dispatcher.wake_at().is_none_or(|wake| wake > self.now), "woken for nothing");
        self.totals.full += u64::from(self.dispatcher.buffered == limits.buffered);
        self.totals.hanging += u64::from(self.flights.len() > limits.in_flight);
        self.totals.crowded += u64::from(self.dispatcher.room_for_lanes() == 0);
        if self.random.random_ratio(1, if self.dispatcher.buffered > 100 { 4096 } else { 32 }) {
            self.assert_consistent();
        }
        if self.flights.is_empty() && self.reading.is_none() && self.dispatcher.wake_at().is_none() {
            self.assert_nothing_to_do();
        }
    }

    pub fn lanes_of_no_suspects(&self) -> usize {
        self.dispatcher.lanes.len() - self.dispatcher.suspects()
    }

    pub fn start_reading(&mut self) {
        let Some(wanted) = self.dispatcher.start_reading() else { return };
        assert!(wanted.discover > 0 || (wanted.room > 0 && !wanted.wants.is_empty()), "reads for nothing");
        assert!(wanted.room <= self.plan.limits.reading && wanted.discover <= self.plan.limits.buffered);
        assert!(wanted.wants.len() <= wanted.room, "reads for more todos than there can be changes");
        let one_each =
            wanted.wants.iter().filter(|want| self.suspects.contains(&want.todo)).all(|want| want.limit == 1);
        assert!(one_each, "more is read of a suspect than it may send");
        self.totals.readings += 1;
        self.reading = Some(Reading { wanted, marked: self.marks.clone(), found: None });
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
        let entry = &self.log[place as usize - 1];
        let poison = entry.poison;
        assert!(self.now >= entry.again, "a change that failed is sent again {} ms too early", entry.again - self.now);
        let again = entry.acknowledged_by == Some(self.process);
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
        // Whatever is later than it ever was is taken as never.
        let land = (land <= LATE && !poison).then(|| self.at(self.now + land, Event::Land(place)));
        let answer = self.at(self.now + answer, Event::Answer(place, result));
        let other = self.flights.insert(todo, Flight { place, since: self.now, answer, land });
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
        let Some((until, probe)) = &mut self.open else { return };
        assert!(self.now >= *until, "probes {} ms too early", *until - self.now);
        let hangs = probe.is_none_or(|(_, since)| self.now >= since + HANGS_AFTER_MS);
        assert!(hangs, "probes while another probe is in flight, and does not hang");
        *probe = Some((todo, self.now));
        if self.suspects.contains(&todo) {
            let others = self.dispatcher.ready.len() + self.dispatcher.backlog.len();
            assert!(others == 0, "a suspect is probed although there is another");
            return;
        }
        self.probes += 1;
        let lasted = self.now - self.outage_began;
        let most = 25 + lasted / 5_000 + 2 * self.ready_signals;
        assert!(self.probes <= most, "{} probes in an outage of {lasted} ms", self.probes);
    }

    pub fn answered(&mut self, place: i64, result: PublishResult) {
        let todo = self.log[place as usize - 1].change.todo.id;
        let flight = self.flights.remove(&todo).unwrap();
        let before = self.dispatcher.parked.len();
        let verdict = self.dispatcher.finish(todo, result, self.now);
        if result == PublishResult::Stored {
            assert_eq!(verdict.published, Some(Place(place)));
            self.stored(place, flight.since, &verdict);
        } else {
            assert_eq!(verdict.published, None);
            self.not_stored(place, result, &verdict);
        }
        assert_eq!(self.dispatcher.healthy(), self.open.is_none());
        assert_eq!(self.dispatcher.parked.len(), before + verdict.parked.len());
        for &Place(place) in &verdict.parked {
            self.parked(place);
        }
        self.plan_marks();
    }

    pub fn stored(&mut self, place: i64, since: u64, verdict: &Verdict) {
        let todo = self.log[place as usize - 1].change.todo.id;
        let hit = self.is_hit(todo);
        let entry = &mut self.log[place as usize - 1];
        entry.acknowledged_by = Some(self.process);
        let waited = self.now - entry.committed;
        if self.quiet.is_none() && !hit {
            self.longest_wait = self.longest_wait.max(waited);
        }
        if todo.0 != 1 {
            self.longest_of_fresh = self.longest_of_fresh.max(waited);
        }
        self.marks.insert(place, DeliveryState::Published);
        self.failed.remove(&place);
        self.suspects.remove(&todo);
        self.got_through = self.got_through.max(since);
        (self.open, self.failed_in_a_row) = (None, 0);
        for (other, (at, refused)) in std::mem::take(&mut self.failed) {
            if at > since {
                self.failed.insert(other, (at, refused));
                continue;
            }
            let entry = &mut self.log[other as usize - 1];
            entry.confirmed += 1;
            entry.refusals += u32::from(refused);
            let parks = entry.refusals >= MAX_REFUSALS && !self.flights.contains_key(&entry.change.todo.id);
            assert_eq!(verdict.parked.contains(&Place(other)), parks);
        }
    }

    pub fn not_stored(&mut self, place: i64, result: PublishResult, verdict: &Verdict) {
        let entry = &mut self.log[place as usize - 1];
        let todo = entry.change.todo.id;
        let away = result == PublishResult::Unavailable;
        let first = !away && self.suspects.insert(todo);
        if !away {
            entry.again = self.now + (suspects::BACKOFF_MS << entry.confirmed.min(5));
            let (at, refused) = self.failed.entry(place).or_default();
            *at = self.now;
            *refused |= result == PublishResult::Refused;
        }
        let parks = result == PublishResult::Refused && entry.refusals >= MAX_REFUSALS;
        assert_eq!(verdict.parked, if parks { vec![Place(place)] } else { vec![] });
        self.failed_in_a_row += usize::from(first);
        let opens = match self.open {
            None if away || (first && self.failed_in_a_row >= self.plan.limits.failures) => {
                (self.probes, self.outage_began, self.ready_signals) = (0, self.now, 0);
                true
            }
            None => false,
            Some((_, probe)) => probe.is_some_and(|(probe, since)| probe == todo && self.now < since + HANGS_AFTER_MS),
        };
        if opens {
            self.open = Some((self.now + breaker::BACKOFF_MS.0, None));
        }
    }

    pub fn parked(&mut self, place: i64) {
        let entry = &self.log[place as usize - 1];
        let todo = &entry.change.todo;
        assert!(entry.refusals >= MAX_REFUSALS, "parked after {} confirmed refusals", entry.refusals);
        assert!(!self.flights.contains_key(&todo.id), "parked while in flight");
        // It may be stored, too, by an attempt that nobody heard of again; and later ones, by a process that died
        // before it was committed.
        let stored = self.stored.get(&todo.id).copied().unwrap_or(0);
        assert!(stored >= todo.version.0 - 1, "not the first change is parked");
        // Each outage confirms one refusal when it ends.
        let partly = self.totals.partial_outages > 0 || self.totals.outages >= u64::from(MAX_REFUSALS);
        assert!(entry.poison || self.plan.refused > 0.0 || partly, "a good change is parked");
        self.totals.parked += 1;
        self.totals.parked_good += u64::from(!entry.poison);
        self.totals.parked_while_reading += u64::from(self.reading.is_some());
        self.suspects.remove(&todo.id);
        self.failed.remove(&place);
        self.marks.insert(place, DeliveryState::Parked);
    }
}
