//! What a peer can make this crate hold or do, and why that much.

use std::time::Duration;

use sterna_types::ByteRate;

// Certificates and tokens.

/// How far before its making a certificate is valid from: the clocks of two nodes may differ by as much.
pub const BACKDATING: Duration = Duration::from_secs(10 * 60);

/// How long an authority is valid. Replacing it is a ceremony of the whole cluster, so longer than the machines last.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// Most authorities that are trusted at a time: the old one and the new one while they change, and one more for a
/// change that was begun twice.
pub const MAX_AUTHORITIES: usize = 3;

/// The longest certificate or request for one that is looked at, in bytes. Ours have fewer than 700.
pub const MAX_CERTIFICATE_BYTES: usize = 8 << 10;

/// Most addresses in a join token: it is pasted by a person, and one reachable node is enough to join.
pub const MAX_TOKEN_ADDRESSES: usize = 8;

/// The longest text that is looked at as a join token, in bytes: one with the most addresses, all of IPv6, has 472.
pub const MAX_TOKEN_BYTES: usize = 512;

/// The longest file of credentials that is read, in bytes: a key, a certificate and the most authorities take 6 KiB.
pub const MAX_FILE_BYTES: u64 = 64 << 10;

// Who comes in.

/// Most handshakes at a time; further connections wait in the kernel's backlog. One takes about a millisecond of a
/// processor, and the peer's round trips: after a restart all peers of a large cluster are through in a second.
pub const MAX_HANDSHAKES: usize = 256;

/// Most of them from one address; one more is refused, and tried again by its node. So whoever begins many and ends none
/// keeps nobody out who comes from elsewhere.
pub const MAX_HANDSHAKES_PER_ADDRESS: usize = 64;

/// From accepting a connection to the end of its handshake. Three round trips of the longest way that is planned for
/// (300 ms) with lost packets sent again take less than half of it.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// From the end of a handshake to the last byte of HTTP/2's preface, which every client sends at once.
pub const PREFACE_TIMEOUT: Duration = HANDSHAKE_TIMEOUT;

/// Most connections at a time. A cluster of 100 nodes with six lanes each takes 600.
pub const MAX_CONNECTIONS: usize = 1024;

/// Most connections of one address at a time, so that one confused peer leaves room for the others. All nodes of a site
/// may stand behind one address.
pub const MAX_CONNECTIONS_PER_ADDRESS: usize = 256;

/// Most connections without a certificate at a time. They are for joining, which a person does for one node at a time;
/// each can make the node hold [`SERVER_CONNECTION_WINDOW_BYTES`].
pub const MAX_STRANGERS: usize = 16;

/// How long a connection without a certificate lasts at most, so that a few that only wait do not keep others from
/// joining. Joining takes three round trips and two synced writes.
pub const STRANGER_LIFETIME: Duration = Duration::from_secs(60);

/// Connections that are through their handshake and wait to be taken. The taker does nothing but spawn a task for each.
pub const ACCEPTED_BACKLOG: usize = 16;

/// After the system refused to accept a connection (out of descriptors, say), how long until it is asked again.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many refusals of one reason are logged in each [`REFUSAL_LOG_PERIOD`]: enough to see who it is, and 13 MB in a
/// year in which somebody tries day and night.
pub const REFUSALS_LOGGED: u32 = 3;

/// The period of [`REFUSALS_LOGGED`].
pub const REFUSAL_LOG_PERIOD: Duration = Duration::from_secs(60);

// Connecting.

/// From the look for an address to the first byte that the peer sends after its handshake: as long as the peer allows
/// ([`HANDSHAKE_TIMEOUT`]), less the way there.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// The wait after the first failed attempt to connect; it doubles with each one after, ...
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// ... up to this: how long a node that is back may go unnoticed. Less than Raft's shortest election.
pub const BACKOFF_MAX: Duration = Duration::from_millis(1600);

/// A connection that ended sooner than this counts as a failed attempt: a peer that accepts and hangs up is not tried
/// in a tight loop.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);

/// How long a TCP connection is quiet before the kernel asks whether the peer is still there. HTTP/2's pings ask
/// sooner; this is for what stands before and behind them.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

// Links: who of the connections to one peer may write, and how much.

/// What the kernel takes of a connection beyond what it can send at once, in bytes: the rest stays where what is more
/// urgent can go before it. 10 ms of a line of 100 Mbit/s. With less, a sender on a busy machine is too late with the next
/// record again and again, and BBR, which then takes the application for what limits it, never ends its start: it
/// paces at 2.9 times the line's rate and keeps the queue on the way full (seen with 16 KiB; RTT 200 ms instead of 100).
pub const UNSENT_BYTES: u32 = 128 << 10;

/// Most bytes that a connection writes at a time while there is a limit: the longest TLS record (RFC 8446, 5.2), with
/// its header. So little is neither early nor late for anybody.
pub const MAX_GRANT_BYTES: usize = 5 + (16 << 10) + 256;

/// How long a lane that has written goes on holding others back at least. The next piece of an answer is read, compressed and
/// encrypted within a millisecond, and tokio's timers are as coarse.
pub const URGENT_HOLD: Duration = Duration::from_millis(2);

/// How long after an answer to demand the lanes that yield leave a part of the link free: whoever has read something that was not
/// there reads on.
pub const COURTESY: Duration = Duration::from_secs(2);

/// Which part: a tenth. So the queue on the way, which a transfer may have filled, runs empty at that rate.
pub const COURTESY_PART: u64 = 10;

/// A write of fewer bytes is not followed by [`URGENT_HOLD`], nor by [`COURTESY`]: a request, an acknowledgement, the end of an answer or one
/// block of 4 KiB, none of which has anything behind it. Else 500 requests a second would keep bulk from going the other way.
pub const HOLDING_WRITE_BYTES: usize = 8 << 10;

/// A connection whose writes have waited in the kernel for so long holds nobody back: its peer is gone, or does not
/// read. Three round trips of the longest way that is planned for, so that one lost packet does not end its precedence.
pub const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Whoever was held back for so long writes once ([`MAX_GRANT_BYTES`]), whatever there is that goes before it. Pings
/// are answered behind at most 96 KiB that wait in this process, so within 1.5 s, which [`PING_TIMEOUT`] allows.
pub const STARVED_AFTER: Duration = Duration::from_millis(250);

/// Between two such writes on one link: all of them together take 2.6 Mbit/s, ...
pub const STARVED_INTERVAL: Duration = Duration::from_millis(50);

/// ... and no more than one part in so many of a limit.
pub const STARVED_SHARE: u32 = 2;

/// What a link that was idle may send at once, as time at its limit: it makes up for timers that ring late.
pub const LIMIT_BURST: Duration = Duration::from_millis(20);

/// What demand has taken beyond the limit is paid back by the others for at most so long, as time at the limit. More
/// would leave them without a word for longer than [`PING_TIMEOUT`].
pub const MAX_DEBT: Duration = Duration::from_secs(1);

/// The lowest limit: one TLS record takes a quarter of a second. With less, pings come too late and connections end.
pub const MIN_LIMIT: ByteRate = ByteRate(64 << 10);

// HTTP/2. A window is what the receiver takes before the sender has heard from it again: a stream runs at no more than
// window / round trip. The protocol's own, 64 KiB, makes 0.6 MB/s of any line at 100 ms.

/// What comes back on one stream of the control lane: a Raft message or an answer, none over 1 MiB.
pub const CONTROL_STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// What comes back on all streams of a control connection.
pub const CONTROL_CONNECTION_WINDOW_BYTES: u32 = 2 << 20;

/// What comes back on one stream of the demand lane: what one read of a guest lacks.
pub const DEMAND_STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// What comes back on all streams of a demand connection: 1.3 Gbit/s at 100 ms.
pub const DEMAND_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// What comes back on one stream of the other lanes, bulk and what goes before it: 1.3 Gbit/s at 100 ms.
pub const BULK_STREAM_WINDOW_BYTES: u32 = 16 << 20;

/// What comes back on all streams of one of their connections: two of them at full speed, while a third stands still.
pub const BULK_CONNECTION_WINDOW_BYTES: u32 = 48 << 20;

/// What a server takes on one stream. Its settings are those of all lanes, so as much as the bulk lane.
pub const SERVER_STREAM_WINDOW_BYTES: u32 = BULK_STREAM_WINDOW_BYTES;

/// What a server takes on all streams of a connection: one at full speed, while another stands still.
pub const SERVER_CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// Most calls of one connection at a time.
pub const MAX_STREAMS_PER_CONNECTION: u32 = 256;

/// How often each end of a connection asks whether the other is still there, ...
pub const PING_INTERVAL: Duration = Duration::from_secs(5);

/// ... and how long it waits for the answer before it gives the connection up.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests that wait in a channel for its connection. Callers bound what they have in flight; this is a backstop.
pub const CHANNEL_QUEUE: usize = 256;
