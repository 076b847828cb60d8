//! Who writes when, and how much, over pipes in memory and by a clock that stands still while anybody has something to do.

use std::future::Future;
use std::io::IoSlice;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, Sink, duplex, sink};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::limits::{HOLDING_WRITE_BYTES, MAX_GRANT_BYTES, STARVED_AFTER, STARVED_INTERVAL, STUCK_AFTER, URGENT_HOLD};

mod schedules;

/// A connection on which nothing ever waits but for its turn.
fn open(links: &Links, node: u64, lane: Lane) -> Shaped<Sink> {
    on(links, node, lane, sink())
}

/// A connection whose other end takes so many bytes before they are read.
fn piped(links: &Links, node: u64, lane: Lane, bytes: usize) -> (Shaped<DuplexStream>, DuplexStream) {
    let (near, far) = duplex(bytes);
    (on(links, node, lane, near), far)
}

fn on<S>(links: &Links, node: u64, lane: Lane, stream: S) -> Shaped<S> {
    let mut shaped = Shaped::new(stream);
    shaped.join(links.member(NodeId(node), lane));
    shaped
}

/// How long it takes.
async fn time(what: impl Future) -> Duration {
    let begun = Instant::now();
    what.await;
    begun.elapsed()
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: usize) {
    stream.write_all(&vec![7; bytes]).await.expect("the other end is there");
}

/// A write in a task of its own, which nothing wakes but its turn; and how long it takes.
fn writing(mut stream: impl AsyncWrite + Unpin + Send + 'static, bytes: usize) -> JoinHandle<Duration> {
    tokio::spawn(async move { time(write(&mut stream, bytes)).await })
}

/// Writes for ever, 64 KiB at a time. Something has to hold it back, or the clock stands still for ever too.
fn flood(mut stream: impl AsyncWrite + Unpin + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            write(&mut stream, 64 << 10).await;
            // A pipe that takes everything would let nobody else run.
            yield_now().await;
        }
    })
}

/// A write of demand that goes on until its other end is read.
fn blocked_demand(links: &Links) -> (JoinHandle<()>, DuplexStream) {
    let (mut demand, far) = piped(links, 1, Lane::Demand, 1024);
    // It is polled in between, as HTTP/2 polls a connection for its own reasons.
    let polled = async move {
        let mut write = std::pin::pin!(write(&mut demand, 4096));
        while timeout(STUCK_AFTER / 3, &mut write).await.is_err() {}
    };
    (tokio::spawn(polled), far)
}

fn sent(links: &Links, link: u64, lane: Lane) -> u64 {
    let mut counters = links.counters().into_iter();
    counters
        .find(|counted| (counted.link, counted.lane) == (LinkId(link), lane))
        .map_or(0, |counted| counted.sent_bytes)
}

fn sent_by_all(links: &Links) -> u64 {
    links.counters().iter().map(|counted| counted.sent_bytes).sum()
}

fn assert_within_3_percent(bytes: u64, wanted: u64) {
    assert!((bytes * 100).abs_diff(wanted * 100) <= wanted * 3, "{bytes} bytes in place of {wanted}");
}

#[tokio::test(start_paused = true)]
async fn a_lane_waits_for_those_that_have_just_written_and_go_before_it() {
    for lane in Lane::ALL {
        for other in Lane::ALL {
            let links = Links::default();
            let (mut first, mut second) = (open(&links, 1, lane), open(&links, 1, other));
            write(&mut first, HOLDING_WRITE_BYTES).await;
            let wanted = if lane.goes_before(other) { URGENT_HOLD } else { Duration::ZERO };
            assert_eq!(time(write(&mut second, 1)).await, wanted, "{other} behind {lane}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_waits_for_those_whose_socket_is_full_and_go_before_it() {
    for lane in Lane::ALL {
        for other in Lane::ALL {
            let links = Links::default();
            let ((mut first, mut far), mut second) = (piped(&links, 1, lane, 1024), open(&links, 1, other));
            let blocked = tokio::spawn(async move { write(&mut first, 4096).await });
            yield_now().await;
            let held = timeout(STARVED_AFTER / 2, write(&mut second, 1)).await.is_err();
            assert_eq!(held, lane.goes_before(other), "{other} behind {lane}");
            far.read_exact(&mut [0; 4096]).await.expect("it is there");
            blocked.await.expect("it is written");
            assert_eq!(time(write(&mut second, 1)).await, Duration::ZERO, "{other} behind {lane}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_full_socket_goes_on_as_soon_as_it_is_empty() {
    let links = Links::default();
    let (blocked, mut far) = blocked_demand(&links);
    yield_now().await;
    let bulk = writing(open(&links, 1, Lane::Bulk), 1 << 20);
    sleep(Duration::from_millis(100)).await;
    far.read_exact(&mut [0; 4096]).await.expect("it is there");
    assert_eq!(bulk.await.expect("it is written"), Duration::from_millis(100));
    blocked.await.expect("it is written");
}

#[tokio::test(start_paused = true)]
async fn all_that_were_held_back_go_on_together() {
    let links = Links::default();
    let mut held: Vec<_> = (0..5).map(|_| open(&links, 1, Lane::Bulk)).collect();
    held.push(open(&links, 1, Lane::Sync));
    write(&mut open(&links, 1, Lane::Tail), 1).await;
    let mut demand = open(&links, 1, Lane::Demand);
    write(&mut demand, HOLDING_WRITE_BYTES).await;
    for write in held.into_iter().map(|stream| writing(stream, 100)).collect::<Vec<_>>() {
        assert_eq!(write.await.expect("it is written"), URGENT_HOLD);
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_message_of_demand_holds_nobody_back() {
    let links = Links::default();
    let (mut demand, mut bulk) = (open(&links, 1, Lane::Demand), open(&links, 1, Lane::Bulk));
    write(&mut demand, HOLDING_WRITE_BYTES - 1).await;
    assert_eq!(time(write(&mut bulk, 1 << 20)).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn demand_that_goes_on_and_on_leaves_the_others_little() {
    let links = Links::default();
    let (mut demand, bulk) = (open(&links, 1, Lane::Demand), flood(open(&links, 1, Lane::Bulk)));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        write(&mut demand, HOLDING_WRITE_BYTES).await;
        sleep(URGENT_HOLD / 2).await;
    }
    // Enough for pings: once in each quarter of a second, and no more.
    let fed = 20 * RECORD;
    let bytes = sent(&links, 1, Lane::Bulk);
    assert!((fed * 9 / 10..=fed).contains(&bytes), "{bytes} bytes in place of {fed}");
    bulk.abort();
}

#[tokio::test(start_paused = true)]
async fn of_many_that_starve_each_is_let_go_in_its_turn() {
    let links = Links::new(|_| LinkId(1));
    let (_blocked, mut far) = blocked_demand(&links);
    yield_now().await;
    let writes = (0..20).map(|node| writing(open(&links, node, Lane::Bulk), 3 * MAX_GRANT_BYTES));
    let writes: Vec<_> = writes.collect();
    // A byte now and then is progress enough.
    let reading = tokio::spawn(async move {
        while far.read_exact(&mut [0; 1]).await.is_ok() {
            sleep(STARVED_AFTER).await;
        }
    });
    for write in writes {
        let took = write.await.expect("it is written");
        let last_round = STARVED_AFTER + STARVED_INTERVAL * 40..=STARVED_AFTER + STARVED_INTERVAL * 60;
        assert!(last_round.contains(&took), "{took:?}");
    }
    reading.abort();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_stuck_holds_nobody_back_for_long() {
    let links = Links::default();
    let (_blocked, _far) = blocked_demand(&links);
    yield_now().await;
    let bulk = writing(open(&links, 1, Lane::Bulk), 10 << 20);
    sleep(STUCK_AFTER - Duration::from_millis(1)).await;
    assert!(sent(&links, 1, Lane::Bulk) <= 4 * RECORD);
    assert_eq!(bulk.await.expect("it is written"), STUCK_AFTER);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_ended_holds_nobody_back_at_all() {
    let links = Links::default();
    let (blocked, _far) = blocked_demand(&links);
    yield_now().await;
    let bulk = writing(open(&links, 1, Lane::Bulk), 1 << 20);
    sleep(Duration::from_millis(10)).await;
    blocked.abort();
    assert_eq!(bulk.await.expect("it is written"), Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn links_do_not_wait_for_one_another_and_nodes_of_one_link_do() {
    let links = Links::new(|node| LinkId(node.0 / 10));
    let mut demand = open(&links, 11, Lane::Demand);
    let (mut same, mut other) = (open(&links, 12, Lane::Bulk), open(&links, 21, Lane::Bulk));
    write(&mut demand, HOLDING_WRITE_BYTES).await;
    assert_eq!(time(write(&mut other, 1)).await, Duration::ZERO);
    assert_eq!(time(write(&mut same, 1)).await, URGENT_HOLD);
    let counted: Vec<LinkId> = links.counters().iter().map(|counted| counted.link).collect();
    assert_eq!(counted, [[LinkId(1); 6], [LinkId(2); 6]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_held_at_any_rate_and_by_any_number_of_connections() {
    for rate in [64 << 10, 300_000, 3 << 20, 125_000_000] {
        for connections in [1, 7] {
            let links = Links::new(|_| LinkId(1));
            links.set_limit(LinkId(1), Some(ByteRate(rate)));
            let floods: Vec<_> = (0..connections).map(|node| flood(open(&links, node, Lane::Bulk))).collect();
            sleep(Duration::from_secs(10)).await;
            // At the lowest rate, the record that is sent at once is as much as that again.
            assert_within_3_percent(sent_by_all(&links) - RECORD, rate * 10);
            floods.iter().for_each(JoinHandle::abort);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn connections_of_one_lane_share_a_limit_evenly() {
    let links = Links::default();
    links.set_limit(LinkId(1), Some(ByteRate(10 << 20)));
    let writes: Vec<_> = (0..10).map(|_| writing(open(&links, 1, Lane::Bulk), 1 << 20)).collect();
    for write in writes {
        let took = write.await.expect("it is written");
        assert!((970..=1030).contains(&took.as_millis()), "{took:?} of a second");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_held_in_every_short_time_too() {
    let (links, rate) = (Links::default(), 3 << 20);
    links.set_limit(LinkId(1), Some(ByteRate(rate)));
    let mut bulk = open(&links, 1, Lane::Bulk);
    // Idle for long, it has saved little.
    write(&mut bulk, 1).await;
    sleep(Duration::from_secs(10)).await;
    let bulk = flood(bulk);
    let mut samples = Vec::new();
    for _ in 0..500 {
        samples.push(sent_by_all(&links));
        sleep(Duration::from_millis(2)).await;
    }
    let burst = rate / 50 + RECORD;
    for width in [1, 5, 50, 400] {
        let allowed = rate * width as u64 * 2 / 1000 + burst + 1;
        let most = samples.windows(width + 1).map(|window| window[width] - window[0]).max().expect("windows");
        assert!(most <= allowed, "{most} of {allowed} bytes in {} ms", width * 2);
    }
    bulk.abort();
}

#[tokio::test(start_paused = true)]
async fn demand_is_never_delayed_and_bulk_has_the_rest() {
    let (links, rate) = (Links::default(), 1 << 20);
    links.set_limit(LinkId(1), Some(ByteRate(rate)));
    let bulk = flood(open(&links, 1, Lane::Bulk));
    let (mut demand, mut control) = (open(&links, 1, Lane::Demand), open(&links, 1, Lane::Control));
    for _ in 0..100 {
        assert_eq!(time(write(&mut demand, 64 << 10)).await, Duration::ZERO);
        assert_eq!(time(write(&mut control, 1 << 10)).await, Duration::ZERO);
        sleep(Duration::from_millis(100)).await;
    }
    assert_within_3_percent(sent_by_all(&links), rate * 10);
    assert_within_3_percent(sent(&links, 1, Lane::Bulk), rate * 10 - (6500 << 10));
    bulk.abort();
}

#[tokio::test(start_paused = true)]
async fn demand_beyond_the_limit_leaves_the_others_a_word() {
    let links = Links::default();
    links.set_limit(LinkId(1), Some(ByteRate(1 << 20)));
    let bulk = flood(open(&links, 1, Lane::Bulk));
    let mut demand = open(&links, 1, Lane::Demand);
    for _ in 0..1000 {
        write(&mut demand, 64 << 10).await;
        sleep(Duration::from_millis(10)).await;
    }
    let bytes = sent(&links, 1, Lane::Bulk);
    assert!((30 * RECORD..=42 * RECORD).contains(&bytes), "{bytes}");
    // And what it took is paid back for a second at most, and with it what the others had meanwhile.
    sleep(Duration::from_millis(1100)).await;
    let before = sent(&links, 1, Lane::Bulk);
    sleep(Duration::from_secs(1)).await;
    assert_within_3_percent(sent(&links, 1, Lane::Bulk) - before, 1 << 20);
    bulk.abort();
}

#[tokio::test(start_paused = true)]
async fn what_a_limit_leaves_is_for_the_most_urgent() {
    let (links, rate) = (Links::default(), 10 << 20);
    links.set_limit(LinkId(1), Some(ByteRate(rate)));
    let lanes = [Lane::Bulk, Lane::Prefetch, Lane::Sync, Lane::Tail];
    let floods: Vec<_> = lanes.iter().map(|lane| flood(open(&links, 1, *lane))).collect();
    for ended in (0..4).rev() {
        let before = lanes.map(|lane| sent(&links, 1, lane));
        sleep(Duration::from_secs(10)).await;
        let bytes = sent(&links, 1, lanes[ended]) - before[ended];
        assert!(bytes > rate * 10 * 94 / 100, "{} has {bytes} bytes", lanes[ended]);
        floods[ended].abort();
    }
    assert_within_3_percent(sent_by_all(&links), rate * 40);
}

#[tokio::test(start_paused = true)]
async fn another_limit_is_another_for_writes_that_wait() {
    let links = Links::default();
    for (limit, wanted) in [(None, Duration::ZERO), (Some(ByteRate(8 << 20)), Duration::from_millis(32))] {
        links.set_limit(LinkId(1), Some(ByteRate(1 << 18)));
        // A full second's debt.
        write(&mut open(&links, 1, Lane::Control), 1 << 20).await;
        let bulk = writing(open(&links, 1, Lane::Bulk), 1);
        sleep(Duration::from_millis(1)).await;
        links.set_limit(LinkId(1), limit);
        let waited = bulk.await.expect("it is written");
        let wanted = wanted + Duration::from_millis(1);
        // The clock rings at whole milliseconds.
        assert!(wanted.abs_diff(waited) <= Duration::from_millis(1), "{waited:?} in place of {wanted:?}");
        assert_eq!(links.limit(LinkId(1)), limit);
        links.set_limit(LinkId(1), None);
    }
    links.set_limit(LinkId(1), Some(ByteRate(0)));
    assert_eq!(links.limit(LinkId(1)), Some(crate::limits::MIN_LIMIT));
    assert_eq!(links.limit(LinkId(2)), None);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_given_up_stands_in_nobodys_way() {
    let links = Links::default();
    links.set_limit(LinkId(1), Some(ByteRate(1 << 20)));
    let (mut first, mut second) = (open(&links, 1, Lane::Tail), open(&links, 1, Lane::Bulk));
    write(&mut open(&links, 1, Lane::Control), 1 << 17).await;
    timeout(Duration::from_millis(1), write(&mut first, 1)).await.expect_err("it waits for the limit");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(time(write(&mut second, 1 << 20)).await.as_secs(), 0);
    assert_within_3_percent(sent_by_all(&links), (1 << 20) + (1 << 17));
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_all_slices_are_written_at_once_and_with_one_a_piece() {
    let links = Links::default();
    let mut bulk = open(&links, 1, Lane::Bulk);
    let record = [7; 12 << 10];
    let slices = [IoSlice::new(&[]), IoSlice::new(&record), IoSlice::new(&record)];
    assert_eq!(bulk.write_vectored(&slices).await.expect("it is written"), 2 * record.len());
    links.set_limit(LinkId(1), Some(ByteRate(1 << 20)));
    assert_eq!(bulk.write_vectored(&slices).await.expect("it is written"), record.len());
    assert_eq!(bulk.write_vectored(&slices[..2]).await.expect("it is written"), record.len());
    assert_eq!(bulk.write(&[7; 1 << 20]).await.expect("it is written"), MAX_GRANT_BYTES);
}

#[tokio::test]
async fn what_went_over_a_connection_is_counted_under_its_lane() {
    let links = Links::default();
    let (near, mut far) = duplex(1 << 10);
    let mut shaped = Shaped::new(near);
    write(&mut shaped, 10).await;
    far.write_all(&[0; 20]).await.expect("it is written");
    shaped.read_exact(&mut [0; 20]).await.expect("it is there");
    assert!(links.counters().is_empty());
    shaped.join(links.member(NodeId(3), Lane::Sync));
    write(&mut shaped, 100).await;
    far.write_all(&[0; 200]).await.expect("it is written");
    shaped.read_exact(&mut [0; 200]).await.expect("it is there");
    drop(shaped);
    let counted = links.counters().into_iter().filter(|counted| counted.sent_bytes > 0 || counted.received_bytes > 0);
    let wanted = LinkTraffic { link: LinkId(3), lane: Lane::Sync, sent_bytes: 110, received_bytes: 220 };
    assert_eq!(counted.collect::<Vec<_>>(), [wanted]);
}

const RECORD: u64 = MAX_GRANT_BYTES as u64;
