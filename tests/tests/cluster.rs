//! Several nodes: how they come together, and what goes on without one of them. Who is not let in: `strangers.rs`.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sterna_tests::client::{Request, Style};
use sterna_tests::cluster::Cluster;
use sterna_tests::disk_server::DiskServer;
use sterna_tests::node::{Node, is_refusal};
use sterna_tests::server::sterna;
use sterna_tests::tool::Tool;

const SITES: [&str; 3] = ["ams", "chi", "icn"];
/// Of the NBD protocol.
const ESHUTDOWN: u32 = 108;

#[test]
fn heavy_three_nodes_agree_and_go_on_without_the_one_that_led() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::start(directory.path(), &SITES)?;
    cluster.nodes[1].create("made-at-chi", 1 << 30)?;
    cluster.until("all nodes know the volume", |cluster| {
        let known = cluster.nodes.iter().map(Node::volumes).collect::<Result<Vec<_>>>()?;
        Ok(known.iter().all(|volumes| volumes == &["made-at-chi"]))
    })?;
    // A volume is served by the node that made it; others have it in standby.
    let size = |node: &Node| Tool::new("nbdinfo").args(["--size", &node.uri("made-at-chi")]).run();
    ensure!(size(&cluster.nodes[1])?.stdout.trim() == (1u64 << 30).to_string());
    let elsewhere = Tool::new("nbdinfo").args([cluster.nodes[2].uri("made-at-chi")]).succeed()?.stdout;
    ensure!(elsewhere.contains("standby: owned by chi-1 at chi"), "{elsewhere}");
    // Nor is its data anywhere else, which is an error of nobody's.
    cluster.nodes[1].sterna(["volume", "snapshot", "made-at-chi", "kept"]).succeed()?;
    let elsewhere = &cluster.nodes[2];
    for command in
        [&["volume", "snapshot", "made-at-chi", "now"][..], &["volume", "delete", "made-at-chi", "--with-snapshots"]]
    {
        elsewhere.refuses(command, 1, &["owned by node chi-1 at chi"])?;
    }
    for command in [&["volume", "clone", "made-at-chi@kept", "copy"][..], &["volume", "verify", "made-at-chi@kept"]] {
        elsewhere.refuses(command, 1, &["'made-at-chi@kept' is not here: give this command to chi-1 at chi"])?;
    }
    for command in ["gc", "scrub"] {
        elsewhere.sterna([command]).succeed()?;
    }

    let leader = cluster.nodes[1].value(["cluster", "status"])?["leader"].as_str().context("a leader")?.to_owned();
    let leader = SITES.iter().position(|site| leader == format!("{site}-1")).context("one of the nodes")?;
    let others: Vec<usize> = (0..SITES.len()).filter(|&node| node != leader).collect();
    cluster.nodes[leader].kill()?;
    cluster.until("two nodes go on", |cluster| {
        // Whether it was the first attempt that was carried out, or a later one, is not known to the first.
        cluster.nodes[others[0]].sterna(["volume", "create", "made-by-two", "--size", "1G"]).run()?;
        let listed = cluster.nodes[others[0]].sterna(["volume", "list"]).run()?;
        Ok(listed.stdout.contains("made-by-two"))
    })?;
    ensure!(cluster.nodes[others[1]].volumes()?.contains(&"made-by-two".to_owned()));

    cluster.nodes[leader].run()?;
    cluster.until("the third one has caught up", |cluster| {
        Ok(cluster.nodes[leader].volumes()?.contains(&"made-by-two".to_owned()))
    })?;

    // A node that is to go is shown first, and then goes for good.
    cluster.nodes[1].sterna(["volume", "delete", "made-at-chi", "--with-snapshots"]).succeed()?;
    let owner = cluster.nodes[0].value(["volume", "show", "made-by-two"])?["volume"]["owner"]
        .as_str()
        .context("an owner")?
        .to_owned();
    let gone = SITES.iter().position(|site| owner != format!("{site}-1")).context("another node")?;
    let stays = (gone + 1) % SITES.len();
    let staged = cluster.nodes[stays].value(["cluster", "node", "remove", &format!("{}-1", SITES[gone])])?;
    ensure!(
        staged["removed_after"][0] == format!("{}-1", SITES[gone])
            && staged["voters"].as_array().map(Vec::len) == Some(3)
    );
    cluster.nodes[stays].refuses(["cluster", "apply", "1"], 1, &["revision 1 of the layout is not the newest"])?;
    cluster.nodes[stays].sterna(["cluster", "apply", &staged["revision"].to_string()]).succeed()?;
    let status = cluster.nodes[gone].wait()?;
    ensure!(!status.success() && cluster.nodes[gone].log().contains("this node can have no session any more"));
    let mut left = cluster.nodes.iter_mut().enumerate().filter(|(number, _)| *number != gone);
    left.try_for_each(|(_, node)| node.terminate())
}

#[test]
fn heavy_a_node_that_is_cut_off_says_so_and_its_clients_get_errors_until_it_is_back() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::start(directory.path(), &SITES)?;
    cluster.nodes[2].create("disk", 64 << 20)?;
    let (mut client, _) = cluster.nodes[2].disk("disk").attach(Style::Structured)?;
    ensure!(client.call(Request::write(0, vec![7; 4096]))?.error() == 0);
    for node in [0, 1] {
        cluster.nodes[node].kill()?;
    }
    cluster.until("a command says why it cannot be carried out", |cluster| {
        let refused = cluster.nodes[2].sterna(["volume", "create", "late", "--size", "1G"]).run()?;
        // What was on its way when the others were killed is not known to have failed.
        Ok(is_refusal(&refused, 1, &["metadata's group"]).is_ok())
    })?;
    // By its own count the session lasts 13.5 seconds at most; then every request is answered, and none with success.
    cluster.until("the session has lapsed", |_| Ok(client.call(Request::read(0, 4096))?.error() == ESHUTDOWN))?;
    for request in [Request::write(4096, vec![8; 4096]), Request::flush()] {
        ensure!(client.call(request)?.error() == ESHUTDOWN, "something was acknowledged without a session");
    }

    for node in [0, 1] {
        cluster.nodes[node].run()?;
    }
    cluster.until("the same connection is answered again", |_| Ok(client.call(Request::flush())?.error() == 0))?;
    let read = client.call(Request::read(0, 4096))?;
    ensure!(read.error() == 0 && read.data() == [7; 4096]);
    Ok(())
}

#[test]
fn a_token_lets_one_node_in_once_and_in_time() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::start(directory.path(), &["ams"])?;
    cluster.join("chi")?;
    let join = |token: &str, name: &str| {
        let data = directory.path().join(name);
        let args = ["--site", "icn", "--name", name, "--listen", "127.0.0.1:1", "--join", token];
        Tool::new(sterna()).args(["node", "init"]).args([data.as_os_str()]).args(args).run()
    };
    let token = cluster.token()?;
    is_refusal(&join(&token, "ams-1")?, 1, &["there is a node 'ams-1' already"])?;
    ensure!(join(&token, "icn-1")?.status.success());
    is_refusal(&join(&token, "icn-2")?, 1, &["was used by node 3"])?;

    let short = cluster.nodes[0].value(["cluster", "token", "create", "--expires", "1s"])?;
    std::thread::sleep(Duration::from_millis(1_100));
    is_refusal(&join(short["token"].as_str().context("a token")?, "icn-2")?, 1, &["has expired"])?;

    let revoked = cluster.nodes[0].value(["cluster", "token", "create"])?;
    cluster.nodes[0].sterna(["cluster", "token", "revoke", revoked["id"].as_str().context("an id")?]).succeed()?;
    is_refusal(&join(revoked["token"].as_str().context("a token")?, "icn-2")?, 1, &["there is no token"])?;

    is_refusal(&join(&token[..token.len() - 1], "icn-2")?, 2, &["--join"])?;
    let elsewhere = cluster.nodes[0].value(["cluster", "token", "create", "--site", "fra"])?;
    is_refusal(&join(elsewhere["token"].as_str().context("a token")?, "icn-2")?, 1, &["at site 'fra' only"])?;
    ensure!(!directory.path().join("icn-2").exists(), "a directory was left of a node that was not let in");
    ensure!(cluster.nodes[0].log().contains("a node was not let in"));

    // Where there are several nodes, keys that are gone are not made up.
    let first = &mut cluster.nodes[0];
    first.kill()?;
    std::fs::remove_file(first.data().join("pki/identity.pem"))?;
    ensure!(first.run().is_err(), "a node ran without its key");
    ensure!(first.log().contains("the node's credentials are missing"));
    Ok(())
}

#[test]
fn a_data_directory_from_before_there_were_several_nodes_opens() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = Node::init(directory.path())?;
    // What an earlier version made has neither keys nor this format; its metadata is what is there before the first run.
    std::fs::remove_dir_all(node.data().join("pki"))?;
    std::fs::write(node.data().join("metadata/FORMAT"), "sterna-metadata 1\n")?;
    node.run()?;
    node.create("disk", 1 << 20)?;
    ensure!(node.data().join("pki/identity.pem").exists() && node.data().join("pki/authority.pem").exists());
    ensure!(std::fs::read_to_string(node.data().join("metadata/FORMAT"))? == "sterna-metadata 6\n");
    node.terminate()?;

    // Killed between the two files, it goes on with the authority that there is.
    let authority = std::fs::read(node.data().join("pki/authority.pem"))?;
    std::fs::remove_file(node.data().join("pki/identity.pem"))?;
    node.run()?;
    ensure!(std::fs::read(node.data().join("pki/authority.pem"))? == authority);
    node.terminate()
}

#[test]
fn how_long_sessions_last_is_shown_and_set() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = Node::start(directory.path())?;
    let shown = node.value(["cluster", "session"])?;
    ensure!(shown["length_ms"] == 15_000 && shown["renewal_ms"] == 5_000, "{shown}");
    ensure!(shown["silent_after_ms"] == 13_500 && shown["lapsed_after_ms"] == 16_500, "{shown}");
    let set = node.value(["cluster", "session", "--length", "1500ms"])?;
    ensure!(set["length_ms"] == 1_500 && set["renewal_ms"] == 500, "{set}");
    for (length, exit) in [("999ms", 2), ("11min", 2), ("15", 2), ("soon", 2)] {
        node.refuses(["cluster", "session", "--length", length], exit, &[length, "from 1s to 10min"])?;
    }
    let printed = node.sterna(["cluster", "session"]).succeed()?.stdout;
    ensure!(printed.contains("1.5 s") && printed.contains("1.35 s at most"), "{printed}");
    let status = node.value(["cluster", "status"])?;
    let (version, knows) = (&status["metadata_version"], &status["nodes"][0]["knows"]);
    ensure!(version.as_u64().is_some_and(|version| version >= 3) && version == knows, "{status}");
    node.terminate()
}

#[test]
fn certificates_are_renewed_while_the_nodes_go_on() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start_with(directory.path(), &["ams", "chi"], "certificate_lifetime = \"20s\"")?;
    // The first node signed its own certificate when it was made, and before it was told this; the other one's lasts 20 s.
    let path = cluster.nodes[1].data().join("pki/identity.pem");
    let mut before = std::fs::read(&path)?;
    for renewal in ["once", "twice"] {
        cluster.until(&format!("a certificate is renewed {renewal}"), |_| Ok(std::fs::read(&path)? != before))?;
        before = std::fs::read(&path)?;
    }
    // Volumes are made at one node, and so by the other one's vote.
    cluster.nodes[1].create("disk", 1 << 20)?;
    ensure!(cluster.nodes[0].volumes()? == ["disk"]);
    ensure!(cluster.nodes[1].log().contains("this node has a new certificate"));
    Ok(())
}

#[test]
fn heavy_the_authority_outlives_its_first_node_and_leaves_who_votes_no_more() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::start_with(directory.path(), &SITES, "certificate_lifetime = \"20s\"")?;
    let path = |cluster: &Cluster, node: usize| cluster.nodes[node].data().join("pki/authority.pem");
    let first = std::fs::read(path(&cluster, 0))?;
    cluster.until("every voter holds the authority", |cluster| {
        Ok([1, 2].into_iter().all(|node| std::fs::read(path(cluster, node)).is_ok_and(|held| held == first)))
    })?;
    for node in [1, 2] {
        let mode = std::fs::metadata(path(&cluster, node))?.permissions().mode() & 0o7777;
        ensure!(mode == 0o600, "the authority's file has the mode {mode:o}");
    }

    cluster.nodes[0].kill()?;
    cluster.join_through(1, "fra")?;
    ensure!(cluster.nodes[1].log().contains("a node has joined"));
    // The newcomer has no authority, and asks whoever votes to renew its certificate.
    let identity = cluster.nodes[3].data().join("pki/identity.pem");
    let before = std::fs::read(&identity)?;
    cluster.until("its certificate is renewed", |_| Ok(std::fs::read(&identity)? != before))?;
    ensure!(!path(&cluster, 3).exists(), "a node that does not vote holds the authority");
    cluster.nodes[3].refuses(
        ["cluster", "token", "create"],
        1,
        &["does not hold", "ask a node that votes", "chi-1 ("],
    )?;

    // The first node has missed that it is to vote no more, and learns it when it is back.
    cluster.nodes[1].sterna(["cluster", "node", "demote", "ams-1"]).succeed()?;
    cluster.nodes[1].sterna(["cluster", "node", "promote", "fra-1"]).succeed()?;
    let revision = cluster.nodes[1].value(["cluster", "changes"])?["revision"].to_string();
    cluster.nodes[1].sterna(["cluster", "apply", &revision]).succeed()?;
    cluster.nodes[0].run()?;
    cluster.until("who votes now holds the authority, and who did does not", |cluster| {
        Ok(path(cluster, 3).exists() && !path(cluster, 0).exists())
    })?;
    cluster.until("the log tells why it went", |cluster| {
        Ok(cluster.nodes[0].log().contains("this node does not vote any more, and node"))
    })?;

    // One that is removed for good takes no copy with it.
    cluster.nodes[1].sterna(["cluster", "node", "remove", "icn-1"]).succeed()?;
    let revision = cluster.nodes[1].value(["cluster", "changes"])?["revision"].to_string();
    cluster.nodes[1].sterna(["cluster", "apply", &revision]).succeed()?;
    cluster.nodes[2].wait()?;
    ensure!(
        !path(&cluster, 2).exists(),
        "a node that was removed still holds the authority: {}",
        cluster.nodes[2].log()
    );
    Ok(())
}
