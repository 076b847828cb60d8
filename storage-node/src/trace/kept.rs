//! The traces that are kept with a volume, and their bytes: sent ahead of it where it goes, and given to its clones.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | `STtr` |
//! | 1 | version: 1 |
//! | 1 | traces, at most 4, the newest first |
//! | | each trace: after how many attaches it came, and its runs, two numbers; then the runs, three numbers each: milliseconds since the run before, its first block less the end of the run before, its blocks less one |
//!
//! Numbers are in groups of seven bits, the lowest first, each but the last with the highest bit set, in as few groups as can be. The
//! difference of blocks has its sign in the lowest bit. There are at most 256 KiB.

use std::sync::Arc;

use super::{MAX_BLOCKS, MAX_RUN_BLOCKS, MAX_RUNS, MAX_TRACE_MS, Run, Trace};

/// A few traces that differ, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    kept: Vec<Kept>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    trace: Arc<Trace>,
    /// After how many attaches it came.
    times: u32,
}

/// Bytes that are no traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTraces {
    /// There is no such format, or a later program has made it.
    #[error("what they begin with is not known here")]
    Header,
    /// There are more of them, or longer ones, than there can be.
    #[error("{what} are more than there can be")]
    Many {
        /// What there is too much of.
        what: &'static str,
    },
    /// They end before they are complete, or go on behind their end.
    #[error("they do not end where they should")]
    Length,
    /// A number that is not written as it should be, or beyond what it can be.
    #[error("run {run} of trace {trace} is none")]
    Run {
        /// Which trace, from 0.
        trace: usize,
        /// Which of its runs, from 0.
        run: usize,
    },
}

impl Traces {
    /// Takes a trace in, in place of one of which it has the greater part; else in place of one that came after the fewest attaches, the
    /// oldest of these, where there is no room. One that says little is left out, and one that has stopped early is for the one that it
    /// began as.
    pub fn add(&mut self, trace: Trace) {
        if !trace.is_telling() {
            return;
        }
        let count = trace.block_count();
        let like = |kept: &Kept| {
            let (shared, before) = (kept.trace.shared_blocks(&trace), kept.trace.block_count());
            2 * shared >= count.min(before)
        };
        let new = match self.kept.iter().position(like) {
            Some(at) => {
                let Kept { trace: before, times } = self.kept.remove(at);
                let trace = if 2 * count < before.block_count() { before } else { Arc::new(trace) };
                Kept { trace, times: times.saturating_add(1) }
            }
            None => Kept { trace: Arc::new(trace), times: 1 },
        };
        if self.kept.len() == MAX_TRACES {
            self.drop_one();
        }
        self.kept.insert(0, new);
    }

    /// The traces, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Trace>> {
        self.kept.iter().map(|kept| &kept.trace)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// They as bytes, at most [`MAX_KEPT_BYTES`]: without those that came after the fewest attaches, where it would be more.
    pub fn encode(&self) -> Vec<u8> {
        let mut all = self.clone();
        loop {
            let bytes = all.encode_all();
            if bytes.len() <= MAX_KEPT_BYTES {
                return bytes;
            }
            all.drop_one();
        }
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`InvalidTraces`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidTraces> {
        if bytes.len() > MAX_KEPT_BYTES {
            return Err(InvalidTraces::Many { what: "their bytes" });
        }
        let Some((header, mut rest)) = bytes.split_first_chunk::<5>() else { return Err(InvalidTraces::Header) };
        if header[..4] != MAGIC || header[4] != VERSION {
            return Err(InvalidTraces::Header);
        }
        let count = take_byte(&mut rest).map(usize::from).ok_or(InvalidTraces::Length)?;
        if count > MAX_TRACES {
            return Err(InvalidTraces::Many { what: "the traces" });
        }
        let kept = (0..count).map(|trace| parse_one(trace, &mut rest)).collect::<Result<_, _>>()?;
        if rest.is_empty() { Ok(Self { kept }) } else { Err(InvalidTraces::Length) }
    }

    fn encode_all(&self) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &[VERSION, u8::try_from(self.kept.len()).unwrap_or(u8::MAX)]].concat();
        for Kept { trace, times } in &self.kept {
            put(&mut bytes, (*times).into());
            put(&mut bytes, trace.runs.len() as u64);
            let (mut at_ms, mut end) = (0, 0_u64);
            for run in &trace.runs {
                put(&mut bytes, (run.at_ms - at_ms).into());
                put(&mut bytes, signed(run.blocks.start, end));
                put(&mut bytes, run.block_count() - 1);
                (at_ms, end) = (run.at_ms, run.blocks.end);
            }
        }
        bytes
    }

    /// Drops the oldest of those that came after the fewest attaches, but never the newest one of several.
    fn drop_one(&mut self) {
        let candidates = self.kept.iter().enumerate().skip(usize::from(self.kept.len() > 1));
        if let Some(at) = candidates.rev().min_by_key(|(_, kept)| kept.times).map(|(at, _)| at) {
            self.kept.remove(at);
        }
    }
}

fn parse_one(trace: usize, rest: &mut &[u8]) -> Result<Kept, InvalidTraces> {
    let number = |rest: &mut &[u8], run: usize| match take(rest) {
        Some(number) => Ok(number),
        None if rest.is_empty() => Err(InvalidTraces::Length),
        None => Err(InvalidTraces::Run { trace, run }),
    };
    let times = number(rest, 0)?;
    let times = u32::try_from(times).map_err(|_| InvalidTraces::Many { what: "the attaches" })?;
    let count = number(rest, 0)?;
    // Each has three bytes at least.
    let count = usize::try_from(count).ok().filter(|count| (1..=MAX_RUNS).contains(count));
    let count = count.ok_or(InvalidTraces::Many { what: "the runs" })?;
    if count > rest.len() / 3 {
        return Err(InvalidTraces::Length);
    }
    let (mut runs, mut at_ms, mut end) = (Vec::with_capacity(count), 0_u32, 0_u64);
    for run in 0..count {
        let [later, step, more] = [number(rest, run)?, number(rest, run)?, number(rest, run)?];
        let parsed = parse_run(at_ms, end, [later, step, more]).ok_or(InvalidTraces::Run { trace, run })?;
        (at_ms, end) = (parsed.at_ms, parsed.blocks.end);
        runs.push(parsed);
    }
    Ok(Kept { trace: Arc::new(Trace { runs }), times })
}

/// The run behind one that was at a time and ended at a block; `None` where there is no such run.
fn parse_run(at_ms: u32, end: u64, [later, step, more]: [u64; 3]) -> Option<Run> {
    let at_ms = at_ms.checked_add(u32::try_from(later).ok()?).filter(|at_ms| *at_ms < MAX_TRACE_MS)?;
    let start = if step & 1 == 0 { end.checked_add(step >> 1)? } else { end.checked_sub((step >> 1) + 1)? };
    if more >= MAX_RUN_BLOCKS {
        return None;
    }
    let to = start.checked_add(more + 1).filter(|to| *to <= MAX_BLOCKS)?;
    Some(Run { at_ms, blocks: start..to })
}

/// How far `to` is from `from`, with the sign in the lowest bit.
fn signed(to: u64, from: u64) -> u64 {
    if to >= from { (to - from) << 1 } else { (from - to - 1) << 1 | 1 }
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

/// The number at the front; `None` where there is none, in which case nothing is left where they have ended too early.
fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for group in 0..MAX_GROUPS {
        let byte = take_byte(rest)?;
        number |= u64::from(byte & 0x7F) << (7 * group);
        if byte & 0x80 == 0 {
            // In as few groups as can be.
            return (byte > 0 || group == 0).then_some(number);
        }
    }
    None
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    Some(*first)
}

const MAGIC: [u8; 4] = *b"STtr";
const VERSION: u8 = 1;
/// How many are kept: what a guest boots as, what it is updated by, and what it does when it has moved.
pub(super) const MAX_TRACES: usize = 4;
/// The most bytes that [`Traces::encode`] gives.
pub const MAX_KEPT_BYTES: usize = 256 << 10;
/// 35 bits, and the sign of a difference in them.
const MAX_GROUPS: u32 = 5;
const _: () = assert!(MAX_BLOCKS << 1 <= 1 << (7 * MAX_GROUPS));
/// The longest trace fits by itself: a run takes at most three, five and two bytes.
const _: () = assert!(6 + 5 + 3 + MAX_RUNS * 10 <= MAX_KEPT_BYTES);
