//! What QEMU can make this client hold, and why that much.

/// The longest line that is read, in bytes. The answer to `query-qmp-schema` has 212 KiB with QEMU 10.0.2; this leaves
/// room for one that grows with the machine, such as `query-named-block-nodes`.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// The longest line that may be an event, in bytes. Events have some hundred bytes; [`EVENTS_KEPT`] of this size are 16 MiB.
pub const MAX_EVENT_BYTES: usize = 64 << 10;

/// The longest command that is sent, in bytes. Those of a migration have some hundred.
pub const MAX_COMMAND_BYTES: usize = 1 << 20;

/// Most commands that wait for QEMU's answer, not counting those out of band. QEMU has a queue of 8, and with the eighth in it stops to
/// read: while its main loop hangs, it would then not see a command out of band either (measured with 10.0.2). One whose caller
/// has given up still counts, for QEMU still has it.
pub const MAX_COMMANDS: usize = 7;

/// Most commands out of band that wait for QEMU's answer. They are for the moment when nothing else helps, and are answered at once.
pub const MAX_COMMANDS_OUT_OF_BAND: usize = 8;

/// Most events that are kept for a receiver that is behind. A migration has one for each state and each pass over the memory, a few
/// dozen in all; the rest is for those of a disk whose every request fails.
pub const EVENTS_KEPT: usize = 256;

/// How much of what QEMU says is repeated in an error, in bytes: enough to see what it is, and little enough for a log.
pub const EXCERPT_BYTES: usize = 200;
