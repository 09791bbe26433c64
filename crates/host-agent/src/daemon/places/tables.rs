//! Who holds which place, and whose turn is next.

use std::collections::{BTreeMap, HashMap};

/// All places that are taken.
#[derive(Debug, Default)]
pub(super) struct Tables {
    next: u64,
    /// By order of reservation.
    taken: BTreeMap<u64, Taken>,
    /// Turns given so far.
    turns: u64,
    /// The last turn of each uid that has a place, and of the others too as long as anybody waits.
    last_turn: HashMap<u32, u64>,
    /// How often somebody was told that there is none.
    pub(super) refusals: u64,
    /// The daemon takes nothing new.
    pub(super) closing: bool,
}

#[derive(Debug)]
struct Taken {
    uid: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No build has come yet.
    Reserved,
    /// Its build waits for its turn.
    Waiting,
    /// It has its turn.
    Running {
        /// It is about to give it up for one that waits.
        yields: bool,
    },
}

impl Tables {
    pub(super) fn reserve(&mut self, uid: u32) -> u64 {
        let id = self.next;
        self.next += 1;
        self.taken.insert(id, Taken { uid, state: State::Reserved });
        id
    }

    /// Its build is known.
    pub(super) fn ask(&mut self, id: u64) {
        if let Some(Taken { state: state @ State::Reserved, .. }) = self.taken.get_mut(&id) {
            *state = State::Waiting;
        }
    }

    pub(super) fn give_up(&mut self, id: u64) {
        self.taken.remove(&id);
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.len()
    }

    pub(super) fn taken_by(&self, uid: u32) -> usize {
        self.taken.values().filter(|taken| taken.uid == uid).count()
    }

    /// How many places this uid has without a turn.
    pub(super) fn not_running(&self, uid: u32) -> usize {
        let without_turn = |taken: &&Taken| taken.uid == uid && !matches!(taken.state, State::Running { .. });
        self.taken.values().filter(without_turn).count()
    }

    pub(super) fn runs(&self, id: u64) -> bool {
        self.taken.get(&id).is_some_and(|taken| matches!(taken.state, State::Running { .. }))
    }

    /// Turns that come before the one of `id`, its own included; 0 if it does not wait.
    pub(super) fn ahead(&self, id: u64) -> usize {
        self.order().iter().position(|next| *next == id).map_or(0, |index| index + 1)
    }

    /// Whether a build waits for which no other gives up its turn yet, and this one could.
    pub(super) fn is_needed(&self, id: u64) -> bool {
        let count = |state| self.taken.values().filter(|taken| taken.state == state).count();
        self.runs(id) && count(State::Waiting) > count(State::Running { yields: true })
    }

    /// Has it give up its turn if that [is needed](Self::is_needed); whether it has to.
    pub(super) fn yields(&mut self, id: u64) -> bool {
        let needed = self.is_needed(id);
        match self.taken.get_mut(&id).map(|taken| &mut taken.state) {
            Some(State::Running { yields }) => {
                *yields |= needed;
                *yields
            }
            _ => false,
        }
    }

    /// Gives as many turns as there can be.
    pub(super) fn give_turns(&mut self, jobs: usize) {
        let running =
            self.taken.values().filter(|taken| matches!(taken.state, State::Running { .. })).count();
        for _ in running..jobs {
            let Some(taken) = self.order().first().and_then(|next| self.taken.get_mut(next)) else { break };
            taken.state = State::Running { yields: false };
            self.turns += 1;
            self.last_turn.insert(taken.uid, self.turns);
        }
        // Where nobody waits nobody has been passed over; but whose builds run now had the last turns of all.
        if !self.taken.values().any(|taken| taken.state == State::Waiting) {
            let Self { last_turn, taken, .. } = self;
            last_turn.retain(|uid, _| taken.values().any(|taken| taken.uid == *uid));
        }
    }

    /// Those that wait, next first: the first of each uid, then the second of each; the uid first whose last turn is longest
    /// ago, and among those that had none the one that has waited longest.
    fn order(&self) -> Vec<u64> {
        let mut uids = HashMap::<u32, (u32, u64)>::new();
        let mut order = Vec::new();
        for (id, taken) in self.taken.iter().filter(|(_, taken)| taken.state == State::Waiting) {
            let (before, first) = uids.entry(taken.uid).or_insert((0, *id));
            let last_turn = self.last_turn.get(&taken.uid).copied().unwrap_or(0);
            order.push((*before, last_turn, *first, *id));
            *before += 1;
        }
        order.sort_unstable();
        order.into_iter().map(|(.., id)| id).collect()
    }
}
