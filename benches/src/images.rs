//! Two Debian root disks: what they share, and how fast they come in and go out.
//!
//! *Sharing.* Each image is cut in every way of the table in `docs/performance.md`, and the lengths of the distinct pieces
//! are added up; then both are imported, and the node says how many bytes were new, its map included. The goal compares
//! what the node keeps with FastCDC whose cuts are not rounded to blocks, in the same run.
//!
//! *Speed.* In each round a new node imports one image and exports it again, beside `qemu-img convert`, which reads and
//! writes the same files and has to sync them as well.

use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use fastcdc::v2020::{FastCDC, Normalization};
use serde_json::Value;
use sterna_storage_node::chunking::{BLOCK_BYTES, ChunkingParameters, Run, cut, is_zero, runs};
use sterna_tests::guest::image::{Image, Root};
use sterna_tests::node::Node;
use sterna_tests::tool::Tool;

use crate::facts::Facts;
use crate::goal::Goal;
use crate::usage::Usage;

const SEGMENT_BYTES: usize = 4 << 20;
const KIB: usize = 1 << 10;
/// Of what FastCDC without rounding finds, the share that is to be found: what design and goals ask for.
const SHARE: f64 = 0.95 * 1.49 / 1.51;

/// Measures both, the speed in so many rounds.
///
/// # Errors
/// A program is missing or fails, or an exported image is not what was imported.
pub(crate) fn measure(rounds: u32) -> Result<Facts> {
    let images = [Image::of(Root::Debian)?.root(), Image::of(Root::DebianExtra)?.root()];
    let mut facts = Facts::new("two Debian root disks");
    share(&images, &mut facts)?;
    for _ in 0..rounds {
        speed(&images[1], &mut facts)?;
    }
    facts.aim(IMPORT_PER_CORE, Goal::AtLeast(0.5));
    facts.aim(EXPORT, Goal::AtLeast(1.0));
    Ok(facts)
}

const IMPORT_PER_CORE: &str = "import, data per second of a core";
const EXPORT: &str = "export, data per second";

fn share(images: &[PathBuf], facts: &mut Facts) -> Result<()> {
    let exact = facts_of_cut(images, facts, "FastCDC 8/32/128 KiB", |data| {
        over_runs(data, |run| {
            let chunker = FastCDC::with_level(run, 8 * KIB, 32 * KIB, 128 * KIB, Normalization::Level1);
            let mut at = 0;
            std::iter::from_fn(|| {
                let start = at;
                at = if start < run.len() { chunker.cut(start, run.len() - start).1 } else { return None };
                Some(start..at)
            })
            .collect()
        })
    })?;
    facts_of_cut(images, facts, "the same, cuts rounded to 4 KiB", |data| {
        over_runs(data, |run| cut(&ChunkingParameters::default(), run).collect())
    })?;
    for kib in [4, 32, 64] {
        facts_of_cut(images, facts, &format!("fixed {kib} KiB"), |data| {
            (0..data.len()).step_by(kib * KIB).map(|start| start..(start + kib * KIB).min(data.len())).collect()
        })?;
    }
    let (directory, node) = node()?;
    let (mut data_bytes, mut new_bytes) = (0.0, 0.0);
    for (index, image) in images.iter().enumerate() {
        let imported = import(&node, &format!("debian-{index}"), image)?;
        data_bytes += number(&imported, "data_bytes")?;
        new_bytes += number(&imported, "new_bytes")?;
    }
    let what = "kept by a node, map included: data / unique";
    facts.add(what, "x", data_bytes / new_bytes);
    facts.aim(what, Goal::AtLeast(SHARE * exact));
    let packs = Tool::new("du").args(["-s", "--block-size=1"]).args([node.data().join("packs")]).succeed()?.stdout;
    let on_disk: f64 = packs.split_whitespace().next().context("du says a size")?.parse()?;
    facts.add("data / bytes of packs on disk", "x", data_bytes / on_disk);
    drop(directory);
    Ok(())
}

/// The pieces of a segment, cut in some way.
type Pieces = Vec<Range<usize>>;

/// What is left of the images' data when pieces that were there before are left out; data / that.
fn facts_of_cut(images: &[PathBuf], facts: &mut Facts, name: &str, pieces: impl Fn(&[u8]) -> Pieces) -> Result<f64> {
    let (mut known, mut data, mut unique, mut count) = (HashSet::new(), 0, 0, 0_u32);
    let mut segment = vec![0; SEGMENT_BYTES];
    for image in images {
        let file = File::open(image)?;
        let length = file.metadata()?.len();
        ensure!(length.is_multiple_of(SEGMENT_BYTES as u64), "{} is no whole number of segments", image.display());
        for start in (0..length).step_by(SEGMENT_BYTES) {
            file.read_exact_at(&mut segment, start)?;
            for piece in pieces(&segment).into_iter().map(|range| &segment[range]) {
                if piece.iter().all(|&byte| byte == 0) {
                    continue;
                }
                data += piece.len();
                count += 1;
                if known.insert(blake3::hash(piece)) {
                    unique += piece.len();
                }
            }
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 bytes")]
    let ratio = data as f64 / unique as f64;
    facts.add(&format!("{name}: data / unique"), "x", ratio);
    facts.add(&format!("{name}: pieces"), "pieces", f64::from(count));
    Ok(ratio)
}

/// The pieces of all runs of blocks that are not zero.
fn over_runs(data: &[u8], pieces: impl Fn(&[u8]) -> Pieces) -> Pieces {
    let of_run = |run: Range<usize>| {
        let start = run.start;
        pieces(&data[run]).into_iter().map(move |piece| start + piece.start..start + piece.end)
    };
    runs(data).filter_map(|run| if let Run::Data(range) = run { Some(range) } else { None }).flat_map(of_run).collect()
}

fn speed(image: &Path, facts: &mut Facts) -> Result<()> {
    // Both find the image in memory.
    let data = data_bytes(image)?;
    let (directory, node) = node()?;
    let before = Usage::of(node.id()?)?;
    let began = Instant::now();
    import(&node, "disk", image)?;
    let wall = began.elapsed().as_secs_f64();
    let cpu = Usage::of(node.id()?)?.cpu_seconds - before.cpu_seconds;
    facts.add("import, data per second", "GB/s", data / wall / 1e9);
    facts.add(IMPORT_PER_CORE, "GB/s", data / cpu / 1e9);

    let exported = directory.path().join("exported");
    let before = Usage::of(node.id()?)?;
    let began = Instant::now();
    node.sterna([Path::new("volume"), "export".as_ref(), "disk".as_ref(), &exported]).succeed()?;
    let wall = began.elapsed().as_secs_f64();
    let cpu = Usage::of(node.id()?)?.cpu_seconds - before.cpu_seconds;
    facts.add(EXPORT, "GB/s", data / wall / 1e9);
    facts.add("export, data per second of a core", "GB/s", data / cpu / 1e9);
    Tool::new("cmp").args([image, &exported]).succeed()?;
    std::fs::remove_file(&exported)?;

    for format in ["qcow2", "raw"] {
        let began = Instant::now();
        Tool::new("qemu-img").args(["convert", "-O", format]).args([image, &exported]).succeed()?;
        File::open(&exported)?.sync_all()?;
        let wall = began.elapsed().as_secs_f64();
        facts.add(&format!("beside: qemu-img convert to {format}, data per second"), "GB/s", data / wall / 1e9);
        std::fs::remove_file(&exported)?;
    }
    Ok(())
}

/// Bytes of blocks that are not zero.
fn data_bytes(image: &Path) -> Result<f64> {
    let file = File::open(image)?;
    let mut segment = vec![0; SEGMENT_BYTES];
    let mut blocks = 0_u32;
    for start in (0..file.metadata()?.len()).step_by(SEGMENT_BYTES) {
        file.read_exact_at(&mut segment, start)?;
        let data = segment.as_chunks::<BLOCK_BYTES>().0.iter().filter(|block| !is_zero(block)).count();
        blocks += u32::try_from(data)?;
    }
    Ok(f64::from(blocks) * 4096.0)
}

fn node() -> Result<(tempfile::TempDir, Node)> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(directory.path())?;
    Ok((directory, node))
}

fn import(node: &Node, volume: &str, image: &Path) -> Result<Value> {
    node.value([Path::new("volume"), "import".as_ref(), volume.as_ref(), image])
}

fn number(value: &Value, key: &str) -> Result<f64> {
    value[key].as_f64().with_context(|| format!("there is no number {key} in {value}"))
}
