//! What a server that is killed under load may lose, which is nothing that it has acknowledged; and proof that whoever
//! looks for it would find it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sterna_tests::client::{Request, Style};
use sterna_tests::disk_server::{Disk, DiskServer};
use sterna_tests::oracle::block::{BLOCK_BYTES, Content};
use sterna_tests::oracle::kill_loop::KillLoop;
use sterna_tests::oracle::load::{Answered, Ending, Load, verify};
use sterna_tests::oracle::{Fault, Oracle, Violation};
use sterna_tests::random::Random;
use sterna_tests::server::Server;

const MIB: u64 = 1 << 20;

/// A server whose disk is not what it was when it is started again.
struct Damaging<F> {
    server: Server,
    file: PathBuf,
    damage: F,
}

impl<F: FnMut(&Path) -> Result<()>> DiskServer for Damaging<F> {
    fn disk(&self, export: &str) -> Disk {
        self.server.disk(export)
    }

    fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    fn restart(&mut self) -> Result<()> {
        (self.damage)(&self.file)?;
        self.server.restart()
    }

    fn log(&self) -> String {
        self.server.log()
    }
}

/// What a kill loop finds with a server whose disk is damaged in this way.
fn found(damage: impl FnMut(&Path) -> Result<()>) -> Result<Fault> {
    let server = Server::builder().file("disk", MIB).start()?;
    let file = server.path("disk");
    let error = KillLoop::new(3).run(&mut Damaging { server, file, damage }, "disk").err();
    let error = error.context("the damage was not found")?;
    let violation = error.downcast_ref::<Violation>().with_context(|| format!("another error: {error:?}"))?;
    Ok(violation.fault)
}

/// The first block of a file that has data in it.
fn data_block(file: &Path) -> Result<Option<u64>> {
    let content = fs::read(file)?;
    let mut blocks = (0..).zip(content.chunks_exact(BLOCK_BYTES));
    Ok(blocks.find_map(|(index, block)| matches!(Content::of(block), Content::Written(_)).then_some(index)))
}

/// Writes over a part of the first block with data, if there is one.
fn overwrite(file: &Path, at: u64, bytes: &[u8]) -> Result<()> {
    if let Some(block) = data_block(file)? {
        fs::File::options().write(true).open(file)?.write_all_at(bytes, block * BLOCK_BYTES as u64 + at)?;
    }
    Ok(())
}

#[test]
fn a_server_that_is_killed_under_load_keeps_all_that_it_has_acknowledged() -> Result<()> {
    for (seed, connections, depth) in [(1, 1, 1), (2, 2, 8), (3, 4, 16)] {
        let mut server = Server::builder().file("disk", 4 * MIB).start()?;
        let load = Load { connections, depth, ..Load::default() };
        let answered = KillLoop::new(seed).cycles(4).load(load).run(&mut server, "disk")?;
        ensure!(answered.reads > 0, "nothing was read under load: {answered:?}");
    }
    Ok(())
}

#[test]
fn a_load_that_comes_to_its_end_leaves_the_last_versions() -> Result<()> {
    let server = Server::builder().file("disk", MIB).memory("memory", "1M").start()?;
    for export in ["disk", "memory"] {
        let (mut oracle, mut random, mut answered) = (Oracle::new(4, 256), Random::new(4), Answered::default());
        let disk = server.disk(export);
        let load = Load { requests: 2000, ..Load::default() };
        assert_eq!(load.run(&disk, &mut oracle, &mut random, &mut answered)?, Ending::Enough);
        assert_eq!(answered.writes + answered.flushes + answered.reads, 2000);
        let (mut client, _) = disk.attach(Style::Simple)?;
        for block in 0..oracle.block_count() {
            let read = client.call(Request::read(block * BLOCK_BYTES as u64, BLOCK_BYTES as u64))?;
            oracle.verify_idle(block, &read.data())?;
        }
        verify(&disk, &mut oracle)?;
    }
    Ok(())
}

#[test]
fn a_disk_that_goes_back_in_time_is_found() -> Result<()> {
    let mut first = None;
    let fault = found(|file| {
        // As it was after the first cycle, in each later one.
        let content = match &first {
            Some(content) => content,
            None => first.insert(fs::read(file)?),
        };
        Ok(fs::write(file, content)?)
    })?;
    ensure!(matches!(fault, Fault::Older | Fault::Zeros), "{fault:?}");
    Ok(())
}

#[test]
fn a_disk_that_forgets_a_block_is_found() -> Result<()> {
    assert_eq!(found(|file| overwrite(file, 0, &[0; BLOCK_BYTES]))?, Fault::Zeros);
    Ok(())
}

#[test]
fn a_disk_that_tears_a_block_is_found() -> Result<()> {
    assert_eq!(found(|file| overwrite(file, 512, &[0; 1024]))?, Fault::Torn);
    Ok(())
}

#[test]
fn a_disk_that_flips_a_bit_is_found() -> Result<()> {
    assert_eq!(found(|file| overwrite(file, 1000, &[0x55]))?, Fault::Foreign);
    Ok(())
}

#[test]
fn a_disk_that_puts_a_block_in_another_place_is_found() -> Result<()> {
    let fault = found(|file| {
        let mut content = fs::read(file)?;
        content.rotate_left(BLOCK_BYTES);
        Ok(fs::write(file, content)?)
    })?;
    ensure!(matches!(fault, Fault::Foreign | Fault::Zeros), "{fault:?}");
    Ok(())
}

#[test]
fn a_server_that_goes_away_by_itself_is_not_taken_for_killed() -> Result<()> {
    let server = Server::builder().file("disk", MIB).start()?;
    let id = server.id();
    let ending = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        sterna_tests::tool::signal(id, rustix::process::Signal::KILL)
    });
    let file = server.path("disk");
    let long = KillLoop::new(5).longest_load(std::time::Duration::from_secs(600));
    let mut server = Damaging { server, file, damage: |_: &Path| Ok(()) };
    let error = long.cycles(1).run(&mut server, "disk");
    ending.join().expect("no panic")?;
    ensure!(error.is_err());
    Ok(())
}
