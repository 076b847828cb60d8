//! Looks at every state that the model can be in, within bounds, and at every property in each.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use stateright::{Checker, HasDiscoveries, Model, Property};

use super::clocks::Time;
use super::in_sync::InSync;
use super::properties::properties;
use super::step::{self, Action};
use super::volume::{Bounds, State};

/// The model of a volume, within bounds.
#[derive(Clone, Copy, Debug)]
pub struct Volume {
    /// How often things may happen.
    pub bounds: Bounds,
}

impl Model for Volume {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::begun()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(step::actions(state, &self.bounds));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        step::next(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties()
    }
}

/// What an exploration has found.
#[derive(Clone, Debug, Serialize)]
pub struct Explored {
    /// What was explored.
    pub name: String,
    /// How many states there are.
    pub states: usize,
    /// How many steps the farthest of them is away.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// What each property says.
    pub properties: Vec<&'static str>,
    /// Where one does not hold; the exploration ends there.
    pub violation: Option<Violation>,
}

/// A way to a state in which a property does not hold; of those, one of the shortest.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// What it says.
    pub property: &'static str,
    /// What happens.
    pub steps: Vec<String>,
}

/// The bounds of a short look, which every run of the tests takes: each lets something else happen more than once.
pub fn short() -> Vec<Bounds> {
    let none = Bounds::default();
    vec![
        Bounds { handoffs: 2, crashes: 1, opens: 1, writes: 2, publications: 1, ..none },
        Bounds { handoffs: 1, takeovers: 1, lapses: 2, opens: 1, writes: 2, publications: 1, ..none },
        Bounds { handoffs: 1, takeovers: 1, lapses: 2, opens: 1, writes: 1, crashes: 1, ..none },
        Bounds { takeovers: 2, lapses: 2, opens: 1, writes: 3, publications: 1, ..none },
    ]
}

/// Those of a long look.
pub fn long() -> Vec<Bounds> {
    let none = Bounds::default();
    vec![
        Bounds { handoffs: 1, takeovers: 1, lapses: 2, opens: 1, crashes: 1, writes: 2, ..none },
        Bounds { handoffs: 2, takeovers: 1, lapses: 1, opens: 1, writes: 1, ..none },
        Bounds { handoffs: 2, crashes: 2, opens: 1, writes: 1, ..none },
    ]
}

/// Explores the volume.
pub fn explore(bounds: Bounds) -> Explored {
    run(&bounds.to_string(), Volume { bounds })
}

/// Explores the clocks.
pub fn explore_clocks() -> Explored {
    run("clocks", Time { under_way: 2 })
}

/// Explores who is in sync.
pub fn explore_in_sync() -> Explored {
    run("in sync", InSync { writes: 2, changes: 3, starts: 1, decisions: 4 })
}

fn run<M>(name: &str, model: M) -> Explored
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + fmt::Debug + std::hash::Hash + Send + Sync + PartialEq,
    M::Action: fmt::Display + fmt::Debug + Clone + PartialEq,
{
    let begun = Instant::now();
    let properties: Vec<_> = model.properties().iter().map(|property| property.name).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::Any).spawn_bfs().join();
    let discovery = checker.discoveries().into_iter().next();
    let violation = discovery.map(|(property, path)| {
        let steps = path.into_actions().iter().map(ToString::to_string).collect();
        Violation { property, steps }
    });
    Explored {
        name: name.to_owned(),
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: begun.elapsed(),
        properties,
        violation,
    }
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, states, depth, took, properties, violation } = self;
        let (held, seconds) = (properties.len(), took.as_secs_f64());
        match violation {
            None => writeln!(f, "{name}: {states} states, {depth} steps deep, {seconds:.1} s: {held} properties hold"),
            Some(Violation { property, steps }) => {
                writeln!(f, "{name}: '{property}' does not hold after {} steps ({states} states seen):", steps.len())?;
                (1..).zip(steps).try_for_each(|(number, step)| writeln!(f, "  {number:2} {step}"))
            }
        }
    }
}
