//! What comes first on the way here: bulk waits while something is read ahead for a guest.
//!
//! A reader that goes on and on has as much asked for ahead of it as a long link holds: it uses the link by itself, and what is pulled
//! besides takes its share of it, and fills the queues on the way. A single read that a guest waits for does not: it leaves the link to
//! bulk for all of its round trip.

use tokio::sync::watch;

/// How many fetches of what is read ahead are under way at this node.
#[derive(Debug)]
pub(in crate::node) struct Precedence {
    ahead: watch::Sender<usize>,
}

/// One of them, as long as it lives.
#[derive(Debug)]
pub(in crate::node) struct Preceding<'a>(&'a Precedence);

impl Default for Precedence {
    fn default() -> Self {
        Self { ahead: watch::Sender::new(0) }
    }
}

impl Precedence {
    /// A fetch of what is read ahead begins.
    pub(in crate::node) fn precede(&self) -> Preceding<'_> {
        self.ahead.send_modify(|ahead| *ahead += 1);
        Preceding(self)
    }

    /// Waits until there is none.
    pub(in crate::node) async fn until_clear(&self) {
        if *self.ahead.borrow() > 0 {
            // The sender is here.
            let _ = self.ahead.subscribe().wait_for(|ahead| *ahead == 0).await;
        }
    }
}

impl Drop for Preceding<'_> {
    fn drop(&mut self) {
        self.0.ahead.send_modify(|ahead| *ahead -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn bulk_waits_until_nothing_is_read_ahead() {
        let precedence = Precedence::default();
        precedence.until_clear().await;
        let (one, other) = (precedence.precede(), precedence.precede());
        drop(one);
        assert!(precedence.until_clear().now_or_never().is_none());
        drop(other);
        precedence.until_clear().await;
    }
}
