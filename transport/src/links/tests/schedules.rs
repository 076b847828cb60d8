//! Random connections that write, pause, are read slowly or dropped, under limits that come and go.

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest};
use proptest::sample::select;

use super::*;

/// One connection and what happens on it.
#[derive(Clone, Debug)]
struct Course {
    lane: Lane,
    node: u64,
    /// What its other end takes before it is read.
    pipe_bytes: usize,
    /// So many bytes, after so many milliseconds.
    writes: Vec<(usize, u64)>,
    /// What is read at a time, and the milliseconds after it.
    read_bytes: usize,
    read_pause_ms: u64,
    /// Whether it is dropped with a write under way.
    dropped: bool,
}

fn courses() -> impl Strategy<Value = Vec<Course>> {
    let writes = proptest::collection::vec((0_usize..50_000, 0_u64..5), 1..6);
    let ends = (1_usize..40_000, 2_000_usize..40_000, 0_u64..4);
    let course = (select(Lane::ALL.to_vec()), 0_u64..2, ends, writes, any::<bool>());
    let course = course.prop_map(|(lane, node, (pipe_bytes, read_bytes, read_pause_ms), writes, dropped)| Course {
        lane,
        node,
        pipe_bytes,
        writes,
        read_bytes,
        read_pause_ms,
        dropped,
    });
    proptest::collection::vec(course, 1..10)
}

/// A limit, and for how many milliseconds it is kept.
fn limits() -> impl Strategy<Value = Vec<(Option<ByteRate>, u64)>> {
    let limit = prop_oneof![Just(None), (1_u64 << 20..1 << 30).prop_map(|rate| Some(ByteRate(rate)))];
    proptest::collection::vec((limit, 0_u64..50), 0..5)
}

impl Course {
    fn bytes(&self) -> usize {
        self.writes.iter().map(|(bytes, _)| bytes).sum()
    }

    /// How long it takes if it never waits for a turn.
    fn alone(&self) -> Duration {
        let pauses: u64 = self.writes.iter().map(|(_, pause_ms)| pause_ms).sum();
        // A read may have found a single byte of each write.
        let reads = self.bytes() / self.read_bytes.min(self.pipe_bytes) + 2 * self.writes.len() + 1;
        Duration::from_millis(pauses + reads as u64 * self.read_pause_ms)
    }

    async fn write(self, mut stream: Shaped<DuplexStream>) {
        let mut at = 0;
        for (bytes, pause_ms) in self.writes {
            sleep(Duration::from_millis(pause_ms)).await;
            let piece: Vec<u8> = (at..at + bytes).map(byte_at).collect();
            stream.write_all(&piece).await.expect("the other end is there");
            at += bytes;
        }
        if self.dropped {
            let _ = timeout(Duration::from_millis(1), stream.write_all(&vec![0; 1 << 20])).await;
        }
    }

    /// Reads to the end, and returns how much of it was what was written.
    async fn read(self, mut stream: DuplexStream) -> usize {
        let (mut read, mut buffer) = (0, vec![0; self.read_bytes]);
        loop {
            let bytes = stream.read(&mut buffer).await.expect("the other end is there");
            let ours = bytes.min(self.bytes() - read);
            assert!((read..read + ours).map(byte_at).eq(buffer[..ours].iter().copied()), "after {read} bytes");
            read += ours;
            if bytes == 0 {
                return read;
            }
            sleep(Duration::from_millis(self.read_pause_ms)).await;
        }
    }
}

/// What is written at a place of any connection.
fn byte_at(place: usize) -> u8 {
    (place.wrapping_mul(0x9e37_79b9) >> 13).to_le_bytes()[0]
}

/// Has all of it happen, and returns how long that took, and what arrived of each.
async fn run(courses: &[Course], limits: Vec<(Option<ByteRate>, u64)>) -> (Duration, Vec<usize>) {
    let (links, begun) = (Links::new(|_| LinkId(1)), Instant::now());
    let tasks = courses.iter().map(|course| {
        let (near, far) = piped(&links, course.node, course.lane, course.pipe_bytes);
        tokio::spawn(course.clone().write(near));
        tokio::spawn(course.clone().read(far))
    });
    let tasks: Vec<_> = tasks.collect();
    for (limit, kept_ms) in limits {
        links.set_limit(LinkId(1), limit);
        sleep(Duration::from_millis(kept_ms)).await;
    }
    let mut arrived = Vec::new();
    for task in tasks {
        arrived.push(task.await.expect("no panic"));
    }
    let (sent, held) = (sent_by_all(&links), begun.elapsed());
    assert!(sent >= arrived.iter().sum::<usize>() as u64);
    (held, arrived)
}

proptest! {
    #[test]
    fn all_that_is_written_arrives_in_order_and_in_time(courses in courses(), limits in limits()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let (took, arrived) = runtime.block_on(run(&courses, limits.clone()));
        prop_assert!(arrived.into_iter().eq(courses.iter().map(Course::bytes)));

        // One after the other, each write followed by the longest hold, at the lowest rate.
        let lowest = limits.iter().filter_map(|(limit, _)| *limit).min().unwrap_or(ByteRate(u64::MAX));
        let alone: Duration = courses.iter().map(Course::alone).sum();
        let bytes: usize = courses.iter().map(|course| course.bytes() + (1 << 20)).sum();
        let limited = Duration::from_secs_f64(bytes as f64 / lowest.0 as f64) * 2;
        let held: Duration = courses.iter().flat_map(|course| &course.writes).map(|_| URGENT_HOLD * 2).sum();
        let kept: Duration = limits.iter().map(|(_, kept_ms)| Duration::from_millis(*kept_ms)).sum();
        let allowed = alone + kept + limited + held + Duration::from_millis(100);
        prop_assert!(took <= allowed, "{took:?} of {allowed:?}");
    }
}
