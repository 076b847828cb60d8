//! What `scripts/demo` shows: a real Debian on a volume, a snapshot of it, and a clone that boots.
//!
//! Every command is printed as one would type it, with what it says. It leaves nothing behind.

use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::guest::Guest;
use sterna_tests::guest::image::{Image, Root};
use sterna_tests::node::Node;
use sterna_tests::tool::Tool;

/// For work in a guest whose processors may be emulated.
const WORK_LIMIT: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    let began = Instant::now();
    let image = Image::of(Root::Debian)?;
    let directory = tempfile::tempdir()?;

    title("A node: a cluster of one");
    let mut node = Node::start(directory.path())?;
    sterna(&node, &["cluster", "status"])?;

    title("A real Debian disk becomes a volume: zeroes become holes, the rest chunks");
    let root = image.root();
    sterna(&node, &["volume".as_ref(), "import".as_ref(), "debian".as_ref(), root.as_os_str()])?;
    sterna(&node, &["volume", "show", "debian", "--map"])?;
    shown(&node, Tool::new("nbdinfo").args([node.uri("debian")]), "nbdinfo")?;

    title("QEMU boots it over NBD, and the guest writes");
    let mut guest = Guest::debian(&image).disk(&node.disk("debian")).boot()?;
    inside(&mut guest, "systemctl is-system-running --wait")?;
    inside(&mut guest, "findmnt -no SOURCE,FSTYPE,SIZE,USED /")?;
    inside(
        &mut guest,
        "sqlite3 /var/lib/birds.db \"CREATE TABLE bird(name); INSERT INTO bird VALUES ('Sterna paradisaea')\"",
    )?;
    inside(&mut guest, "sync")?;

    title("A snapshot while it runs, and a clone of it: no data is copied");
    sterna(&node, &["volume", "snapshot", "debian", "first-day"])?;
    inside(&mut guest, "sqlite3 /var/lib/birds.db \"INSERT INTO bird VALUES ('written after the snapshot')\" && sync")?;
    sterna(&node, &["volume", "clone", "debian@first-day", "debian-2"])?;
    guest.expect_no_disk_error()?;
    guest.shutdown()?;

    title("The clone boots, and has what the snapshot had");
    let mut clone = Guest::debian(&image).disk(&node.disk("debian-2")).boot()?;
    let birds = inside(&mut clone, "sqlite3 /var/lib/birds.db 'SELECT name FROM bird'")?;
    ensure!(birds.trim() == "Sterna paradisaea", "the clone is not what the snapshot was: {birds}");
    clone.expect_no_disk_error()?;
    clone.shutdown()?;

    title("What they share: two disks of 2 GiB, and what is kept of them");
    sterna(&node, &["volume", "list"])?;
    sterna(&node, &["cluster", "status"])?;
    for volume in ["debian", "debian-2"] {
        node.disk(volume).check_file_system()?;
        say(&format!("e2fsck -fn finds the file system of {volume} whole"));
        sterna(&node, &["volume", "verify", volume])?;
    }
    node.terminate()?;
    println!("\ndemo: done in {} s", began.elapsed().as_secs());
    Ok(())
}

fn title(text: &str) {
    println!("\n{text}");
}

fn say(text: &str) {
    text.lines().for_each(|line| println!("  {line}"));
}

/// Runs a command of `sterna` on the node, and shows it.
fn sterna<A: AsRef<OsStr>>(node: &Node, args: &[A]) -> Result<()> {
    let words: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy().into_owned()).collect();
    shown(node, node.sterna(args), &format!("sterna {}", words.join(" ")))
}

fn shown(node: &Node, tool: Tool, command: &str) -> Result<()> {
    say(&format!("$ {command}"));
    let ended = tool.time_limit(WORK_LIMIT).succeed()?;
    let directory = format!("{}/", node.data().display());
    say(&ended.stdout.replace(&directory, "DIR/"));
    Ok(())
}

/// Runs a command in the guest, and shows it.
fn inside(guest: &mut Guest, command: &str) -> Result<String> {
    say(&format!("guest# {command}"));
    let output = guest.succeed_within(command, WORK_LIMIT)?;
    say(&output);
    Ok(output)
}
