//! What has to hold in every state (design section 5). Each of them is a line in `docs/reliability.md`.

use stateright::Property;

use super::explore::Volume;
use super::recover;
use super::volume::{At, State, Writes};

/// All of them.
pub fn properties() -> Vec<Property<Volume>> {
    vec![
        Property::always("at most one node acknowledges", |_, state| one_node_acknowledges(state)),
        Property::always("an epoch has one writer", |_, state| an_epoch_has_one_writer(state)),
        Property::always("epochs, handoffs and sessions never fall", |_, state: &State| !state.history.has_fallen),
        Property::always("who serves has all that was acknowledged", |_, state| who_serves_has_everything(state)),
        Property::always("what was reported as lost does not come back", |_, state| what_is_lost_stays_lost(state)),
        Property::always("what is published was acknowledged", |_, state| published_was_acknowledged(state)),
        Property::always("the volume ends up served", |_, state| recover::ends_up_served(state)),
    ]
}

/// At most one node acknowledges writes of the volume at any time.
fn one_node_acknowledges(state: &State) -> bool {
    At::all().filter(|at| state.serves(*at).is_some()).count() <= 1
}

/// No two nodes have ever acknowledged writes in the same epoch: so what was published in one is all of one writer.
fn an_epoch_has_one_writer(state: &State) -> bool {
    state.history.writers.iter().all(|writers| writers.count() <= 1)
}

/// Every write that was acknowledged is there for whoever serves, handed off or aborted, but for what a failover has reported.
fn who_serves_has_everything(state: &State) -> bool {
    let due = state.history.acknowledged.without(state.history.lost);
    let mut serving = At::all().filter(|at| state.serves(*at).is_some());
    serving.all(|at| state.node(at).contents.writes.has(due))
}

/// Nothing of a superseded epoch is mixed into a later one: a root that is published under an old epoch is refused.
fn what_is_lost_stays_lost(state: &State) -> bool {
    let lost = |writes: Writes| writes.without(state.history.lost) != writes;
    let mut serving = At::all().filter(|at| state.serves(*at).is_some());
    !lost(state.metadata.published) && !serving.any(|at| lost(state.node(at).contents.writes))
}

fn published_was_acknowledged(state: &State) -> bool {
    state.history.acknowledged.has(state.metadata.published)
}
