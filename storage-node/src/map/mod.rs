//! Which chunk holds which block of a volume.
//!
//! A volume is cut into segments of 1,024 blocks. A [`Manifest`] says where the blocks of one segment are; a radix tree of
//! [`Node`]s, three levels deep whatever the volume's size, says which manifest is whose; a
//! [`Root`](sterna_types::Root) names the top of the tree, and with it the complete contents of a volume at one moment.
//! Manifests and nodes are chunks, so nothing of a map is ever altered: [`update()`] makes new nodes on the way from what
//! has changed to the top, and shares all others with the root before.
//!
//! There is one way only to write a manifest or a node, and an empty one is not written at all. So two maps of equal
//! extents have equal roots, whatever their histories, and what is equal in two roots is known by its id without a look.
//!
//! * [`extent`], [`manifest`](mod@manifest), [`node`]: the parts and their formats. [`cache`]: those that were decoded lately.
//! * [`tree`]: from a root to the manifest of a segment. [`update`](mod@update): from a root to the next one.
//! * [`segments`](mod@segments), [`statistics`](mod@statistics): walks over one root. [`diff`](mod@diff),
//!   [`diff_blocks`](mod@diff_blocks): walks over two. [`references`]: one step down, for those who walk themselves.

pub mod cache;
pub mod diff;
pub mod diff_blocks;
mod error;
pub mod extent;
pub mod manifest;
pub mod node;
pub mod references;
pub mod segments;
pub mod statistics;
#[cfg(test)]
pub(crate) mod test_store;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod update;

pub use cache::NodeCache;
pub use diff::{SegmentChange, diff};
pub use diff_blocks::{BlockChange, ChangedBlocks, Comparison, diff_blocks};
pub use error::{MapError, Part};
pub use extent::{Extent, InvalidExtent, Piece, SEGMENT_BLOCKS};
pub use manifest::{Manifest, ManifestFormatError, ManifestStatistics};
pub use node::{Level, Node, NodeFormatError};
pub use references::{ReferencesError, children, kind_of_children};
pub use segments::segments;
pub use statistics::{MapStatistics, statistics};
pub use tree::{MAX_SEGMENTS, manifest, manifest_of};
pub use update::{Change, update};
