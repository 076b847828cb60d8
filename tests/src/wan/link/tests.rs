//! The model of one direction: exact where it is exact, and its bounds whatever is offered.

use proptest::prelude::*;

use super::*;
use crate::wan::quantity::Rate;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

fn settings(delay: &str, rate: &str, loss: &str, queue: Option<&str>) -> Settings {
    let queue = queue.map(|queue| queue.parse().unwrap());
    Settings { delay: delay.parse().unwrap(), rate: rate.parse().unwrap(), loss: loss.parse().unwrap(), queue }
}

fn link(delay: &str, rate: &str, loss: &str, queue: Option<&str>) -> Link {
    Link::new(settings(delay, rate, loss, queue), 1)
}

fn at(ns: u64) -> Moment {
    Moment::after_start_ns(ns)
}

#[test]
fn a_packet_arrives_after_the_delay_to_the_nanosecond() {
    let mut link = link("50ms", "unlimited", "0%", None);
    for now in [0, 1, 7 * MS, 7 * MS] {
        assert_eq!(link.offer(at(now), 1500), Verdict::DeliverAt(at(now + 50 * MS)));
    }
}

#[test]
fn a_packet_leaves_when_the_one_before_it_has_left() {
    let mut link = link("10ms", "12M", "0%", None);
    assert_eq!(link.offer(at(0), 1500), Verdict::DeliverAt(at(11 * MS)), "1500 bytes take 1 ms");
    assert_eq!(link.offer(at(0), 3000), Verdict::DeliverAt(at(13 * MS)));
    assert_eq!(link.offer(at(20 * MS), 1500), Verdict::DeliverAt(at(31 * MS)), "it has been idle");
}

#[test]
fn what_is_offered_to_a_full_queue_is_dropped_until_something_has_left() {
    let mut link = link("1s", "12M", "0%", Some("3000B"));
    for _ in 0..2 {
        assert!(matches!(link.offer(at(0), 1500), Verdict::DeliverAt(_)));
    }
    assert_eq!(link.offer(at(MS - 1), 1500), Verdict::Dropped(Reason::Queue));
    assert_eq!(link.offer(at(MS), 1500), Verdict::DeliverAt(at(SECOND + 3 * MS)));
}

#[test]
fn a_packet_larger_than_the_queue_passes_where_nothing_waits() {
    let mut link = link("0ms", "12M", "0%", Some("1000B"));
    assert_eq!(link.offer(at(0), 1500), Verdict::DeliverAt(at(MS)));
    assert_eq!(link.offer(at(0), 1), Verdict::Dropped(Reason::Queue));
    assert_eq!(link.offer(at(MS), 1500), Verdict::DeliverAt(at(2 * MS)));
}

#[test]
fn without_a_rate_what_is_in_flight_has_a_limit_all_the_same() {
    let mut link = link("1s", "unlimited", "0%", None);
    let packets = (0..).take_while(|_| link.offer(at(0), 1 << 20) != Verdict::Dropped(Reason::Limit)).count();
    assert_eq!(packets, 256);
    assert_eq!(link.in_flight(at(0)), InFlight { packets: 256, bytes: 256 << 20 });
    assert!(matches!(link.offer(at(SECOND), 1 << 20), Verdict::DeliverAt(_)));
    assert_eq!(link.in_flight(at(SECOND)).packets, 1);
}

#[test]
fn the_share_of_lost_packets_is_what_was_asked_for_and_a_seed_loses_the_same_ones() {
    let lost = |seed| -> Vec<bool> {
        let mut link = Link::new(settings("0ms", "unlimited", "1%", None), seed);
        (0..1_000_000).map(|now| link.offer(at(now), 100) == Verdict::Dropped(Reason::Loss)).collect()
    };
    let first = lost(1);
    let count = first.iter().filter(|&&is_lost| is_lost).count();
    assert!((9_500..=10_500).contains(&count), "{count} of a million, 10,000 were to be");
    assert_eq!(first, lost(1));
    assert_ne!(first, lost(2));
}

#[test]
fn a_cut_drops_what_is_in_flight_and_what_is_offered_and_a_healed_link_is_empty() {
    let mut link = link("50ms", "12M", "0%", None);
    for _ in 0..5 {
        link.offer(at(0), 1500);
    }
    assert_eq!(link.cut(at(MS)), 5);
    assert_eq!(link.offer(at(2 * MS), 1500), Verdict::Dropped(Reason::Cut));
    assert_eq!(link.cut(at(2 * MS)), 0);
    link.heal();
    assert_eq!(link.offer(at(3 * MS), 1500), Verdict::DeliverAt(at(54 * MS)), "nothing is before it");
}

#[test]
fn a_shorter_delay_lets_no_packet_overtake_another() {
    let mut link = link("50ms", "unlimited", "0%", None);
    assert_eq!(link.offer(at(0), 1500), Verdict::DeliverAt(at(50 * MS)));
    link.change(&Change { delay: "5ms".parse().ok(), ..Change::default() });
    assert_eq!(link.offer(at(MS), 1500), Verdict::DeliverAt(at(50 * MS)));
    assert_eq!(link.offer(at(46 * MS), 1500), Verdict::DeliverAt(at(51 * MS)));
}

#[test]
fn a_rate_counts_for_what_is_offered_from_then_on() {
    let mut link = link("0ms", "12M", "0%", None);
    assert_eq!(link.offer(at(0), 1500), Verdict::DeliverAt(at(MS)));
    link.change(&Change { rate: "120M".parse().ok(), ..Change::default() });
    assert_eq!(link.offer(at(0), 1500), Verdict::DeliverAt(at(MS + MS / 10)));
    link.change(&Change { rate: Some(Rate::UNLIMITED), ..Change::default() });
    assert_eq!(link.offer(at(0), 1500), Verdict::DeliverAt(at(MS + MS / 10)));
}

/// What is done to a link: so long after what was done before.
#[derive(Clone, Debug)]
enum Step {
    Offer { bytes: u64 },
    Delay(u64),
    Rate(u64),
    Cut,
    Heal,
}

fn step() -> impl Strategy<Value = (u64, Step)> {
    let step = prop_oneof![
        20 => (20..70_000_u64).prop_map(|bytes| Step::Offer { bytes }),
        1 => (0..100_u64).prop_map(Step::Delay),
        1 => (1..1000_u64).prop_map(Step::Rate),
        1 => Just(Step::Cut),
        3 => Just(Step::Heal),
    ];
    (0..5 * MS, step)
}

proptest! {
    #[test]
    fn whatever_is_done_order_delay_rate_and_queue_hold(
        steps in prop::collection::vec(step(), 1..300),
        queue in 1_000..500_000_u64,
    ) {
        let mut link = link("10ms", "100M", "5%", Some(&format!("{queue}B")));
        let (mut now, mut last) = (0, at(0));
        for (pause, step) in steps {
            now += pause;
            match step {
                Step::Offer { bytes } => {
                    if let Verdict::DeliverAt(arrives) = link.offer(at(now), bytes) {
                        let Settings { delay, rate, .. } = link.settings();
                        prop_assert!(arrives >= at(now + rate.time_ns(bytes) + delay.ns()), "too early");
                        prop_assert!(arrives >= last, "overtaken");
                        prop_assert!(link.queued_bytes <= queue.max(bytes), "too much waits");
                        last = arrives;
                    }
                }
                Step::Delay(ms) => link.change(&Change { delay: format!("{ms}ms").parse().ok(), ..Change::default() }),
                Step::Rate(mbit) => link.change(&Change { rate: format!("{mbit}M").parse().ok(), ..Change::default() }),
                Step::Cut => {
                    link.cut(at(now));
                    last = at(now);
                }
                Step::Heal => link.heal(),
            }
            link.validate();
        }
    }

    #[test]
    fn a_link_that_is_kept_busy_carries_exactly_its_rate(
        sizes in prop::collection::vec(40..66_000_u64, 2..200),
        mbit in 1..2_000_u64,
    ) {
        let mut link = link("0ms", &format!("{mbit}M"), "0%", Some("256MiB"));
        let mut last = at(0);
        for &bytes in &sizes {
            let Verdict::DeliverAt(arrives) = link.offer(at(0), bytes) else { panic!("it was dropped") };
            last = arrives;
        }
        let exact_ns = sizes.iter().sum::<u64>() * 8_000 / mbit;
        let most_ns = exact_ns + sizes.len() as u64 + 1;
        prop_assert!(last >= at(exact_ns) && last <= at(most_ns), "a packet is rounded by less than 1 ns");
    }
}
