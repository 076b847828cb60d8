//! What every [`BlockDevice`] has to do, whatever keeps its bytes: a file, memory, a volume, or another machine over NBD.
//!
//! [`run`] takes a maker of fresh, all-zero devices and panics with a sentence where one breaks the contract of
//! [`crate::device`]. What a crash may and may not lose is not for this suite to say: it kills nobody.

use bytes::Bytes;

use super::{Allocation, BlockDevice, DeviceError, Inline, Persistence, ReadData, ReadOutcome, StatusRun, ZeroRequest};
use crate::limits::MAX_STATUS_RUNS;
use crate::units::{BLOCK_SIZE, ByteOffset, ByteRange, ByteSize, SEGMENT_SIZE};

/// Runs the whole suite; `fresh` makes a device of the given size that reads as zeroes.
///
/// # Panics
/// Where a device breaks the contract.
pub async fn run<D: BlockDevice>(mut fresh: impl FnMut(ByteSize) -> D) {
    let size = ByteSize(3 * SEGMENT_SIZE);
    let geometry = fresh(size).geometry();
    assert_eq!(geometry.size, size, "a device has the size it was made with");
    assert!(geometry.minimum_io_bytes.is_power_of_two() && geometry.minimum_io_bytes <= 64 << 10);
    assert!(geometry.preferred_io_bytes.is_power_of_two() && geometry.preferred_io_bytes >= 512);
    reads_as_zeroes_at_first(&fresh(size)).await;
    takes_empty_requests(&fresh(size)).await;
    refuses_what_reaches_beyond_it(&fresh(size)).await;
    tells_its_allocation(&fresh(size)).await;
    zeroes_in_every_way_it_is_asked_to(&fresh(size)).await;
    never_mixes_two_writes_of_a_block(&fresh(size)).await;
    for seed in 1..=4 {
        agrees_with_an_array(&fresh(size), seed, 400).await;
    }
}

/// Checks that every kind of change is refused, and with which error; reads and flushes go on.
///
/// # Panics
/// Where a change is taken, or refused with another error.
pub async fn refuses_changes(device: &impl BlockDevice, expected: impl Fn(&DeviceError) -> bool) {
    let range = range(0, 4096);
    let zero = ZeroRequest { range, keep_allocated: false, only_if_fast: false, persistence: Persistence::AtNextFlush };
    let write = device.write(ByteOffset(0), Bytes::from_static(&[1; 4096]), Persistence::AtNextFlush).await;
    let inline = match device.try_write(ByteOffset(0), &[1; 512], Persistence::AtNextFlush) {
        Inline::Done(result) => result,
        Inline::Later => device.write(ByteOffset(0), Bytes::from_static(&[1; 512]), Persistence::Durable).await,
    };
    let zeroed = device.write_zeroes(zero).await;
    let trimmed = device.trim(range, Persistence::Durable).await;
    for result in [write, inline, zeroed, trimmed] {
        let error = result.expect_err("a change that was to be refused");
        assert!(expected(&error), "refused with another error: {error:?}");
    }
    assert_eq!(read(device, range).await, vec![0; 4096]);
    device.flush().await.expect("a flush of nothing");
}

fn range(start: u64, length: u64) -> ByteRange {
    ByteRange::new(ByteOffset(start), length).expect("a range of a test")
}

/// Reads in both ways, and checks that they agree.
async fn read(device: &impl BlockDevice, range: ByteRange) -> Vec<u8> {
    let length = usize::try_from(range.length()).expect("a length of a test");
    let slow = match device.read(range).await.expect("a read within the device") {
        ReadData::Bytes(bytes) => bytes.to_vec(),
        ReadData::Zeroes => vec![0; length],
    };
    assert_eq!(slow.len(), length, "a read returns as much as was asked for");
    let mut fast = vec![0xee; length];
    match device.try_read(range.start(), &mut fast) {
        Inline::Done(Ok(ReadOutcome::Filled)) => assert!(fast == slow, "both ways of reading {range} agree"),
        Inline::Done(Ok(ReadOutcome::Zeroes)) => assert!(slow.iter().all(|&b| b == 0), "{range} was said to be zeroes"),
        Inline::Done(Err(error)) => panic!("reading {range} at once failed, and succeeded otherwise: {error}"),
        Inline::Later => {}
    }
    slow
}

async fn write(device: &impl BlockDevice, at: u64, data: &[u8], inline: bool, persistence: Persistence) {
    if inline && let Inline::Done(result) = device.try_write(ByteOffset(at), data, persistence) {
        return result.expect("a write within the device");
    }
    let data = Bytes::copy_from_slice(data);
    device.write(ByteOffset(at), data, persistence).await.expect("a write within the device");
}

async fn reads_as_zeroes_at_first(device: &impl BlockDevice) {
    let size = device.geometry().size.0;
    for (start, length) in [(0, 4096), (1, 1), (size - 1, 1), (SEGMENT_SIZE - 7, 4096 + 14), (0, size)] {
        let bytes = read(device, range(start, length)).await;
        assert!(bytes.iter().all(|&byte| byte == 0), "a fresh device reads as zeroes");
    }
}

async fn takes_empty_requests(device: &impl BlockDevice) {
    let size = device.geometry().size.0;
    for at in [0, 5, size] {
        assert!(read(device, range(at, 0)).await.is_empty());
        write(device, at, &[], false, Persistence::Durable).await;
        device.trim(range(at, 0), Persistence::AtNextFlush).await.expect("an empty trim");
        device.prefetch(range(at, 0)).await.expect("an empty hint");
        assert!(device.allocation(range(at, 0), 1).await.is_err(), "nothing has no allocation");
    }
    device.flush().await.expect("a flush of nothing");
}

async fn refuses_what_reaches_beyond_it(device: &impl BlockDevice) {
    fn refused<T>(result: Result<T, DeviceError>) {
        match result {
            Err(DeviceError::OutOfRange { .. }) => {}
            Err(other) => panic!("a request beyond the device failed with another error: {other:?}"),
            Ok(_) => panic!("a request beyond the device was taken"),
        }
    }
    let size = device.geometry().size.0;
    for beyond in [range(size - 1, 2), range(size, 1), range(0, size + 1), range(u64::MAX - 4, 4)] {
        let length = usize::try_from(beyond.length()).expect("a length of a test");
        refused(device.read(beyond).await);
        if let Inline::Done(result) = device.try_read(beyond.start(), &mut vec![0; length]) {
            refused(result);
        }
        let data = vec![0xff; length];
        if let Inline::Done(result) = device.try_write(beyond.start(), &data, Persistence::AtNextFlush) {
            refused(result);
        }
        refused(device.write(beyond.start(), data.into(), Persistence::AtNextFlush).await);
        refused(device.trim(beyond, Persistence::AtNextFlush).await);
        refused(device.prefetch(beyond).await);
        refused(device.allocation(beyond, 1).await);
        refused(device.residency(beyond, 1).await);
        for only_if_fast in [false, true] {
            let persistence = Persistence::AtNextFlush;
            let request = ZeroRequest { range: beyond, keep_allocated: false, only_if_fast, persistence };
            refused(device.write_zeroes(request).await);
        }
    }
    assert!(read(device, range(0, size)).await.iter().all(|&byte| byte == 0), "a refused request changes nothing");
}

async fn tells_its_allocation(device: &impl BlockDevice) {
    let size = device.geometry().size.0;
    write(device, SEGMENT_SIZE, &[1; 8192], false, Persistence::AtNextFlush).await;
    write(device, size - 4096, &[2; 4096], false, Persistence::AtNextFlush).await;
    device.flush().await.expect("a flush");
    for (asked, most) in [(range(0, size), MAX_STATUS_RUNS), (range(0, size), 1), (range(SEGMENT_SIZE + 100, 5000), 9)]
    {
        let runs = device.allocation(asked, most).await.expect("the allocation of a part of the device");
        check_runs(&runs, asked, most);
        let residency = device.residency(asked, most).await.expect("the residency of a part of the device");
        check_runs(&residency, asked, most);
        let mut at = asked.start().0;
        for run in runs {
            if run.status == Allocation::Hole {
                let bytes = read(device, range(at, run.length)).await;
                assert!(bytes.iter().all(|&byte| byte == 0), "a hole reads as zeroes");
            }
            at += run.length;
        }
    }
}

fn check_runs<T: PartialEq + std::fmt::Debug>(runs: &[StatusRun<T>], asked: ByteRange, most: usize) {
    assert!(!runs.is_empty() && runs.len() <= most, "{} runs where 1 to {most} were asked for", runs.len());
    assert!(runs.iter().all(|run| run.length > 0), "no run is empty");
    assert!(runs.windows(2).all(|pair| pair[0].status != pair[1].status), "neighbours differ: {runs:?}");
    let covered: u64 = runs.iter().map(|run| run.length).sum();
    assert!(covered <= asked.length(), "the runs of {asked} cover {covered} bytes");
}

async fn zeroes_in_every_way_it_is_asked_to(device: &impl BlockDevice) {
    let around = range(BLOCK_SIZE, 6 * BLOCK_SIZE);
    for keep_allocated in [false, true] {
        for only_if_fast in [false, true] {
            for target in [range(2 * BLOCK_SIZE, 2 * BLOCK_SIZE), range(2 * BLOCK_SIZE + 10, 5000)] {
                write(device, around.start().0, &[9; 6 * 4096], false, Persistence::AtNextFlush).await;
                let persistence = Persistence::Durable;
                let request = ZeroRequest { range: target, keep_allocated, only_if_fast, persistence };
                let zeroed = match device.write_zeroes(request).await {
                    Ok(()) => true,
                    Err(DeviceError::NotFaster) if only_if_fast => false,
                    Err(error) => panic!("zeroing failed: {error}"),
                };
                let bytes = read(device, around).await;
                for (at, byte) in (around.start().0..).zip(bytes) {
                    let inside = (target.start().0..target.end().0).contains(&at);
                    assert_eq!(byte, if inside && zeroed { 0 } else { 9 }, "byte {at:#x} after {request:?}");
                }
            }
        }
    }
}

async fn never_mixes_two_writes_of_a_block(device: &impl BlockDevice) {
    for round in 0..16 {
        let (one, two) = (Bytes::from(vec![1 + 2 * round; 4096]), Bytes::from(vec![2 + 2 * round; 4096]));
        let first = device.write(ByteOffset(BLOCK_SIZE), one, Persistence::AtNextFlush);
        let second = device.write(ByteOffset(BLOCK_SIZE), two, Persistence::AtNextFlush);
        let (first, second) = futures_join(first, second).await;
        first.and(second).expect("two writes within the device");
        let bytes = read(device, range(BLOCK_SIZE, BLOCK_SIZE)).await;
        assert!(bytes.iter().all(|&byte| byte == bytes[0]), "two writes of one block were mixed");
        assert!([1 + 2 * round, 2 + 2 * round].contains(&bytes[0]), "a block holds what nobody wrote");
    }
}

/// Polls both to their ends, in turn.
async fn futures_join<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    use std::task::Poll;
    let (mut a, mut b) = (Box::pin(a), Box::pin(b));
    let (mut a_done, mut b_done) = (None, None);
    std::future::poll_fn(move |cx| {
        if a_done.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(cx)
        {
            a_done = Some(value);
        }
        if b_done.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(cx)
        {
            b_done = Some(value);
        }
        match (a_done.take(), b_done.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (a_done, b_done) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

/// Any sequence of operations leaves the device as it leaves an array of bytes.
async fn agrees_with_an_array(device: &impl BlockDevice, seed: u64, steps: usize) {
    let size = device.geometry().size.0;
    let mut array = vec![0u8; usize::try_from(size).expect("a size of a test")];
    let mut dice = Dice(seed);
    for step in 0..steps {
        let start = dice.below(size);
        let longest = if dice.below(8) == 0 { size - start } else { (size - start).min(20_000) };
        let mut target = range(start, dice.below(longest + 1));
        if dice.below(2) == 0 {
            let start = target.start().0 / BLOCK_SIZE * BLOCK_SIZE;
            target = range(start, (target.length() / BLOCK_SIZE * BLOCK_SIZE).min(size - start));
        }
        let place = place(target);
        let persistence = if dice.below(4) == 0 { Persistence::Durable } else { Persistence::AtNextFlush };
        match dice.below(8) {
            0..=3 => {
                let fill = dice.next().to_le_bytes();
                let data: Vec<u8> = fill.iter().copied().cycle().take(place.len()).collect();
                write(device, target.start().0, &data, dice.below(2) == 0, persistence).await;
                array[place].copy_from_slice(&data);
            }
            4 => {
                device.trim(target, persistence).await.expect("a trim within the device");
                array[place].fill(0);
            }
            5 => {
                let keep_allocated = dice.below(2) == 0;
                let request = ZeroRequest { range: target, keep_allocated, only_if_fast: false, persistence };
                device.write_zeroes(request).await.expect("zeroing within the device");
                array[place].fill(0);
            }
            6 => device.flush().await.expect("a flush"),
            _ => device.prefetch(target).await.expect("a hint within the device"),
        }
        let look = range(target.start().0, target.length().max(1).min(size - target.start().0));
        assert!(read(device, look).await == array[self::place(look)], "seed {seed}, step {step}: {look} differ");
    }
    assert!(read(device, range(0, size)).await == array, "seed {seed}: the device differs from the array at the end");
}

fn place(range: ByteRange) -> std::ops::Range<usize> {
    let index = |offset: ByteOffset| usize::try_from(offset.0).expect("an offset of a test");
    index(range.start())..index(range.end())
}

/// A small deterministic source of numbers (Marsaglia, "Xorshift RNGs", 2003): the suite replays exactly.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
