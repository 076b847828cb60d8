//! What nodes tell in their logs, as the campaign of real processes reads it; and what panics.

use std::cell::RefCell;
use std::io::{self, Write};

use anyhow::Result;
use sterna_tests::faults::history::{NodeEvent, NodeRecord};
use sterna_tests::faults::node_log;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::world::World;
use crate::surroundings::{clocks, elapsed, node};

/// Takes down what nodes tell from now on, and panics.
pub(super) fn listen() {
    let filter = tracing_subscriber::EnvFilter::new("warn,openraft=off,turmoil=off,sterna::lease=debug");
    // Whoever has done it before, in this process, has done the same.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_timer(OfRun)
        .with_writer(Logs)
        .try_init();
    std::panic::set_hook(Box::new(|panic| {
        PANIC.with_borrow_mut(|first| {
            first.get_or_insert_with(|| format!("a panic: {panic}"));
        });
    }));
}

/// The first panic since it was last asked for.
pub(super) fn panicked() -> Option<String> {
    PANIC.take()
}

/// The events in the logs, at the moments at which they were.
pub(super) fn records(world: &World) -> Result<Vec<NodeRecord>> {
    let mut records = Vec::new();
    // No volume that is there has this number.
    let volumes: Vec<u64> = world.volumes.borrow().iter().map(|volume| volume.id.unwrap_or(u64::MAX)).collect();
    for number in 0..world.places.len() {
        let log = LOGS.with_borrow(|logs| logs.get(number).cloned().unwrap_or_default());
        let clocks = clocks(number);
        let node = u8::try_from(number)?;
        for NodeRecord { at_ns, mut event, .. } in node_log::read(node, &String::from_utf8_lossy(&log), &volumes)? {
            match &mut event {
                NodeEvent::Hears { asked_ns, .. } => *asked_ns = clocks.right(*asked_ns),
                NodeEvent::Lasts { until_ns, .. } => *until_ns = clocks.right(*until_ns),
                NodeEvent::Asks { .. }
                | NodeEvent::Decided { .. }
                | NodeEvent::Serves { .. }
                | NodeEvent::Ends { .. } => {}
            }
            records.push(NodeRecord { node, at_ns: clocks.right(at_ns), event });
        }
    }
    Ok(records)
}

/// What a node has told, for people.
pub fn log_of(number: usize) -> String {
    LOGS.with_borrow(|logs| logs.get(number).map(|log| String::from_utf8_lossy(log).into_owned()).unwrap_or_default())
}

/// The right time.
struct OfRun;

impl FormatTime for OfRun {
    fn format_time(&self, f: &mut Writer<'_>) -> std::fmt::Result {
        write!(f, "{:9.3}", elapsed().as_secs_f64())
    }
}

/// A log for each node.
struct Logs;

struct Line(Vec<u8>);

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Vec::new())
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(node) = node() else { return };
        LOGS.with_borrow_mut(|logs| {
            logs.resize_with(logs.len().max(node + 1), Vec::new);
            logs[node].append(&mut self.0);
        });
    }
}

thread_local! {
    static LOGS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}
