//! VMs that move from host to host, and what is struck meanwhile.
//!
//! * [`hosts`]: where they are. [`strike`]: what is struck, and when. [`campaign`]: each strike at each moment, and what is left.
//!
//! By hand: `scripts/faults migrate`.

pub mod campaign;
pub mod hosts;
pub mod strike;
