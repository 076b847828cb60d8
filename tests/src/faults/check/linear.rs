//! Whether operations that overlapped can have happened one after the other: linearisability (Herlihy and Wing, 1990), by the
//! search of Wing and Gong ("Testing and verifying concurrent objects", 1993) in the form that Lowe gave it ("Testing for
//! linearizability", 2017): an operation is given its place only once the next answer asks for it, and no configuration is
//! looked at twice. Who has many independent objects checks one after the other (Horn and Kroening, 2015).
//!
//! A configuration is a state of the object, and which of the operations that are under way have had their effect on it. What
//! was answered is in none of them, so that their number depends on how much overlaps, and not on how long the history is. An
//! operation that never changes anything is placed as soon as it can be, since that leaves all others as they are. Of operations
//! that are the same, the one that has to be answered first comes first: whatever order has them the other way round is one with
//! the two exchanged as well, since both are under way then, and the later place is before the answer of either.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hash;

/// An object as it would be if there were one operation at a time.
pub trait Model {
    /// What it can be like.
    type State: Clone + Eq + Hash;
    /// An operation, together with what was answered. Equal ones have the same steps.
    type Op: PartialEq;

    /// What it may be like after an operation that was answered so; nothing where that cannot be answered in this state. More
    /// than one state where the answer leaves open what has happened.
    fn steps(&self, state: &Self::State, op: &Self::Op) -> Vec<Self::State>;

    /// Whether an operation leaves every state as it is.
    fn only_looks(&self, op: &Self::Op) -> bool;
}

/// An operation, and the time within which it has had its effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<Op> {
    /// The operation.
    pub op: Op,
    /// Not before this.
    pub invoked_ns: u64,
    /// Not after this.
    pub answered_ns: u64,
}

/// Why there is no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLinear {
    /// No place is left for one operation.
    #[error("operation {call} cannot have been answered so, whatever came of {under_way:?}")]
    NoPlace {
        /// Which, counted from 0.
        call: usize,
        /// Those that were under way when it was answered.
        under_way: Vec<usize>,
    },
    /// There are too many possibilities. That says nothing about the history.
    #[error("more than {MOST_CONFIGURATIONS} possibilities at operation {call}: it cannot be decided")]
    TooMany {
        /// Where the search was given up, counted from 0.
        call: usize,
    },
}

/// Looks for an order of `calls` in which the object, beginning in one of the states `initial`, answers as it did; the states
/// that it may be in at the end.
///
/// # Errors
/// There is none, or it would take too long to know.
pub fn check<M: Model>(
    model: &M,
    initial: impl IntoIterator<Item = M::State>,
    calls: &[Call<M::Op>],
) -> Result<HashSet<M::State>, NotLinear> {
    let mut under_way = BTreeSet::new();
    let mut configurations: HashSet<Configuration<M::State>> =
        initial.into_iter().map(|state| Configuration { state, done: BTreeSet::new() }).collect();
    for (_, turn, call) in turns(calls) {
        match turn {
            Turn::Invoked => {
                under_way.insert(call);
                let newcomer = BTreeSet::from([call]);
                let settle = |configuration| settled(model, calls, configuration, &newcomer);
                configurations = configurations.into_iter().map(settle).collect();
            }
            Turn::Answered => {
                configurations = place(model, calls, configurations, &under_way, call)?;
                under_way.remove(&call);
            }
        }
    }
    Ok(configurations.into_iter().map(|configuration| configuration.state).collect())
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Configuration<State> {
    state: State,
    /// Which of the operations that are under way have had their effect.
    done: BTreeSet<usize>,
}

/// Invocations come before answers of the same moment: so they overlap, which allows more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Invoked,
    Answered,
}

fn turns<Op>(calls: &[Call<Op>]) -> Vec<(u64, Turn, usize)> {
    let both = |(index, call): (usize, &Call<Op>)| {
        [(call.invoked_ns, Turn::Invoked, index), (call.answered_ns.max(call.invoked_ns), Turn::Answered, index)]
    };
    let mut turns: Vec<_> = calls.iter().enumerate().flat_map(both).collect();
    turns.sort_unstable();
    turns
}

/// Has `call` take effect in every configuration, together with whatever else has to before it.
fn place<M: Model>(
    model: &M,
    calls: &[Call<M::Op>],
    configurations: HashSet<Configuration<M::State>>,
    under_way: &BTreeSet<usize>,
    call: usize,
) -> Result<HashSet<Configuration<M::State>>, NotLinear> {
    let mut seen = configurations.clone();
    let mut open: Vec<_> = configurations.into_iter().collect();
    let mut placed = HashSet::new();
    while let Some(mut configuration) = open.pop() {
        if configuration.done.remove(&call) {
            placed.insert(configuration);
            continue;
        }
        for next in first_of_each(calls, under_way.difference(&configuration.done)) {
            for state in model.steps(&configuration.state, &calls[next].op) {
                let mut done = configuration.done.clone();
                done.insert(next);
                let reached = settled(model, calls, Configuration { state, done }, under_way);
                if seen.insert(reached.clone()) {
                    open.push(reached);
                }
            }
        }
        if seen.len() > MOST_CONFIGURATIONS {
            return Err(NotLinear::TooMany { call });
        }
    }
    if placed.is_empty() {
        return Err(NotLinear::NoPlace { call, under_way: under_way.iter().copied().collect() });
    }
    Ok(placed)
}

/// Of `candidates` that are the same operation, the one that has to be answered first.
fn first_of_each<'a, Op: PartialEq>(calls: &[Call<Op>], candidates: impl Iterator<Item = &'a usize>) -> Vec<usize> {
    let ends = |call: usize| (calls[call].answered_ns, call);
    let mut first: Vec<usize> = Vec::new();
    for &call in candidates {
        match first.iter_mut().find(|known| calls[**known].op == calls[call].op) {
            Some(known) if ends(call) < ends(*known) => *known = call,
            Some(_) => {}
            None => first.push(call),
        }
    }
    first
}

/// The same, with those of `candidates` placed that only look.
fn settled<M: Model>(
    model: &M,
    calls: &[Call<M::Op>],
    mut configuration: Configuration<M::State>,
    candidates: &BTreeSet<usize>,
) -> Configuration<M::State> {
    for &call in candidates {
        let op = &calls[call].op;
        if model.only_looks(op) && !model.steps(&configuration.state, op).is_empty() {
            configuration.done.insert(call);
        }
    }
    configuration
}

/// What is done to a register that holds a `T`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterOp<T> {
    /// It was written, and that was acknowledged.
    Write(T),
    /// It was written, or was not.
    MayWrite(T),
    /// It was read, and held this.
    Read(T),
}

/// A register of values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registers<T>(std::marker::PhantomData<T>);

impl<T> Registers<T> {
    /// A register.
    pub fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<T: Clone + Eq + Hash> Model for Registers<T> {
    type State = T;
    type Op = RegisterOp<T>;

    fn steps(&self, state: &T, op: &RegisterOp<T>) -> Vec<T> {
        match op {
            RegisterOp::Write(value) => vec![value.clone()],
            RegisterOp::MayWrite(value) => vec![state.clone(), value.clone()],
            RegisterOp::Read(value) if value == state => vec![state.clone()],
            RegisterOp::Read(_) => Vec::new(),
        }
    }

    fn only_looks(&self, op: &RegisterOp<T>) -> bool {
        matches!(op, RegisterOp::Read(_))
    }
}

/// Sorts calls to many objects by object.
pub fn by_object<K: Ord, Op>(calls: impl IntoIterator<Item = (K, Call<Op>)>) -> BTreeMap<K, Vec<Call<Op>>> {
    let mut objects: BTreeMap<K, Vec<Call<Op>>> = BTreeMap::new();
    for (object, call) in calls {
        objects.entry(object).or_default().push(call);
    }
    objects
}

/// A few operations overlap in any history of ours, and each of them at least doubles the possibilities; more than this says
/// that somebody never answers.
const MOST_CONFIGURATIONS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use RegisterOp::{MayWrite, Read, Write};

    fn register(calls: &[(RegisterOp<u32>, u64, u64)]) -> Result<HashSet<u32>, NotLinear> {
        let call = |(op, invoked_ns, answered_ns): &(RegisterOp<u32>, u64, u64)| Call {
            op: op.clone(),
            invoked_ns: *invoked_ns,
            answered_ns: *answered_ns,
        };
        check(&Registers::new(), [0], &calls.iter().map(call).collect::<Vec<_>>())
    }

    #[test]
    fn what_overlaps_may_have_happened_in_any_order() {
        let writes = [(Write(1), 0, 10), (Write(2), 5, 15)];
        assert_eq!(register(&writes), Ok(HashSet::from([1, 2])));
        for (read, others) in [(1, vec![1]), (2, vec![2])] {
            let mut calls = writes.to_vec();
            calls.push((Read(read), 20, 21));
            assert_eq!(register(&calls), Ok(HashSet::from_iter(others)));
        }
        assert_eq!(register(&[(Write(1), 0, 10), (Read(0), 1, 2), (Read(1), 3, 4)]), Ok(HashSet::from([1])));
    }

    #[test]
    fn what_was_answered_before_is_seen() {
        let stale = register(&[(Write(1), 0, 1), (Write(2), 2, 3), (Read(1), 4, 5)]);
        assert_eq!(stale, Err(NotLinear::NoPlace { call: 2, under_way: vec![2] }));
        let back = register(&[(Write(1), 0, 10), (Read(1), 1, 2), (Read(0), 3, 4)]);
        assert_eq!(back, Err(NotLinear::NoPlace { call: 2, under_way: vec![0, 2] }));
        let invented = register(&[(Read(7), 0, 1)]);
        assert_eq!(invented, Err(NotLinear::NoPlace { call: 0, under_way: vec![0] }));
    }

    #[test]
    fn a_write_without_an_answer_was_done_or_was_not_but_not_later() {
        let unknown = |read: u32, again: u32| {
            register(&[(Write(1), 0, 1), (MayWrite(2), 2, 5), (Read(read), 6, 7), (Read(again), 8, 9)])
        };
        assert_eq!(unknown(1, 1), Ok(HashSet::from([1])));
        assert_eq!(unknown(2, 2), Ok(HashSet::from([2])));
        assert!(unknown(1, 2).is_err() && unknown(2, 1).is_err());
    }

    #[test]
    fn a_long_history_takes_no_more_configurations_than_a_short_one() {
        let calls: Vec<_> = (0..200_000).map(|at| (Write(at), u64::from(at) * 10, u64::from(at) * 10 + 15)).collect();
        assert_eq!(register(&calls).map(|last| last.len()), Ok(2));
    }

    /// Counts what is done to it.
    struct Counter;

    impl Model for Counter {
        type State = u32;
        /// What it was after it was counted up; `None` where nobody knows whether it was.
        type Op = Option<u32>;

        fn steps(&self, &state: &u32, op: &Option<u32>) -> Vec<u32> {
            match op {
                None => vec![state, state + 1],
                Some(after) if *after == state + 1 => vec![state + 1],
                Some(_) => Vec::new(),
            }
        }

        fn only_looks(&self, _: &Option<u32>) -> bool {
            false
        }
    }

    /// One that counts up and gets an answer, after `before` of which nobody knows, which end one after the other behind it.
    fn counted_up(before: u64, to: u32) -> bool {
        let unknown = (0..before).map(|at| Call { op: None, invoked_ns: at, answered_ns: 10_000 - at });
        let known = Call { op: Some(to), invoked_ns: 1_000, answered_ns: 1_001 };
        check(&Counter, [0], &unknown.chain([known]).collect::<Vec<_>>()).is_ok()
    }

    #[test]
    fn many_that_are_the_same_are_no_more_possibilities_than_their_number() {
        assert!(counted_up(60, 1) && counted_up(60, 40) && counted_up(60, 61));
        assert!(!counted_up(60, 62) && !counted_up(60, 0));
    }

    #[test]
    fn those_that_are_the_same_take_effect_while_they_are_under_way() {
        let call = |op, invoked_ns, answered_ns| Call { op, invoked_ns, answered_ns };
        // The first ends before the others are asked, and so it can only have been the first.
        let after = |count| {
            [call(None, 0, 5), call(None, 6, 20), call(None, 7, 9), call(Some(count), 1, 4), call(Some(3), 10, 11)]
        };
        assert!(check(&Counter, [0], &after(1)).is_ok());
        assert!(check(&Counter, [0], &after(2)).is_ok());
        assert!(check(&Counter, [0], &after(3)).is_err());
    }

    #[test]
    fn what_cannot_be_decided_is_not_called_wrong() {
        let calls: Vec<_> = (1..40).map(|value| (MayWrite(value), u64::from(value), 1_000)).collect();
        assert!(matches!(register(&calls), Err(NotLinear::TooMany { .. })));
    }
}
