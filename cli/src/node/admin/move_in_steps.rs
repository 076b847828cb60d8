//! MoveInSteps: volumes of a VM that moves go with it, when it says so.
//!
//! ```text
//! the VM's migrator              this node
//! ─────────────────              ─────────
//! bring ───────────────────────> brings what has to be at the other node
//!        <────────────── brought  and again what has been written since: the VM writes as ever, for as long as its memory takes
//! prepare ─────────────────────> the other node makes room
//!        <──────────────── ready
//! (the VM stands) hand over ───> one message
//!        <─────────────── result
//! ```
//!
//! A caller that goes away before the last has nothing moved.

use std::sync::Arc;
use std::time::Duration;

use sterna_proto::admin;
use sterna_proto::admin::move_in_steps_request::Step as Asked;
use sterna_proto::admin::move_volumes_reply::Step;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};

use super::move_volumes::{Moving, step};
use super::work::{Replies, long_work};
use crate::node::handoff::PreCopied;
use crate::node::node::Node;

/// Has another node go on with volumes, step by step.
pub(super) fn run(
    node: &Arc<Node>,
    mut steps: Streaming<admin::MoveInStepsRequest>,
) -> Response<Replies<admin::MoveVolumesReply>> {
    let own = Arc::clone(node);
    long_work(node, move |mut reporter| async move {
        let (request, token) = match steps.message().await? {
            Some(admin::MoveInStepsRequest { step: Some(Asked::Bring(request)), token }) => (request, token),
            _ => return Err(Status::invalid_argument("the first message says what is to move, and where")),
        };
        let moving = Moving::new(&own, &request, token).await?;
        let mut caller = Caller { steps, replies: reporter.sender(), stopping: own.stopping.clone() };
        let progress = |done_bytes| {
            let progress = admin::Progress { done_bytes, total_bytes: 0 };
            // Whether the caller is still there is seen to beside it.
            let _ = reporter.progress(|| step(Step::Progress(progress)));
        };
        let brought = keep_brought(&moving, &mut caller, progress).await?;
        let on_its_word = move |ready| async move { caller.word(ready).await };
        Ok(step(Step::Result(moving.hand_over(brought, on_its_word).await?)))
    })
}

/// Brings what has to be there, again and again, until the caller wants it prepared.
async fn keep_brought(
    moving: &Moving,
    caller: &mut Caller,
    mut progress: impl FnMut(u64),
) -> Result<Option<PreCopied>, Status> {
    let mut brought = tokio::select! {
        brought = moving.bring(&mut progress) => brought?,
        asked = caller.next() => return Err(asked.err().unwrap_or_else(|| Status::invalid_argument("nothing is there yet"))),
    };
    loop {
        let pre_copied_bytes = moving.pre_copied_bytes();
        caller.say(Step::Brought(admin::Brought { pre_copied_bytes })).await?;
        let again = async {
            sleep(BETWEEN_ROUNDS).await;
            moving.bring(|_| {}).await
        };
        tokio::select! {
            asked = caller.next() => match asked? {
                Asked::Prepare(admin::PrepareMove {}) => return Ok(brought),
                Asked::Bring(_) | Asked::HandOver(_) => {
                    return Err(Status::invalid_argument("what is brought is prepared next"));
                }
            },
            again = again => match again {
                // What was there before is let go of only now.
                Ok(again) => brought = again,
                Err(status) => tracing::info!(%status, "what is written to volumes that are about to move is not brought there for now"),
            },
        }
    }
}

/// Who has asked for it.
struct Caller {
    steps: Streaming<admin::MoveInStepsRequest>,
    replies: mpsc::Sender<Result<admin::MoveVolumesReply, Status>>,
    stopping: CancellationToken,
}

impl Caller {
    /// What it wants next.
    ///
    /// # Errors
    /// It has gone away, or this node is shutting down.
    ///
    /// # Cancel safety
    /// May be dropped at any time; nothing is lost.
    async fn next(&mut self) -> Result<Asked, Status> {
        let next = tokio::select! {
            next = self.steps.message() => next?,
            () = self.stopping.cancelled() => return Err(Status::unavailable("nothing has moved: the node is shutting down")),
        };
        next.and_then(|next| next.step).ok_or_else(not_now)
    }

    async fn say(&self, told: Step) -> Result<(), Status> {
        self.replies.send(Ok(step(told))).await.map_err(|_| not_now())
    }

    /// Says that all is ready, and waits for its word.
    async fn word(&mut self, ready: admin::MoveReady) -> Result<(), Status> {
        self.say(Step::Ready(ready)).await?;
        let next = timeout(WORD_PATIENCE, self.next()).await.map_err(|_| {
            Status::deadline_exceeded(format!(
                "nothing has moved: the caller has not said when within {WORD_PATIENCE:?}"
            ))
        })?;
        match next? {
            Asked::HandOver(admin::HandOver {}) => Ok(()),
            Asked::Bring(_) | Asked::Prepare(_) => Err(Status::invalid_argument("it is prepared already: say when")),
        }
    }
}

fn not_now() -> Status {
    Status::cancelled("nothing has moved: the caller went away before it said when")
}

/// What a VM writes meanwhile is the tail when it moves: little of it, and hardly more work than a seal.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(2);

/// How long volumes are kept ready to be handed over: meanwhile nobody resizes them or makes snapshots of them.
const WORD_PATIENCE: Duration = Duration::from_secs(60);
