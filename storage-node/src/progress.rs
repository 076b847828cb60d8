//! How far a piece of long work has come.

use std::ops::ControlFlow;

/// How far a piece of long work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are done, holes among them.
    pub done_bytes: u64,
    /// Bytes in all, as far as it is known by now.
    pub total_bytes: u64,
}

/// Hears how far a piece of long work has come, several times a second or for each segment, and says whether to go on.
pub type Watcher<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;
