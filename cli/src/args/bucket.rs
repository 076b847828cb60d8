//! `sterna bucket`: what the node keeps in its bucket besides, and volumes made again from that.

use clap::Subcommand;
use sterna_bucket::names::{ForeignName, VolumeKey};
use sterna_types::VolumeName;

use super::values::new_volume_name;

#[derive(Debug, Subcommand)]
pub(crate) enum BucketCommand {
    /// Show how far the volumes of the node are in its bucket, and what keeps them from being there.
    Status,
    /// List the volumes that are in the bucket, whichever cluster they are of.
    List,
    /// Make a volume again, with its snapshots, from the bucket alone; the node owns it then.
    ///
    /// It can be used once all of it is here. What was interrupted is gone on with by the same command.
    Restore(Restore),
    /// Give up what the bucket has of a volume that this cluster does not have any more.
    ///
    /// The space is free after the next collections (sterna bucket gc).
    Forget(Named),
    /// Remove from the bucket what no volume in it needs any more.
    ///
    /// What is found so is left for a grace period, and removed by a collection after that: run this once a day, by one node.
    Gc,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) what: Named,

    /// What the new volume is to be called; without it as in the bucket.
    #[arg(long = "as", value_name = "NEW", value_parser = new_volume_name)]
    pub(crate) new_name: Option<VolumeName>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// The volume, as it is called in the bucket.
    pub(crate) name: VolumeName,

    /// Which one it is, where several are called so (sterna bucket list).
    #[arg(long, value_name = "CLUSTER/VOLUME", value_parser = key)]
    pub(crate) from: Option<VolumeKey>,
}

fn key(text: &str) -> Result<VolumeKey, ForeignName> {
    text.parse()
}
