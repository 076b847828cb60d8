//! The model of sessions, ownership and handoff, explored as far as every run of the tests goes (`docs/reliability.md`).

use sterna_tests::model::explore::{self, Explored};

/// One after the other: each takes both cores, and a gigabyte.
#[test]
fn heavy_no_order_of_events_breaks_a_promise() {
    let mut all = vec![explore::explore_clocks(), explore::explore_in_sync()];
    all.extend(explore::short().into_iter().map(explore::explore));
    for explored in &all {
        print!("{explored}");
        assert!(explored.violation.is_none(), "{explored}");
        // A model in which little happens shows little.
        assert!(explored.states > 100_000 && explored.depth > 20, "{explored}");
    }
    let properties: usize = all.iter().map(|Explored { properties, .. }| properties.len()).sum();
    assert!(properties > all.len(), "the volume has more than one property");
}
