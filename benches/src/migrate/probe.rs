//! How long a guest stands, as others see it: by its own ticks on its console, and by a client's TCP echo.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sterna_tests::wan::inside;

/// Something that happens again and again, watched by a thread of its own.
pub(super) struct Probe {
    seen: Arc<Mutex<Vec<Instant>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Probe {
    /// The ticks of a guest, wherever its console is of these files.
    pub(super) fn of_consoles(files: Vec<PathBuf>) -> Self {
        Self::start(move |stop, see| {
            let length = |file: &PathBuf| fs::metadata(file).map_or(0, |metadata| metadata.len());
            let mut before: Vec<u64> = files.iter().map(length).collect();
            while !stop.load(Ordering::Relaxed) {
                let now: Vec<u64> = files.iter().map(length).collect();
                if now != before {
                    see();
                    before = now;
                }
                thread::sleep(LOOK);
            }
        })
    }

    /// The echoes that a client in this namespace has from there, each asked for when the one before has come.
    ///
    /// # Errors
    /// Nobody is there.
    pub(super) fn of_echoes(namespace: &str, address: SocketAddr) -> Result<Self> {
        let connected = inside(namespace, || TcpStream::connect_timeout(&address, PATIENCE))?;
        let mut stream = connected.context("the guest does not take a connection")?;
        stream.set_nodelay(true)?;
        Ok(Self::start(move |stop, see| {
            let mut byte = [b'.'];
            while !stop.load(Ordering::Relaxed)
                && stream.write_all(&byte).is_ok()
                && stream.read_exact(&mut byte).is_ok()
            {
                see();
                thread::sleep(BETWEEN_ECHOES);
            }
        }))
    }

    fn start(watch: impl FnOnce(&AtomicBool, &mut dyn FnMut()) + Send + 'static) -> Self {
        let (seen, stop) = (Arc::<Mutex<Vec<Instant>>>::default(), Arc::<AtomicBool>::default());
        let (noted, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            watch(&stopped, &mut || noted.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now()));
        });
        Self { seen, stop, thread: Some(thread) }
    }

    /// The longest time without one since `since`, in milliseconds; it has to have happened at both ends of that.
    pub(super) fn longest_gap_ms(&self, since: Instant) -> Result<f64> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let from = seen.partition_point(|at| *at < since).saturating_sub(1);
        let gaps = seen[from..].windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64() * 1e3);
        gaps.reduce(f64::max).context("nothing was seen of the guest")
    }

    /// Waits until it has happened after `since`.
    pub(super) fn until_seen_after(&self, since: Instant) -> Result<bool> {
        sterna_tests::tool::until(PATIENCE, || {
            Ok(self.seen.lock().unwrap_or_else(PoisonError::into_inner).last().is_some_and(|at| *at > since))
        })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A client may wait for an echo that does not come: its thread ends with the guest.
        if let Some(thread) = self.thread.take().filter(JoinHandle::is_finished) {
            let _ = thread.join();
        }
    }
}

/// A tick is a millisecond or more.
const LOOK: Duration = Duration::from_micros(200);
const BETWEEN_ECHOES: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(30);
