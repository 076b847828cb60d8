//! One client's connection: handshake, TLS where it is asked for, transmission, close.
//!
//! * [`inbox`] receives, [`outbox`] sends; both bounded, both counting what they copy.
//! * [`perform`] has the device do what a request says, and turns the outcome into a reply.
//! * [`service`] is the loop of the transmission phase.
//!
//! This file leads a connection through its phases and names every way that one can end ([`End`]).

mod inbox;
mod outbox;
mod perform;
mod service;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::counters::Counters;
use crate::export::Catalog;
use crate::handshake::{Agreement, CloseReason, Handshake, Next};
use crate::limits::{DRAIN_LINGER, DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT};
use crate::tls::TlsPolicy;
use crate::transmission::Violation;

use service::Service;

/// What all connections of a server share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) tls: TlsPolicy,
    pub(crate) counters: Arc<Counters>,
    /// Those on the same lane.
    pub(crate) neighbours: Neighbours,
    /// Cancelled when the server is to stop.
    pub(crate) drain: CancellationToken,
}

/// The connections of a lane, counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Neighbours(Arc<AtomicUsize>);

/// A connection that counts, until it is dropped.
#[derive(Debug)]
pub(crate) struct Neighbour(Neighbours);

impl Neighbours {
    pub(crate) fn join(&self) -> Neighbour {
        self.0.fetch_add(1, Ordering::Relaxed);
        Neighbour(self.clone())
    }

    /// Whether there is but one connection: the one that asks.
    fn are_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= 1
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// The client was done, or the server drained.
    #[error("closed in good order")]
    Orderly,
    /// No export was agreed on.
    #[error("{0}")]
    Handshake(CloseReason),
    /// The handshake took too long.
    #[error("the handshake was not over after {} s", HANDSHAKE_TIMEOUT.as_secs())]
    HandshakeTimeout,
    /// The client wanted an export without TLS.
    #[error("the client does not use TLS, and nothing is served without it here")]
    InTheClear,
    /// The peer, or somebody on the way, sent bytes in the clear that were to look encrypted.
    #[error("the client sent bytes in the clear behind STARTTLS")]
    PlaintextBehindStartTls,
    /// The TLS handshake failed.
    #[error("TLS could not be set up: {0}")]
    Tls(#[source] io::Error),
    /// The client broke the protocol.
    #[error("{0}")]
    Violation(Violation),
    /// Requests were still with the device when the time for the drain was over.
    #[error("requests were still being served {} s after the shutdown began", DRAIN_TIMEOUT.as_secs())]
    DrainTimeout,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
}

/// Serves one connection to its end. `client` is who has connected; once it has shown a certificate, who it is by that.
pub(crate) async fn run<S>(stream: S, client: &mut Client, shared: Shared) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    match lead(stream, client, &shared).await {
        Ok(served) => served,
        Err(end) => failed(&shared, end),
    }
}

/// Leads a connection through the handshake, and serves it; the error is that of a handshake that led nowhere.
async fn lead<S>(mut stream: S, client: &mut Client, shared: &Shared) -> Result<End, End>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let mut greeting = Vec::new();
    let mut handshake = Handshake::new(shared.tls.terms(), &mut greeting);
    let negotiated = in_time(deadline, negotiate(&mut stream, &mut handshake, greeting, client, shared)).await;
    let negotiated = negotiated.map_err(|end| match end {
        End::Handshake(_) | End::Broken(_) if handshake.refused_in_the_clear() => End::InTheClear,
        end => end,
    });
    match negotiated? {
        Negotiated::Transmit(agreement, input) => Ok(serve(stream, *agreement, input, shared).await),
        Negotiated::StartTls => {
            let upgrade = async { shared.tls.accept(stream).await.map_err(End::Tls) };
            let mut stream = in_time(deadline, upgrade).await?;
            handshake.encrypted();
            client.certified(stream.get_ref().1.peer_certificates());
            match in_time(deadline, negotiate(&mut stream, &mut handshake, Vec::new(), client, shared)).await? {
                Negotiated::Transmit(agreement, input) => Ok(serve(stream, *agreement, input, shared).await),
                // The machine refuses a second STARTTLS.
                Negotiated::StartTls => Err(End::PlaintextBehindStartTls),
            }
        }
    }
}

async fn in_time<T>(deadline: Instant, work: impl Future<Output = Result<T, End>>) -> Result<T, End> {
    timeout_at(deadline, work).await.unwrap_or(Err(End::HandshakeTimeout))
}

/// Counts a handshake that came to nothing, unless that is what the client wanted.
fn failed(shared: &Shared, end: End) -> End {
    if !matches!(end, End::Orderly | End::Handshake(CloseReason::Aborted)) {
        shared.counters.handshakes_failed.add(1);
    }
    end
}

/// What the exchange of options led to.
enum Negotiated {
    Transmit(Box<Agreement>, BytesMut),
    StartTls,
}

/// Exchanges options until the machine has come to an end. `out` holds what is to be sent first.
async fn negotiate<S>(
    stream: &mut S,
    handshake: &mut Handshake,
    mut out: Vec<u8>,
    client: &Client,
    shared: &Shared,
) -> Result<Negotiated, End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut input = BytesMut::new();
    loop {
        let progress = handshake.step(&input, &mut out);
        input.advance(progress.consumed);
        let mut next = progress.next;
        if let Next::List = next {
            handshake.listed(&shared.catalog.list(client).await, &mut out);
            next = Next::Read;
        } else if let Next::Find(name) = next {
            next = handshake.found(shared.catalog.find(client, &name).await, &mut out);
        } else if let Next::Read = next
            && progress.consumed == 0
        {
            send(stream, &mut out, shared).await?;
            receive(stream, &mut input, handshake, shared).await?;
            continue;
        }
        send(stream, &mut out, shared).await?;
        match next {
            Next::Transmit(agreement) => return Ok(Negotiated::Transmit(agreement, input)),
            Next::StartTls if input.is_empty() => return Ok(Negotiated::StartTls),
            Next::StartTls => return Err(End::PlaintextBehindStartTls),
            Next::Close(reason) => {
                // A client that has said ABORT may be gone already.
                let _ = stream.shutdown().await;
                return Err(End::Handshake(reason));
            }
            Next::Read | Next::List | Next::Find(_) => {}
        }
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, out: &mut Vec<u8>, shared: &Shared) -> Result<(), End> {
    if !out.is_empty() {
        stream.write_all(out).await?;
        stream.flush().await?;
        shared.counters.sends.add(1);
        shared.counters.bytes_sent.add(out.len() as u64);
        out.clear();
    }
    Ok(())
}

/// Receives at least a byte, or learns of the server's shutdown.
async fn receive<S: AsyncRead + Unpin>(
    stream: &mut S,
    input: &mut BytesMut,
    handshake: &mut Handshake,
    shared: &Shared,
) -> Result<(), End> {
    // The machine takes what it is given before it asks for more, so this bounds the buffer.
    let room = Handshake::INPUT_BYTES - input.len().min(Handshake::INPUT_BYTES - 1);
    input.reserve(room.min(4096));
    if shared.drain.is_cancelled() {
        handshake.drain();
    }
    let received = tokio::select! {
        received = stream.read_buf(input) => received?,
        () = shared.drain.cancelled(), if !shared.drain.is_cancelled() => {
            handshake.drain();
            return Ok(());
        }
        () = tokio::time::sleep(DRAIN_LINGER), if shared.drain.is_cancelled() => return Err(End::Orderly),
    };
    shared.counters.receives.add(1);
    shared.counters.bytes_received.add(received as u64);
    if received == 0 { Err(End::Handshake(CloseReason::Aborted)) } else { Ok(()) }
}

async fn serve<S>(stream: S, agreement: Agreement, input: BytesMut, shared: &Shared) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    tracing::debug!(export = %agreement.export.name, style = ?agreement.style, "attached");
    let mut service = Service::new(stream, &agreement, input, shared);
    let end = service.run().await;
    if let End::Violation(_) = end {
        shared.counters.violations.add(1);
    }
    service.close().await;
    end
}
