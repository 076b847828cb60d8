//! What real guests do, recorded.
//!
//! A Debian guest is prepared: it is booted once and made a database. Then it does all of this in two lives, each with a copy of that disk of its
//! own: it boots; it installs two packages from files that are there (`dpkg`, 10 MB); it asks a database of some ten MB (SQLite: two hundred look-ups,
//! four in five of them among a tenth of the rows, chosen anew each time, and an update); it builds its initial RAM disk (`mkinitramfs`: the nearest to
//! a build of programs that it has the tools for: scripts, a search of all modules, copies, compression). Before each its memory of the disk is
//! dropped.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use sterna_tests::guest::Guest;
use sterna_tests::guest::image::{Image, Root};
use sterna_tests::tool::Tool;

use crate::recording::{Recorder, Request, parse_file};

/// What was recorded.
pub(super) struct Recorded {
    /// The disk as it was before.
    pub(super) file: PathBuf,
    pub(super) works: Vec<Work>,
}

/// One thing that was done twice.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) name: &'static str,
    pub(super) before: Vec<Request>,
    pub(super) again: Vec<Request>,
}

/// Runs the guests, and keeps what they did in this directory; takes what is there already.
///
/// # Errors
/// A guest does not come up, or cannot do what it is to do.
pub(super) fn record(directory: &Path) -> Result<Recorded> {
    let file = directory.join("prepared.raw");
    let image = Image::of(Root::Debian)?;
    if !file.exists() {
        let making = directory.join("making.raw");
        copy(&image.root(), &making)?;
        let recorder = Recorder::start(directory, &making)?;
        let mut guest = Guest::debian(&image).disk(&recorder.disk()).boot()?;
        guest.succeed_within(PREPARE, LIMIT)?;
        guest.shutdown()?;
        recorder.end()?;
        std::fs::rename(making, &file)?;
    }
    let [before, again] = [1, 2].map(|life| live(directory, &file, &image, life));
    let works = WORKS.iter().zip(before?.into_iter().zip(again?));
    let works = works.map(|((name, _), (before, again))| Work { name, before, again }).collect();
    Ok(Recorded { file, works })
}

/// One life: what each of the works has asked of the disk.
fn live(directory: &Path, file: &Path, image: &Image, life: u32) -> Result<Vec<Vec<Request>>> {
    let kept = |work: usize| directory.join(format!("life-{life}-{work}"));
    if (0..WORKS.len()).all(|work| kept(work).exists()) {
        return (0..WORKS.len()).map(|work| parse_file(&kept(work))).collect();
    }
    let disk = directory.join("life.raw");
    copy(file, &disk)?;
    let recorder = Recorder::start(directory, &disk)?;
    let mut guest = Guest::debian(image).disk(&recorder.disk()).boot()?;
    guest.until_console_shows("login:", LIMIT)?;
    let mut recorded = vec![recorder.cut(&kept(0))?];
    for (number, (name, command)) in WORKS.iter().enumerate().skip(1) {
        guest.succeed_within("sync; echo 3 >/proc/sys/vm/drop_caches", LIMIT)?;
        thread::sleep(SETTLED);
        recorder.cut(&directory.join("between"))?;
        eprintln!("life {life}: {name}");
        guest.succeed_within(&command.replace("LIFE", &life.to_string()), LIMIT)?;
        recorded.push(recorder.cut(&kept(number))?);
    }
    guest.shutdown()?;
    recorder.end()?;
    std::fs::remove_file(&disk)?;
    Ok(recorded)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    Tool::new("cp").args(["--sparse=always", "--no-preserve=mode"]).args([from, to]).succeed()?;
    Ok(())
}

/// A boot, and what is done after it.
const WORKS: [(&str, &str); 4] = [
    ("boot", ""),
    ("package installation", "DEBIAN_FRONTEND=noninteractive dpkg --force-depends -i /srv/packages/*.deb && sync"),
    ("database", QUERIES),
    ("build of an initial RAM disk", "mkinitramfs -o /var/tmp/initrd && sync"),
];

/// A table of 60,000 rows with an index, some ten MB.
const PREPARE: &str = "sqlite3 /var/lib/shop.db 'CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INTEGER, text TEXT); \
    WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 60000) \
        INSERT INTO orders SELECT n, n * 7919 % 60000, hex(randomblob(70)) FROM s; \
    CREATE INDEX by_customer ON orders(customer)' && sync";

const QUERIES: &str = "awk -v life=LIFE 'BEGIN { srand(life); for (i = 0; i < 200; i++) { \
        customer = int(rand() * (rand() < 0.8 ? 6000 : 60000)); \
        print \"SELECT count(*), max(text) FROM orders WHERE customer BETWEEN \" customer \" AND \" customer + 3 \";\" } \
        print \"UPDATE orders SET text = text || life WHERE customer < 20;\" }' | sed \"s/life/'x'/\" | sqlite3 /var/lib/shop.db";

/// What a guest may take for one of them, without KVM.
const LIMIT: Duration = Duration::from_secs(240);
/// Until nothing is written any more.
const SETTLED: Duration = Duration::from_secs(2);
