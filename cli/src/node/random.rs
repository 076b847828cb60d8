//! Random bytes from the operating system.

use anyhow::{Context, Result, ensure};
use rustix::rand::{GetRandomFlags, getrandom};

/// Bytes that nobody can guess.
///
/// # Errors
/// The operating system has none.
pub(super) fn bytes<const N: usize>() -> Result<[u8; N]> {
    const { assert!(N <= 256, "the system may give fewer than were asked for beyond 256") };
    let mut bytes = [0; N];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty()).context("the system has no random bytes")?;
    ensure!(filled == N, "the system gave {filled} random bytes, and {N} were asked for");
    Ok(bytes)
}
