//! `sterna volume`: volumes and their snapshots.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use sterna_consensus::state::policy::{AttachPolicy, DegradedPolicy, Durability};
use sterna_consensus::state::replica::ReplicaMode;
use sterna_types::{NodeName, SiteName, SnapshotName, VolumeName, VolumeSize};

use super::values::{Contents, Limit, Requirement, imported_volume_name, new_volume_name, volume_size};

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Make a volume that reads as zeroes.
    Create(Create),
    /// Make a volume from a disk image: raw, qcow2, vmdk, vhdx, vdi or vpc.
    ///
    /// What was interrupted is begun again by the same command.
    Import(Import),
    /// Write a volume, or a snapshot, to a raw image with holes.
    Export(Export),
    /// List all volumes.
    List,
    /// Show a volume and its snapshots.
    Show(Show),
    /// Make a volume larger, also while it is in use.
    Resize(Resize),
    /// Choose anew what was chosen when a volume was made.
    Set(Set),
    /// Delete a volume, or one snapshot of it.
    Delete(Delete),
    /// Keep what a volume holds now under a name; NAME@SNAPSHOT is where to find it, and how to delete it.
    Snapshot(Snapshot),
    /// Make a new volume that begins as a copy of another one, or of a snapshot; no data is copied.
    Clone(Clone),
    /// Have other sites keep a volume, and see how far they are.
    Replica(Replica),
    /// Have volumes go on at another site, all in one moment; give the command to their owner.
    ///
    /// Clients of this node are answered with errors from then on, and new ones are served there. What is not there yet is fetched
    /// as it is needed, and then all the rest; until then this node has to keep running.
    Move(Move),
    /// Go on with a volume at another site, without its owner, whose session has ended.
    ///
    /// What the owner had and that site has not is lost to the volume: it is said before, and takes --accept-loss. When the
    /// owner returns, what it had is kept as a snapshot, NAME@kept-eEPOCH, at that node.
    Failover(Failover),
    /// List the ranges that differ between two volumes or snapshots.
    Diff(Diff),
    /// List which chunks hold a volume, or a snapshot. What was written since the last seal is not in it.
    Map(Map),
    /// Read all of a volume, or of a snapshot, and compare it with its checksums.
    Verify(OneContents),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Map {
    #[command(flatten)]
    pub(crate) contents: OneContents,

    /// Ask the sites that keep the volume, and those that its owner still fetches from, which of the chunks they have.
    #[arg(long)]
    pub(crate) sites: bool,
}

/// What can be chosen for a new volume.
#[derive(Debug, clap::Args)]
pub(crate) struct Policies {
    /// What an acknowledged flush has survived: 'local' for the owner's disk, 'sync:N' for the disks of N nodes, the others with replicas in
    /// mode 'sync'.
    #[arg(long, default_value_t)]
    pub(crate) durability: Durability,

    /// What a write does where the volume is not owned: 'manual' refuses it, 'auto' moves the volume there.
    #[arg(long, default_value_t)]
    pub(crate) attach: AttachPolicy,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// The new volume's name, which is also the name of its export.
    #[arg(value_parser = new_volume_name)]
    pub(crate) name: VolumeName,

    /// Its size, such as 20G: whole blocks of 4096 bytes, at most 64T.
    #[arg(long, value_parser = volume_size)]
    pub(crate) size: VolumeSize,

    #[command(flatten)]
    pub(crate) policies: Policies,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    /// The new volume's name.
    #[arg(value_parser = imported_volume_name)]
    pub(crate) name: VolumeName,

    /// The image. One of 512-byte sectors that does not end on a whole block of 4096 bytes is filled up with zeroes.
    pub(crate) file: PathBuf,

    /// What the image is, where its first bytes shall not decide: a raw disk may begin with anything.
    #[arg(long, value_enum)]
    pub(crate) format: Option<ImageFormat>,

    #[command(flatten)]
    pub(crate) policies: Policies,
}

/// A format of disk images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageFormat {
    Raw,
    Qcow2,
    Vmdk,
    Vhdx,
    Vdi,
    Vpc,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// What to export: NAME or NAME@SNAPSHOT.
    #[arg(value_name = "NAME[@SNAPSHOT]")]
    pub(crate) source: Contents,

    /// The file to write, on the node's machine.
    pub(crate) file: PathBuf,

    /// Replace a file that is there.
    #[arg(long)]
    pub(crate) overwrite: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The volume.
    pub(crate) name: VolumeName,

    /// Count its data, segments, extents and chunks too, which reads all of its map: some seconds for each TiB.
    #[arg(long)]
    pub(crate) map: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneContents {
    /// NAME or NAME@SNAPSHOT.
    #[arg(value_name = "NAME[@SNAPSHOT]")]
    pub(crate) source: Contents,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Resize {
    /// The volume.
    pub(crate) name: VolumeName,

    /// Its new size, which is not below the one that it has.
    #[arg(long, value_parser = volume_size)]
    pub(crate) size: VolumeSize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// The volume.
    pub(crate) name: VolumeName,

    /// What a write does where the volume is not owned: 'manual' refuses it, 'auto' moves the volume there.
    #[arg(long, required_unless_present_any = ["limit", "durability", "degraded"])]
    pub(crate) attach: Option<AttachPolicy>,

    /// How much of it each other node fetches while nobody waits for it, in bits in a second: 50Mbit, 1Gbit; or 'none'.
    #[arg(long, value_name = "RATE")]
    pub(crate) limit: Option<Limit>,

    /// What an acknowledged flush has survived: 'local' for the owner's disk, 'sync:N' for the disks of N nodes.
    #[arg(long)]
    pub(crate) durability: Option<Durability>,

    /// What flushes do while fewer nodes are in sync than 'sync:N' asks for: 'wait' for them, or 'continue' with those that there are.
    #[arg(long)]
    pub(crate) degraded: Option<DegradedPolicy>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// NAME for a volume, NAME@SNAPSHOT for one snapshot of it.
    #[arg(value_name = "NAME[@SNAPSHOT]")]
    pub(crate) what: Contents,

    /// Delete a volume's snapshots with it.
    #[arg(long)]
    pub(crate) with_snapshots: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Snapshot {
    /// The volume.
    pub(crate) volume: VolumeName,

    /// The name of the new snapshot.
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) name: SnapshotName,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Clone {
    /// What to begin with: NAME or NAME@SNAPSHOT.
    #[arg(value_name = "SOURCE[@SNAPSHOT]")]
    pub(crate) source: Contents,

    /// The new volume's name.
    #[arg(value_parser = new_volume_name)]
    pub(crate) name: VolumeName,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Replica {
    /// The volume.
    pub(crate) name: VolumeName,

    #[command(subcommand)]
    pub(crate) command: ReplicaCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReplicaCommand {
    /// Have a site keep the volume.
    Set {
        /// The site, which is not that of the owner.
        site: SiteName,

        /// How it follows: 'async' for all that is published, a few seconds behind; 'sync' also for every write, so that it can count for
        /// durability 'sync:N'; 'cache' for none of it, keeping what the site has, for when the volume comes there again.
        mode: ReplicaMode,

        /// The node that keeps it; without it the node of the site that keeps the fewest volumes.
        #[arg(long)]
        node: Option<NodeName>,
    },
    /// Have a site keep the volume no more; its space is freed by the next 'sterna gc' there.
    Unset {
        /// The site.
        site: SiteName,
    },
    /// Show who keeps the volume, and how far each is behind.
    Status,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Move {
    /// The volumes.
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<VolumeName>,

    /// The site to go on at.
    #[arg(long, value_name = "SITE")]
    pub(crate) to: SiteName,

    /// The node there; without it the one that keeps replicas of them, or else the one that has the fewest volumes.
    #[arg(long)]
    pub(crate) node: Option<NodeName>,

    /// What has to be there before they move: what is 'hot' of them, 'all', or 'none'. It is brought there while they are in use.
    #[arg(long, default_value_t)]
    pub(crate) require: Requirement,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Failover {
    /// The volume.
    pub(crate) name: VolumeName,

    /// The site to go on at, which keeps a replica; its owner's own where it was being handed over to a node that is gone.
    #[arg(long, value_name = "SITE")]
    pub(crate) to: SiteName,

    /// Only say what would be lost.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Do it although something is lost, or may be.
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) accept_loss: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// The older contents: NAME or NAME@SNAPSHOT.
    #[arg(value_name = "OLD[@SNAPSHOT]")]
    pub(crate) old: Contents,

    /// The newer contents: NAME or NAME@SNAPSHOT.
    #[arg(value_name = "NEW[@SNAPSHOT]")]
    pub(crate) new: Contents,

    /// Read what is in different chunks, and leave out what is the same in both.
    #[arg(long)]
    pub(crate) compare_data: bool,
}
