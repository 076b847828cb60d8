//! What stands against the leaving of a VM by its disks: all of them have to be volumes that were named, and that flushes reach.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use sterna_proto::migrator::Obstacle;

use super::facts::{BlockDevice, BlockNode, Facts};
use super::{Expected, obstacle};

pub(super) fn obstacles(facts: &Facts, expected: &Expected) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    let mut volumes = BTreeSet::new();
    for device in facts.devices.iter().filter(|device| device.is_of_guest()) {
        // A drive without a medium is the same at every host.
        let Some(node) = &device.inserted else { continue };
        match volume_of(node, &expected.nbd_socket) {
            Some(volume) => {
                obstacles.extend(unnamed(device, &volume, expected));
                volumes.insert(volume);
            }
            None if device.is_firmware() => {}
            None => obstacles.push(elsewhere(device, node, &expected.nbd_socket)),
        }
    }
    let absent = expected.volumes.iter().filter(|volume| !volumes.contains(volume.as_str()));
    obstacles.extend(absent.map(|volume| unused(volume.as_str(), &volumes)));
    for volume in &volumes {
        let nodes = facts.nodes.iter().filter(|node| volume_of(node, &expected.nbd_socket).as_ref() == Some(volume));
        let nodes: Vec<_> = nodes.collect();
        obstacles.extend(unflushed(volume, &nodes));
        obstacles.extend(nodes.iter().filter_map(|node| backed(volume, node)));
    }
    obstacles
}

fn unnamed(device: &BlockDevice, volume: &str, expected: &Expected) -> Option<Obstacle> {
    let is_named = expected.volumes.iter().any(|named| named.as_str() == volume);
    let named = listed(expected.volumes.iter().map(|named| named.as_str()));
    (!is_named).then(|| {
        obstacle(
            format!("disk '{}' is volume '{volume}', and it was added with {named} only", device.name()),
            format!("remove it and add it anew, with --volume {volume} too ('sterna vm remove', 'sterna vm add')"),
        )
    })
}

fn unused(volume: &str, volumes: &BTreeSet<String>) -> Obstacle {
    let has = listed(volumes.iter().map(String::as_str));
    obstacle(
        format!("it was added with volume '{volume}', and of this node's volumes its disks are {has}"),
        "remove it and add it anew with the volumes that it has ('sterna vm remove', 'sterna vm add')",
    )
}

fn elsewhere(device: &BlockDevice, node: &BlockNode, nbd_socket: &Path) -> Obstacle {
    let (disk, file, driver, ours) = (device.name(), &node.file, &node.driver, nbd_socket.display());
    match export_of(file) {
        Some(Export { socket, name }) => obstacle(
            format!("disk '{disk}' is export '{name}' of {socket}, and not of {ours}, where this host's node is"),
            format!("start the VM with volumes of {ours}, by that very path"),
        ),
        None if device.removable => obstacle(
            format!("the medium in '{disk}' is {file} ({driver}) of this host, and no volume of {ours}"),
            "eject it ('eject')",
        ),
        None => obstacle(
            format!("disk '{disk}' is {file} ({driver}) of this host, and no volume of {ours}"),
            "copy it to a volume and start the VM with that, or unplug it",
        ),
    }
}

fn unflushed(volume: &str, nodes: &[&BlockNode]) -> Option<Obstacle> {
    let nodes: Vec<_> = nodes.iter().filter(|node| node.cache.no_flush).map(|node| node.name.as_str()).collect();
    (!nodes.is_empty()).then(|| {
        obstacle(
            format!("volume '{volume}' has cache.no-flush=on at {}, and has to have it off", listed(nodes.into_iter())),
            "start the VM without it (and without cache=unsafe): what the guest flushes has to come to the volume",
        )
    })
}

fn backed(volume: &str, node: &BlockNode) -> Option<Obstacle> {
    let backing = node.backing_file.as_ref()?;
    Some(obstacle(
        format!("volume '{volume}' has only a part of its disk: the rest is in {backing}, by node '{}'", node.name),
        "bring that into the volume ('block-stream')",
    ))
}

/// The volume that a node is of, if it is one of the node of this host.
fn volume_of(node: &BlockNode, nbd_socket: &Path) -> Option<String> {
    let export = export_of(&node.file)?;
    (nbd_socket.as_os_str() == export.socket.as_str()).then_some(export.name)
}

/// An export of an NBD server behind a Unix socket.
#[derive(Debug, PartialEq, Eq)]
struct Export {
    socket: String,
    name: String,
}

/// The export that a node is made of, whatever is between the two; `None` if it is made of something else.
fn export_of(file: &str) -> Option<Export> {
    if let Some(options) = file.strip_prefix("json:") {
        return export_by_options(&serde_json::from_str(options).ok()?);
    }
    // QEMU puts both in as they are, percent signs and all.
    let (name, socket) = file.strip_prefix("nbd+unix:///")?.split_once("?socket=")?;
    Some(Export { socket: socket.to_owned(), name: name.to_owned() })
}

fn export_by_options(options: &Value) -> Option<Export> {
    if options["driver"] != "nbd" {
        // What is above it, such as raw with an offset, or a throttle.
        return export_by_options(options.get("file")?);
    }
    let socket = options.get("server.path").or_else(|| options.get("server")?.get("path"))?;
    Some(Export { socket: socket.as_str()?.to_owned(), name: options.get("export")?.as_str()?.to_owned() })
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| format!("'{name}'")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As QEMU 10.0.2 gives them in `query-named-block-nodes`.
    #[test]
    fn an_export_is_found_below_whatever_is_on_top_of_it() {
        let files = [
            "nbd+unix:///web?socket=/run/n.sock",
            r#"json:{"offset": 0, "driver": "raw", "size": 1048576, "file":
                {"server.path": "/run/n.sock", "driver": "nbd", "export": "web", "server.type": "unix"}}"#,
            r#"json:{"throttle-group": "tg", "driver": "throttle", "file": {"driver": "qcow2", "file":
                {"server.path": "/run/n.sock", "driver": "nbd", "export": "web", "server.type": "unix"}}}"#,
            r#"json:{"driver": "nbd", "export": "web", "server": {"type": "unix", "path": "/run/n.sock"}}"#,
        ];
        for file in files {
            let expected = Export { socket: "/run/n.sock".to_owned(), name: "web".to_owned() };
            assert_eq!(export_of(file), Some(expected), "{file}");
        }
        let odd = Export { socket: "/a b%20&x=1/n.sock".to_owned(), name: "web".to_owned() };
        assert_eq!(export_of("nbd+unix:///web?socket=/a b%20&x=1/n.sock"), Some(odd));
    }

    #[test]
    fn what_is_no_export_behind_a_unix_socket_is_none() {
        let files = [
            "/srv/web.raw",
            "nbd://10.0.0.7:10809/web",
            "nbd+unix://?socket=/run/n.sock",
            r#"json:{"read-zeroes": true, "driver": "null-co", "size": 1048576}"#,
            r#"json:{"driver": "nbd", "export": "web", "server.type": "inet", "server.host": "h", "server.port": "1"}"#,
            r#"json:{"driver": "quorum", "children": [{"driver": "nbd", "export": "web", "server.path": "/run/n.sock"}]}"#,
            "json:{",
        ];
        for file in files {
            assert_eq!(export_of(file), None, "{file}");
        }
    }
}
