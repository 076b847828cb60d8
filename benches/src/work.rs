//! What a client does, and what it saw.

use std::fmt;

/// Requests of one kind, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) pattern: Pattern,
    /// Bytes of a request.
    pub(crate) block_bytes: u32,
    /// Requests in flight on each connection.
    pub(crate) depth: u32,
    pub(crate) connections: u32,
    /// Each write is followed by a flush, which is waited for.
    pub(crate) flushes_each: bool,
    /// No block is asked for twice, so that a cold one stays one; the work may end early by that.
    pub(crate) once: bool,
}

/// Where requests go, and what they do there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    RandomRead,
    RandomWrite,
    /// 70 of 100 read, the others write.
    RandomMixed,
    Read,
    Write,
}

/// What a client saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Requests answered; flushes are not counted.
    pub(crate) requests: f64,
    /// Bytes that were written.
    pub(crate) written_bytes: f64,
    /// Requests per second.
    pub(crate) per_second: f64,
    /// Median latency in microseconds, of the reads where there are any; `None` where the client does not take it.
    pub(crate) p50_us: Option<f64>,
    /// The latency that 99 in 100 stay below, in microseconds.
    pub(crate) p99_us: Option<f64>,
    /// Requests per second in the last quarter of the time, to those in the first, where the client takes it.
    pub(crate) last_quarter: Option<f64>,
}

impl Work {
    /// The work on one connection.
    pub(crate) const fn new(pattern: Pattern, block_kib: u32, depth: u32) -> Self {
        Self { pattern, block_bytes: block_kib << 10, depth, connections: 1, flushes_each: false, once: false }
    }

    /// The same on so many connections, each with its own queue.
    pub(crate) const fn connections(self, connections: u32) -> Self {
        Self { connections, ..self }
    }

    /// The same with a flush behind each write.
    pub(crate) const fn flushes_each(self) -> Self {
        Self { flushes_each: true, ..self }
    }

    /// The same with no block twice.
    pub(crate) const fn once(self) -> Self {
        Self { once: true, ..self }
    }
}

impl Pattern {
    /// Whether any of the requests writes.
    pub(crate) fn writes(self) -> bool {
        !matches!(self, Self::RandomRead | Self::Read)
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.block_bytes >> 10 {
            mib @ 1024.. => write!(f, "{} MiB ", mib >> 10)?,
            kib => write!(f, "{kib} KiB ")?,
        }
        f.write_str(match self.pattern {
            Pattern::RandomRead => "random read",
            Pattern::RandomWrite => "random write",
            Pattern::RandomMixed => "random, 70 % read",
            Pattern::Read => "sequential read",
            Pattern::Write => "sequential write",
        })?;
        if self.flushes_each {
            f.write_str(" + flush each")?;
        }
        write!(f, ", queue {}", self.depth)?;
        if self.connections > 1 { write!(f, ", {} connections", self.connections) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_says_what_it_is() {
        let four = Work::new(Pattern::RandomRead, 4, 32).connections(4);
        assert_eq!(four.to_string(), "4 KiB random read, queue 32, 4 connections");
        let flushed = Work::new(Pattern::RandomWrite, 4, 1).flushes_each();
        assert_eq!(flushed.to_string(), "4 KiB random write + flush each, queue 1");
        assert_eq!(Work::new(Pattern::Write, 1024, 4).to_string(), "1 MiB sequential write, queue 4");
    }
}
