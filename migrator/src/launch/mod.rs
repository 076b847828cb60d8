//! The destination's QEMU: the source's own command line, with what is different there.
//!
//! Two QEMUs can hand a machine over only if they are configured alike, down to sizes of ROMs and orders of devices. Nobody describes a
//! machine better than the arguments that made it, so these are taken from the process that runs it ([`process`]) and altered where the
//! host is another one ([`arguments`]):
//!
//! * what makes it wait for its state (`-S -incoming defer`), instead of what made the source do so once;
//! * the socket at which the node serves its volumes;
//! * the directory in which the machine's own sockets and files are, its control socket among them.
//!
//! [`start`] runs it. All else has to be there already: the same QEMU, the same firmware, the same bridges.

pub mod arguments;
pub mod process;
pub mod start;
