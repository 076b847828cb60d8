//! What openraft gets from the machine: time and tasks from tokio, as it has it by itself, and chance from
//! [`sterna_runtime::chance`], so that a simulation can give the chance of its election timeouts as well.

use std::future::Future;
use std::num::NonZeroU32;
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use rand_core::{Error, RngCore};
use sterna_runtime::chance;

/// tokio, with our chance.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RaftRuntime;

impl AsyncRuntime for RaftRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Chance;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;
    type OneshotReceiver<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Chance
    }

    fn oneshot<T>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>)
    where
        T: OptionalSend,
    {
        TokioRuntime::oneshot()
    }
}

/// [`sterna_runtime::chance`], as openraft wants it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance;

impl RngCore for Chance {
    fn next_u32(&mut self) -> u32 {
        u32::from_le_bytes(chance::bytes().expect(THERE_IS_CHANCE))
    }

    fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes(chance::bytes().expect(THERE_IS_CHANCE))
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.try_fill_bytes(bytes).expect(THERE_IS_CHANCE);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        for piece in bytes.chunks_mut(PIECE_BYTES) {
            let filled = chance::bytes::<PIECE_BYTES>().map_err(|_| Error::from(NO_CHANCE))?;
            piece.copy_from_slice(&filled[..piece.len()]);
        }
        Ok(())
    }
}

const THERE_IS_CHANCE: &str = "the operating system gave random bytes when the node started";
/// Any number from `CUSTOM_START` on is ours to choose.
const NO_CHANCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(Error::CUSTOM_START);
/// What is asked for at once.
const PIECE_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ_and_all_of_what_is_asked_for_is_filled() {
        let mut rng = RaftRuntime::thread_rng();
        assert_ne!(rng.next_u64(), rng.next_u64());
        let mut bytes = [0; 5 * PIECE_BYTES / 2];
        rng.try_fill_bytes(&mut bytes).unwrap();
        assert!(bytes.chunks(PIECE_BYTES / 2).all(|piece| piece.iter().any(|byte| *byte != 0)));
        assert_ne!(bytes[..PIECE_BYTES], bytes[PIECE_BYTES..2 * PIECE_BYTES]);
    }
}
