//! Random bytes.

/// The operating system has no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct NoRandomBytes;

/// Bytes that nobody can guess: from the operating system, for keys and tokens, and for ids that have to differ from all others.
///
/// # Errors
/// The operating system has none.
pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandomBytes> {
    const { assert!(N <= 256, "the system may give fewer than were asked for beyond 256") };
    let mut bytes = [0; N];
    #[cfg(feature = "simulation")]
    if let Some(simulated) = crate::simulation::installed() {
        simulated.fill(&mut bytes);
        return Ok(bytes);
    }
    #[expect(clippy::disallowed_methods, reason = "this is where chance comes from")]
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if filled == Ok(N) { Ok(bytes) } else { Err(NoRandomBytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        assert_ne!(bytes::<16>(), bytes::<16>());
        assert!(bytes::<256>().is_ok());
    }
}
