//! Real machines on our disks: they boot, write, lose their server, and are checked afterwards.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use sterna_tests::disk_server::{Disk, DiskServer};
use sterna_tests::guest::Guest;
use sterna_tests::guest::image::{Image, Root};
use sterna_tests::node::Node;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// What a guest may take for a piece of real work, without KVM and beside other tests' builds.
const WORK_LIMIT: Duration = Duration::from_secs(120);

/// A node whose volumes the guests' disks are, and its data directory.
struct Volumes {
    node: Node,
    _directory: tempfile::TempDir,
}

/// A node with volumes of these names and sizes. The one place that says what the guests' disks are kept in.
fn serve(disks: &[(&str, u64)]) -> Result<Volumes> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(directory.path())?;
    for &(name, size_bytes) in disks {
        node.create(name, size_bytes)?;
    }
    Ok(Volumes { node, _directory: directory })
}

impl DiskServer for Volumes {
    fn disk(&self, export: &str) -> Disk {
        self.node.disk(export)
    }

    fn kill(&mut self) -> Result<()> {
        self.node.kill()
    }

    fn restart(&mut self) -> Result<()> {
        self.node.restart()
    }

    fn log(&self) -> String {
        self.node.log()
    }
}

/// Boots Debian, and has it do what machines do with their disks.
#[test]
fn heavy_a_debian_guest_boots_works_and_leaves_its_disks_whole() -> Result<()> {
    let image = Image::of(Root::Debian)?;
    let server = serve(&[("root", 2 * GIB), ("data", GIB)])?;
    let (root, data) = (server.disk("root"), server.disk("data"));
    root.fill(&image.root())?;
    let mut guest = Guest::debian(&image).disk(&root).disk(&data).boot()?;

    let state = guest.run_within("systemctl is-system-running --wait; systemctl --failed --no-legend", WORK_LIMIT)?;
    ensure!(state.text.trim() == "running", "not all services run: {state}");
    let banner = guest.succeed("bash -c 'exec 3<>/dev/tcp/127.0.0.1/22; read -r line <&3; echo \"$line\"'")?;
    ensure!(banner.starts_with("SSH-2.0-"), "sshd says {banner}");

    guest.succeed_within(DATABASE, WORK_LIMIT)?;
    guest.succeed("mkfs.ext4 -q /dev/vdb && mkdir -p /data && mount -o noatime /dev/vdb /data")?;
    guest.succeed_within(UNPACK, WORK_LIMIT)?;
    let allocated = data.allocated_bytes()?;
    guest.succeed("rm -r /data/2 && sync && fstrim / && fstrim /data")?;
    let (kept, freed) = (data.allocated_bytes()?, 16 * MIB);
    ensure!(kept + freed < allocated, "of {allocated} bytes {kept} are left after a third was deleted and trimmed");
    let written = guest.disk_statistics(1)?;
    ensure!(written["wr_bytes"].as_u64() > Some(16 * MIB), "too little for a test: {written}");
    ensure!(written["flush_operations"].as_u64() > Some(0), "nothing was flushed: {written}");

    // From the disks, and not from memory.
    guest.succeed("sync; echo 3 >/proc/sys/vm/drop_caches")?;
    let check =
        guest.succeed_within("sqlite3 /var/lib/test.db 'PRAGMA integrity_check; SELECT sum(n) FROM t'", WORK_LIMIT)?;
    assert_eq!(check, "ok\n2001000\n");
    guest.succeed_within("cd /data && diff -r 1 3 && sha256sum --quiet -c sums", WORK_LIMIT)?;
    guest.expect_no_disk_error()?;
    guest.shutdown()?;
    root.check_file_system()?;
    data.check_file_system()?;
    Ok(())
}

/// Forty transactions, each of them synced, with the write-ahead log and without.
const DATABASE: &str = "sqlite3 /var/lib/test.db 'PRAGMA synchronous=FULL; CREATE TABLE t(n INTEGER, text TEXT)' && \
    for mode in WAL DELETE; do \
        sqlite3 /var/lib/test.db \"PRAGMA journal_mode=$mode\" && \
        for i in $(seq 0 19); do \
            echo 'WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM s WHERE n < 100) \
                INSERT INTO t SELECT n + 100 * '$i', hex(randomblob(64)) FROM s;'; \
        done | sqlite3 /var/lib/test.db || exit 1; \
    done && \
    sqlite3 /var/lib/test.db 'DELETE FROM t WHERE rowid > 2000'";

/// The same packages three times, each in another way, and sums of what is in them.
const UNPACK: &str = "set -e; cd /data; \
    for package in /srv/packages/*.deb; do dpkg -x $package 1; done; sync; \
    cp -a 1 2; sync; mkdir 3; tar -C 1 -c . | tar -C 3 -x; sync; \
    find 1 -type f -print0 | xargs -0 sha256sum >sums";

/// Kills the server again and again while the guest writes, syncs and reads.
#[test]
fn heavy_a_guest_notices_nothing_when_its_server_is_killed_and_started_again() -> Result<()> {
    const KILLS: u32 = 3;
    let mut server = serve(&[("disk", 256 * MIB)])?;
    let disk = server.disk("disk");
    disk.format()?;
    let mut guest = Guest::tiny()?.disk(&disk).boot()?;
    guest.succeed("mount -t ext4 /dev/vda /mnt")?;
    let load = guest.start(LOAD)?;
    for kill in 0..KILLS {
        // In the middle of it, and not before it has begun.
        let writes = |guest: &mut Guest| anyhow::Ok(guest.disk_statistics(0)?["wr_operations"].as_u64().unwrap_or(0));
        let before = writes(&mut guest)?;
        let at_work = sterna_tests::tool::until(WORK_LIMIT, || Ok(writes(&mut guest)? > before + 100))?;
        ensure!(at_work, "the guest has stopped writing after {kill} kills");
        server.kill()?;
        thread::sleep(Duration::from_millis(500));
        server.restart()?;
    }
    guest.succeed("touch /run/enough")?;
    let ended = guest.finish(&load, WORK_LIMIT)?;
    ensure!(ended.status == 0, "the load failed: {ended}");
    guest.succeed(
        "sync; echo 3 >/proc/sys/vm/drop_caches; cd /mnt && md5sum -c sums >/run/checked || (cat /run/checked; false)",
    )?;
    guest.expect_no_disk_error()?;
    guest.shutdown()?;
    disk.check_file_system()
}

/// Files of random content, each synced and read back past the page cache, until it is told that it is enough.
const LOAD: &str = "set -e; cd /mnt; n=0
while [ ! -e /run/enough ]; do
    n=$((n + 1)); name=file$((n % 40))
    dd if=/dev/urandom of=/run/content bs=64k count=$((n % 20 + 1)) 2>/dev/null
    sum=$(md5sum </run/content)
    dd if=/run/content of=$name bs=64k conv=fsync 2>/dev/null
    echo 1 >/proc/sys/vm/drop_caches
    [ \"$(md5sum <$name)\" = \"$sum\" ] || { echo \"$name differs\"; exit 1; }
done
md5sum file* >sums
echo \"$n files\"";

/// Otherwise what the tests above do not see would prove nothing.
#[test]
fn heavy_a_disk_whose_server_does_not_come_back_is_noticed() -> Result<()> {
    let mut server = serve(&[("disk", 64 * MIB)])?;
    let mut guest = Guest::tiny()?.disk(&server.disk("disk")).reconnect_delay_s(1).boot()?;
    guest.expect_no_disk_error()?;
    server.kill()?;
    let _write = guest.start("dd if=/dev/zero of=/dev/vda bs=4k count=16 conv=fsync")?;
    let error = guest.qmp().event("BLOCK_IO_ERROR", WORK_LIMIT)?;
    assert_eq!(error["data"]["action"], "stop", "{error}");
    let noticed = guest.expect_no_disk_error().expect_err("a failed request is noticed");
    ensure!(noticed.to_string().contains("BLOCK_IO_ERROR"), "{noticed:#}");
    guest.kill()
}
