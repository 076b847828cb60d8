//! Has volumes handed over by their owners, again and again, while whatever else happens to the two nodes and to what lies between
//! them.
//!
//! A volume that is on its way is not failed over: what is lost is told by counts of writes, and an epoch that nobody ever owned has
//! none. So each handoff has its volume's turn until it has ended, and the new owner has everything.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::failover::Failovers;
use super::history::{Handoff, Record, Recorder, now_ns};
use super::stage::PATIENCE;
use crate::random::Random;

/// Has one volume handed over again and again, by whoever owns it to any other node, until all is over.
///
/// # Errors
/// A handoff does not come to an end, or an answer is not one.
pub(super) fn move_about(
    failovers: &Failovers,
    recorder: &Recorder,
    (volume, sites): (u8, u8),
    seed: u64,
    is_over: &AtomicBool,
) -> Result<()> {
    let mut random = Random::new(seed ^ (0x0068_616e_646f + u64::from(volume)));
    loop {
        thread::sleep(Duration::from_millis(random.below(MOST_PAUSE_MS)));
        let ahead = 1 + u8::try_from(random.below(u64::from(sites) - 1))?;
        if is_over.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut asked = failovers.volumes[usize::from(volume)].lock().unwrap_or_else(PoisonError::into_inner);
        failovers.take_down(&mut asked, volume, recorder)?;
        let from = failovers.owner(volume, PATIENCE)?;
        let (to, invoked_ns) = ((from + ahead) % sites, now_ns());
        let epoch = failovers.hand_over(&mut asked, volume, from, to)?;
        recorder.add(Record::Handoff(Handoff { volume, from, to, epoch, invoked_ns, answered_ns: now_ns() }))?;
        let begun = Instant::now();
        while !failovers.is_at_rest(volume)? {
            ensure!(
                begun.elapsed() < END_PATIENCE,
                "for {END_PATIENCE:?} the handoff of volume {volume} has not ended"
            );
            thread::sleep(PAUSE);
        }
    }
}

/// Between two: of those that are asked for while something is struck most do not begin.
const MOST_PAUSE_MS: u64 = 1_500;
const PAUSE: Duration = Duration::from_millis(200);
/// For all that holds it up to be over.
const END_PATIENCE: Duration = Duration::from_secs(180);
