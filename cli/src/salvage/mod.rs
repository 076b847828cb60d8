//! `sterna salvage`: volumes out of a data directory, without any cluster.

mod choice;
mod names;
mod output;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::ArgGroup;
use sterna_storage_node::chunk_store::index::{Index, RocksIndex};
use sterna_storage_node::disk::SystemDisk;
use sterna_storage_node::progress::Progress;
use sterna_storage_node::salvage::{Contents, Extracted, Salvage, SalvageOptions};
use sterna_types::{ByteSize, Root, SnapshotName};

use choice::Chosen;
use output::Output;

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("what").args(["list", "volume", "root", "all"]))]
pub(crate) struct SalvageArgs {
    /// The data directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// List what is there, and what of it is lost. This is what it does without a choice.
    #[arg(long)]
    list: bool,

    /// Write a volume, by its name or its id, to the file that --to names.
    #[arg(long, value_name = "NAME|ID", requires = "to")]
    volume: Option<String>,

    /// Write a root, as --list shows them, to the file that --to names.
    #[arg(long, requires = "to")]
    root: Option<Root>,

    /// Write all volumes and snapshots, each to a file in the directory that --to-dir names.
    #[arg(long, requires = "to_dir")]
    all: bool,

    /// A raw image, which is made and is sparse. What is lost is a hole.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,

    /// The directory for raw images.
    #[arg(long, value_name = "DIR")]
    to_dir: Option<PathBuf>,

    /// Of the volume, take this snapshot.
    #[arg(long, value_name = "NAME", requires = "volume", conflicts_with = "generation")]
    snapshot: Option<SnapshotName>,

    /// Of the volume, take what it was after this seal, without its journal.
    #[arg(long, value_name = "NUMBER", requires = "volume")]
    generation: Option<u64>,

    /// Take also what is in a journal behind damage: the volume is then that of no moment, as writes between are missing.
    #[arg(long)]
    past_damage: bool,

    /// With --list, read all data too: else it is only looked whether there is some.
    #[arg(long)]
    check: bool,

    /// Memory for the table of chunks: about 1.1 GiB for each TiB of data.
    #[arg(long, value_name = "SIZE", default_value = "4G")]
    memory: ByteSize,
}

/// Runs the command. Fails where something is lost, too.
pub(crate) fn run(args: &SalvageArgs, json: bool) -> Result<()> {
    let directory = &args.directory;
    let disk = SystemDisk::open_read_only(directory)?;
    let mut output = Output::new(json);
    let names = names::read(&directory.join(METADATA)).unwrap_or_else(|error| {
        output.note(&format!("the names of volumes and snapshots are not known: {error:#}"));
        Vec::new()
    });
    let index = open_index(&directory.join(INDEX)).unwrap_or_else(|error| {
        output.note(&format!("{error:#}; it is done without"));
        None
    });
    let options = SalvageOptions { table_bytes: args.memory.0, ..SalvageOptions::default() };
    let salvage = Salvage::open(Arc::new(disk), index, &names, &options, &mut go_on)
        .context("raise the limit with --memory, or put the data directory on a machine with more of it")?;
    output.damages(&salvage);
    let lost = match &args.to_dir {
        _ if args.volume.is_some() || args.root.is_some() => one(args, &salvage, &mut output)?,
        Some(to_dir) if args.all => all(args, &salvage, to_dir, &mut output)?,
        _ => output.list(&salvage, args.past_damage, args.check)?,
    };
    output.end();
    if lost { bail!("something is lost: see above") } else { Ok(()) }
}

fn open_index(path: &Path) -> Result<Option<Arc<dyn Index>>> {
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(Arc::new(RocksIndex::open_read_only(path, INDEX_CACHE_BYTES)?)))
}

/// Writes what was chosen; whether something of it is lost.
fn one(args: &SalvageArgs, salvage: &Salvage, output: &mut Output) -> Result<bool> {
    let chosen = match &args.root {
        Some(root) => choice::root(salvage, *root),
        None => choice::volume(salvage, args)?,
    };
    let to = args.to.as_deref().context("give the image's file with --to FILE")?;
    write(args, salvage, &chosen, to, output)
}

/// Writes everything that has a name or an id; whether something of it is lost.
fn all(args: &SalvageArgs, salvage: &Salvage, to_dir: &Path, output: &mut Output) -> Result<bool> {
    make_directory(&args.directory, to_dir)?;
    let mut lost = false;
    for chosen in choice::everything(salvage, args.past_damage) {
        let to = to_dir.join(chosen.file_name());
        lost |= write(args, salvage, &chosen, &to, output)?;
    }
    // Nothing says what these were.
    lost |= salvage.volumes().iter().any(|volume| volume.newest.is_none());
    Ok(lost)
}

fn write(args: &SalvageArgs, salvage: &Salvage, chosen: &Chosen, to: &Path, output: &mut Output) -> Result<bool> {
    let image = create(&args.directory, to)?;
    let extracted = extract(salvage, &chosen.contents, &image).with_context(|| format!("{}", to.display()))?;
    output.written(chosen, to, &extracted);
    Ok(chosen.is_incomplete || !extracted.lost.is_empty())
}

fn extract(salvage: &Salvage, contents: &Contents, image: &File) -> Result<Extracted> {
    Ok(salvage.extract(contents, image, &mut go_on)?)
}

/// A directory, which is not in the data directory and may be there already.
fn make_directory(directory: &Path, path: &Path) -> Result<()> {
    check_apart(directory, path)?;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot make {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A new file, which is not in the data directory.
fn create(directory: &Path, path: &Path) -> Result<File> {
    check_apart(directory, path)?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path);
    file.with_context(|| format!("cannot make {}: give a file that is not there yet", path.display()))
}

/// Refuses what would be made in the data directory.
fn check_apart(directory: &Path, path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = parent.canonicalize().with_context(|| format!("cannot write to {}", parent.display()))?;
    let directory = directory.canonicalize().with_context(|| format!("cannot read {}", directory.display()))?;
    let is_apart = !parent.starts_with(&directory);
    ensure!(is_apart, "{} is in the data directory, in which nothing is altered: write it elsewhere", path.display());
    Ok(())
}

fn go_on(_progress: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

const METADATA: &str = "metadata";
const INDEX: &str = "index";
const INDEX_CACHE_BYTES: usize = 64 << 20;
/// Disks of virtual machines are nobody else's business.
const FILE_MODE: u32 = 0o600;
