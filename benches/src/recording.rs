//! What a guest asks of its disk, and when: noted by nbdkit's log filter, which serves a raw file on this machine.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sterna_storage_node::chunking::BLOCK_BYTES;
use sterna_tests::disk_server::Disk;

use crate::program::Program;

/// A raw file that is served to one guest, and a log of what that asks.
#[derive(Debug)]
pub(crate) struct Recorder {
    program: Program,
    socket: PathBuf,
    log: PathBuf,
    /// How much of the log was cut off.
    cut_at: Cell<usize>,
}

/// One request of a guest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    /// When it came and when it was answered, in seconds since the first one came.
    pub(crate) at_s: f64,
    pub(crate) answered_s: f64,
    /// Whether it reads; else it writes, or makes a hole.
    pub(crate) is_read: bool,
    /// The bytes that it is about.
    pub(crate) bytes: Range<u64>,
}

impl Recorder {
    /// Serves this file, and has its log beside its socket in a directory.
    ///
    /// # Errors
    /// nbdkit does not come to serve.
    pub(crate) fn start(directory: &Path, file: &Path) -> Result<Self> {
        let (socket, log) = (directory.join("recorded.sock"), directory.join("requests"));
        let mut command = Command::new("nbdkit");
        command.args(["--foreground", "--filter=log", "--unix"]).arg(&socket).arg("file").arg(file);
        command.arg(format!("logfile={}", log.display()));
        Ok(Self { program: Program::start(command, &socket)?, socket, log, cut_at: Cell::new(0) })
    }

    /// Where a guest finds it.
    pub(crate) fn disk(&self) -> Disk {
        Disk::new(&self.socket, "")
    }

    /// What was asked so far and has been answered, in the order in which it came.
    ///
    /// # Errors
    /// The log is not there, or not as nbdkit writes it.
    pub(crate) fn requests(&self) -> Result<Vec<Request>> {
        let log = std::fs::read_to_string(&self.log).context("nbdkit has no log")?;
        parse(&log)
    }

    /// What was asked since the last cut, as [`Recorder::requests`]; its log is kept in this file.
    ///
    /// # Errors
    /// As [`Recorder::requests`], or the file cannot be written.
    pub(crate) fn cut(&self, kept: &Path) -> Result<Vec<Request>> {
        let log = std::fs::read_to_string(&self.log).context("nbdkit has no log")?;
        let from = self.cut_at.replace(log.len());
        std::fs::write(kept, &log[from..])?;
        parse(&log[from..])
    }

    /// Ends it; what was asked.
    ///
    /// # Errors
    /// It does not end, or as [`Recorder::requests`].
    pub(crate) fn end(mut self) -> Result<Vec<Request>> {
        self.program.end()?;
        self.requests()
    }
}

impl Request {
    /// The blocks that it touches.
    pub(crate) fn blocks(&self) -> Range<u64> {
        self.bytes.start / BLOCK..self.bytes.end.div_ceil(BLOCK)
    }

    /// The blocks all of which it is about.
    pub(crate) fn whole_blocks(&self) -> Range<u64> {
        let (start, end) = (self.bytes.start.div_ceil(BLOCK), self.bytes.end / BLOCK);
        start..end.max(start)
    }
}

/// The blocks whose contents are needed from outside, each once, in the order in which they are: those that are read, and not written before.
pub(crate) fn read_set(requests: &[Request]) -> Vec<u64> {
    let (mut known, mut needed) = (HashSet::new(), Vec::new());
    for request in requests {
        if request.is_read {
            needed.extend(request.blocks().filter(|block| known.insert(*block)));
        } else {
            known.extend(request.whole_blocks());
        }
    }
    needed
}

/// How many bytes these blocks of a file have when they are compressed together in this order, as chunks on their way are.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn compressed_bytes(file: &Path, blocks: &[u64]) -> Result<u64> {
    let file = File::open(file)?;
    let mut contents = vec![0; blocks.len() * BLOCK_BYTES];
    for (block, into) in blocks.iter().zip(contents.chunks_mut(BLOCK_BYTES)) {
        file.read_exact_at(into, block * BLOCK)?;
    }
    Ok(zstd::encode_all(&*contents, ZSTD_LEVEL)?.len() as u64)
}

/// What a log says that was kept.
///
/// # Errors
/// It is not there, or not as nbdkit writes it.
pub(crate) fn parse_file(kept: &Path) -> Result<Vec<Request>> {
    let log = std::fs::read_to_string(kept).with_context(|| format!("cannot read {}", kept.display()))?;
    parse(&log)
}

/// What a log of nbdkit's filter says. A request that has not been answered is left out.
fn parse(log: &str) -> Result<Vec<Request>> {
    let (mut requests, mut open) = (Vec::<Option<Request>>::new(), HashMap::<(&str, &str), (usize, Request)>::new());
    let mut clock = Clock::default();
    for line in log.lines() {
        let mut words = line.split(' ').skip(1);
        let Some(time) = words.next() else { continue };
        let at_s = clock.seconds(time).with_context(|| format!("no time in '{line}'"))?;
        let (Some(connection), Some(what), Some(id)) = (words.next(), words.next(), words.next()) else { continue };
        match what {
            "Read" | "Write" | "Zero" | "Trim" => {
                let mut field = |name: &str| {
                    let digits = words.next()?.strip_prefix(name)?.strip_prefix("=0x")?;
                    u64::from_str_radix(digits, 16).ok()
                };
                let range = field("offset").zip(field("count")).with_context(|| format!("no range in '{line}'"))?;
                let bytes = range.0..range.0 + range.1;
                let request = Request { at_s, answered_s: at_s, is_read: what == "Read", bytes };
                open.insert((connection, id), (requests.len(), request));
                requests.push(None);
            }
            "...Read" | "...Write" | "...Zero" | "...Trim" => {
                if let Some((place, request)) = open.remove(&(connection, id)) {
                    requests[place] = Some(Request { answered_s: at_s, ..request });
                }
            }
            _ => {}
        }
    }
    let mut requests: Vec<_> = requests.into_iter().flatten().collect();
    let begun_s = requests.first().map_or(0.0, |request| request.at_s);
    for request in &mut requests {
        request.at_s -= begun_s;
        request.answered_s -= begun_s;
    }
    Ok(requests)
}

/// The time of day, going on over midnight.
#[derive(Default)]
struct Clock {
    last_s: f64,
    days: f64,
}

impl Clock {
    fn seconds(&mut self, time: &str) -> Option<f64> {
        let mut parts = time.splitn(3, ':').map(|part| part.parse::<f64>().ok());
        let mut part = || parts.next().flatten();
        let seconds = part()? * 3600.0 + part()? * 60.0 + part()?;
        if seconds + DAY_S / 2.0 < self.last_s {
            self.days += 1.0;
        }
        self.last_s = seconds;
        Some(seconds + self.days * DAY_S)
    }
}

const BLOCK: u64 = BLOCK_BYTES as u64;
/// As on the way.
const ZSTD_LEVEL: i32 = 3;
const DAY_S: f64 = 86_400.0;

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-11-23 23:59:59.500000 Ready thread_model=3
2026-11-23 23:59:59.600000 connection=1 Connect export=\"\" tls=0 size=0x80000000
2026-11-23 23:59:59.750000 connection=1 Read id=1 offset=0x0 count=0x200 ...
2026-11-23 23:59:59.750000 connection=1 Write id=2 offset=0x2000 count=0x1800 fua=0 ...
2026-11-24 00:00:00.250000 connection=1 ...Write id=2 return=0
2026-11-24 00:00:00.500000 connection=1 ...Read id=1 return=0
2026-11-24 00:00:01.750000 connection=1 Read id=3 offset=0x1000 count=0x3000 ...
2026-11-24 00:00:01.750000 connection=1 Flush id=4 ...
2026-11-24 00:00:01.875000 connection=1 ...Read id=3 return=0
2026-11-24 00:00:01.900000 connection=1 Read id=5 offset=0x1000 count=0x3000 ...
";

    #[test]
    fn a_log_is_read_over_midnight() -> Result<()> {
        let request = |at_s, answered_s, is_read, bytes| Request { at_s, answered_s, is_read, bytes };
        let expected = [
            request(0.0, 0.75, true, 0..0x200),
            request(0.0, 0.5, false, 0x2000..0x3800),
            request(2.0, 2.125, true, 0x1000..0x4000),
        ];
        assert_eq!(parse(LOG)?, expected);
        // A block of which a part is written is needed.
        assert_eq!(read_set(&expected), [0, 1, 3]);
        Ok(())
    }
}
