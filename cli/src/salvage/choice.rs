//! What of a data directory is to be written to an image.

use anyhow::{Context, Result, bail};
use sterna_storage_node::salvage::{Contents, FoundVolume, Salvage};
use sterna_types::Root;

use super::SalvageArgs;

/// Contents with a name.
#[derive(Debug)]
pub(super) struct Chosen {
    /// What it is called: `web`, `web@monday`, `7`, `root abcd…`.
    pub(super) name: String,
    pub(super) contents: Contents,
    /// Whether more is missing than what its map or its data lacks.
    pub(super) is_incomplete: bool,
}

impl Chosen {
    /// The name of its image. Names have no character that a file's cannot have.
    pub(super) fn file_name(&self) -> String {
        format!("{}.raw", self.name)
    }
}

/// A root, of which nothing else is known.
pub(super) fn root(salvage: &Salvage, root: Root) -> Chosen {
    Chosen { name: format!("root {root}"), contents: salvage.contents_of(root), is_incomplete: false }
}

/// The volume, snapshot or earlier state that the command line names.
pub(super) fn volume(salvage: &Salvage, args: &SalvageArgs) -> Result<Chosen> {
    let wanted = args.volume.as_deref().context("give a volume with --volume")?;
    let volume = find(salvage, wanted)?;
    let name = name_of(volume);
    if let Some(wanted) = &args.snapshot {
        let snapshot = volume.snapshots.iter().find(|snapshot| snapshot.name == *wanted);
        let snapshot = snapshot.with_context(|| format!("volume '{name}' has no snapshot '{wanted}' that is known"))?;
        let contents = Contents::from(snapshot);
        return Ok(Chosen { name: format!("{name}@{wanted}"), contents, is_incomplete: false });
    }
    if let Some(wanted) = args.generation {
        let version = volume.versions.iter().find(|version| version.generation == wanted);
        let version = version.with_context(|| format!("generation {wanted} of volume '{name}' is not here"))?;
        let name = format!("{name} generation {wanted}");
        return Ok(Chosen { name, contents: version.contents(), is_incomplete: false });
    }
    newest(volume, args.past_damage).with_context(|| format!("nothing says what volume '{name}' was"))
}

/// The newest contents of each volume, and all snapshots.
pub(super) fn everything(salvage: &Salvage, past_damage: bool) -> Vec<Chosen> {
    let mut all = Vec::new();
    for volume in salvage.volumes() {
        all.extend(newest(volume, past_damage));
        for snapshot in &volume.snapshots {
            let name = format!("{}@{}", name_of(volume), snapshot.name);
            all.push(Chosen { name, contents: Contents::from(snapshot), is_incomplete: false });
        }
    }
    all
}

/// The name of a volume, or its id where that is all there is.
pub(super) fn name_of(volume: &FoundVolume) -> String {
    volume.name.as_ref().map_or_else(|| volume.id.to_string(), ToString::to_string)
}

fn newest(volume: &FoundVolume, past_damage: bool) -> Option<Chosen> {
    let contents = volume.contents(past_damage)?;
    Some(Chosen { name: name_of(volume), contents, is_incomplete: volume.is_incomplete() })
}

/// A name may look like an id: then it is the name that counts.
fn find<'a>(salvage: &'a Salvage, wanted: &str) -> Result<&'a FoundVolume> {
    let volumes = salvage.volumes();
    let named = volumes.iter().find(|volume| volume.name.as_ref().is_some_and(|name| name.to_string() == wanted));
    let by_id = || volumes.iter().find(|volume| volume.id.to_string() == wanted);
    match named.or_else(by_id) {
        Some(volume) => Ok(volume),
        None => bail!("there is no volume '{wanted}': --list shows those that there are"),
    }
}
