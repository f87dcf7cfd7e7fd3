//! What must hold.

use std::ops::Range;

use super::*;

impl World {
    /// The first change that is not known to be published; `None`: all are.
    pub fn first_left(&self, todo: TodoId) -> Option<&Entry> {
        let left = |place: &&i64| self.log[**place as usize - 1].state != Some(DeliveryState::Published);
        self.todos.get(&todo)?.iter().find(left).map(|place| &self.log[*place as usize - 1])
    }

    /// Whether everything is published, but for what waits for an operator and what is of the pulse.
    pub fn done(&self) -> bool {
        let mut parked: HashSet<TodoId> = self.todos.range(..=TodoId(0)).map(|(todo, _)| *todo).collect();
        self.log[self.settled..].iter().filter(|entry| entry.state != Some(DeliveryState::Published)).all(|entry| {
            let todo = entry.change.todo.id;
            parked.contains(&todo) || (entry.state.is_some() && parked.insert(todo))
        })
    }

    pub fn assert_done(&self) {
        assert!(self.quiet.is_some() && self.to_commit == 0);
        assert!(self.done() && self.pulse_is_done(), "the world ends with changes that are not published");
        for (todo, versions) in &self.todos {
            let parked = self.first_left(*todo).map(|entry| entry.change.todo.version.0);
            let stored = self.stored.get(todo).copied().unwrap_or(0);
            let expected = parked.map_or(versions.len() as i64, |version| version - 1);
            let unheard = parked.is_some_and(|version| stored >= version);
            // What others have taken before may be parked by one that was not taken from.
            assert!(stored == expected || unheard, "of todo {todo}, Kafka has {stored} of {expected}");
            if let Some(&poison) = self.poisoned.get(todo).filter(|poison| **poison <= versions.len() as i64) {
                assert!(parked.is_some_and(|version| version <= poison), "poison is not parked");
            }
        }
        for Process { dispatcher, .. } in self.processes() {
            assert_eq!((dispatcher.buffered, dispatcher.in_flight(), dispatcher.suspects()), (0, 0, 0));
            assert!(dispatcher.lanes.is_empty(), "lanes are left behind");
        }
    }

    /// The relay sleeps for good: everything announced to it waits for an operator.
    pub fn assert_nothing_to_do(&self) {
        let known = |place: i64| self.log[place as usize - 1].state.or_else(|| self.me.marks.get(&place).copied());
        for entry in &self.log[self.settled.min(self.me.announced)..self.me.announced] {
            let is_mine = self.me.dispatcher.parts().have(entry.change.todo.id);
            if is_mine && known(entry.change.place.0).is_none() {
                let versions = &self.todos[&entry.change.todo.id];
                let parked = versions.iter().any(|place| known(*place) == Some(DeliveryState::Parked));
                // It will be told of an operator's command.
                let told =
                    |(number, event): &(usize, Event)| *number == self.me.number && matches!(event, Event::Reload);
                let parked = parked || self.events.values().any(told);
                assert!(parked || !self.me.inbox.is_empty(), "change {} is forgotten", entry.change.place.0);
            }
        }
    }

    /// `wake_at` is when `start` has something to do again: not before, and then really.
    pub fn look_into_the_future(&mut self) {
        let wake = self.me.dispatcher.wake_at();
        if !self.random.random_ratio(1, if self.me.dispatcher.buffered > 100 { 4096 } else { 32 }) {
            return;
        }
        let mut future = self.me.dispatcher.clone();
        let mut does = |at: u64| {
            let (hungry, breaker) = (future.hungry.len(), future.breaker.clone());
            future.start(at).is_some() || future.hungry.len() > hungry || future.breaker != breaker
        };
        match wake {
            Some(wake) if wake > self.now => {
                assert!(!does(wake - 1), "something to do before {wake}");
                assert!(does(wake), "nothing to do at {wake}");
            }
            Some(_) => assert!(does(self.now)),
            None => assert!(!does(u64::MAX / 2), "something to do, and no wake-up"),
        }
    }

    /// The machine's own books.
    pub fn assert_consistent(&self) {
        let Dispatcher { lanes, ready, backlog, retrying, hungry, reading, suspects, prompt, .. } = &self.me.dispatcher;
        assert_eq!(self.me.dispatcher.buffered, lanes.values().map(|lane| lane.queue.len()).sum::<usize>());
        assert_eq!(self.me.dispatcher.in_flight, lanes.values().filter(|lane| lane.since.is_some()).count());
        suspects.assert_consistent();
        let is_suspect = |todo: &TodoId| suspects.contains(*todo);
        assert!(lanes.keys().filter(|todo| is_suspect(todo)).count() == suspects.len(), "a suspect has no lane");
        assert!(retrying.iter().all(is_suspect) && !ready.iter().chain(backlog).any(is_suspect));
        // Every lane is in one place.
        let queued = [ready, backlog, retrying, hungry].into_iter().flatten().copied();
        let waiting = suspects.waiting();
        // A lane that was parked while it was read for is gone.
        let read_for = || reading.iter().flatten().copied().filter(|todo| lanes.contains_key(todo));
        let flying = || lanes.iter().filter(|(_, lane)| lane.since.is_some()).map(|(todo, _)| *todo);
        let mut places: Vec<TodoId> = queued.chain(waiting).chain(read_for()).chain(flying()).collect();
        places.sort_unstable();
        let mut all: Vec<TodoId> = lanes.keys().copied().collect();
        all.sort_unstable();
        assert_eq!(places, all);
        // And each collection holds what it says.
        let mut can_send = ready.iter().chain(backlog).chain(retrying).copied().chain(flying());
        assert!(can_send.all(|todo| !lanes[&todo].queue.is_empty()), "nothing to send");
        let in_log = |todo: TodoId| lanes[&todo].queue.is_empty() && lanes[&todo].more_in_log;
        assert!(hungry.iter().copied().chain(read_for()).chain(suspects.waiting()).all(in_log), "nothing to read");
        assert!(prompt.iter().all(|(since, todo)| lanes[todo].since == Some(*since)));
        assert!(prompt.len() <= self.plan.limits.in_flight);
        assert!(self.me.dispatcher.in_flight - prompt.len() <= self.plan.limits.hanging);
        assert!(reading.is_some() || self.me.dispatcher.ended.is_empty());
        for (todo, lane) in lanes {
            assert!(lane.queue.len() <= self.plan.limits.lane);
            assert!(!self.me.dispatcher.parked.contains(todo));
            let versions: Vec<i64> = lane.queue.iter().map(|change| change.todo.version.0).collect();
            let contiguous: Range<i64> = lane.last.0 + 1 - versions.len() as i64..lane.last.0 + 1;
            // What another process has published meanwhile is missing.
            let ascend = versions.is_sorted() && versions.last().is_none_or(|last| *last == lane.last.0);
            let as_expected = if self.is_shared() { ascend } else { versions.iter().copied().eq(contiguous) };
            assert!(as_expected, "versions {versions:?} up to {}", lane.last);
        }
    }
}
