//! An emulated wide-area network: sites in network namespaces of one machine, and between each two of them, in each
//! direction, a delay, a rate, a queue and loss that can be changed while it runs, and a cut.
//!
//! For kernels without netem. Each site has a TUN device; one thread reads what the sites send, and writes it to the others
//! when it is due. `docs/wan.md` says what is modelled and what is not.
//!
//! * `running`: [`Wan`], what a test holds. * `topology`: which sites there are, from TOML; `settings` and `quantity`: what is set
//!   of a direction. * `report`: what has happened in each.
//! * `link`: one direction, as a pure model; `moment` is its time. * `carrier`: the thread; `path` is one direction with its
//!   packets, `pool` are their buffers, `packet` is what has to be known of one.
//! * `namespace`: a site's network namespace, and what an earlier run has left. * `device`: the TUN device in it.
//!
//! It is *not* a router: it carries IPv4 between the sites' subnets and nothing else.

mod carrier;
mod device;
mod link;
mod moment;
mod namespace;
mod packet;
mod path;
mod pool;
mod quantity;
mod report;
mod running;
mod settings;
mod topology;

pub use namespace::{BadPrefix, Leftovers, Prefix, command_inside, inside, namespace_name};
pub use quantity::{BadQuantity, Delay, Loss, Rate, Size};
pub use report::{DirectionReport, Dropped, Report, SiteReport};
pub use running::{Wan, Ways};
pub use settings::{Change, Settings};
pub use topology::{Offload, Site, Topology};
