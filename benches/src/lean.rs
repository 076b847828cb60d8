//! A client that costs less than the server it loads.
//!
//! libnbd, and so fio, makes six system calls for each 4 KiB read with structured replies: one that sends, four that
//! receive the parts of a reply, one that waits. Then the client's processor is full before a good server's is, and the
//! figure tells of the client. This one sends all requests that are due with one call, and receives as many replies as
//! there are with one, in the same protocol: what it sees is the server.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sterna_nbd_server::wire::{self, chunk, command};
use sterna_tests::client::{Request, Style};
use sterna_tests::disk_server::Disk;
use sterna_tests::random::Random;

use crate::work::{Pattern, Seen, Work};

/// Header of a chunk, and the offset in front of its data.
const CHUNK_HEAD_BYTES: usize = 20;
const SIMPLE_REPLY_BYTES: usize = 16;

/// How often it is noted how much was answered.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);

/// Runs random reads or writes on one connection, with structured replies, for so many seconds and on until so many bytes
/// were read or written.
///
/// # Errors
/// The server does not answer, or with an error.
pub(crate) fn run(disk: &Disk, work: Work, seconds: u32, least_bytes: u64) -> Result<Seen> {
    ensure!(
        matches!(work.pattern, Pattern::RandomRead | Pattern::RandomWrite)
            && Work::new(work.pattern, work.block_bytes >> 10, work.depth) == work,
        "the lean client cannot do {work}"
    );
    let (client, size_bytes) = disk.attach(Style::Structured)?;
    let mut load = Load::new(client.into_link(), work, size_bytes);
    load.run(Duration::from_secs(u64::from(seconds)), least_bytes.div_ceil(u64::from(work.block_bytes)))
}

struct Load {
    stream: UnixStream,
    work: Work,
    blocks: u64,
    random: Random,
    /// What is written is cut out of this, and marked.
    contents: Vec<u8>,
    sent: u64,
    answered: u64,
    input: Vec<u8>,
    filled: usize,
}

/// How much was answered by when.
#[derive(Clone, Copy, Debug)]
struct Sample {
    seconds: f64,
    answered: f64,
}

impl Load {
    fn new(stream: UnixStream, work: Work, size_bytes: u64) -> Self {
        let mut random = Random::new(u64::from(work.block_bytes));
        let contents = (0..CONTENTS_BYTES / 8).flat_map(|_| random.bits().to_le_bytes()).collect();
        let blocks = size_bytes / u64::from(work.block_bytes);
        Self { stream, work, blocks, random, contents, sent: 0, answered: 0, input: vec![0; 1 << 20], filled: 0 }
    }

    fn run(&mut self, time: Duration, least_requests: u64) -> Result<Seen> {
        let started = Instant::now();
        let (mut output, mut samples) = (Vec::new(), Vec::new());
        let mut next_sample = Duration::ZERO;
        let mut elapsed = Duration::ZERO;
        while elapsed < time || self.answered < least_requests {
            output.clear();
            while self.sent - self.answered < u64::from(self.work.depth) {
                self.request(&mut output);
            }
            self.stream.write_all(&output)?;
            self.receive()?;
            elapsed = started.elapsed();
            if elapsed >= next_sample {
                samples.push(self.sample(elapsed));
                next_sample = elapsed + SAMPLE_INTERVAL;
            }
        }
        let end = self.sample(elapsed);
        samples.push(end);
        self.leave()?;
        let is_writing = self.work.pattern.writes();
        Ok(Seen {
            requests: end.answered,
            written_bytes: if is_writing { end.answered * f64::from(self.work.block_bytes) } else { 0.0 },
            per_second: end.answered / end.seconds,
            p50_us: None,
            p99_us: None,
            last_quarter: last_quarter(&samples),
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 requests")]
    fn sample(&self, elapsed: Duration) -> Sample {
        Sample { seconds: elapsed.as_secs_f64(), answered: self.answered as f64 }
    }

    /// Hears out what is still to come, and says good-bye: nbdkit 1.32 ends itself where a client hangs up on its replies.
    fn leave(&mut self) -> Result<()> {
        while self.answered < self.sent {
            self.receive()?;
        }
        self.stream.write_all(&Request::new(command::DISC, 0, 0).to_bytes(Style::Structured))?;
        Ok(())
    }

    fn request(&mut self, output: &mut Vec<u8>) {
        let block = u64::from(self.work.block_bytes);
        let offset = self.random.below(self.blocks) * block;
        let is_writing = self.work.pattern.writes();
        let command = if is_writing { command::WRITE } else { command::READ };
        let request = Request::new(command, offset, block).cookie(self.sent);
        output.extend_from_slice(&request.to_bytes(Style::Structured));
        if is_writing {
            // From anywhere, and with a number of its own: a server that finds what it knows already finds nothing.
            let mark = self.sent.to_le_bytes();
            let places = self.contents.len() - self.work.block_bytes as usize;
            let from = usize::try_from(self.random.below(places as u64)).unwrap_or_default();
            let content = &self.contents[from..][..self.work.block_bytes as usize];
            output.extend_from_slice(&mark);
            output.extend_from_slice(&content[mark.len()..]);
        }
        self.sent += 1;
    }

    /// Receives once, and counts the replies that are whole.
    fn receive(&mut self) -> Result<()> {
        let received = self.stream.read(&mut self.input[self.filled..])?;
        ensure!(received > 0, "the server hung up");
        self.filled += received;
        let mut at = 0;
        while let Some(length) = reply_bytes(&self.input[at..self.filled])? {
            at += length;
            self.answered += 1;
        }
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }
}

/// The length of the reply at the front, which has to be a success in one piece; `None` where it is not whole yet.
fn reply_bytes(input: &[u8]) -> Result<Option<usize>> {
    let Some(head) = input.first_chunk::<SIMPLE_REPLY_BYTES>() else { return Ok(None) };
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if word(0) == wire::SIMPLE_REPLY_MAGIC {
        ensure!(word(4) == 0, "the server answered with error {}", word(4));
        return Ok(Some(SIMPLE_REPLY_BYTES));
    }
    ensure!(word(0) == wire::STRUCTURED_REPLY_MAGIC, "no reply begins with {:#x}", word(0));
    let kind = u16::from_be_bytes([head[6], head[7]]);
    ensure!(
        [chunk::NONE, chunk::OFFSET_DATA].contains(&kind) && head[5] & 1 == 1,
        "an unexpected chunk of type {kind}"
    );
    let Some(length) = input.get(16..CHUNK_HEAD_BYTES) else { return Ok(None) };
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize + CHUNK_HEAD_BYTES;
    Ok(Some(length).filter(|&length| length <= input.len()))
}

/// Requests per second in the last quarter of the time, to those in the first; `None` where too little happened.
fn last_quarter(samples: &[Sample]) -> Option<f64> {
    let end = samples.last()?;
    let by = |part: f64| samples.iter().copied().find(|sample| sample.seconds >= part * end.seconds);
    let (first, third) = (by(0.25)?, by(0.75)?);
    let ratio = (end.answered - third.answered) / (end.seconds - third.seconds) * first.seconds / first.answered;
    ratio.is_finite().then_some(ratio)
}

/// Far more than any chunk, so that what is cut out of it twice never meets itself in one.
const CONTENTS_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_quarter_of_the_time_is_compared_with_the_first() {
        let samples =
            |all: &[(f64, f64)]| all.iter().map(|&(seconds, answered)| Sample { seconds, answered }).collect();
        let slowing: Vec<_> = samples(&[(0.5, 50.0), (1.0, 100.0), (2.0, 180.0), (3.0, 250.0), (4.0, 300.0)]);
        assert_eq!(last_quarter(&slowing), Some(0.5));
        let steady: Vec<_> = samples(&[(1.0, 7.0), (3.0, 21.0), (4.0, 28.0)]);
        assert_eq!(last_quarter(&steady), Some(1.0));
        for too_few in [&[][..], &[(1.0, 5.0)]] {
            assert_eq!(last_quarter(&samples(too_few)), None);
        }
    }

    #[test]
    fn a_reply_is_counted_when_all_of_it_is_there() {
        let mut data = wire::STRUCTURED_REPLY_MAGIC.to_be_bytes().to_vec();
        data.extend([0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 12]);
        data.extend([0; 12]);
        assert_eq!(reply_bytes(&data).expect("a reply"), Some(32));
        for part in 0..32 {
            assert_eq!(reply_bytes(&data[..part]).expect("a part of a reply"), None);
        }
        data[6] = 0x80;
        assert!(reply_bytes(&data).is_err(), "an error counted as a success");
    }
}
