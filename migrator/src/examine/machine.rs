//! What of a machine has to be the same at both hosts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use sterna_proto::migrator::{Machine, MemoryBlock, Obstacle};

use super::facts::{Version, property};
use super::{cpu, obstacle};
use crate::qmp::{Commands, QmpError, Unexpected};

/// What QEMU says of its machine.
pub(super) async fn describe(qmp: &Commands) -> Result<Machine, QmpError> {
    let version = Version::ask(qmp).await?;
    let machine: String = property(qmp, "/machine", "type").await?;
    let (cpu_model, cpu_features) = cpu::describe(qmp).await?;
    // No other command has all blocks of memory, those of devices and of firmware too.
    let listing: String = qmp.ask_for("human-monitor-command", json!({ "command-line": LIST_MEMORY })).await?;
    Ok(Machine {
        qemu_version: version.to_string(),
        machine_type: machine.strip_suffix("-machine").unwrap_or(&machine).to_owned(),
        cpu_model,
        memory: memory_blocks(&listing)?,
        cpu_features,
    })
}

/// What stands against it that a machine moves from one QEMU into another one, which was started for it.
pub fn differences(source: &Machine, destination: &Machine) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    obstacles.extend(version(source, destination));
    obstacles.extend(machine_type(source, destination));
    obstacles.extend(cpu(source, destination));
    obstacles.extend(memory(source, destination));
    obstacles
}

fn version(source: &Machine, destination: &Machine) -> Option<Obstacle> {
    let (from, to) = (&source.qemu_version, &destination.qemu_version);
    let series = |version: &str| version.parse().map(Version::series);
    let (Ok(from_series), Ok(to_series)) = (series(from), series(to)) else {
        let remedy = "install the same QEMU at both";
        return Some(obstacle(format!("QEMU is '{from}' at the source and '{to}' at the destination"), remedy));
    };
    if to_series < from_series {
        return Some(obstacle(
            format!(
                "QEMU is {from} at the source and {to} at the destination: an older one does not take from a newer"
            ),
            format!("install QEMU {from} at the destination, or a newer one"),
        ));
    }
    let is_versioned = source.machine_type.rsplit('-').next().is_some_and(|last| last.contains('.'));
    (to_series > from_series && !is_versioned).then(|| {
        let machine = &source.machine_type;
        obstacle(
            format!("QEMU is {from} at the source and {to} at the destination, and its machine '{machine}' may be another in each"),
            format!("install QEMU {from} at the destination too, or start the VM with a machine that has a version (pc-q35-10.0)"),
        )
    })
}

fn machine_type(source: &Machine, destination: &Machine) -> Option<Obstacle> {
    let (from, to) = (&source.machine_type, &destination.machine_type);
    (from != to).then(|| {
        obstacle(
            format!("the machine is {from} at the source and {to} at the destination"),
            format!("start the VM with its machine's full name, such as -machine {from}, and with a QEMU that has it at both"),
        )
    })
}

fn cpu(source: &Machine, destination: &Machine) -> Option<Obstacle> {
    let (from, to) = (&source.cpu_model, &destination.cpu_model);
    if from != to {
        return Some(obstacle(
            format!("the CPU is {from} at the source and {to} at the destination"),
            "start the VM with a CPU model by its name (-cpu), at both the same",
        ));
    }
    let only = |here: &Machine, there: &Machine| {
        let there: BTreeSet<_> = there.cpu_features.iter().collect();
        let features = here.cpu_features.iter().filter(|feature| !there.contains(feature));
        features.map(|feature| cpu::readable(feature)).collect::<BTreeSet<_>>()
    };
    let (lost, gained) = (only(source, destination), only(destination, source));
    let listed = |features: &BTreeSet<String>| match features.len() {
        0 => "nothing".to_owned(),
        _ => features.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
    };
    (!lost.is_empty() || !gained.is_empty()).then(|| {
        let (lost, gained) = (listed(&lost), listed(&gained));
        obstacle(
            format!("the CPU is {from} at both, and not the same: the source's alone has {lost}; the destination's alone has {gained}"),
            "start the VM with a CPU model that both hosts have all of (neither host nor max), and with all of its CPUs at once",
        )
    })
}

fn memory(source: &Machine, destination: &Machine) -> Vec<Obstacle> {
    let sizes = |machine: &Machine| -> BTreeMap<String, u64> {
        machine.memory.iter().map(|block| (block.name.clone(), block.size_bytes)).collect()
    };
    let (from, to) = (sizes(source), sizes(destination));
    let names: BTreeSet<_> = from.keys().chain(to.keys()).collect();
    let plugged = "unplug what was plugged in while the VM ran, or start the VM with it";
    let compared = names.into_iter().filter_map(|name| match (from.get(name), to.get(name)) {
        (Some(from), None) => Some(obstacle(
            format!("memory '{name}' has {from} bytes at the source, and the destination has none of that name"),
            plugged,
        )),
        (None, Some(to)) => Some(obstacle(
            format!("memory '{name}' has {to} bytes at the destination, and the source has none of that name"),
            plugged,
        )),
        (Some(from), Some(to)) if from != to => Some(obstacle(
            format!("memory '{name}' has {from} bytes at the source and {to} at the destination"),
            "give the VM the same memory at both, and both hosts the same firmware and option ROMs for QEMU",
        )),
        _ => None,
    });
    compared.collect()
}

/// The blocks of memory that migrate, by what `info ramblock` prints.
fn memory_blocks(listing: &str) -> Result<Vec<MemoryBlock>, Unexpected> {
    let unexpected = |line: &str| Unexpected {
        what: LIST_MEMORY.to_owned(),
        why: "no block of memory".to_owned(),
        text: line.trim().to_owned(),
    };
    let lines = listing.lines().skip(1).filter(|line| !line.trim().is_empty());
    let blocks: Result<Vec<_>, _> = lines.map(|line| memory_block(line).ok_or_else(|| unexpected(line))).collect();
    let mut blocks = blocks?;
    // Without a name it is no part of the machine, and stays.
    blocks.retain(|block| !block.name.is_empty());
    if blocks.is_empty() { Err(unexpected(listing)) } else { Ok(blocks) }
}

/// A line has a name, the size of a page and its unit, and then numbers: the offset, what is used, and what can be.
fn memory_block(line: &str) -> Option<MemoryBlock> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let offset = fields.iter().position(|field| field.starts_with("0x"))?;
    let name = fields[..offset.checked_sub(2)?].join(" ");
    let total = fields.get(offset + 2)?.strip_prefix("0x")?;
    Some(MemoryBlock { name, size_bytes: u64::from_str_radix(total, 16).ok()? })
}

const LIST_MEMORY: &str = "info ramblock";

#[cfg(test)]
mod tests {
    use super::*;

    /// Of QEMU 10.0.2, in short.
    const LISTING: &str = "\
              Block Name    PSize              Offset               Used              Total                HVA  RO
                  pc.ram    4 KiB  0x0000000000300000 0x0000000004000000 0x0000000004000000 0x00007f010fe00000  rw
    /rom@etc/acpi/tables    4 KiB  0x0000000004380000 0x0000000000020000 0x0000000000200000 0x00007f0161800000  ro\r
                            4 KiB  0x0000000000000000 0x0000000000100000 0x0000000000100000 0x00007f0163400000  rw
0000:00:03.0/virtio-net-pci.rom    4 KiB  0x0000000004480000 0x0000000000040000 0x0000000000040000 0x00007f66e1400000  ro
";

    #[test]
    fn blocks_of_memory_are_read_with_what_they_can_grow_to_and_without_those_that_stay() {
        let block = |name: &str, size_bytes| MemoryBlock { name: name.to_owned(), size_bytes };
        let expected = [
            block("pc.ram", 64 << 20),
            block("/rom@etc/acpi/tables", 2 << 20),
            block("0000:00:03.0/virtio-net-pci.rom", 256 << 10),
        ];
        assert_eq!(memory_blocks(LISTING).expect("they are understood"), expected);
    }

    #[test]
    fn a_listing_of_another_form_is_refused_with_what_is_wrong_in_it() {
        let error = memory_blocks(&format!("{LISTING}and 3 more")).expect_err("another form");
        assert_eq!((error.what.as_str(), error.text.as_str()), ("info ramblock", "and 3 more"));
        assert!(memory_blocks("Block Name PSize").is_err());
    }
}
