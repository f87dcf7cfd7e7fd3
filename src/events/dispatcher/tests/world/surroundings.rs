//! The world around the relay: commits, Kafka, readings of the log, restarts.

use super::*;
use crate::store::leases::Parts;
use crate::store::outbox::Discovered;

impl Event {
    /// Whether nothing of it happens while the process stands still.
    fn is_of_the_process(&self) -> bool {
        match self {
            Self::Announced(_) | Self::Marks | Self::Answer(..) | Self::Snapshot | Self::ReadingEnds => true,
            Self::SidecarReady | Self::Renew | Self::Lapse | Self::Reload => true,
            Self::Commit | Self::Land(_) | Self::Weather(_) | Self::Restart(_) | Self::Steal | Self::Pause(_) => false,
            Self::Retry | Self::Quiet | Self::Pulse => false,
        }
    }
}

impl World {
    /// Makes an event happen; true if it wakes the relay.
    pub fn happen(&mut self, event: Event, key: (u64, u64)) -> bool {
        if self.me.paused > self.now && event.is_of_the_process() {
            return self.put_off(event, key);
        }
        match event {
            Event::Commit => self.commit(),
            Event::Announced(place) => {
                let until = self.me.announced.max(place as usize);
                let news: Vec<_> = self.log[self.me.announced..until].iter().map(|e| Arc::clone(&e.change)).collect();
                self.me.announced = until;
                if self.me.overflowed || self.me.inbox.len() + news.len() > self.plan.inbox {
                    self.totals.overflows += 1;
                    self.me.overflowed = true;
                } else {
                    self.me.inbox.extend(news);
                }
                // While the log is read, news wait.
                return self.me.reading.is_none();
            }
            Event::Marks => {
                self.me.marks_planned = false;
                if self.quiet.is_some() || !self.random.random_bool(self.plan.marks_fail) {
                    self.commit_marks();
                }
                self.plan_marks();
                return self.me.reload;
            }
            Event::Answer(place, result) => {
                debug_assert!(self.me.flights.values().any(|flight| flight.place == place && flight.answer == key));
                self.answered(place, result);
                return true;
            }
            Event::Land(place) => self.land(place),
            Event::Snapshot => self.snapshot(),
            Event::ReadingEnds => {
                let found = self.me.reading.take().unwrap().found;
                let fed = found.iter().flat_map(|found| &found.fed);
                self.totals.full_lanes += fed.filter(|fed| fed.more).count() as u64;
                self.me.dispatcher.finish_reading(found);
                return true;
            }
            Event::Weather(weather) => {
                self.weather = weather;
                self.totals.outages += u64::from(weather != Weather::Fine);
                self.totals.partial_outages += u64::from(matches!(weather, Weather::Partly(..)));
            }
            Event::SidecarReady => {
                self.me.dispatcher.sidecar_ready(self.now);
                self.me.ready_signals += 1;
                if let Some((until, _)) = &mut self.me.open {
                    *until = (*until).min(self.now);
                }
                return true;
            }
            Event::Restart(all) => {
                self.restart(all);
                return true;
            }
            Event::Renew => {
                self.renew();
                return true;
            }
            Event::Lapse => {
                self.me.held = Parts::NONE;
                return true;
            }
            Event::Steal => {
                self.steal();
                return true;
            }
            Event::Pause(pause) => {
                self.totals.pauses += 1;
                self.me.paused = self.now + pause;
            }
            Event::Retry => self.retry(),
            Event::Reload => {
                self.me.reload = true;
                return true;
            }
            Event::Quiet => {
                self.quiet = Some(self.now);
                self.weather = Weather::Fine;
                for process in self.others.iter_mut().chain([&mut self.me]) {
                    process.blind = self.now;
                }
                self.after(0, Event::Pulse);
            }
            Event::Pulse => {
                if self.to_commit > 0 || !self.done() {
                    self.pulse();
                    self.tell();
                    let wait = match self.quiet {
                        Some(_) if self.is_shared() => 4 * PULSE,
                        Some(_) => PULSE,
                        None => self.plan.pulse,
                    };
                    self.after(wait, Event::Pulse);
                }
            }
        }
        false
    }

    /// A process that stands still sees it when it goes on: an answer, or that it came too late.
    fn put_off(&mut self, event: Event, key: (u64, u64)) -> bool {
        let until = self.me.paused;
        let todo_of = |place: i64| self.log[place as usize - 1].change.todo.id;
        let flight = match event {
            Event::Answer(place, _) => Some(todo_of(place)),
            _ => None,
        };
        let event = match event {
            Event::Answer(place, PublishResult::Stored) if self.random.random_bool(0.3) => {
                self.log[place as usize - 1].excused += 1;
                Event::Answer(place, PublishResult::NoAnswer)
            }
            other => other,
        };
        let new = self.at(until, event);
        if let Some(flight) = flight.and_then(|todo| self.me.flights.get_mut(&todo)) {
            debug_assert_eq!(flight.answer, key);
            flight.answer = new;
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
            let (wait, number) = (self.up_to(self.plan.pause), self.any_process());
            self.switch(number);
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
        self.log.push(Entry { change, committed: self.now, state: None, poison, excused: 0, repeats: 0 });
        self.totals.changes += 1;
    }

    /// A group was committed, and marks with it.
    pub fn tell(&mut self) {
        self.commit_marks();
        let late = self.up_to(self.plan.announced_late);
        self.after(late, Event::Announced(self.log.len() as i64));
        let me = self.me.number;
        for number in (0..=self.others.len()).filter(|number| *number != me) {
            self.switch(number);
            let late = self.up_to(self.plan.tail);
            self.after(late, Event::Announced(self.log.len() as i64));
        }
        self.switch(me);
    }

    pub fn commit_marks(&mut self) {
        for (place, mark) in std::mem::take(&mut self.me.marks) {
            let has_lease = self.has_lease(self.log[place as usize - 1].change.todo.id);
            let state = &mut self.log[place as usize - 1].state;
            match mark {
                // Only whoever has the lease parks. Who could not begins again.
                DeliveryState::Parked if self.leases.is_empty() || (has_lease && state.is_none()) => {
                    state.get_or_insert(mark);
                }
                DeliveryState::Parked => {
                    self.totals.parked_in_vain += 1;
                    self.me.reload = true;
                }
                _ => drop(state.get_or_insert(mark)),
            }
        }
        while self.log.get(self.settled).is_some_and(|entry| entry.state == Some(DeliveryState::Published)) {
            self.settled += 1;
        }
    }

    pub fn plan_marks(&mut self) {
        if !self.me.marks_planned && !self.me.marks.is_empty() {
            self.me.marks_planned = true;
            self.after(MARKS, Event::Marks);
        }
    }

    pub fn land(&mut self, place: i64) {
        let strict = self.is_shared() && !self.has_thefts();
        let entry = &mut self.log[place as usize - 1];
        let todo = &entry.change.todo;
        let last = self.stored.entry(todo.id).or_insert(0);
        assert!(todo.version.0 <= *last + 1, "{}-{} comes after version {last}", todo.id, todo.version);
        self.totals.duplicates += u64::from(todo.version.0 <= *last);
        entry.repeats += u32::from(todo.version.0 <= *last);
        *last = todo.version.0.max(*last);
        let (repeats, excused) = (entry.repeats, entry.excused);
        assert!(!strict || repeats <= excused, "{}-{} is repeated {repeats} times", todo.id, todo.version);
    }

    /// Reads the log, as [`crate::store::Store::read_outbox`] is documented.
    pub fn snapshot(&mut self) {
        let Some(reading) = &mut self.me.reading else { return };
        let wanted = &reading.wanted;
        let (mut found, mut room) = (Found::default(), wanted.room);
        for want in &wanted.wants {
            if room == 0 {
                break;
            }
            let versions = self.todos.get(&want.todo).map_or(&[][..], |versions| &versions[..]);
            let entries = versions
                .iter()
                .filter(|place| **place <= wanted.announced_through.place().0 && !reading.marked.contains_key(place))
                .map(|place| &self.log[*place as usize - 1]);
            let mut parked = false;
            let mut changes = Vec::new();
            for entry in entries.filter(|entry| entry.change.todo.version > want.above) {
                parked |= entry.state == Some(DeliveryState::Parked);
                if entry.state.is_none() && !parked {
                    changes.push(Arc::clone(&entry.change));
                }
            }
            let limit = want.limit.min(room);
            let (more, parked) = (changes.len() > limit || parked, parked && changes.is_empty());
            self.totals.found_parked += u64::from(parked);
            changes.truncate(limit);
            room -= changes.len();
            self.totals.read += changes.len() as u64;
            found.fed.push(Fed { todo: want.todo, changes, more, parked });
        }
        if wanted.discover > 0 {
            let unsettled = &self.log[self.settled..];
            let marked = |entry: &Entry| entry.state.or_else(|| reading.marked.get(&entry.change.place.0).copied());
            let parked = unsettled.iter().filter(|entry| match wanted.read_through == Cursor::START {
                true => marked(entry) == Some(DeliveryState::Parked),
                false => entry.state == Some(DeliveryState::Parked) && !self.leases.is_empty(),
            });
            let parked = parked.map(|entry| entry.change.todo.id).collect();
            let end = Cursor::up_to(Place(self.log.len() as i64));
            let mut discovered = Discovered { todos: Vec::new(), parked, read_through: end, more: false };
            let mut seen = HashSet::new();
            // Never far: looking goes on where it ended.
            let far = if self.looks_far { usize::MAX } else { self.random.random_range(1..=50) };
            let beyond = unsettled
                .iter()
                .filter(|entry| entry.state.is_none() && !wanted.read_through.covers(entry.change.place))
                .filter(|entry| wanted.parts.have(entry.change.todo.id));
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
        for flight in std::mem::take(&mut self.me.flights).into_values() {
            self.log[flight.place as usize - 1].excused += 1;
            self.events.remove(&flight.answer);
            if let Some(land) = flight.land.filter(|_| self.random.random_bool(0.5)) {
                self.events.remove(&land);
            }
        }
        let me = self.me.number;
        self.events
            .retain(|_, (number, event)| *number != me || !matches!(event, Event::Snapshot | Event::ReadingEnds));
        self.me.reading = None;
        // Only a lone process's task can die alone: what it has marked is marked twice then.
        let process = process || self.is_shared();
        let parts = if self.is_shared() { Parts::NONE } else { Parts::ALL };
        let seed = self.random.random();
        self.me.begin_with(Dispatcher::with_limits(seed, parts, self.plan.limits));
        self.me.acknowledged.clear();
        if self.is_shared() {
            self.give_up_leases();
        }
        if process {
            self.me.inbox.clear();
            self.me.overflowed = false;
            for place in std::mem::take(&mut self.me.marks).into_keys() {
                self.log[place as usize - 1].excused += 1;
            }
            self.me.announced = self.log.len();
            self.events.retain(|_, (number, event)| *number != me || !matches!(event, Event::Announced(_)));
        }
    }
}
