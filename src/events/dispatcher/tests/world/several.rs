//! Several processes on one log, which share the todos by leases.

use super::*;

/// The parts that these worlds have todos in.
const PARTS: i16 = 16;
/// How often leases are renewed once nothing fails any more.
const RENEW: u64 = 2_000;

impl World {
    /// Processes that share the todos: nobody has a lease yet.
    pub fn shared(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(!seed);
        let mut plan = Plan::new(&mut random, false);
        plan.todos = random.random_range(1..i64::from(PARTS));
        // Enough to be in the middle of something when leases move.
        let changes = random.random_range(1..20);
        plan.before = if random.random_bool(0.3) { random.random_range(0..=changes) } else { 0 };
        plan.after = changes - plan.before;
        plan.outages = random.random_range(0..=1);
        plan.tail = *choose(&mut random, &[0, 5, 300, 10_000]);
        plan.thefts = if random.random_bool(0.5) { random.random_range(1..=6) } else { 0 };
        plan.lapses = random.random_range(0..=3);
        plan.pauses = random.random_range(0..=3);
        plan.retries = random.random_range(0..=2);
        let poisoned = if random.random_bool(0.4) { random.random_range(1..=2) } else { 0 };
        let poisoned =
            (0..poisoned).map(|_| (TodoId(random.random_range(1..=plan.todos)), random.random_range(1..4))).collect();
        let mut world = Self::planned(plan, poisoned, random);
        let processes = if world.random.random_bool(0.7) { 2 } else { 3 };
        world.leases = vec![None; PARTS as usize];
        world.me = world.process(0);
        world.others = (1..processes).map(|number| world.process(number)).collect();
        let end = world.plan_events();
        world.plan.renew = 20 + end / *choose(&mut world.random, &[2, 5, 10]);
        for _ in 0..world.plan.thefts {
            world.some_time(2 * end, Event::Steal);
        }
        for _ in 0..world.plan.lapses {
            world.some_time(2 * end, Event::Lapse);
        }
        for _ in 0..world.plan.pauses {
            let most = *choose(&mut world.random, &[1_000, 20_000, 100_000]);
            let pause = world.up_to(most);
            world.some_time(2 * end, Event::Pause(pause));
        }
        for _ in 0..world.plan.retries {
            world.some_time(2 * end, Event::Retry);
        }
        if world.random.random_bool(0.2) {
            world.plan.pulse = PULSE.max(end / 10);
            world.at(0, Event::Pulse);
        }
        for number in 0..processes {
            world.switch(number);
            let at = world.up_to(100);
            world.at(at, Event::Renew);
        }
        world
    }

    fn process(&mut self, number: usize) -> Process {
        let dispatcher = Dispatcher::with_limits(self.random.random(), Parts::NONE, self.plan.limits);
        Process { announced: self.log.len(), ..Process::new(number, Parts::NONE, dispatcher) }
    }

    /// Plans something for any process.
    fn some_time(&mut self, before: u64, event: Event) {
        let (at, number) = (self.random.random_range(0..before), self.any_process());
        self.switch(number);
        self.at(at, event);
    }

    pub fn is_shared(&self) -> bool {
        !self.leases.is_empty()
    }

    /// Whether more than one can publish the same at the same time.
    pub fn has_thefts(&self) -> bool {
        self.plan.thefts > 0
    }

    pub fn any_process(&mut self) -> usize {
        if self.others.is_empty() { 0 } else { self.random.random_range(0..=self.others.len()) }
    }

    /// Makes it this process's turn.
    pub fn switch(&mut self, number: usize) {
        if let Some(other) = self.others.iter_mut().find(|process| process.number == number) {
            std::mem::swap(&mut self.me, other);
        }
    }

    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        std::iter::once(&self.me).chain(&self.others)
    }

    /// Whether this process has the lease of a todo's part, as the database has it.
    pub fn has_lease(&self, todo: TodoId) -> bool {
        let part = todo.0.rem_euclid(64) as usize;
        self.leases.get(part).is_none_or(|holder| *holder == Some(self.me.number))
    }

    /// Renews this process's leases, as `store::postgres::leases` does: gives up what it does not use any more, takes its
    /// share, and is to use that.
    pub fn renew(&mut self) {
        if self.now < self.me.blind {
            self.after(self.me.blind - self.now, Event::Renew);
            return;
        }
        let me = self.me.number;
        let kept = self.me.held.and(self.me.dispatcher.parts());
        let fair = self.fair_share();
        let share = if self.quiet.is_some() { fair } else { self.random.random_range(0..=PARTS as usize) };
        let mut held = Vec::new();
        for part in 0..PARTS {
            let lease = &mut self.leases[part as usize];
            if *lease == Some(me) && !kept.numbers().any(|kept| kept == part) {
                *lease = None;
            }
            if *lease == Some(me) {
                held.push(part);
            }
        }
        let first = self.random.random_range(0..PARTS);
        for part in (0..PARTS).map(|nth| (first + nth) % PARTS) {
            if held.len() < share && self.leases[part as usize].is_none() {
                self.leases[part as usize] = Some(me);
                held.push(part);
            }
        }
        self.me.held = held.into_iter().collect::<Parts>().at_most(share, kept);
        if self.quiet.is_none() || !self.is_calm() {
            let most = if self.quiet.is_some() { RENEW } else { self.plan.renew };
            let wait = most / 4 + self.up_to(most);
            self.after(wait, Event::Renew);
        }
    }

    fn fair_share(&self) -> usize {
        (PARTS as usize).div_ceil(1 + self.others.len())
    }

    /// Everything is as it stays.
    fn is_calm(&self) -> bool {
        let all_held = (0..PARTS as usize).all(|part| {
            let part_held = |process: &Process| process.held.numbers().any(|held| held as usize == part);
            self.processes().filter(|process| part_held(process)).count() == 1
                && self.processes().any(|process| self.leases[part] == Some(process.number) && part_held(process))
        });
        let fair = self.fair_share();
        let fairly = self.processes().all(|process| process.held.count() <= fair);
        all_held && fairly && self.done() && self.pulse_is_done() && self.processes().all(Process::is_settled)
    }

    /// Some leases are somebody else's, or nobody's, and whoever had them does not know.
    pub fn steal(&mut self) {
        self.totals.thefts += 1;
        let most = *choose(&mut self.random, &[1, 1_000, 100_000]);
        let until = self.now + self.up_to(most);
        self.others.iter_mut().for_each(|other| other.blind = until);
        let thief = if self.random.random_bool(0.8) { Some(self.me.number) } else { None };
        for part in 0..PARTS as usize {
            if self.random.random_bool(0.5) {
                self.leases[part] = thief;
            }
        }
        if thief.is_some() {
            let mine = (0..PARTS).filter(|part| self.leases[*part as usize] == thief);
            self.me.held = mine.collect();
        }
    }

    /// A process that dies gives up its leases; its successor has another number in the database.
    pub fn give_up_leases(&mut self) {
        let me = self.me.number;
        self.leases.iter_mut().filter(|lease| **lease == Some(me)).for_each(|lease| *lease = None);
        (self.me.held, self.me.reload, self.me.reloading, self.me.paused) = (Parts::NONE, false, false, 0);
    }

    /// What this process may repeat, since it begins with parts that others had, or that it had itself.
    pub fn excuse(&mut self) {
        let parts = self.me.dispatcher.parts();
        // Others have published it, and have not committed that yet.
        let marked: Vec<i64> = self.others.iter().flat_map(|other| other.marks.keys().copied()).collect();
        // It is told of these later, whatever has become of them.
        let late = (self.me.announced as i64 + 1)..=self.log.len() as i64;
        for place in marked.into_iter().chain(late) {
            let entry = &mut self.log[place as usize - 1];
            entry.excused += u32::from(parts.have(entry.change.todo.id));
        }
    }

    /// An operator retries what is parked.
    pub fn retry(&mut self) {
        for index in self.settled..self.log.len() {
            let entry = &mut self.log[index];
            if entry.state != Some(DeliveryState::Parked) {
                continue;
            }
            self.totals.retried += 1;
            entry.state = None;
            let (todo, version) = (entry.change.todo.id, entry.change.todo.version.0);
            if entry.poison && self.random.random_bool(0.5) {
                self.log[index].poison = false;
                if self.poisoned.get(&todo) == Some(&version) {
                    self.poisoned.remove(&todo);
                }
            }
        }
        for number in 0..=self.others.len() {
            self.switch(number);
            let late = self.up_to(self.plan.tail);
            self.after(late, Event::Reload);
        }
    }

    /// Todos of their own, one for each process: a success that confirms refusals.
    pub fn pulse(&mut self) {
        if !self.is_shared() {
            return self.append(TodoId(0));
        }
        for number in 0..=self.others.len() {
            self.switch(number);
            let parked = |part: &i16| self.me.dispatcher.parked.contains(&TodoId(i64::from(*part) - 64));
            if let Some(part) = self.me.held.numbers().find(|part| !parked(part)) {
                self.append(TodoId(i64::from(part) - 64));
            }
        }
    }

    pub fn pulse_is_done(&self) -> bool {
        let mut pulses = self.todos.keys().filter(|todo| todo.0 <= 0);
        // It can be parked before nothing fails any more.
        pulses.all(|todo| self.first_left(*todo).is_none_or(|entry| entry.state.is_some()))
    }

    /// What has not been published, for people.
    pub fn left(&self) -> String {
        let mut left = String::new();
        for Process { number, held, reload, reloading, reading, dispatcher, paused, .. } in self.processes() {
            left += &format!(
                "\nprocess {number} publishes {:?}, is to publish {held:?}, reload {reload}, begins again {reloading}, \
                 reads {}, in flight {}, stood still until {paused}",
                dispatcher.parts(),
                reading.is_some(),
                dispatcher.in_flight(),
            );
        }
        for entry in self.log.iter().filter(|entry| entry.state != Some(DeliveryState::Published)) {
            let todo = entry.change.todo.id;
            let parked = |process: &&Process| process.dispatcher.parked.contains(&todo);
            let lane = |process: &&Process| process.dispatcher.lanes.contains_key(&todo);
            let held = |process: &&Process| process.dispatcher.parts().have(todo);
            let of = |is: &dyn Fn(&&Process) -> bool| -> Vec<usize> {
                self.processes().filter(is).map(|process| process.number).collect()
            };
            left += &format!(
                "\nchange {} of {todo}-{}: {:?}, held by {:?}, in a lane of {:?}, parked in the memory of {:?}",
                entry.change.place.0,
                entry.change.todo.version,
                entry.state,
                of(&held),
                of(&lane),
                of(&parked),
            );
        }
        left
    }
}
