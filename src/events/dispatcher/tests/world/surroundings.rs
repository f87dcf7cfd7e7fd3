//! The world around the relay: commits, Kafka, readings of the log, restarts.

use super::*;
use crate::store::leases::Parts;
use crate::store::outbox::Discovered;

impl World {
    /// Makes an event happen; true if it wakes the relay.
    pub fn happen(&mut self, event: Event, key: (u64, u64)) -> bool {
        match event {
            Event::Commit => self.commit(),
            Event::Announced(place) => {
                let until = self.announced.max(place as usize);
                let news: Vec<_> = self.log[self.announced..until].iter().map(|e| Arc::clone(&e.change)).collect();
                self.announced = until;
                if self.overflowed || self.inbox.len() + news.len() > self.plan.inbox {
                    self.totals.overflows += 1;
                    self.overflowed = true;
                } else {
                    self.inbox.extend(news);
                }
                // While the log is read, news wait.
                return self.reading.is_none();
            }
            Event::Marks => {
                self.marks_planned = false;
                if self.quiet.is_some() || !self.random.random_bool(self.plan.marks_fail) {
                    self.commit_marks();
                }
                self.plan_marks();
            }
            Event::Answer(place, result) => {
                debug_assert!(self.flights.values().any(|flight| flight.place == place && flight.answer == key));
                self.answered(place, result);
                return true;
            }
            Event::Land(place) => self.land(place),
            Event::Snapshot => self.snapshot(),
            Event::ReadingEnds => {
                let found = self.reading.take().unwrap().found;
                let fed = found.iter().flat_map(|found| &found.fed);
                self.totals.full_lanes += fed.filter(|fed| fed.more).count() as u64;
                self.dispatcher.finish_reading(found);
                return true;
            }
            Event::Weather(weather) => {
                self.weather = weather;
                self.totals.outages += u64::from(weather != Weather::Fine);
                self.totals.partial_outages += u64::from(matches!(weather, Weather::Partly(..)));
            }
            Event::SidecarReady => {
                self.dispatcher.sidecar_ready(self.now);
                self.ready_signals += 1;
                if let Some((until, _)) = &mut self.open {
                    *until = (*until).min(self.now);
                }
                return true;
            }
            Event::Restart(all) => {
                self.restart(all);
                return true;
            }
            Event::Quiet => {
                self.quiet = Some(self.now);
                self.weather = Weather::Fine;
                self.after(0, Event::Pulse);
            }
            Event::Pulse => {
                if self.to_commit > 0 || !self.done() {
                    self.append(TodoId(0));
                    self.tell();
                    self.after(PULSE, Event::Pulse);
                }
            }
        }
        false
    }

    pub fn commit(&mut self) {
        let group = self.random.random_range(1..=self.plan.group).min(self.to_commit);
        for _ in 0..group {
            self.commit_one();
        }
        self.to_commit -= group;
        if group > 0 {
            self.tell();
        }
        if self.to_commit > 0 {
            let wait = self.up_to(self.plan.pause);
            self.after(wait, Event::Commit);
        }
    }

    pub fn commit_one(&mut self) {
        let hot = self.random.random_bool(self.plan.hot);
        let fresh = self.todos.len() as i64 + 1;
        let todo = match self.plan.todos {
            _ if hot => 1,
            0 => fresh,
            todos => self.random.random_range(1..=todos),
        };
        self.append(TodoId(todo));
    }

    pub fn append(&mut self, todo: TodoId) {
        let versions = self.todos.entry(todo).or_default();
        let (place, version) = (self.log.len() as i64 + 1, versions.len() as i64 + 1);
        versions.push(place);
        let poison = self.poisoned.get(&todo) == Some(&version);
        let todo = Arc::new(Todo { id: todo, version: Version(version), ..Todo::clone(&self.template.todo) });
        let change =
            Arc::new(Change { place: Place(place), revision: Revision(place), todo, ..Change::clone(&self.template) });
        self.log.push(Entry {
            change,
            committed: self.now,
            state: None,
            poison,
            confirmed: 0,
            refusals: 0,
            again: 0,
            acknowledged_by: None,
        });
        self.totals.changes += 1;
    }

    /// A group was committed, and marks with it.
    pub fn tell(&mut self) {
        self.commit_marks();
        let late = self.up_to(self.plan.announced_late);
        self.after(late, Event::Announced(self.log.len() as i64));
    }

    pub fn commit_marks(&mut self) {
        for (place, mark) in std::mem::take(&mut self.marks) {
            self.log[place as usize - 1].state.get_or_insert(mark);
        }
        while self.log.get(self.settled).is_some_and(|entry| entry.state == Some(DeliveryState::Published)) {
            self.settled += 1;
        }
    }

    pub fn plan_marks(&mut self) {
        if !self.marks_planned && !self.marks.is_empty() {
            self.marks_planned = true;
            self.after(MARKS, Event::Marks);
        }
    }

    pub fn land(&mut self, place: i64) {
        let todo = &self.log[place as usize - 1].change.todo;
        let last = self.stored.entry(todo.id).or_insert(0);
        assert!(todo.version.0 <= *last + 1, "{}-{} comes after version {last}", todo.id, todo.version);
        self.totals.duplicates += u64::from(todo.version.0 <= *last);
        *last = todo.version.0.max(*last);
    }

    /// Reads the log, as [`crate::store::Store::read_outbox`] is documented.
    pub fn snapshot(&mut self) {
        let Some(reading) = &mut self.reading else { return };
        let wanted = &reading.wanted;
        let (mut found, mut room) = (Found::default(), wanted.room);
        for want in &wanted.wants {
            if room == 0 {
                break;
            }
            let versions = self.todos.get(&want.todo).map_or(&[][..], |versions| &versions[..]);
            let entries = versions
                .iter()
                .filter(|place| **place <= wanted.announced_through.place().0)
                .map(|place| &self.log[*place as usize - 1]);
            let pending = entries.filter(|entry| entry.state.is_none() && entry.change.todo.version > want.above);
            let mut changes: Vec<_> = pending.map(|entry| Arc::clone(&entry.change)).collect();
            let limit = want.limit.min(room);
            let more = changes.len() > limit;
            changes.truncate(limit);
            room -= changes.len();
            self.totals.read += changes.len() as u64;
            found.fed.push(Fed { todo: want.todo, changes, more });
        }
        if wanted.discover > 0 {
            let unsettled = &self.log[self.settled..];
            let marked = |entry: &Entry| entry.state.or_else(|| reading.marked.get(&entry.change.place.0).copied());
            let parked = unsettled
                .iter()
                .filter(|entry| wanted.read_through == Cursor::START && marked(entry) == Some(DeliveryState::Parked));
            let parked = parked.map(|entry| entry.change.todo.id).collect();
            let end = Cursor::up_to(Place(self.log.len() as i64));
            let mut discovered = Discovered { todos: Vec::new(), parked, read_through: end, more: false };
            let mut seen = HashSet::new();
            // Never far: looking goes on where it ended.
            let far = if self.looks_far { usize::MAX } else { self.random.random_range(1..=50) };
            let beyond = unsettled
                .iter()
                .filter(|entry| entry.state.is_none() && !wanted.read_through.covers(entry.change.place));
            for (looked_at, entry) in beyond.enumerate() {
                let (place, todo) = (entry.change.place.0, &entry.change.todo);
                let new = marked(entry).is_none() && !discovered.parked.contains(&todo.id) && !seen.contains(&todo.id);
                if (new && seen.len() == wanted.discover) || looked_at == far {
                    discovered.more = true;
                    discovered.read_through = Cursor::up_to(Place(place - 1));
                    break;
                }
                if new {
                    seen.insert(todo.id);
                    discovered.todos.push((todo.id, todo.version));
                }
                self.totals.looked_at += 1;
            }
            found.discovered = Some(discovered);
        }
        reading.found = Some(found);
    }

    /// The process dies, or only the relay's task: then inbox and marks are still there.
    pub fn restart(&mut self, process: bool) {
        self.totals.restarts += 1;
        for flight in std::mem::take(&mut self.flights).into_values() {
            self.events.remove(&flight.answer);
            if let Some(land) = flight.land.filter(|_| self.random.random_bool(0.5)) {
                self.events.remove(&land);
            }
        }
        self.events.retain(|_, event| !matches!(event, Event::Snapshot | Event::ReadingEnds));
        self.reading = None;
        self.dispatcher = Dispatcher::with_limits(self.random.random(), Parts::ALL, self.plan.limits);
        self.process += 1;
        self.open = None;
        self.failed.clear();
        self.suspects.clear();
        (self.failed_in_a_row, self.got_through) = (0, 0);
        for entry in &mut self.log[self.settled..] {
            (entry.confirmed, entry.refusals, entry.again) = (0, 0, 0);
        }
        if process {
            self.inbox.clear();
            self.overflowed = false;
            self.marks.clear();
            self.announced = self.log.len();
            self.events.retain(|_, event| !matches!(event, Event::Announced(_)));
        }
    }
}
