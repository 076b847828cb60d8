//! One link, and the connections that are on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use sterna_types::ByteRate;
use tokio::time::{Instant, Sleep, sleep_until};

use super::gate::{Gate, MemberId, Turn};
use super::{LinkId, LinkTraffic};
use crate::lane::Lane;

/// What all connections to one peer share.
#[derive(Debug, Default)]
pub(super) struct Link {
    gate: Mutex<Gate>,
    /// In the order of [`Lane::ALL`].
    traffic: [Traffic; Lane::ALL.len()],
}

/// What went over a lane.
#[derive(Debug, Default)]
struct Traffic {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl Link {
    pub(super) fn set_limit(&self, limit: Option<ByteRate>) {
        let woken = self.gate().set_limit(limit, Instant::now());
        woken.into_iter().for_each(Waker::wake);
    }

    pub(super) fn limit(&self) -> Option<ByteRate> {
        self.gate().limit()
    }

    /// What went over one lane; this link is known by `link`.
    pub(super) fn traffic(&self, link: LinkId, lane: Lane) -> LinkTraffic {
        let Traffic { sent_bytes, received_bytes } = self.lane(lane);
        let [sent_bytes, received_bytes] = [sent_bytes, received_bytes].map(|count| count.load(Ordering::Relaxed));
        LinkTraffic { link, lane, sent_bytes, received_bytes }
    }

    fn lane(&self, lane: Lane) -> &Traffic {
        &self.traffic[lane as usize]
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        // Nothing panics while it is held.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection on a link. Dropped, it is there no more, and holds nobody back.
#[derive(Debug)]
pub(crate) struct Member {
    link: Arc<Link>,
    lane: Lane,
    id: MemberId,
    /// When it asks again, while it waits.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Member {
    pub(super) fn new(link: Arc<Link>, lane: Lane) -> Self {
        let id = link.gate().join(lane);
        Self { link, lane, id, timer: None }
    }

    /// The lane that it is of.
    pub(crate) fn lane(&self) -> Lane {
        self.lane
    }

    /// Waits for a turn to write: so many bytes at most. It is over when [`Self::wrote`] is called.
    pub(super) fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        loop {
            let turn = self.link.gate().ask(self.id, Instant::now(), context.waker());
            match turn {
                Turn::Now { at_most_bytes } => {
                    self.timer = None;
                    return Poll::Ready(at_most_bytes);
                }
                Turn::Later(at) => {
                    let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
                    timer.as_mut().reset(at);
                    ready!(timer.as_mut().poll(context));
                }
            }
        }
    }

    /// What has come of a turn: so many bytes were written, none where that failed; `None` if the socket takes nothing
    /// now.
    pub(super) fn wrote(&mut self, bytes: Option<usize>) {
        let woken = {
            let mut gate = self.link.gate();
            match bytes {
                Some(bytes) => gate.wrote(self.id, bytes, Instant::now()),
                None => gate.blocked(Instant::now()),
            }
        };
        woken.into_iter().for_each(Waker::wake);
        self.count_sent(bytes.unwrap_or_default());
    }

    /// Counts bytes from this node.
    pub(super) fn count_sent(&self, bytes: usize) {
        self.link.lane(self.lane).sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes to this node.
    pub(super) fn count_received(&self, bytes: usize) {
        self.link.lane(self.lane).received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let woken = self.link.gate().leave(self.id, Instant::now());
        woken.into_iter().for_each(Waker::wake);
    }
}
