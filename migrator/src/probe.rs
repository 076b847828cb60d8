//! How fast a link to another migrator is: what a prediction rests on.
//!
//! Bytes are sent for a moment, over the connection that a VM's memory would take, and the other end says how many have come. The rate is
//! estimated as that of memory under way is ([`Window`]).

use std::collections::VecDeque;
use std::time::Duration;

use sterna_proto::migrator::{AskRequest, ProbeReply, ProbeRequest};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::carry::Window;
use crate::source::setup::Peer;

/// A link, as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// In bytes a second; 0 where nothing came there in time.
    pub rate: u64,
    /// There and back, with an answer.
    pub round_trip: Duration,
}

/// Measures the link to a migrator: for [`PROBE_TIME`] at most, with [`PROBE_BYTES`] at most.
///
/// # Errors
/// It does not answer.
///
/// # Cancel safety
/// May be dropped at any time.
pub async fn measure(peer: &Peer) -> Result<Link, Status> {
    let mut round_trip = Duration::MAX;
    for _ in 0..ASKED {
        let asked = Instant::now();
        // Of a migration that there never was.
        peer.calls.clone().ask(AskRequest { migration: vec![0; 16] }).await?;
        round_trip = round_trip.min(asked.elapsed());
    }
    let (send, requests) = mpsc::channel(PIECES);
    let begun = Instant::now();
    let until = begun + PROBE_TIME;
    let probing = async {
        let mut replies = peer.stream.clone().probe(ReceiverStream::new(requests)).await?.into_inner();
        let (mut window, mut sent, mut taken) = (Window::new(), VecDeque::new(), 0);
        let mut sent_bytes = 0;
        loop {
            tokio::select! {
                permit = send.reserve(), if sent_bytes < PROBE_BYTES => {
                    let Ok(permit) = permit else { break };
                    permit.send(ProbeRequest { bytes: vec![0; PIECE_BYTES] });
                    sent_bytes += PIECE_BYTES as u64;
                    sent.push_back((sent_bytes, window.sent(false, begun.elapsed())));
                }
                reply = replies.message() => {
                    let Some(ProbeReply { taken_bytes }) = reply? else { break };
                    let mut last = None;
                    while let Some((_, piece)) = sent.front().copied().filter(|(end, _)| *end <= taken_bytes) {
                        last = Some(piece);
                        sent.pop_front();
                    }
                    if let Some(piece) = last {
                        window.acknowledged(taken_bytes.saturating_sub(taken), piece, begun.elapsed());
                        taken = taken_bytes;
                    }
                    if taken >= PROBE_BYTES || Instant::now() >= until {
                        break;
                    }
                }
            }
        }
        Ok::<_, Status>(window.rate())
    };
    // Over the slowest of links not one piece comes there in time.
    let rate = timeout_at(until + PROBE_TIME, probing).await.unwrap_or(Ok(0))?;
    Ok(Link { rate, round_trip })
}

/// Answers a migrator that measures the link to here.
///
/// # Cancel safety
/// May be dropped at any time.
pub async fn answer(mut requests: Streaming<ProbeRequest>, replies: mpsc::Sender<Result<ProbeReply, Status>>) {
    let mut taken_bytes = 0;
    while let Ok(Some(ProbeRequest { bytes })) = requests.message().await {
        taken_bytes += bytes.len() as u64;
        let reply = if taken_bytes > PROBE_BYTES {
            Err(Status::resource_exhausted(format!("a probe has {PROBE_BYTES} bytes at most")))
        } else {
            Ok(ProbeReply { taken_bytes })
        };
        let is_over = reply.is_err();
        if replies.send(reply).await.is_err() || is_over {
            return;
        }
    }
}

/// A link of 100 ms is as fast as it gets after about ten round trips.
pub const PROBE_TIME: Duration = Duration::from_secs(2);

/// What a link of 250 Mbit/s carries in that time; a faster one is known sooner.
pub const PROBE_BYTES: u64 = 64 << 20;

/// As pieces of memory are.
const PIECE_BYTES: usize = 64 << 10;

/// Between a probe and its call.
const PIECES: usize = 1;

/// How often something is asked for the shortest of round trips.
const ASKED: usize = 3;
