//! One run of one work against one server, and the figures that it gives.

use anyhow::Result;

use crate::report::{Figures, Metric};
use crate::server::Server;
use crate::work::{Seen, Work};
use crate::{fio, lean};

/// Who makes the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Fio,
    Lean,
}

impl Client {
    /// Runs the work for so many seconds.
    pub(crate) fn run(self, server: &Server, work: Work, seconds: u32) -> Result<Seen> {
        match self {
            Self::Fio => fio::run(server.disk(), work, seconds),
            Self::Lean => lean::run(server.disk(), work, seconds, 0),
        }
    }

    /// What a row of this client is called.
    pub(crate) fn name(self, work: Work) -> String {
        match self {
            Self::Fio => work.to_string(),
            Self::Lean => format!("{work}, lean client"),
        }
    }
}

/// The figures of a load, which finds the server with nothing left to do. What it writes costs until all of it is sealed.
pub(crate) fn figures(server: &Server, load: impl FnOnce() -> Result<Seen>) -> Result<(Seen, Figures)> {
    server.settle()?;
    server.forget_peak()?;
    let (before, device_before) = (server.usage()?, server.device_written_bytes()?);
    let seen = load()?;
    if seen.written_bytes > 0.0 {
        server.settle()?;
    }
    let (after, device_after) = (server.usage()?, server.device_written_bytes()?);
    let mut figures = Figures::from([
        (Metric::PerSecond, seen.per_second),
        (Metric::CpuUsPerRequest, (after.cpu_seconds - before.cpu_seconds) * 1e6 / seen.requests),
        (Metric::PeakMib, after.peak_mib),
    ]);
    figures.extend(seen.p50_us.map(|p50| (Metric::P50Us, p50)));
    figures.extend(seen.p99_us.map(|p99| (Metric::P99Us, p99)));
    if seen.written_bytes > 0.0 && after.written_bytes > before.written_bytes {
        figures.insert(Metric::WrittenPerByte, (after.written_bytes - before.written_bytes) / seen.written_bytes);
        let device = device_after.zip(device_before).map(|(after, before)| after - before);
        figures.extend(device.map(|bytes| (Metric::DevicePerByte, bytes / seen.written_bytes)));
    }
    Ok((seen, figures))
}

/// The server's system calls for each request, where they can be counted. Apart from the timed runs, since counting costs
/// time.
pub(crate) fn calls_per_request(server: &Server, client: Client, work: Work) -> Result<Option<f64>> {
    let (calls, seen) = server.count_system_calls(|| client.run(server, work, 1))?;
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 calls")]
    Ok(calls.map(|calls| calls as f64 / seen.requests))
}
