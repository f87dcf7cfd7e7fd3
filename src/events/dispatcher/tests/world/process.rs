//! A process that runs a relay: what it knows, and what the world knows of it.

use super::*;

/// What this process has found out about a change.
#[derive(Default, Clone, Copy)]
pub struct Try {
    /// How often another todo's success followed on failures, and on refusals.
    pub confirmed: u32,
    pub refusals: u32,
    /// After a failure: when it may be sent again, at the earliest.
    pub again: u64,
}

pub struct Process {
    pub number: usize,
    pub dispatcher: Dispatcher,
    /// The parts whose leases it believes to have.
    pub held: Parts,
    /// An operator changed what is pending; and it waits until nothing is in flight, to begin again.
    pub reload: bool,
    pub reloading: bool,
    /// It stands still until then; and until then, it does not see what the database has of the leases.
    pub paused: u64,
    pub blind: u64,
    pub inbox: Vec<Arc<Change>>,
    pub overflowed: bool,
    pub announced: usize,
    pub marks: BTreeMap<i64, DeliveryState>,
    pub marks_planned: bool,
    pub reading: Option<Reading>,
    pub flights: BTreeMap<TodoId, Flight>,
    pub tries: HashMap<i64, Try>,
    /// What it has learned to be stored.
    pub acknowledged: HashSet<i64>,
    /// What failed, and no success of another todo began after it: when it last did, and whether it was ever refused.
    pub failed: BTreeMap<i64, (u64, bool)>,
    /// Todos whose last attempt failed, and how many became such since the last success.
    pub suspects: HashSet<TodoId>,
    pub failed_in_a_row: usize,
    /// When the youngest attempt that got through began.
    pub got_through: u64,
    /// The breaker is open: when a probe may start, at the earliest, and the todo of the one that did.
    pub open: Option<(u64, Option<(TodoId, u64)>)>,
    /// Attempts of this outage that the breaker let through, of todos that had not failed, its begin, and how often it
    /// was opened from outside.
    pub probes: u64,
    pub outage_began: u64,
    pub ready_signals: u64,
}

impl Process {
    pub fn new(number: usize, held: Parts, dispatcher: Dispatcher) -> Self {
        Self {
            number,
            dispatcher,
            held,
            reload: false,
            reloading: false,
            paused: 0,
            blind: 0,
            inbox: Vec::new(),
            overflowed: false,
            announced: 0,
            marks: BTreeMap::new(),
            marks_planned: false,
            reading: None,
            flights: BTreeMap::new(),
            tries: HashMap::new(),
            acknowledged: HashSet::new(),
            failed: BTreeMap::new(),
            suspects: HashSet::new(),
            failed_in_a_row: 0,
            got_through: 0,
            open: None,
            probes: 0,
            outage_began: 0,
            ready_signals: 0,
        }
    }

    /// A new dispatcher knows nothing of what the one before has found out.
    pub fn begin_with(&mut self, dispatcher: Dispatcher) {
        self.dispatcher = dispatcher;
        self.open = None;
        self.failed.clear();
        self.suspects.clear();
        self.tries.clear();
        (self.failed_in_a_row, self.got_through) = (0, 0);
    }

    /// When it does something, if nothing happens. While it waits to begin again, it starts nothing.
    pub fn wake_at(&self) -> Option<u64> {
        self.dispatcher.wake_at().filter(|_| !self.reloading).map(|at| at.max(self.paused))
    }

    /// It waits for nothing, and has what it believes to hold.
    pub fn is_settled(&self) -> bool {
        !self.reload && !self.reloading && self.reading.is_none() && self.held == self.dispatcher.parts()
    }
}
