//! VMs that move from host to host while they run: memory, devices and disks, and what is left of it when something goes wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sterna_tests::guest::Guest;
use sterna_tests::migrations::campaign::Campaign;
use sterna_tests::migrations::hosts::{Hosts, administrator};
use sterna_tests::migrations::strike::{Moment, Victim};
use sterna_tests::node::is_refusal;
use sterna_tests::tool::until;
use sterna_tests::wan::{Settings, Topology, Wan};

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
    let foreseen = hosts.cluster.nodes[AMS].value(["vm", "migrate", "web", "--to", "chi", "--dry-run"])?;
    for known in ["memory_bytes", "bytes_per_second", "sent_bytes", "pause_us", "took_us"] {
        ensure!(
            foreseen["prediction"][known].as_u64() > Some(0),
            "it does not foresee {known}: {foreseen}; {}",
            hosts.logs()
        );
    }
    let moved = hosts.moved("web", "chi")?;
    println!("{moved}");
    ensure!(moved["end"] == "moved" && moved["node"] == "chi-1", "{moved}");
    ensure!(moved["waited_for_volumes_us"].is_u64(), "what storage has added is not known: {moved}");
    ensure!(
        moved["sent_bytes"].as_u64() <= foreseen["prediction"]["sent_bytes"].as_u64().map(|bytes| 2 * bytes),
        "{moved} {foreseen}"
    );
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
        // It is served there as soon as it is accepted; the metadata knows it a moment later.
        let is_known = || Ok(hosts.cluster.nodes[CHI].value(["volume", "show", volume])?["volume"]["owner"] == "chi-1");
        ensure!(until(WORK_LIMIT, is_known)?, "{volume} has its old owner");
    }
    // Back, standing.
    let back = hosts.migrate_from(CHI, "web", "ams").args(["--offline"]).succeed().with_context(|| hosts.logs())?;
    let back: Value = serde_json::from_str(back.stdout.trim())?;
    ensure!(back["end"] == "moved" && back["node"] == "ams-1", "{back}");
    let mut guest = guest.follow(&hosts.migrators[AMS].directory_of("web"), None)?;
    guest.succeed("cd /mnt && md5sum -c sums && sync")?;
    guest.expect_no_disk_error()?;
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

#[test]
fn heavy_what_stands_against_a_migration_is_named_before_anything_moves() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let hosts = Hosts::start(directory.path(), &["ams", "chi"], None)?;
    let ams = &hosts.cluster.nodes[AMS];
    let local = directory.path().join("local.raw");
    std::fs::File::create(&local)?.set_len(16 * MIB)?;
    let mut guest = hosts.boot_as(Guest::tiny()?.raw(&local), "web", &[("root", 64 * MIB)])?;
    guest.qmp().execute("blockdev-add", json!({ "driver": "null-co", "node-name": "nothing", "size": 64 * MIB }))?;
    let mirror = json!({ "job-id": "copy", "device": "disk1", "target": "nothing", "sync": "full", "speed": 1 });
    guest.qmp().execute("blockdev-mirror", mirror)?;
    for command in
        [["vm", "migrate", "web", "--to", "chi"].as_slice(), &["vm", "migrate", "web", "--to", "chi", "--dry-run"]]
    {
        let refused = ams.sterna(command).run()?;
        ensure!(refused.code()? == 1, "{refused}");
        for word in ["local.raw", "copy"] {
            ensure!(refused.stdout.contains(word), "nothing is said of {word}: {refused}");
        }
    }
    ensure!(!hosts.migrators[CHI].directory_of("web").join("pid").exists(), "a QEMU was started at its destination");

    ams.refuses(["vm", "migrate", "nobody", "--to", "chi"], 1, &["nobody", "sterna vm list"])?;
    ams.refuses(["vm", "migrate", "web", "--to", "nowhere"], 1, &["nowhere"])?;
    ams.refuses(["vm", "migrate", "web", "--to", "ams"], 1, &["at ams already"])?;
    ams.refuses(["vm", "cancel", "web"], 1, &["not on its way"])?;
    ams.refuses(
        ["vm", "add", "web", "--qmp", "/no/such/socket", "--volume", "root"],
        1,
        &["known at this host already"],
    )?;
    ams.refuses(["vm", "add", "db", "--qmp", "/no/such/socket", "--volume", "root"], 1, &["/no/such/socket"])?;
    ams.refuses(["vm", "add", "db", "--qmp", "/no/such/socket", "--volume", "none"], 1, &["none"])?;
    ensure!(guest.succeed("echo here")? == "here\n", "the guest is not what it was");
    guest.kill()
}

#[test]
fn heavy_a_vm_that_is_not_to_move_after_all_goes_on_where_it_was_and_can_move_later() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let told = directory.path().join("told");
    let hook = directory.path().join("hook");
    std::fs::write(
        &hook,
        format!("#!/bin/sh\n(cat; echo) >>{}\n[ ! -e {}.refuse ]\n", told.display(), told.display()),
    )?;
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let calls =
        ["prepare", "switch", "finish"].map(|event| ("migrator", format!("hooks.{event} = \"{}\"", hook.display())));
    // Slow enough for somebody to change his mind.
    let between = Settings { delay: "5ms".parse()?, rate: "100M".parse()?, ..Settings::default() };
    let wan = Arc::new(Wan::start(Topology::of(&["ams", "chi"], between)?)?);
    let hosts = Hosts::start_with(directory.path(), &["ams", "chi"], Some(wan), calls.to_vec())?;
    let ams = &hosts.cluster.nodes[AMS];
    let mut guest = hosts.boot("web", &[("root", 64 * MIB)])?;

    // A hook that refuses.
    let refusal = directory.path().join("told.refuse");
    std::fs::write(&refusal, "")?;
    let refused = hosts.migrate("web", "chi").run()?;
    ensure!(refused.code()? == 1 && refused.stderr.contains("hook"), "{refused}");
    std::fs::remove_file(&refusal)?;

    // One who thinks better of it. So much memory is written that it does not end by itself in the meantime.
    let load = guest
        .start("while [ ! -e /run/enough ]; do dd if=/dev/urandom of=/run/noise bs=1M count=32 2>/dev/null; done")?;
    let asked = hosts.migrate("web", "chi").spawn()?;
    let is_under_way =
        until(WORK_LIMIT, || Ok(hosts.vm(AMS, "web")?.is_some_and(|vm| vm["migration"]["phase"] == "bringing")))?;
    ensure!(is_under_way, "nothing is under way: {}", hosts.logs());
    let cancelled = ams.sterna(["--json", "vm", "cancel", "web"]).run()?;
    let ended = asked.wait()?;
    ensure!(cancelled.code()? == 0, "it could not be given up: {cancelled}; {}", hosts.logs());
    ensure!(ended.code()? == 1 && ended.stdout.contains("\"kept\""), "{ended}");
    guest.succeed("touch /run/enough")?;
    guest.finish(&load, WORK_LIMIT)?;
    let moved = hosts.moved("web", "chi")?;
    ensure!(moved["end"] == "moved", "{moved}");
    let mut guest = guest.follow(&hosts.migrators[CHI].directory_of("web"), None)?;
    guest.expect_no_disk_error()?;
    let finished =
        until(WORK_LIMIT, || Ok(events(&told)?.iter().filter(|told| told["event"] == "finish").count() >= 3))?;
    let told = events(&told)?;
    ensure!(finished, "{told:?}");
    let last = |event: &str, role: &str| told.iter().rev().find(|told| told["event"] == event && told["role"] == role);
    for role in ["source", "destination"] {
        let finish = last("finish", role).context("no finish")?;
        ensure!(finish["end"] == "moved" && finish["vm"] == "web" && finish["to"]["site"] == "chi", "{finish}");
        ensure!(last("switch", role).is_some() && last("prepare", role).is_some(), "{told:?}");
    }
    guest.kill()
}

#[test]
fn heavy_a_migration_without_a_right_token_is_refused_before_anything_moves() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let hosts = Hosts::start(directory.path(), &["ams", "chi"], None)?;
    let ams = &hosts.cluster.nodes[AMS];
    let mut guest = hosts.boot("web", &[("root", 64 * MIB)])?;
    let issue = |to: &str, more: &[&str]| -> Result<PathBuf> {
        let issue = ["vm", "token", "web", "--to", to, "--identity"];
        let issued = ams.sterna(issue).args([&hosts.operator]).args(more).succeed()?;
        let file = directory.path().join("token");
        std::fs::write(&file, issued.stdout)?;
        Ok(file)
    };
    let refused = |token: &Path, more: &[&str], words: &[&str]| -> Result<()> {
        let tried = ams.sterna(["vm", "migrate", "web", "--to", "chi", "--token"]).args([token]).args(more).run()?;
        is_refusal(&tried, 1, words)
    };

    ams.refuses(["vm", "migrate", "web", "--to", "chi"], 1, &["takes a migration token", "sterna vm token"])?;
    let viewer = administrator(ams, directory.path(), "viewer")?;
    let tried = ams.sterna(["vm", "migrate", "web", "--to", "chi", "--identity"]).args([&viewer]).run()?;
    is_refusal(&tried, 1, &["viewer", "may not issue"])?;
    refused(&issue("ams", &[])?, &[], &["to site 'ams'", "not to 'chi'"])?;
    refused(&issue("chi", &["--from", "chi"])?, &[], &["at site 'chi'"])?;
    refused(&issue("chi", &["--starts-in", "1h"])?, &[], &["not valid yet"])?;
    refused(&issue("chi", &["--rate", "100Mbit"])?, &["--rate", "200Mbit"], &["allows 100Mbit"])?;
    let brief = issue("chi", &["--expires", "1s"])?;
    std::thread::sleep(Duration::from_secs(2));
    refused(&brief, &[], &["has expired"])?;
    ams.create("other", 64 * MIB)?;
    refused(&issue("chi", &["--volume", "other"])?, &[], &["does not name it"])?;
    let altered = issue("chi", &[])?;
    let text = std::fs::read_to_string(&altered)?;
    std::fs::write(&altered, text.replacen("MIG", "MUG", 1))?;
    refused(&altered, &[], &["no migration token"])?;
    ensure!(!hosts.migrators[CHI].directory_of("web").join("pid").exists(), "a QEMU was started at its destination");
    let volume = ams.value(["volume", "show", "root"])?;
    ensure!(volume["volume"]["owner"] == "ams-1", "{volume}");
    ensure!(guest.succeed("echo here")? == "here\n", "the guest is not what it was");

    // The right one.
    let right = issue("chi", &[])?;
    ams.sterna(["vm", "migrate", "web", "--to", "chi", "--token"])
        .args([&right])
        .succeed()
        .with_context(|| hosts.logs())?;
    guest.follow(&hosts.migrators[CHI].directory_of("web"), None)?.kill()
}

/// What hooks were told, in order.
fn events(file: &std::path::Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter(|line| !line.is_empty()).map(|line| Ok(serde_json::from_str(line)?)).collect()
}
