//! What stands against a move, by what QEMU 10.0.2 has answered, in short.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sterna_proto::migrator::{Machine, MemoryBlock, Obstacle};

use super::facts::Facts;
use super::{Expected, differences, obstacles};

fn read<T: DeserializeOwned>(said: Value) -> T {
    serde_json::from_value(said).expect("it is understood")
}

const SOCKET: &str = "/var/lib/sterna/nbd.sock";

fn expected(volumes: &[&str]) -> Expected {
    let volumes = volumes.iter().map(|volume| volume.parse().expect("a name")).collect();
    Expected { volumes, nbd_socket: SOCKET.into() }
}

fn node(name: &str, driver: &str, file: &str) -> Value {
    json!({
        "node-name": name, "drv": driver, "file": file, "ro": false, "active": true, "backing_file_depth": 0, "detect_zeroes": "off",
        "cache": { "no-flush": false, "direct": false, "writeback": true },
        "image": { "virtual-size": 16_777_216, "filename": file, "format": driver },
    })
}

fn export(name: &str) -> String {
    format!("nbd+unix:///{name}?socket={SOCKET}")
}

/// A disk of the guest's, by its id.
fn disk(id: &str, inserted: Value) -> Value {
    json!({
        "io-status": "ok", "device": "", "locked": false, "removable": false, "type": "unknown", "inserted": inserted,
        "qdev": format!("/machine/peripheral/{id}/virtio-backend"),
    })
}

/// A VM that runs, with these devices; its nodes are those of the devices.
fn facts(devices: &[Value]) -> Facts {
    let nodes = devices.iter().filter_map(|device| device.get("inserted").cloned()).collect();
    Facts {
        version: read(json!({ "micro": 2, "minor": 0, "major": 10 })),
        status: read(json!({ "status": "running", "running": true })),
        migration: read(json!({})),
        jobs: Vec::new(),
        exports: Vec::new(),
        devices: read(Value::Array(devices.to_vec())),
        nodes: read(Value::Array(nodes)),
    }
}

/// The same with one disk, the volume `web`.
fn plain() -> Facts {
    facts(&[disk("vda", node("n0", "nbd", &export("web")))])
}

fn found(facts: &Facts, volumes: &[&str]) -> Vec<Obstacle> {
    obstacles(facts, &expected(volumes))
}

/// That there is one obstacle, and that it says all of this.
#[track_caller]
fn assert_one(obstacles: &[Obstacle], words: &[&str]) {
    let [Obstacle { what, remedy }] = obstacles else { panic!("not one: {obstacles:?}") };
    assert!(!remedy.is_empty(), "{what}");
    for word in words {
        assert!(what.contains(word) || remedy.contains(word), "'{word}' is not in: {what}: {remedy}");
    }
}

#[test]
fn a_vm_with_all_that_a_vm_has_can_leave() {
    let below = r#"json:{"offset": 0, "driver": "raw", "size": 1048576, "file":
        {"server.path": "/var/lib/sterna/nbd.sock", "driver": "nbd", "export": "data", "server.type": "unix"}}"#;
    let mut devices = vec![disk("vda", node("n0", "nbd", &export("web"))), disk("vdb", node("r0", "raw", below))];
    // An empty drive, flash memory with firmware in it, and a drive that nothing of the guest's is attached to.
    devices.push(json!({ "io-status": "ok", "device": "", "removable": true, "qdev": "cd", "tray_open": false }));
    let firmware = node("#block378", "raw", "/usr/share/fw.fd");
    devices.push(
        json!({ "device": "pflash0", "removable": false, "inserted": firmware, "qdev": "/machine/system.flash0" }),
    );
    devices.push(json!({ "device": "unattached", "removable": true, "inserted": node("#block3", "raw", "/tmp/d2") }));
    let mut facts = facts(&devices);
    assert_eq!(found(&facts, &["data", "web"]), []);

    facts.status = read(json!({ "status": "paused", "running": false }));
    // It came by a migration itself; its jobs have ended, and so do its exports.
    facts.migration = read(json!({ "status": "completed" }));
    facts.jobs = read(
        json!([{ "current-progress": 1, "status": "concluded", "total-progress": 1, "type": "create", "id": "c0" }]),
    );
    facts.exports = read(json!([{ "node-name": "n0", "shutting-down": true, "type": "nbd", "id": "e0" }]));
    assert_eq!(found(&facts, &["data", "web"]), []);
}

#[test]
fn an_old_qemu_cannot_be_left() {
    let mut facts = plain();
    facts.version = read(json!({ "micro": 4, "minor": 2, "major": 9 }));
    assert_one(&found(&facts, &["web"]), &["9.2.4", "10.0", "switchover-ack", "exit-on-error"]);
}

#[test]
fn a_vm_that_neither_runs_nor_is_paused_stays() {
    for state in ["inmigrate", "postmigrate", "prelaunch", "io-error", "suspended", "guest-panicked", "dreaming"] {
        let mut facts = plain();
        facts.status = read(json!({ "status": state, "running": false }));
        assert_one(&found(&facts, &["web"]), &[state, "running or paused"]);
    }
    let mut facts = plain();
    facts.migration = read(json!({ "status": "active", "total-time": 10 }));
    assert_one(&found(&facts, &["web"]), &["'active'", "migrate_cancel"]);
}

#[test]
fn what_blocks_migrations_is_told_one_by_one() {
    let mut facts = plain();
    facts.migration = read(json!({ "blocked-reasons": [
        "non-migratable device: 0000:00:03.0/nvme",
        "Migration is disabled when using feature 'peer mode' in device 'ivshmem'",
    ] }));
    let found = found(&facts, &["web"]);
    assert_eq!(found.len(), 2);
    assert_one(&found[..1], &["0000:00:03.0/nvme"]);
    assert_one(&found[1..], &["peer mode"]);
}

#[test]
fn jobs_and_exports_of_qemu_have_to_end_first() {
    let mut facts = plain();
    facts.jobs =
        read(json!([{ "current-progress": 1, "status": "ready", "total-progress": 1, "type": "mirror", "id": "m0" }]));
    assert_one(&found(&facts, &["web"]), &["'m0'", "'mirror'", "'ready'"]);
    facts.jobs.clear();
    facts.exports = read(json!([{ "node-name": "n0", "shutting-down": false, "type": "nbd", "id": "e0" }]));
    assert_one(&found(&facts, &["web"]), &["'n0'", "'e0'", "block-export-del"]);
}

#[test]
fn disks_that_are_not_this_nodes_volumes_are_named() {
    let ours = disk("vda", node("n0", "nbd", &export("web")));
    let local = disk("vdb", node("r0", "raw", "/srv/data.raw"));
    assert_one(&found(&facts(&[ours.clone(), local]), &["web"]), &["'vdb'", "/srv/data.raw (raw)", SOCKET]);
    let other = disk("vdb", node("n1", "nbd", "nbd+unix:///web?socket=/srv/other.sock"));
    assert_one(&found(&facts(&[ours.clone(), other]), &["web"]), &["'vdb'", "'web' of /srv/other.sock", SOCKET]);
    let far = disk("vdb", node("n1", "nbd", "nbd://10.0.0.7:10809/web"));
    assert_one(&found(&facts(&[ours.clone(), far]), &["web"]), &["'vdb'", "nbd://10.0.0.7:10809/web"]);
    let medium =
        json!({ "device": "", "removable": true, "qdev": "cd0", "inserted": node("r0", "raw", "/srv/install.iso") });
    assert_one(&found(&facts(&[ours.clone(), medium]), &["web"]), &["'cd0'", "/srv/install.iso", "eject"]);
    let drive = json!({
        "device": "virtio1", "removable": false, "inserted": node("#block157", "raw", "/srv/d2"),
        "qdev": "/machine/peripheral-anon/device[2]/virtio-backend",
    });
    assert_one(&found(&facts(&[ours, drive]), &["web"]), &["'virtio1'", "/srv/d2"]);
}

#[test]
fn the_volumes_that_were_named_are_those_that_it_has() {
    assert_one(&found(&plain(), &["web", "data"]), &["'data'", "'web'"]);
    let two = facts(&[disk("vda", node("n0", "nbd", &export("web"))), disk("vdb", node("n1", "nbd", &export("data")))]);
    assert_one(&found(&two, &["web"]), &["'vdb'", "'data'", "'web'", "--volume data"]);
}

#[test]
fn flushes_have_to_come_to_the_volume_from_every_node() {
    let mut facts = plain();
    let mut top = node("#block118", "raw", &export("web"));
    top["cache"]["no-flush"] = json!(true);
    facts.nodes.push(read(top));
    assert_one(&found(&facts, &["web"]), &["'web'", "no-flush", "'#block118'"]);
}

#[test]
fn a_volume_has_all_of_its_disk() {
    let mut facts = plain();
    let mut top = node("qq", "qcow2", &export("web"));
    top["backing_file"] = json!("/srv/base.qcow2");
    facts.nodes.push(read(top));
    assert_one(&found(&facts, &["web"]), &["'web'", "/srv/base.qcow2", "'qq'"]);
}

fn machine() -> Machine {
    let block = |name: &str, size_bytes| MemoryBlock { name: name.to_owned(), size_bytes };
    Machine {
        qemu_version: "10.0.2".to_owned(),
        machine_type: "pc-q35-10.0".to_owned(),
        cpu_model: "host".to_owned(),
        memory: vec![block("pc.ram", 64 << 20), block("pc.rom", 128 << 10)],
        cpu_features: ["count=2", "vendor=GenuineIntel", "7.0.ebx.16", "1.0.edx.0"].map(str::to_owned).to_vec(),
    }
}

/// A machine as the source's, altered.
fn other(alter: impl FnOnce(&mut Machine)) -> Machine {
    let mut other = machine();
    alter(&mut other);
    other
}

#[test]
fn machines_that_are_the_same_differ_in_nothing_and_a_newer_qemu_is_no_difference() {
    assert_eq!(differences(&machine(), &machine()), []);
    for version in ["10.0.9", "10.0.1", "10.1.0", "11.0.50"] {
        assert_eq!(differences(&machine(), &other(|to| to.qemu_version = version.to_owned())), [], "{version}");
    }
}

#[test]
fn an_older_qemu_does_not_take_it_nor_a_newer_one_a_machine_without_a_version() {
    let to = other(|to| to.qemu_version = "9.2.4".to_owned());
    assert_one(&differences(&machine(), &to), &["10.0.2", "9.2.4"]);
    let to = other(|to| to.qemu_version = "ten".to_owned());
    assert_one(&differences(&machine(), &to), &["10.0.2", "'ten'"]);
    let from = other(|from| from.machine_type = "microvm".to_owned());
    assert_eq!(differences(&from, &from), []);
    let to = Machine { qemu_version: "10.1.0".to_owned(), ..from.clone() };
    assert_one(&differences(&from, &to), &["10.0.2", "10.1.0", "microvm"]);
}

#[test]
fn another_type_of_machine_is_told_with_both() {
    let to = other(|to| to.machine_type = "pc-q35-10.1".to_owned());
    assert_one(&differences(&machine(), &to), &["pc-q35-10.0", "pc-q35-10.1", "-machine pc-q35-10.0"]);
}

#[test]
fn another_cpu_is_told_with_both_by_its_name_or_by_what_it_has() {
    let to = other(|to| to.cpu_model = "EPYC".to_owned());
    assert_one(&differences(&machine(), &to), &["host", "EPYC"]);
    let to = other(|to| to.cpu_features = ["count=2", "vendor=AuthenticAMD", "1.0.edx.0"].map(str::to_owned).to_vec());
    let words = ["source's alone has avx512f, vendor=GenuineIntel;", "destination's alone has vendor=AuthenticAMD"];
    assert_one(&differences(&machine(), &to), &words);
    let to = other(|to| to.cpu_features.push("d.1.eax.2".to_owned()));
    assert_one(&differences(&machine(), &to), &["source's alone has nothing;", "destination's alone has xgetbv1"]);
}

#[test]
fn memory_that_is_missing_too_much_or_of_another_size_is_told() {
    let to = other(|to| to.memory[0].size_bytes = 32 << 20);
    assert_one(&differences(&machine(), &to), &["'pc.ram'", "67108864", "33554432"]);
    let to = other(|to| drop(to.memory.pop()));
    assert_one(&differences(&machine(), &to), &["'pc.rom'", "131072 bytes at the source"]);
    assert_one(&differences(&to, &machine()), &["'pc.rom'", "131072 bytes at the destination"]);
}
