//! Administrators over the network: what each role may do, with which file, and which commands are for the node's own machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::Value;
use sterna_tests::cluster::Cluster;
use sterna_tests::node::is_refusal;
use sterna_tests::server::sterna;
use sterna_tests::tool::Tool;

/// A command for the node that an administrator's file names, by nothing but that file.
fn remote(identity: &Path, args: &[&str]) -> Tool {
    Tool::new(sterna()).args(["--json", "--identity"]).args([identity]).args(args)
}

/// An administrator's file, made on the node's machine.
fn administrator(cluster: &Cluster, directory: &Path, role: &str) -> Result<std::path::PathBuf> {
    let file = directory.join(format!("{role}.pem"));
    let made = cluster.nodes[0].value([
        "cluster",
        "admin",
        "create",
        "anna",
        "--role",
        role,
        "--lifetime",
        "1h",
        "--out",
        &file.display().to_string(),
    ])?;
    ensure!(made["role"] == role && made["node"] == cluster.address(0).to_string(), "{made}");
    Ok(file)
}

#[test]
fn administrators_work_over_the_network_as_their_roles_say() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path(), &["ams"])?;
    let [viewer, operator, admin] =
        ["viewer", "operator", "admin"].map(|role| administrator(&cluster, directory.path(), role));
    let (viewer, operator, admin) = (viewer?, operator?, admin?);
    let mode = fs::metadata(&viewer)?.permissions().mode() & 0o7777;
    ensure!(mode == 0o600, "an administrator's file has the mode {mode:o}");

    remote(&operator, &["volume", "create", "disk", "--size", "64M"]).succeed()?;
    let shown = remote(&viewer, &["volume", "show", "disk"]).succeed()?;
    let shown: Value = serde_json::from_str(&shown.stdout)?;
    ensure!(shown["volume"]["name"] == "disk" && shown["uri"].is_null(), "{shown}");
    for args in
        [&["volume", "list"][..], &["volume", "map", "disk"], &["cluster", "status"], &["cluster", "token", "list"]]
    {
        remote(&viewer, args).succeed()?;
    }
    remote(&operator, &["volume", "snapshot", "disk", "kept"]).succeed()?;
    remote(&viewer, &["volume", "diff", "disk@kept", "disk"]).succeed()?;
    for args in [&["volume", "verify", "disk"][..], &["gc"], &["scrub"], &["volume", "delete", "disk@kept"]] {
        remote(&operator, args).succeed()?;
    }
    // An admin can make another one, whose key the node never sees; and may do what an operator may.
    let second = directory.path().join("second.pem");
    let args = ["cluster", "admin", "create", "berta", "--role", "admin", "--out", &second.display().to_string()];
    remote(&admin, &args).succeed()?;
    remote(&second, &["cluster", "token", "create"]).succeed()?;
    remote(&second, &["volume", "delete", "disk"]).succeed()?;
    let again = remote(&admin, &args).run()?;
    is_refusal(&again, 1, &["is there already"])?;
    let log = cluster.nodes[0].log();
    ensure!(log.contains("an administrator has a certificate name=berta role=admin"), "{log}");
    ensure!(log.contains("an administrator over the network peer=admin berta"), "{log}");
    Ok(())
}

#[test]
fn what_is_about_files_of_the_nodes_machine_is_not_asked_for_over_the_network() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path(), &["ams"])?;
    let admin = administrator(&cluster, directory.path(), "admin")?;
    cluster.nodes[0].create("disk", 1 << 20)?;
    let image = directory.path().join("image.raw");
    fs::write(&image, [1; 4096])?;
    let image = image.display().to_string();
    for args in [["volume", "import", "other", &image], ["volume", "export", "disk", "/tmp/never"]] {
        is_refusal(&remote(&admin, &args).run()?, 1, &["a file of the node's machine", "with --dir"])?;
    }
    Ok(())
}

#[test]
fn which_node_is_meant_is_never_guessed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path(), &["ams"])?;
    let viewer = administrator(&cluster, directory.path(), "viewer")?;
    let (file, data) = (viewer.display().to_string(), cluster.nodes[0].data().display().to_string());
    let list = |args: &[&str]| Tool::new(sterna()).args(args).args(["volume", "list"]);
    is_refusal(&list(&["--identity", &file, "--dir", &data]).run()?, 2, &["name two nodes"])?;
    is_refusal(&list(&["--remote", "127.0.0.1:1"]).run()?, 2, &["--identity FILE"])?;
    is_refusal(&list(&[]).env("STERNA_DIR", &data).env("STERNA_IDENTITY", &file).run()?, 2, &["name two nodes"])?;
    list(&["--identity", &file]).env("STERNA_DIR", "/nowhere").succeed()?;
    list(&["--dir", &data]).env("STERNA_IDENTITY", "/nowhere").env("STERNA_REMOTE", "nowhere:1").succeed()?;
    let port = cluster.address(0).port();
    list(&["--remote", &format!("localhost:{port}"), "--identity", &file]).succeed()?;
    is_refusal(&list(&["--remote", "127.0.0.1:1", "--identity", &file]).run()?, 1, &["127.0.0.1:1 cannot be reached"])?;
    // A file that others can read is no secret.
    fs::set_permissions(&viewer, fs::Permissions::from_mode(0o644))?;
    is_refusal(&list(&["--identity", &file]).run()?, 1, &["others may read or change it", "0644"])
}
