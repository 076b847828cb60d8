//! `sterna salvage`: volumes out of a data directory, without any cluster.

mod choice;
mod names;
mod report;
#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ArgGroup;
use sterna_storage_node::chunk_store::index::{Index, RocksIndex};
use sterna_storage_node::disk::SystemDisk;
use sterna_storage_node::progress::Watcher;
use sterna_storage_node::salvage::{Contents, ExtractError, Extracted, Salvage, SalvageError, SalvageOptions};
use sterna_types::{ByteSize, Root, SnapshotName};

use crate::console;
use crate::console::interrupt::{self, Interrupted};
use crate::console::output::{Output, unless_reader_left};
use crate::image_file::{ImageFile, ImageFileError};
use choice::{Chosen, name_of};
use report::Report;

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
    unless_reader_left(interrupt::stoppable(|stop| salvage(args, json, stop)))
}

fn salvage(args: &SalvageArgs, json: bool, stop: &AtomicBool) -> Result<()> {
    let mut work = Work { args, stop, report: Report::new(Output::new(json)) };
    let done = work.run();
    // What was found before it failed is told, too.
    done.and(work.report.end())
}

/// One salvage on its way.
struct Work<'a> {
    args: &'a SalvageArgs,
    /// Set where it is to end.
    stop: &'a AtomicBool,
    report: Report,
}

impl Work<'_> {
    fn run(&mut self) -> Result<()> {
        let args = self.args;
        let salvage = self.open()?;
        self.report.damages(&salvage)?;
        let lost = match &args.to_dir {
            _ if args.volume.is_some() || args.root.is_some() => self.one(&salvage)?,
            Some(to_dir) if args.all => self.all(&salvage, to_dir)?,
            _ => self.list(&salvage)?,
        };
        if lost { bail!("something is lost: see above") } else { Ok(()) }
    }

    fn open(&mut self) -> Result<Salvage> {
        let args = self.args;
        let disk = SystemDisk::open_read_only(&args.directory)?;
        let names = match names::read(&args.directory.join(METADATA)) {
            Ok(names) => names,
            Err(error) => {
                self.report.note(&format!("the names of volumes and snapshots are not known: {error:#}"))?;
                Vec::new()
            }
        };
        let index = match open_index(&args.directory.join(INDEX)) {
            Ok(index) => index,
            Err(error) => {
                self.report.note(&format!("{error:#}; it is done without"))?;
                None
            }
        };
        let options = SalvageOptions { table_bytes: args.memory.0, ..SalvageOptions::default() };
        let opened = self.watched(&format!("reading {}", args.directory.display()), |watcher| {
            Salvage::open(Arc::new(disk), index, &names, &options, watcher)
        })?;
        match opened {
            Err(SalvageError::Stopped) => {
                bail!(Interrupted::leaving("nothing was written, the same command begins again"))
            }
            opened => {
                opened.context("raise the limit with --memory, or put the data directory on a machine with more of it")
            }
        }
    }

    /// All volumes, and roots that none of them has; whether something is lost.
    fn list(&mut self, salvage: &Salvage) -> Result<bool> {
        let (past_damage, mut lost) = (self.args.past_damage, false);
        for volume in salvage.volumes() {
            let examined = match volume.contents(past_damage) {
                Some(contents) => Some(self.examine(salvage, &name_of(volume), &contents)?),
                None => None,
            };
            lost |= volume.is_incomplete() || examined.as_ref().is_some_and(|examined| !examined.lost.is_empty());
            self.report.volume(volume, examined.as_ref())?;
            for snapshot in &volume.snapshots {
                let name = format!("{}@{}", name_of(volume), snapshot.name);
                let examined = self.examine(salvage, &name, &snapshot.into())?;
                lost |= !examined.lost.is_empty();
                self.report.snapshot(volume, snapshot, &name, &examined)?;
            }
        }
        salvage.unclaimed().iter().try_for_each(|root| self.report.unclaimed(*root))?;
        Ok(lost)
    }

    fn examine(&mut self, salvage: &Salvage, name: &str, contents: &Contents) -> Result<Extracted> {
        let check_data = self.args.check;
        let examined =
            self.watched(&format!("examining {name}"), |watcher| salvage.examine(contents, check_data, watcher))?;
        examined.map_err(|error| unless_stopped(error, || format!("'{name}' and what follows was not examined")))
    }

    /// Writes what was chosen; whether something of it is lost.
    fn one(&mut self, salvage: &Salvage) -> Result<bool> {
        let args = self.args;
        let chosen = match &args.root {
            Some(root) => choice::root(salvage, *root),
            None => choice::volume(salvage, args)?,
        };
        let to = args.to.as_deref().context("give the image's file with --to FILE")?;
        self.write(salvage, &chosen, to, "the same command begins again")
    }

    /// Writes everything that has a name or an id; whether something of it is lost.
    fn all(&mut self, salvage: &Salvage, to_dir: &Path) -> Result<bool> {
        make_directory(&self.args.directory, to_dir)?;
        let mut lost = false;
        for chosen in choice::everything(salvage, self.args.past_damage) {
            let to = to_dir.join(chosen.file_name());
            lost |= self.write(salvage, &chosen, &to, THE_REST_OF_ALL)?;
        }
        // Nothing says what these were.
        lost |= salvage.volumes().iter().any(|volume| volume.newest.is_none());
        Ok(lost)
    }

    /// Writes an image; whether something of it is lost. `remains` says what to do where it is interrupted.
    fn write(&mut self, salvage: &Salvage, chosen: &Chosen, to: &Path, remains: &str) -> Result<bool> {
        check_apart(&self.args.directory, to)?;
        let shown = to.display();
        let image = ImageFile::create(to, false).map_err(refused)?;
        let extracted = self.watched(&format!("writing {}", chosen.name), |watcher| {
            salvage.extract(&chosen.contents, image.file(), watcher)
        })?;
        let extracted = extracted
            .map_err(|error| unless_stopped(error, || format!("{shown} was not written, {remains}")))
            .with_context(|| format!("{shown}"))?;
        image.keep().map_err(refused)?;
        self.report.written(chosen, to, &extracted)?;
        Ok(chosen.is_incomplete || !extracted.lost.is_empty())
    }

    /// Does long work on something of this name, with a bar.
    fn watched<T>(&mut self, what: &str, work: impl FnOnce(Watcher<'_>) -> T) -> Result<T> {
        // What was found by now is seen before the bar is.
        self.report.flush()?;
        let bar = console::progress::Progress::new(what, self.report.is_json());
        let stop = self.stop;
        Ok(work(&mut |progress| {
            bar.show(progress);
            if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }))
    }
}

/// Why contents could not be gone through; where that is because it was interrupted, what `remains`.
fn unless_stopped(error: ExtractError, remains: impl FnOnce() -> String) -> anyhow::Error {
    match error {
        ExtractError::Stopped => Interrupted::leaving(remains()).into(),
        error => error.into(),
    }
}

fn refused(error: ImageFileError) -> anyhow::Error {
    match error {
        ImageFileError::Exists { .. } => anyhow!("{error}: give a file that is not there yet"),
        error => error.into(),
    }
}

fn open_index(path: &Path) -> Result<Option<Arc<dyn Index>>> {
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(Arc::new(RocksIndex::open_read_only(path, INDEX_CACHE_BYTES)?)))
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

/// Refuses what would be made in the data directory.
fn check_apart(directory: &Path, path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = parent.canonicalize().with_context(|| format!("cannot write to {}", parent.display()))?;
    let directory = directory.canonicalize().with_context(|| format!("cannot read {}", directory.display()))?;
    let is_apart = !parent.starts_with(&directory);
    ensure!(is_apart, "{} is in the data directory, in which nothing is altered: write it elsewhere", path.display());
    Ok(())
}

const METADATA: &str = "metadata";
const INDEX: &str = "index";
const INDEX_CACHE_BYTES: usize = 64 << 20;
/// Images are not replaced: the same command would stop at the first.
const THE_REST_OF_ALL: &str =
    "nor what follows; the images named above are complete, the same command into another directory writes all of them";
