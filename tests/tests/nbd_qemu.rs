//! QEMU's block layer against the server: the one client here that speaks extended headers, and the one that matters
//! most. Also other people's servers between a client and ours.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sterna_tests::server::Server;
use sterna_tests::tool::{Ended, Running, Tool, until};

const MIB: u64 = 1 << 20;

/// qemu-io with these commands on this image, in write-back mode, as a VM has it.
fn qemu_io(uri: &str, commands: &[&str]) -> Tool {
    let commands = commands.iter().flat_map(|command| ["-c", command]);
    Tool::new("qemu-io").args(["-f", "raw", "-t", "writeback"]).args(commands).args([uri])
}

/// The same, and all that its NBD client has to say about it.
fn traced(uri: &str, commands: &[&str]) -> Result<Ended> {
    let commands = commands.iter().flat_map(|command| ["-c", command]);
    let fixed = ["--trace", "nbd_*", "-f", "raw", "-t", "writeback"];
    Tool::new("qemu-io").args(fixed).args(commands).args([uri]).succeed()
}

/// QEMU prints its trace to standard error, and names an event `…_compliance` where it finds that a server errs.
fn complains_of_nothing(ended: &Ended) -> Result<()> {
    let complaint = ended.stderr.lines().find(|line| line.contains("compliance"));
    ensure!(complaint.is_none(), "QEMU complains: {complaint:?}\n{ended}");
    Ok(())
}

fn qemu_img(args: &[&str]) -> Result<Ended> {
    Tool::new("qemu-img").args(args).succeed()
}

#[test]
fn qemu_negotiates_extended_headers_and_finds_no_fault_in_a_whole_session() -> Result<()> {
    let server = Server::builder().file("file", 64 * MIB).memory("memory", "64M").volume("volume", 64 * MIB).start()?;
    for export in ["file", "memory", "volume"] {
        let session = [
            "write -P 0x5a 4k 64k",
            "write -P 0x11 5000 1000",
            "write -z 16k 4k",
            "write -z -u 24k 4k",
            "write -z 1M 48M",
            "write -f -P 1 2M 4k",
            "discard 3M 64k",
            "discard 8M 40M",
            "aio_write -P 7 60M 1M",
            "aio_read -P 0x5a 32k 32k",
            "aio_flush",
            "flush",
            "read -P 0x5a 8k 8k",
            "read -P 0 16k 4k",
            "read -P 0 24k 4k",
            "read -P 7 60M 1M",
            "map",
            "alloc 0 1M",
        ];
        let ended = traced(&server.uri(export), &session)?;
        // Otherwise the absence of complaints would prove nothing.
        for event in [
            "Received option reply 11 (extended headers), type 1 (ack)",
            "Received set meta context mapping of base:allocation",
            "type = 6 (block status (64-bit))",
            ".flags = 0x1, .type = 1 (write)",
            "(disconnect)",
        ] {
            ensure!(ended.stderr.contains(event), "not in the trace: {event}\n{ended}");
        }
        complains_of_nothing(&ended)?;
        ensure!(!ended.stdout.contains("failed"), "{ended}");
    }
    assert_eq!(server.terminate()?.counter("errors")?, 0);
    Ok(())
}

#[test]
fn qemu_finds_no_fault_in_how_requests_are_refused() -> Result<()> {
    let server = Server::builder().file("file", MIB).mode("standby").start()?;
    let uri = server.uri("file");
    for change in ["write -P 1 0 4k", "write -z 0 4k", "write -z -u 0 4k", "discard 0 4k"] {
        let fixed = ["--trace", "nbd_*", "-f", "raw", "-t", "writeback", "-c", change, "-c", "read -P 0 0 1M", &uri];
        let ended = Tool::new("qemu-io").args(fixed).run()?;
        ensure!(ended.code()? != 0, "a standby export took a change: {ended}");
        let refused = ["Operation not permitted", "EPERM"].iter().any(|text| ended.to_string().contains(text));
        ensure!(refused, "not refused with EPERM: {ended}");
        ensure!(ended.stdout.contains("read 1048576/1048576 bytes"), "reading does not go on: {ended}");
        complains_of_nothing(&ended)?;
    }
    Ok(())
}

#[test]
fn qemu_reads_back_what_it_wrote() -> Result<()> {
    let builder = Server::builder().file("file", 64 * MIB).memory("memory", "64M").volume("volume", 64 * MIB);
    let server = builder.tcp().start()?;
    for uri in [server.uri("file"), server.uri("memory"), server.uri("volume")] {
        let writes =
            ["write -P 0xa1 0 1M", "write -P 0xa2 512 512", "write -P 0xa3 63M 1M", "write -z 64k 64k", "flush"];
        qemu_io(&uri, &writes).succeed()?;
        let reads = [
            "read -P 0xa1 0 512",
            "read -P 0xa2 512 512",
            "read -P 0xa1 1k 63k",
            "read -P 0 64k 64k",
            "read -P 0xa3 63M 1M",
        ];
        qemu_io(&uri, &reads).succeed()?;
        let wrong = qemu_io(&uri, &["read -P 0xa2 0 512"]).run()?;
        ensure!(wrong.code()? != 0, "qemu-io does not check patterns: {wrong}");
    }
    let file = fs::read(server.path("file"))?;
    assert!(
        file[512..1024].iter().all(|&byte| byte == 0xa2) && file[64 << 10..128 << 10].iter().all(|&byte| byte == 0)
    );
    qemu_io(&server.tcp_uri("file"), &["read -P 0xa3 63M 1M", "write -P 0xa4 1M 4k"]).succeed()?;
    qemu_io(&server.uri("file"), &["read -P 0xa4 1M 4k"]).succeed()?;
    Ok(())
}

#[test]
fn qemu_asks_for_fua_and_for_holes_in_its_own_way() -> Result<()> {
    let server = Server::builder().file("file", 64 * MIB).start()?;
    let session =
        ["write -f -P 1 0 4k", "write -P 2 4k 4k", "write -z -f 8k 4k", "write -z -u 12k 4k", "write -z 16k 4k"];
    let ended = traced(&server.uri("file"), &session)?;
    let sent: Vec<_> = ended.stderr.lines().filter(|line| line.contains("Sending request")).collect();
    for (request, place) in [
        (".from = 0, .len = 4096, .cookie = 1, .flags = 0x1, .type = 1 (write)", 0),
        (".from = 4096, .len = 4096, .cookie = 1, .flags = 0x0, .type = 1 (write)", 1),
        (".from = 8192, .len = 4096, .cookie = 1, .flags = 0x3, .type = 6 (write zeroes)", 2),
        (".from = 12288, .len = 4096, .cookie = 1, .flags = 0x0, .type = 6 (write zeroes)", 3),
        (".from = 16384, .len = 4096, .cookie = 1, .flags = 0x2, .type = 6 (write zeroes)", 4),
    ] {
        assert!(sent[place].contains(request), "{request}: {sent:#?}");
    }
    complains_of_nothing(&ended)?;
    // Zeroed with NO_HOLE a part of the file keeps its space, zeroed without it loses it.
    let map: Value = serde_json::from_str(&qemu_img(&["map", "--output=json", &server.uri("file")])?.stdout)?;
    let at =
        |offset: u64| map.as_array().and_then(|runs| runs.iter().rfind(|run| run["start"].as_u64() <= Some(offset)));
    assert_eq!(at(4096).context("a run")?["data"], true, "{map}");
    assert_eq!(at(12288).context("a run")?["data"], false, "{map}");
    Ok(())
}

#[test]
fn qemu_img_converts_compares_and_maps() -> Result<()> {
    let server = Server::builder().file("file", 64 * MIB).memory("memory", "64M").volume("volume", 64 * MIB).start()?;
    let (file, memory, volume) = (server.uri("file"), server.uri("memory"), server.uri("volume"));
    qemu_io(&file, &["write -P 1 1M 1M", "write -P 2 40M 3M"]).succeed()?;
    let raw = server.path("copy.raw").display().to_string();
    let qcow = server.path("copy.qcow2").display().to_string();
    qemu_img(&["convert", "-f", "raw", "-O", "raw", &file, &raw])?;
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "-W", "-m", "16", &file, &qcow])?;
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw", "-n", "-W", "-m", "16", &qcow, &memory])?;
    assert!(fs::read(&raw)? == fs::read(server.path("file"))?, "the copy differs");
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw", "-n", "-W", "-m", "16", "--target-is-zero", &qcow, &volume])?;
    for (a, b) in [(&file, &memory), (&raw, &memory), (&file, &volume), (&volume, &memory)] {
        let compared = qemu_img(&["compare", "-f", "raw", "-F", "raw", a, b])?;
        ensure!(compared.stdout.contains("Images are identical."), "{compared}");
    }
    for uri in [&file, &volume] {
        let map: Value = serde_json::from_str(&qemu_img(&["map", "--output=json", uri])?.stdout)?;
        let runs = map.as_array().context("a map")?.iter();
        let runs: Vec<_> = runs.map(|r| (r["start"].as_u64(), r["length"].as_u64(), r["data"].as_bool())).collect();
        let run = |start: u64, length: u64, data: bool| (Some(start * MIB), Some(length * MIB), Some(data));
        assert_eq!(runs, [run(0, 1, false), run(1, 1, true), run(2, 38, false), run(40, 3, true), run(43, 21, false)]);
    }
    for uri in [&memory, &volume] {
        qemu_io(uri, &["write -P 9 42M 512"]).succeed()?;
        let compared = Tool::new("qemu-img").args(["compare", "-f", "raw", "-F", "raw", &file, uri]).run()?;
        assert_eq!(compared.code()?, 1, "a difference is seen: {compared}");
    }
    Ok(())
}

#[test]
fn qemu_img_keeps_many_requests_in_flight() -> Result<()> {
    let server = Server::builder().file("file", 64 * MIB).memory("memory", "64M").volume("volume", 64 * MIB).start()?;
    for export in ["file", "memory", "volume"] {
        let uri = server.uri(export);
        qemu_img(&["bench", "-f", "raw", "-c", "2000", "-d", "64", "-s", "4k", "-S", "20k", "-w", &uri])?;
        qemu_img(&["bench", "-f", "raw", "-c", "2000", "-d", "64", "-s", "64k", "-S", "20k", &uri])?;
    }
    let counted = server.terminate()?;
    assert!(counted.counter("requests")? >= 12000 && counted.counter("errors")? == 0, "{}", counted.log);
    Ok(())
}

#[test]
fn many_clients_of_one_export_see_each_others_writes() -> Result<()> {
    let server = Server::builder().file("file", 64 * MIB).memory("memory", "64M").volume("volume", 64 * MIB).start()?;
    for export in ["file", "memory", "volume"] {
        let uri = server.uri(export);
        let write = |index: u64| format!("write -P {} {}M 1M", index + 1, 4 * index);
        let read = |index: u64| format!("read -P {} {}M 1M", index + 1, 4 * index);
        let clients = (0..6).map(|index| qemu_io(&uri, &[&write(index), &read(index), "flush"]).spawn());
        for client in clients.collect::<Result<Vec<Running>>>()? {
            let ended = client.wait()?;
            ensure!(ended.code()? == 0, "{ended}");
        }
        let reads: Vec<String> = (0..6).map(read).collect();
        qemu_io(&uri, &reads.iter().map(String::as_str).collect::<Vec<_>>()).succeed()?;
    }
    Ok(())
}

/// Starts somebody else's server and waits for its socket.
fn behind(tool: Tool, socket: &std::path::Path) -> Result<Running> {
    let running = tool.spawn()?;
    let is_there = until(Duration::from_secs(30), || Ok(std::os::unix::net::UnixStream::connect(socket).is_ok()))?;
    ensure!(is_there, "nothing listens on {}", socket.display());
    Ok(running)
}

/// Copies a file in and out through a server that stands before ours, and looks at what arrived.
fn copies_through(server: &Server, export: &str, through: &str) -> Result<()> {
    let content: Vec<u8> =
        (0..64 * MIB).map(|at| if at % (16 * MIB) < MIB { at.to_le_bytes()[1] } else { 0 }).collect();
    let (from, back) = (server.path("from"), server.path("back"));
    fs::write(&from, &content)?;
    let copy = |from: &str, to: &str| Tool::new("nbdcopy").args(["--flush", from, to]).succeed();
    copy(&from.display().to_string(), through)?;
    if export == "file" {
        assert!(fs::read(server.path("file"))? == content, "what was copied in differs");
    }
    copy(through, &back.display().to_string())?;
    assert!(fs::read(&back)? == content, "what was copied out differs");
    Ok(())
}

#[test]
fn qemu_nbd_serves_on_what_we_serve() -> Result<()> {
    let server = Server::builder().file("file", 64 * MIB).volume("volume", 64 * MIB).start()?;
    let args = ["-f", "raw", "-t", "-e", "8", "--cache=writeback", "--discard=unmap", "--detect-zeroes=unmap", "-k"];
    for export in ["file", "volume"] {
        let socket = server.path(&format!("front-{export}"));
        let front = Tool::new("qemu-nbd").args(args).args([&socket.display().to_string(), &server.uri(export)]);
        let _front = behind(front, &socket)?;
        copies_through(&server, export, &format!("nbd+unix:///?socket={}", socket.display()))?;
    }
    Ok(())
}

#[test]
fn nbdkit_serves_on_what_we_serve() -> Result<()> {
    let server = Server::builder().file("file", 64 * MIB).volume("volume", 64 * MIB).start()?;
    for export in ["file", "volume"] {
        let socket = server.path(&format!("front-{export}"));
        let args = ["-f", "-U", &socket.display().to_string(), "nbd", &format!("uri={}", server.uri(export))];
        let _front = behind(Tool::new("nbdkit").args(args), &socket)?;
        copies_through(&server, export, &format!("nbd+unix:///?socket={}", socket.display()))?;
    }
    Ok(())
}

#[test]
fn nbdkit_checks_a_disk_against_a_copy() -> Result<()> {
    let server = Server::builder().file("file", 16 * MIB).start()?;
    qemu_io(&server.uri("file"), &["write -P 5 1M 1M", "write -P 6 9M 100k", "flush"]).succeed()?;
    let copy = server.path("copy");
    fs::copy(server.path("file"), &copy)?;
    let socket = server.path("front");
    let fixed = ["-f", "-U", &socket.display().to_string(), "--filter=checkwrite", "nbd", "shared=true"];
    let front = Tool::new("nbdkit").args(fixed).args([format!("uri={}", server.uri("file"))]);
    let _front = behind(front, &socket)?;
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    Tool::new("nbdcopy").args([&copy.display().to_string(), &uri]).succeed()?;
    qemu_io(&server.uri("file"), &["write -P 7 9M 512"]).succeed()?;
    let compared = Tool::new("nbdcopy").args([&copy.display().to_string(), &uri]).run()?;
    ensure!(compared.code()? != 0, "a difference is not seen: {compared}");
    Ok(())
}
