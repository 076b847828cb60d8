//! What Sterna gets from the machine that it runs on: time, chance and threads.
//!
//! * [`clock`]: how long ago, and what time of day. * [`chance`]: what nobody can guess.
//! * [`work`]: what blocks, on a thread of its own. * [`in_order`]: much of it at once, with its results in order.
//! * [`simulation`]: the same from a seed; only with the feature of that name.
//!
//! Everything that a node decides by comes through here, so that a simulation can give all of it and one seed gives one run. clippy
//! refuses the other ways to the same things (`clippy.toml`). What waits, and what is measured while it waits, goes by tokio's
//! clock, which a simulation has in its hand as well.
//!
//! It is *not* a layer over the operating system: files belong to the storage engine, sockets to `sterna_transport`.

pub mod chance;
pub mod clock;
pub mod in_order;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod work;

pub use clock::BootTime;
