//! Telling the metadata what is complete here: everything that has come lately in one command.

use std::sync::Arc;
use std::time::Duration;

use sterna_consensus::ProposeError;
use sterna_consensus::limits::MAX_ROOTS_PER_COMMAND;
use sterna_consensus::state::command::{Command, ReplicaReport};
use sterna_consensus::state::outcome::Outcome;
use tokio::sync::{mpsc, oneshot};

use crate::node::node::{HeldRoot, Node};

/// Something that is complete here, and held until the metadata names it.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) report: ReplicaReport,
    pub(super) held: HeldRoot,
    /// Told once it is named, or will never be.
    pub(super) reported: oneshot::Sender<()>,
}

/// Reports what comes, until nobody can send anything more or the node shuts down.
pub(super) async fn run(node: Arc<Node>, mut arrivals: mpsc::Receiver<Arrival>) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            () = node.stopping.cancelled() => return,
            count = arrivals.recv_many(&mut batch, MAX_ROOTS_PER_COMMAND) => if count == 0 { return },
        }
        tokio::select! {
            () = node.stopping.cancelled() => return,
            () = report(&node, &batch) => {}
        }
        for Arrival { held, reported, .. } in batch.drain(..) {
            drop(held);
            // Who asked may have gone away with the node.
            let _ = reported.send(());
        }
    }
}

/// Reports a batch, however often it takes.
async fn report(node: &Node, batch: &[Arrival]) {
    let reports = batch.iter().map(|arrival| arrival.report.clone()).collect();
    let command = Command::ReportReplicas { node: node.metadata.id(), reports };
    loop {
        match node.metadata.propose_without_haste(command.clone()).await {
            Ok(Outcome::Reported { refused }) => {
                for (volume, refusal) in refused {
                    // It has another owner meanwhile, or is kept here no more.
                    tracing::debug!(%volume, %refusal, "what is complete here does not count");
                }
                return;
            }
            Ok(other) => unreachable!("a report has the outcome {other:?}"),
            Err(ProposeError::Refused(refusal)) => {
                tracing::warn!(%refusal, "what is complete here does not count");
                return;
            }
            // A report that was carried out already is carried out again.
            Err(error) => {
                tracing::debug!(%error, "what is complete here could not be told; it is tried again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

const PAUSE: Duration = Duration::from_secs(1);
