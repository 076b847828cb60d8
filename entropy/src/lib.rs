//! The random bytes that a process gets from its operating system, from a seed: for a process that plays one.
//!
//! What the product decides by chance comes from `sterna_runtime::chance`. But the libraries that it runs on draw as well: tokio's
//! `select!` chooses by it which branch it looks at first, and the standard library how its hash maps are ordered. All of that
//! begins with getrandom(2), so this crate has a function of that name, which the linker takes for whoever calls it in a program
//! that this crate is a part of. As long as there is no seed, the bytes are the system's.
//!
//! It is *not* for any program that is used: only `sim` depends on it. The bytes are a sequence of the process, so a process plays
//! one seed, and on one thread.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "no simulation runs a test"))]

use std::sync::atomic::{AtomicU64, Ordering};

/// Has all random bytes of this process follow from `seed`, from now on.
pub fn seed(seed: u64) {
    // 0 stands for none.
    STATE.store(seed | 1 << 63, Ordering::SeqCst);
}

/// As getrandom(2).
///
/// # Safety
/// `buffer` is valid for writes of `length` bytes.
#[expect(unsafe_code, reason = "whoever calls it, in Rust or in C, goes by its name")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller says so; and there is at least one byte, so it is not null.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    if STATE.load(Ordering::SeqCst) == 0 {
        #[expect(clippy::disallowed_methods, reason = "this stands in place of it")]
        let filled = rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty());
        // Whoever calls it falls back to the device.
        return filled.map_or(-1, |filled| isize::try_from(filled).unwrap_or(isize::MAX));
    }
    for part in bytes.chunks_mut(8) {
        part.copy_from_slice(&next().to_le_bytes()[..part.len()]);
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}

/// `SplitMix64` (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
fn next() -> u64 {
    let state = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

static STATE: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests {
    use std::collections::hash_map::RandomState;
    use std::hash::BuildHasher;

    /// In a thread of its own: the keys of hash maps are drawn once for each.
    fn drawn() -> u64 {
        std::thread::spawn(|| RandomState::new().hash_one(1)).join().expect("a hash")
    }

    #[test]
    fn without_a_seed_bytes_are_the_systems_and_with_it_they_follow_from_it() {
        assert_ne!(drawn(), drawn());
        super::seed(7);
        let first = (drawn(), drawn());
        super::seed(7);
        assert_eq!(first, (drawn(), drawn()));
        assert_ne!(first.0, first.1);
        super::seed(8);
        assert_ne!(first.0, drawn());
    }
}
