//! A client that costs less than the server it loads.
//!
//! libnbd, and so fio, makes six system calls for each 4 KiB read with structured replies: one that sends, four that
//! receive the parts of a reply, one that waits. Then the client's processor is full before a good server's is, and the
//! figure tells of the client. This one sends all requests that are due with one call, and receives as many replies as
//! there are with one, in the same protocol: what it sees is the server.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sterna_nbd_server::wire::{self, chunk, command};
use sterna_tests::client::{Client, Request, Style};

use crate::fio::{Seen, Work};

/// Bytes of the disk that requests go to.
const SPAN_BYTES: u64 = 1 << 30;

/// Header of a chunk, and the offset in front of its data.
const CHUNK_HEAD_BYTES: usize = 20;
const SIMPLE_REPLY_BYTES: usize = 16;

/// Runs random reads or writes for so many seconds, with structured replies.
pub(crate) fn run(socket: &Path, work: Work, seconds: u32) -> Result<Seen> {
    let stream = UnixStream::connect(socket).context("cannot connect")?;
    let mut client = Client::greet(stream)?;
    client.attach(Style::Structured, &[], "")?;
    let mut load = Load::new(client.into_link(), work);
    load.run(Duration::from_secs(u64::from(seconds)))
}

struct Load {
    stream: UnixStream,
    work: Work,
    reading: bool,
    dice: u64,
    sent: u64,
    answered: u64,
    input: Vec<u8>,
    filled: usize,
}

impl Load {
    fn new(stream: UnixStream, work: Work) -> Self {
        let input = vec![0; 1 << 20];
        let reading = work.pattern == "randread";
        Self { stream, work, reading, dice: 0x9e37_79b9_7f4a_7c15, sent: 0, answered: 0, input, filled: 0 }
    }

    fn run(&mut self, time: Duration) -> Result<Seen> {
        let started = Instant::now();
        let mut output = Vec::new();
        while started.elapsed() < time {
            output.clear();
            while self.sent - self.answered < u64::from(self.work.depth) {
                self.request(&mut output);
            }
            self.stream.write_all(&output)?;
            self.receive()?;
        }
        let elapsed = started.elapsed().as_secs_f64();
        let answered = self.answered;
        self.leave()?;
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 requests")]
        let requests = answered as f64;
        Ok(Seen { requests, per_second: requests / elapsed, p50_us: None, p99_us: None })
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
        // Marsaglia, "Xorshift RNGs", 2003.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        let offset = self.dice % (SPAN_BYTES / block) * block;
        let request = if self.reading {
            Request::read(offset, block)
        } else {
            Request::write(offset, vec![0x5a; self.work.block_bytes as usize])
        };
        output.extend_from_slice(&request.cookie(self.sent).to_bytes(Style::Structured));
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

#[cfg(test)]
mod tests {
    use super::*;

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
