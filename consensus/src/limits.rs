//! Every bound of the metadata, with its reason. What is refused because of one says so, with the bound.

use std::time::Duration;

/// The most volumes of a cluster. All of the metadata stands in every node's memory and travels whole to a node that has
/// fallen far behind; this many take about 8 MiB there.
pub const MAX_VOLUMES: usize = 16_384;

/// The most snapshots of one volume: one each hour for five months, then they have to be thinned out.
pub const MAX_SNAPSHOTS_PER_VOLUME: usize = 4_096;

/// The most snapshots of all volumes together: about 32 MiB of metadata, which a link of 25 Mbit/s carries in ten seconds,
/// well within the time that a snapshot of the metadata may take.
pub const MAX_SNAPSHOTS: usize = 131_072;

/// The most nodes. Each has its own copy of the metadata, and each entry goes to all of them.
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

/// The most copies that a flush may wait for. Each further one makes every flush slower and protects against less.
pub const MAX_SYNC_COPIES: u8 = 7;

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

/// How many bytes of entries are read back, and sent to another node, at once; as for [`MAX_ENTRY_BYTES`].
pub const MAX_READ_BYTES: usize = MAX_ENTRY_BYTES;

/// The most bytes of one message between nodes: a piece of a snapshot, or an entry with the largest command that there is.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// How many entries of one node are on their way at a time, so that none waits for a round trip before it sets out.
pub const MAX_ENTRIES_IN_FLIGHT: usize = 8;

/// How long a lone node waits to become the leader of itself before it gives up on its disk: one election writes a few
/// hundred bytes.
pub const LONE_ELECTION_TIMEOUT: Duration = Duration::from_secs(30);
