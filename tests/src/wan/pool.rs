//! Buffers for what is in flight: of a few sizes, used again and again, and bounded in all.

use super::packet::FRAME_LIMIT_BYTES;

/// What all buffers of a wan may come to, used and free ones alike.
const MEMORY_LIMIT_BYTES: usize = 1 << 30;

/// A buffer that holds one frame. It goes back to its pool by [`Pool::give_back`].
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    used: usize,
}

/// Where buffers come from. Invariant: `memory_bytes` is what the free buffers and those that were taken come to, and is not
/// above the limit.
#[derive(Debug)]
pub(super) struct Pool {
    /// Of each of [`SIZES`].
    free: [Vec<Box<[u8]>>; SIZES.len()],
    memory_bytes: usize,
    limit_bytes: usize,
}

impl Buffer {
    /// The frame in it.
    pub(super) fn frame(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl Pool {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self::with_limit(MEMORY_LIMIT_BYTES)
    }

    fn with_limit(limit_bytes: usize) -> Self {
        Self { free: Default::default(), memory_bytes: 0, limit_bytes }
    }

    /// A buffer with this frame; `None` where the limit is reached, or the frame is larger than any.
    pub(super) fn hold(&mut self, frame: &[u8]) -> Option<Buffer> {
        let class = SIZES.iter().position(|&size| frame.len() <= size)?;
        let mut bytes = self.free[class].pop().or_else(|| self.allocate(SIZES[class]))?;
        bytes[..frame.len()].copy_from_slice(frame);
        Some(Buffer { bytes, used: frame.len() })
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&mut self, buffer: Buffer) {
        if let Some(class) = SIZES.iter().position(|&size| size == buffer.bytes.len()) {
            self.free[class].push(buffer.bytes);
        }
    }

    fn allocate(&mut self, size: usize) -> Option<Box<[u8]>> {
        if self.memory_bytes + size > self.limit_bytes {
            // Free buffers of other sizes are of no use now.
            let free: usize = self.free.iter().zip(SIZES).map(|(free, size)| free.len() * size).sum();
            self.free = Default::default();
            self.memory_bytes -= free;
        }
        if self.memory_bytes + size > self.limit_bytes {
            return None;
        }
        self.memory_bytes += size;
        Some(vec![0; size].into_boxed_slice())
    }
}

/// Acknowledgements; packets of an ordinary MTU; of a large one; and what is yet to be cut into segments.
const SIZES: [usize; 5] = [256, 2 << 10, 10 << 10, 32 << 10, FRAME_LIMIT_BYTES];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_holds_only_the_new_frame() {
        let mut pool = Pool::with_limit(256);
        let first = pool.hold(&[1; 200]).unwrap();
        assert_eq!(first.frame(), [1; 200]);
        assert!(pool.hold(&[2; 10]).is_none(), "the limit is reached");
        pool.give_back(first);
        assert_eq!(pool.hold(&[2; 10]).unwrap().frame(), [2; 10]);
    }

    #[test]
    fn free_buffers_of_one_size_do_not_keep_others_from_being_made() {
        let mut pool = Pool::with_limit(4096);
        let small: Vec<_> = (0..16).map(|_| pool.hold(&[0; 100]).unwrap()).collect();
        assert!(pool.hold(&[0; 1500]).is_none());
        for buffer in small {
            pool.give_back(buffer);
        }
        assert!(pool.hold(&[0; 1500]).is_some());
        assert_eq!(pool.memory_bytes, 2048);
    }

    #[test]
    fn the_largest_frame_fits_and_none_larger() {
        let mut pool = Pool::new();
        assert_eq!(pool.hold(&[7; FRAME_LIMIT_BYTES]).unwrap().frame().len(), FRAME_LIMIT_BYTES);
        assert!(pool.hold(&[7; FRAME_LIMIT_BYTES + 1]).is_none());
    }
}
