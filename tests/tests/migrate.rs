//! VMs that move from host to host while they run: memory, devices and disks, and what is left of it when something goes wrong.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sterna_tests::migrations::campaign::Campaign;
use sterna_tests::migrations::hosts::Hosts;
use sterna_tests::migrations::strike::{Moment, Victim};

const MIB: u64 = 1 << 20;
const AMS: usize = 0;
const CHI: usize = 1;

/// What a migration may take beside other tests.
const WORK_LIMIT: Duration = Duration::from_secs(120);

#[test]
fn heavy_a_vm_moves_while_it_writes_and_goes_on_where_it_was() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let hosts = Hosts::start(directory.path(), &["ams", "chi"], None)?;
    let mut guest = hosts.boot("web", &[("root", 64 * MIB), ("data", 64 * MIB)])?;
    guest.succeed("mount -t ext4 /dev/vda /mnt && echo before >/mnt/file && sync")?;
    let load = guest.start(LOAD)?;
    let moved =
        hosts.cluster.nodes[AMS].value(["vm", "migrate", "web", "--to", "chi"]).with_context(|| hosts.logs())?;
    println!("{moved}");
    ensure!(moved["end"] == "moved" && moved["node"] == "chi-1", "{moved}");
    let mut guest = guest.follow(&hosts.migrators[CHI].directory_of("web"), None)?;
    guest.succeed("touch /run/enough")?;
    let ended = guest.finish(&load, WORK_LIMIT)?;
    ensure!(ended.status == 0, "the load failed: {ended}");
    guest.succeed(
        "sync; echo 3 >/proc/sys/vm/drop_caches; [ $(cat /mnt/file) = before ] && cd /mnt && md5sum -c sums",
    )?;
    guest.expect_no_disk_error()?;
    ensure!(hosts.vm(AMS, "web")?.is_none(), "its old host knows it still");
    let vm = hosts.vm(CHI, "web")?.context("its new host does not know it")?;
    ensure!(vm["state"] == "running" && vm["volumes"] == serde_json::json!(["root", "data"]), "{vm}");
    for volume in ["root", "data"] {
        let shown = hosts.cluster.nodes[CHI].value(["volume", "show", volume])?;
        ensure!(shown["volume"]["owner"] == "chi-1", "{shown}");
    }
    guest.shutdown()
}

/// Files of random content, each synced, until it is told that it is enough.
const LOAD: &str = "set -e; cd /mnt; n=0
while [ ! -e /run/enough ]; do
    n=$((n + 1))
    dd if=/dev/urandom of=file$((n % 20)) bs=16k count=1 conv=fsync 2>/dev/null
    dd if=/dev/urandom of=/dev/vdb bs=4k seek=$((n % 1000)) count=1 conv=fsync 2>/dev/null
done
md5sum file* >sums
echo \"$n files\"";

/// One strike of each kind, at the moments that are the hardest for it. `scripts/faults migrate` has all of them.
#[test]
fn heavy_whatever_is_struck_one_of_the_two_runs_and_no_flush_is_lost() -> Result<()> {
    let at = |step: &str| Moment::ALL.into_iter().find(|moment| moment.step == step).context("no such moment");
    let rounds = vec![
        (at("Switch")?, Victim::SourceMigrator),
        (at("Switch")?, Victim::DestinationMigrator),
        (at("PrepareVolumes")?, Victim::SourceNode),
        (at("Switch")?, Victim::DestinationNode),
        (at("Stop")?, Victim::SourceQemu),
        (at("Stop")?, Victim::DestinationQemu),
        (at("Switch")?, Victim::Link),
        (at("Record(Runs)")?, Victim::SourceHost),
        (at("SendMemory")?, Victim::DestinationHost),
    ];
    let directory = tempfile::tempdir()?;
    let played = rounds.len();
    let struck = Campaign { rounds, directory: directory.path().to_owned() }.run(|struck| println!("{struck}"))?;
    ensure!(struck.len() == played, "{} of {played} were played", struck.len());
    Ok(())
}
