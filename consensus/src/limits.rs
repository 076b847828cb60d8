//! Every bound of the metadata, with its reason. What is refused because of one says so, with the bound.

use std::time::Duration;

/// The most volumes of a cluster. All of the metadata stands in every node's memory, and travels whole to a node that has
/// fallen far behind. `docs/scale.md` has what this many take.
pub const MAX_VOLUMES: usize = 131_072;

/// The most snapshots of one volume: one each hour for five months, then they have to be thinned out.
pub const MAX_SNAPSHOTS_PER_VOLUME: usize = 4_096;

/// The most snapshots of all volumes together: with as many volumes as there may be, the metadata is then small enough for a
/// link of 25 Mbit/s to carry it in a sixth of the time that this may take.
pub const MAX_SNAPSHOTS: usize = 262_144;

/// The most nodes. Each has its own copy of the metadata, and each entry goes to all of them, from the one that leads: what
/// that costs its link is in `docs/scale.md`.
pub const MAX_NODES: usize = 4_096;

/// The most sites.
pub const MAX_SITES: usize = 1_024;

/// The most voters. Each further one makes every decision wait for more of them; nine survive the loss of four.
pub const MAX_VOTERS: usize = 9;

/// The most join tokens that have not expired: a large site's worth of nodes that are being set up.
pub const MAX_TOKENS: usize = 256;

/// The most changes of the layout that are staged at a time: as many as a person can look through.
pub const MAX_STAGED_CHANGES: usize = 64;

/// The most roots in one command. A node that has more to publish sends another one.
pub const MAX_ROOTS_PER_COMMAND: usize = 8_192;

/// The most replicas of one volume: more sites than anybody keeps whole copies at.
pub const MAX_REPLICAS: usize = 16;

/// How many epochs of a volume that ended without their owners are remembered, for the owners' return: more failovers than one
/// absence lasts. An owner that is forgotten keeps all that it had.
pub const MAX_SUPERSEDED: usize = 16;

/// The most volumes that are handed over together: more disks than virtual machines have.
pub const MAX_VOLUMES_PER_HANDOFF: usize = 64;

/// How often a volume is handed over before an owner of it has fetched everything; then it stays until one has: four migrations that were
/// given up in their last moment, one right after the other. Each of those who have
/// handed it over may be the only one that has a chunk, and none of them may go meanwhile.
pub const MAX_SOURCES: usize = 8;

/// The most copies that a flush may wait for. Each further one makes every flush slower and protects against less.
pub const MAX_SYNC_COPIES: u8 = 7;

/// How often a node publishes the roots of what it has sealed: often enough for a follower to be seconds behind, and for one command
/// to be all that a node with thousands of busy volumes costs in that time.
pub const PUBLISH_INTERVAL: Duration = Duration::from_secs(3);

/// How many of the last requests with an id the metadata remembers the outcomes of: minutes of administrators' work. A
/// request sent again later than that is a new one.
pub const MAX_ANSWERED_REQUESTS: usize = 1_024;

/// The most bytes of one entry of Raft's log, as it is written down, but for one with a single large command. Entries are sent
/// whole, and have to arrive within a heartbeat's interval: over a link of 25 Mbit/s this much takes 84 ms, and a fifth of that
/// compressed.
pub const MAX_ENTRY_BYTES: usize = 256 << 10;

/// The most commands of one entry. Those who propose meanwhile are in the next one.
pub const MAX_COMMANDS_PER_ENTRY: usize = 1_024;

/// The most proposals that wait for an entry. Who comes then waits to be let in.
pub const MAX_WAITING_PROPOSALS: usize = 1_024;

/// Bytes in one piece of a snapshot in the database: large enough to be few, small enough for RocksDB's buffers.
pub const SNAPSHOT_PIECE_BYTES: usize = 1 << 20;

/// The most bytes of metadata, as the text that a snapshot holds: more than twice what all that is bounded above can take.
/// Whoever reads a compressed snapshot makes no more of it.
pub const MAX_SNAPSHOT_BYTES: u64 = 512 << 20;

/// Bytes of the last entries that are kept in memory, by their length as they are written down: what a leader hands to other nodes
/// within some seconds, also where every volume of a large cluster is written to.
pub const MAX_RECENT_BYTES: usize = 4 << 20;

/// How many bytes of entries are read back, and sent to another node, at once; as for [`MAX_ENTRY_BYTES`].
pub const MAX_READ_BYTES: usize = MAX_ENTRY_BYTES;

/// The most bytes of one message between nodes: a piece of a snapshot, or an entry with the largest command that there is.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// How many entries of one node are on their way at a time, so that none waits for a round trip before it sets out.
pub const MAX_ENTRIES_IN_FLIGHT: usize = 8;

/// How long a lone node waits to become the leader of itself before it gives up on its disk: one election writes a few
/// hundred bytes.
pub const LONE_ELECTION_TIMEOUT: Duration = Duration::from_secs(30);
