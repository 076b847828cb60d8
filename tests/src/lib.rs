//! What the end-to-end tests share: starting real processes, waiting for them with a limit, and cleaning up after them.
//!
//! * [`server`]: a running `sterna nbd serve` in a directory of its own.
//! * [`disk_server`]: what tests that kill need of any server. * [`guest`]: a real machine on its disks.
//! * [`oracle`]: what a disk may hold after a crash, and the loop that kills and looks. * [`random`]: repeatable choices.
//! * [`fio_loop`]: the same with fio as the judge. [`fsx`]: random requests of any alignment, each checked byte by byte.
//! * [`cluster`]: several nodes that have joined each other. [`three_sites`]: where those of most tests are, and what is written there.
//! * [`node`]: a running `sterna node`, and commands for it. [`migrator`]: a `sterna migrator` beside it. [`daemon`]: what both are.
//! * [`small_disk`]: a file system for it that can be filled.
//! * [`flush`]: one connection flushes what another has written. [`tree`]: what is in a directory.
//! * [`strace`]: system calls of our program, watched or made to fail. * [`tool`]: other people's programs, run with a time limit.
//! * [`client`]: a raw NBD client, which can say what no well-behaved client would; [`reply`]: what it hears.
//! * [`bucket`]: a server that speaks S3, the program `s3` (`src/bin/s3.rs`).
//! * [`certificates`]: an authority, a server and clients for the tests of TLS.
//! * [`faults`]: faults by chance under clients that write, and programs that judge what those were told (`docs/faults.md`).
//! * [`migrations`]: VMs that move from host to host, and what is struck meanwhile.
//! * [`model`]: sessions, ownership and handoff, explored in every order of events (`docs/reliability.md`).
//! * [`mutations`]: deliberate faults of the product, and what finds them.
//! * [`wan`]: an emulated wide-area network, by hand the program `wan` (`src/bin/wan/`, `docs/wan.md`).
//!
//! The tests themselves are in `tests/tests/`, one file per subject. The program `tidy` (`src/bin/tidy/`) checks the
//! repository for what the compiler and clippy do not see.
//!
//! This crate is *not* a place for unit tests; those stand beside what they test.

pub mod bucket;
pub mod certificates;
pub mod client;
pub mod cluster;
pub mod daemon;
pub mod disk_server;
pub mod faults;
pub mod fio_loop;
pub mod flush;
pub mod fsx;
pub mod guest;
pub mod migrations;
pub mod migrator;
pub mod model;
pub mod mutations;
pub mod node;
pub mod oracle;
pub mod random;
pub mod reply;
pub mod server;
pub mod small_disk;
pub mod strace;
pub mod three_sites;
pub mod tool;
pub mod tree;
pub mod wan;
