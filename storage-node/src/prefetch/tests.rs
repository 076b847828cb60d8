//! Guests that do again what they did before, about, and guests that do something else.

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::track::MOST_AHEAD_BLOCKS;
use super::*;
use crate::trace::Run;

/// `count` runs of eight blocks each, all over the place, the same for the same seed.
fn trace(seed: u64, count: u64) -> Arc<Trace> {
    let place = |number: u64| (number * 7919 + seed * 104_729) % 99_991 * 64;
    let run =
        |number| Run { at_ms: 10 * u32::try_from(number).expect("few"), blocks: place(number)..place(number) + 8 };
    Arc::new(Trace::of((0..count).map(run)))
}

/// Carries orders out at once, until there are no more: what was ordered.
fn orders(prefetch: &mut Prefetch, now_ms: u64) -> Vec<Order> {
    let mut orders = Vec::new();
    while let Some(order) = prefetch.order(now_ms) {
        prefetch.done(order.number, Outcome::WasHere, now_ms);
        orders.push(order);
    }
    orders
}

fn runs(orders: Vec<Order>) -> Vec<Range<u64>> {
    orders.into_iter().flat_map(|order| order.runs).collect()
}

#[test]
fn a_trace_is_recognised_by_three_touches_and_its_rest_is_ordered_ahead() {
    let trace = trace(1, 500);
    let mut prefetch = Prefetch::new([Arc::clone(&trace)], []);
    for run in &trace.runs()[10..12] {
        prefetch.touched(&run.blocks);
        assert_eq!((prefetch.order(0), prefetch.is_at_rest()), (None, true));
    }
    prefetch.touched(&trace.runs()[12].blocks);
    assert_eq!(prefetch.following(), Some(Following { trace: 0, at: 10, ordered_to: 10, runs: 500 }));
    let ordered = runs(orders(&mut prefetch, 0));
    let expected: Vec<_> = trace.runs()[13..13 + ordered.len()].iter().map(|run| run.blocks.clone()).collect();
    assert_eq!(ordered, expected, "in its order, without what was touched");
    assert_eq!(ordered.len(), 125, "4 MiB from where the guest is");
    for run in &trace.runs()[13..] {
        prefetch.touched(&run.blocks);
        orders(&mut prefetch, 0);
    }
    assert!(prefetch.is_at_rest(), "{:?}", prefetch.following());
}

#[test]
fn who_begins_as_a_trace_does_is_taken_to_go_on_with_it_unless_it_does_not() {
    let [trace, other] = [1, 2].map(|seed| trace(seed, 500));
    let mut prefetch = Prefetch::new([Arc::clone(&other), Arc::clone(&trace)], []);
    prefetch.touched(&trace.runs()[0].blocks);
    assert_eq!(prefetch.following(), Some(Following { trace: 1, at: 0, ordered_to: 0, runs: 500 }));
    let ordered: u64 = runs(orders(&mut prefetch, 0)).iter().map(|run| run.end - run.start).sum();
    assert!((1_000..=1_024).contains(&ordered), "{ordered}: 4 MiB, as long as the link is not known");
    let elsewhere: Vec<_> = (0..6).map(|number| 1 << 30 | number << 10).collect();
    let follows = elsewhere.iter().map(|at: &u64| {
        prefetch.touched(&(*at..at + 8));
        prefetch.following().is_some()
    });
    assert_eq!(follows.collect::<Vec<_>>(), [true, true, true, true, false, false]);
    // A second touch is no beginning.
    let mut prefetch = Prefetch::new([Arc::clone(&trace)], []);
    prefetch.touched(&(1 << 30..(1 << 30) + 8));
    prefetch.touched(&trace.runs()[0].blocks);
    assert_eq!(prefetch.following(), None);
}

#[test]
fn it_is_as_far_ahead_as_the_link_brings_in_some_seconds() {
    let trace = trace(1, 16_000);
    let ahead = |blocks_per_s: u64, touches: usize| {
        let mut prefetch = Prefetch::new([Arc::clone(&trace)], []);
        let (mut now_ms, mut ordered) = (0, 0);
        for run in &trace.runs()[..touches] {
            prefetch.touched(&run.blocks);
            while let Some(order) = prefetch.order(now_ms) {
                let blocks: u64 = order.runs.iter().map(|run| run.end - run.start).sum();
                now_ms += blocks * 1000 / blocks_per_s;
                prefetch.done(order.number, Outcome::Arrived, now_ms);
                ordered = prefetch.following().expect("it is followed").ordered_to;
            }
        }
        (ordered - touches) as u64 * 8
    };
    // 25 and 100 Mbit/s are about 760 and 3,050 blocks in a second.
    let (slow, fast) = (ahead(760, 40), ahead(3_050, 40));
    assert!((7_000..8_000).contains(&slow) && (29_000..31_500).contains(&fast), "ten seconds: {slow} and {fast}");
    let surer = ahead(760, 400);
    assert!((14_500..16_000).contains(&surer), "twenty seconds: {surer}");
    assert!(ahead(760, 4) <= 4 * 760, "who was just recognised");
    assert!(ahead(100_000, 400) <= MOST_AHEAD_BLOCKS);
}

#[test]
fn what_is_under_way_is_bounded() {
    let trace = trace(1, 16_000);
    let mut prefetch = Prefetch::new([Arc::clone(&trace)], []);
    trace.runs()[..3].iter().for_each(|run| prefetch.touched(&run.blocks));
    let first: Vec<_> = std::iter::from_fn(|| prefetch.order(0)).collect();
    let blocks: u64 = runs(first.clone()).iter().map(|run| run.end - run.start).sum();
    assert!(first.len() == 1 && blocks <= ORDER_BLOCKS, "{blocks} blocks in {} orders", first.len());
    // It has come in 50 ms: 5,120 blocks in a second.
    prefetch.done(first[0].number, Outcome::Arrived, 50);
    let more: Vec<_> = std::iter::from_fn(|| prefetch.order(50)).collect();
    let blocks: u64 = runs(more.clone()).iter().map(|run| run.end - run.start).sum();
    assert!((1..=MAX_ORDERS).contains(&more.len()) && blocks < 2_560 + ORDER_BLOCKS, "{blocks} in {}", more.len());
    assert!(more.iter().all(|order| order.runs.len() <= ORDER_RUNS));
}

#[test]
fn a_guest_that_departs_is_not_followed_and_one_that_comes_back_is() {
    let (trace, elsewhere) = (trace(1, 3_000), trace(7, 100));
    let mut prefetch = Prefetch::new([Arc::clone(&trace)], []);
    let mut touch = |run: &Run| {
        prefetch.touched(&run.blocks);
        (prefetch.following().is_some(), runs(orders(&mut prefetch, 0)))
    };
    trace.runs()[..100].iter().for_each(|run| drop(touch(run)));
    let departing: Vec<_> = elsewhere.runs().iter().map(|run| touch(run).0).collect();
    assert_eq!(departing.iter().filter(|is_followed| **is_followed).count(), 12, "{departing:?}");
    // It has passed some of it over.
    let (mut after, mut ordered) = (0, Vec::new());
    for run in &trace.runs()[1_000..1_020] {
        let (is_followed, more) = touch(run);
        after += u32::from(!is_followed);
        ordered.extend(more);
    }
    assert!(after <= 8, "{after} touches until it was recognised again");
    let first = trace.runs().iter().position(|run| run.blocks == ordered[0]);
    assert!(first >= Some(1_000 - 32), "{first:?}: what it has passed over is not brought");
}

#[test]
fn a_guest_in_no_trace_has_nothing_ordered_but_what_is_hot() {
    let mut prefetch = Prefetch::new([trace(1, 500)], [1_000..1_600, 5_000..5_064]);
    trace(9, 200).runs().iter().for_each(|run| prefetch.touched(&run.blocks));
    let order = prefetch.order(0).expect("an order");
    let is_first = |run: &Range<u64>| *run == (1_000..1_256);
    assert!(order.why == Why::Hot && order.runs.len() == 1 && order.runs.iter().all(is_first), "{order:?}");
    assert_eq!(prefetch.order(0), None, "one at a time");
    prefetch.done(order.number, Outcome::Arrived, 9);
    assert_eq!(runs(orders(&mut prefetch, 9)), [1_256..1_512, 1_512..1_600, 5_000..5_064]);
    assert!(prefetch.is_at_rest());
}

#[test]
fn what_a_trace_has_next_goes_before_what_is_hot() {
    let trace = trace(1, 500);
    let mut prefetch = Prefetch::new([Arc::clone(&trace)], vec![0..256; 9]);
    assert_eq!(prefetch.order(0).map(|order| order.why), Some(Why::Hot));
    trace.runs()[..3].iter().for_each(|run| prefetch.touched(&run.blocks));
    let whys: Vec<_> = std::iter::from_fn(|| prefetch.order(0)).map(|order| order.why).collect();
    assert!(!whys.is_empty() && whys.iter().all(|why| *why == Why::Trace), "{whys:?}");
    // Nor is anything hot brought while the guest is in the middle of it, and all that it needs next is there.
    (0..=whys.len() as u64).for_each(|number| prefetch.done(number, Outcome::WasHere, 0));
    assert!(orders(&mut prefetch, 0).iter().all(|order| order.why == Why::Trace));
    trace.runs()[3..].iter().for_each(|run| prefetch.touched(&run.blocks));
    assert_eq!(orders(&mut prefetch, 0).iter().filter(|order| order.why == Why::Hot).count(), 8);
}

#[test]
fn the_trace_that_the_guest_keeps_to_is_followed() {
    let (old, new) = (trace(1, 500), trace(2, 500));
    // Both begin alike.
    let both = Trace::of(old.runs()[..20].iter().chain(&new.runs()[20..]).cloned());
    let mut prefetch = Prefetch::new([Arc::new(both), Arc::clone(&old)], []);
    old.runs()[..20].iter().for_each(|run| prefetch.touched(&run.blocks));
    assert_eq!(prefetch.following().map(|following| following.trace), Some(0), "the newest");
    old.runs()[20..30].iter().for_each(|run| prefetch.touched(&run.blocks));
    assert_eq!(prefetch.following().map(|following| following.trace), Some(1));
}

#[test]
fn what_has_failed_is_ordered_again_a_little_later() {
    let trace = trace(1, 500);
    let mut prefetch = Prefetch::new([Arc::clone(&trace)], []);
    trace.runs()[..3].iter().for_each(|run| prefetch.touched(&run.blocks));
    let order = prefetch.order(0).expect("an order");
    prefetch.done(order.number, Outcome::Failed, 100);
    assert_eq!(prefetch.order(1_099), None);
    let again = prefetch.order(1_100).expect("an order");
    assert_eq!((again.runs, again.number), (order.runs, 1));
    // What nobody has ordered has no end.
    prefetch.done(77, Outcome::Failed, 0);
}

proptest! {
    #[test]
    fn a_guest_that_does_about_the_same_again_is_followed_to_the_end(
        swaps in prop::collection::vec((0usize..1_000, 1usize..12), 0..200),
        left_out in prop::collection::vec(0usize..1_000, 0..150),
        between in prop::collection::vec(10usize..1_000, 0..150),
    ) {
        let trace = trace(1, 1_000);
        let mut order: Vec<_> = (0..1_000).collect();
        swaps.into_iter().for_each(|(at, by)| order.swap(at, (at + by).min(999)));
        let mut prefetch = Prefetch::new([Arc::clone(&trace)], []);
        let (mut brought, mut late) = (vec![false; 1_000], 0);
        for number in order {
            if !left_out.contains(&number) {
                late += u32::from(!brought[number]);
                prefetch.touched(&trace.runs()[number].blocks);
            }
            if between.contains(&number) {
                prefetch.touched(&(1 << 30..(1 << 30) + 1));
            }
            for run in runs(orders(&mut prefetch, 0)) {
                let number = trace.runs().iter().position(|other| other.blocks == run).expect("a run of the trace");
                prop_assert!(!std::mem::replace(&mut brought[number], true), "run {} is ordered twice", number);
            }
        }
        prop_assert!(late <= 40, "{} of 1,000 runs were touched before they were ordered", late);
    }

    #[test]
    fn whatever_comes_the_bounds_hold_and_nothing_is_ordered_that_is_not_known(
        events in prop::collection::vec((0u64..600, 0u8..8, 0u64..2_000, any::<bool>()), 0..300),
    ) {
        let traces = [trace(1, 300), trace(2, 300)];
        let hot = 0..500_u64;
        let mut prefetch = Prefetch::new(traces.clone(), [hot.clone()]);
        let (mut now_ms, mut under_way) = (0, Vec::<Order>::new());
        for (number, what, pause_ms, is_well) in events {
            now_ms += pause_ms;
            let known = traces[usize::try_from(number % 2).expect("two")].runs().get(usize::try_from(number / 2).expect("few"));
            match what {
                0..4 => prefetch.touched(&known.expect("a run").blocks),
                4 => prefetch.touched(&(number..number + 300)),
                5 if !under_way.is_empty() => {
                    let order = under_way.remove(0);
                    let outcome = if is_well { Outcome::Arrived } else { Outcome::Failed };
                    prefetch.done(order.number, outcome, now_ms);
                }
                _ => under_way.extend(prefetch.order(now_ms)),
            }
            prop_assert!(under_way.len() <= MAX_ORDERS);
            for order in &under_way {
                let is_known = |run: &Range<u64>| match order.why {
                    Why::Trace => traces.iter().any(|trace| trace.runs().iter().any(|other| other.blocks == *run)),
                    Why::Hot => hot.start <= run.start && run.end <= hot.end,
                };
                prop_assert!(!order.runs.is_empty() && order.runs.iter().all(is_known), "{:?}", order);
            }
            let mut runs: Vec<_> = runs(under_way.clone()).into_iter().map(|run| (run.start, run.end)).collect();
            runs.sort_unstable();
            runs.dedup();
            prop_assert_eq!(runs.len(), under_way.iter().map(|order| order.runs.len()).sum::<usize>());
        }
    }
}
