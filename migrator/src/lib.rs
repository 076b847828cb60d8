//! Live migration of VMs whose disks are Sterna's: memory and storage as one migration (design section 7).
//!
//! Read in this order:
//!
//! * [`phase`]: who does what next, at both ends, as pure functions; who runs the VM whatever happens.
//! * [`stream`]: QEMU's migration stream, page by page.
//! * [`carry`]: a sequence of bytes that outlives the connection that carries it.
//! * [`memory`]: what passes of it at the source.
//! * [`volumes`]: what the node beside it has of the VM's disks, and their way to another site.
//! * [`peer`]: what two migrators say to each other.
//! * [`qmp`]: QEMU's control socket.
//! * [`converge`]: when the VM is stopped for the last of its memory.
//! * [`records`]: what is remembered over a crash.
//! * [`launch`]: the destination's QEMU, from the source's own command line. [`examine`]: what stands against a migration.
//! * [`mod@source`], [`destination`]: one migration at each end. [`monitor`]: its QEMU, over connections that may end.
//! * [`token`]: what an operator allows, and whether a migration may begin.
//! * [`hooks`]: programs that are called at its steps.
//! * [`vms`], [`host`]: all from and to this host. [`service`]: what is asked here.
//!
//! It knows QEMU and no chunk: what is said to storage nodes goes through what they offer.

pub mod carry;
pub mod converge;
pub mod destination;
pub mod examine;
pub mod hooks;
pub mod host;
pub mod launch;
pub mod memory;
pub mod monitor;
pub mod peer;
pub mod phase;
pub mod predict;
pub mod probe;
pub mod qmp;
pub mod records;
pub mod service;
pub mod source;
pub mod stream;
pub mod token;
pub mod vms;
pub mod volumes;
