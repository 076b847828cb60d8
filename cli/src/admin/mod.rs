//! The commands that a running node carries out, asked of it over its admin socket, or over the network.
//!
//! * [`client`]: the connection.
//! * [`views`]: what a volume and a snapshot look like, for people and for programs.
//! * [`volumes`]: volumes and snapshots by name. [`contents`]: what is in them. [`upkeep`]: the node and its store.
//! * [`moves`]: volumes that go on elsewhere. [`outage`]: what would be left without a site. [`replicas`]: who else keeps a volume, and going on without its owner.
//! * [`cluster`]: the nodes, tokens for new ones, and who decides. [`session`]: how long nodes' sessions last.
//!   [`administrators`]: certificates for those who come from afar.
//! * [`bucket`]: what is kept in an S3-compatible bucket besides, and volumes made again from it.
//! * [`import`]: disk images on their way in; [`image`]: what an image is; [`foreign`]: those that `qemu-img` reads.
//!
//! Nothing here decides anything about volumes: values were checked where they entered (`args`), and the rest is the
//! node's.

mod administrators;
mod bucket;
pub(crate) mod client;
mod cluster;
mod contents;
mod foreign;
mod image;
mod import;
mod links;
mod moves;
mod outage;
mod replicas;
mod session;
mod upkeep;
mod views;
mod volumes;

use anyhow::Result;

use crate::args::target::Target;
use crate::args::values::Rate;
use crate::args::{BucketCommand, ClusterCommand, VolumeCommand};
use crate::call;
use crate::console::output::{Output, unless_reader_left};
use client::Node;

/// What a node is asked to do.
pub(crate) enum Work {
    /// Something about its cluster.
    Cluster(ClusterCommand),
    /// Something about volumes.
    Volume(VolumeCommand),
    /// Something about what is kept besides.
    Bucket(BucketCommand),
    /// Free what nothing needs.
    CollectGarbage,
    /// Read everything.
    Scrub(Option<Rate>),
}

/// Has a node do it, and prints what comes of it.
///
/// # Errors
/// What went wrong, for people: with the value, and with what to do.
pub(crate) fn run(work: Work, target: &Target, json: bool) -> Result<()> {
    let result = call::runtime()?.block_on(async {
        let mut session = Session { node: Node::connect(target).await?, output: Output::new(json) };
        let done = session.run(work).await;
        // What was found before it failed is told, too.
        done.and(session.output.flush())
    });
    unless_reader_left(result)
}

/// One command on its way.
struct Session {
    node: Node,
    output: Output,
}

impl Session {
    async fn run(&mut self, work: Work) -> Result<()> {
        match work {
            Work::Cluster(command) => self.cluster(command).await,
            Work::Bucket(command) => self.bucket(command).await,
            Work::CollectGarbage => self.collect_garbage().await,
            Work::Scrub(rate) => self.scrub(rate).await,
            Work::Volume(command) => self.volume(command).await,
        }
    }

    async fn volume(&mut self, command: VolumeCommand) -> Result<()> {
        match command {
            VolumeCommand::Create(create) => self.create(create).await,
            VolumeCommand::Import(import) => self.import(import).await,
            VolumeCommand::Export(export) => self.export(export).await,
            VolumeCommand::List => self.list().await,
            VolumeCommand::Show(show) => self.show(show).await,
            VolumeCommand::Resize(resize) => self.resize(resize).await,
            VolumeCommand::Set(set) => self.set(set).await,
            VolumeCommand::Delete(delete) => self.delete(delete).await,
            VolumeCommand::Snapshot(snapshot) => self.snapshot(snapshot).await,
            VolumeCommand::Clone(clone) => self.clone_volume(clone).await,
            VolumeCommand::Replica(replica) => self.replica(replica).await,
            VolumeCommand::Move(moving) => self.move_volumes(moving).await,
            VolumeCommand::Failover(failover) => self.fail_over(failover).await,
            VolumeCommand::Diff(diff) => self.diff(diff).await,
            VolumeCommand::Map(map) => self.map(map).await,
            VolumeCommand::Verify(verify) => self.verify(verify).await,
        }
    }
}
