//! libnbd's programs against the server: nbdinfo, nbdcopy, and scripts for its Python module (`tests/nbdsh/`).

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sterna_tests::client::{Request, Style};
use sterna_tests::server::Server;
use sterna_tests::tool::Tool;

const MIB: u64 = 1 << 20;

/// Everything that nbdinfo can ask whether an export can.
const CAPABILITIES: [&str; 13] = [
    "connect",
    "read",
    "write",
    "flush",
    "fua",
    "trim",
    "zero",
    "fast-zero",
    "cache",
    "df",
    "multi-conn",
    "structured-reply",
    "rotational",
];

fn nbdinfo(args: &[&str]) -> Result<String> {
    Ok(Tool::new("nbdinfo").args(args).succeed()?.stdout)
}

fn nbdinfo_json(args: &[&str]) -> Result<Value> {
    let text = nbdinfo(args)?;
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
}

/// Runs a script of `tests/nbdsh` with arguments.
fn nbdsh(script: &str, args: &[&str]) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("nbdsh").join(script);
    // Debian's own Python, which Debian's libnbd is a module of.
    let tool = Tool::new("/usr/bin/python3").env("PYTHONDONTWRITEBYTECODE", "1").args([path]);
    Ok(tool.args(args).succeed()?.stdout)
}

/// Which of all capabilities nbdinfo says an export has.
fn capabilities(uri: &str) -> Result<Vec<&'static str>> {
    let mut able = Vec::new();
    for what in CAPABILITIES {
        let question = if what == "rotational" { "--is" } else { "--can" };
        let ended = Tool::new("nbdinfo").args([question, what, uri]).run()?;
        match ended.code()? {
            0 => able.push(what),
            2 => {}
            _ => anyhow::bail!("nbdinfo failed: {ended}"),
        }
    }
    Ok(able)
}

#[test]
fn nbdinfo_describes_an_export_as_it_is() -> Result<()> {
    let server = Server::builder().file("disk", 64 * MIB).arg("--description").arg("a disk of a test").start()?;
    let told = nbdinfo_json(&["--json", &server.uri("disk")])?;
    assert_eq!(told["protocol"], "newstyle-fixed");
    assert_eq!((&told["TLS"], &told["structured"]), (&json!(false), &json!(true)));
    let export = &told["exports"][0];
    let expected = json!({
        "export-name": "disk", "description": "a disk of a test", "export-size": 64 * MIB, "is_read_only": false,
        "is_rotational": false, "contexts": ["base:allocation", "x-sterna:residency"], "can_cache": true,
        "can_df": true, "can_fast_zero": true, "can_flush": true, "can_fua": true, "can_multi_conn": true,
        "can_trim": true, "can_zero": true, "block_size_minimum": 1, "block_size_preferred": 4096,
        "block_size_maximum": 32 * MIB,
    });
    for (field, value) in expected.as_object().context("an object")? {
        assert_eq!(&export[field], value, "{field} in {export}");
    }
    Ok(())
}

#[test]
fn the_server_tells_where_its_exports_are() -> Result<()> {
    let server = Server::builder().file("disk", 3 * MIB).memory("a b", "1M").tcp().start()?;
    let told: Vec<_> = server.offers().iter().map(|o| (&o["export"], &o["size_bytes"], &o["read_only"])).collect();
    let expected = [(json!("disk"), json!(3 * MIB), json!(false)), (json!("a b"), json!(MIB), json!(false))];
    assert_eq!(told, expected.iter().map(|(a, b, c)| (a, b, c)).collect::<Vec<_>>());
    for (uri, size) in [(server.uri("disk"), 3 * MIB), (server.tcp_uri("disk"), 3 * MIB), (server.tcp_uri("a b"), MIB)]
    {
        assert_eq!(nbdinfo(&["--size", &uri])?.trim(), size.to_string(), "{uri}");
    }
    Ok(())
}

#[test]
fn nbdinfo_lists_all_exports_and_the_first_is_the_default() -> Result<()> {
    let server = Server::builder().memory("one", "1M").file("two", 2 * MIB).memory("three", "3M").start()?;
    let default = format!("nbd+unix:///?socket={}", server.socket().display());
    let told = nbdinfo_json(&["--list", "--json", &default])?;
    let exports = told["exports"].as_array().context("a list of exports")?;
    let listed: Vec<_> = exports.iter().map(|export| (&export["export-name"], &export["export-size"])).collect();
    let expected = [(json!("two"), json!(2 * MIB)), (json!("one"), json!(MIB)), (json!("three"), json!(3 * MIB))];
    assert_eq!(listed, expected.iter().map(|(name, size)| (name, size)).collect::<Vec<_>>());
    assert_eq!(nbdinfo(&["--size", &default])?.trim(), (2 * MIB).to_string());
    Ok(())
}

#[test]
fn nbdinfo_finds_the_capabilities_of_each_mode() -> Result<()> {
    let all = &CAPABILITIES[..12];
    let reading: Vec<_> =
        all.iter().copied().filter(|what| !["write", "trim", "zero", "fast-zero"].contains(what)).collect();
    for (mode, expected, read_only) in
        [("read-write", all, 2), ("standby", all, 2), ("read-only", reading.as_slice(), 0)]
    {
        let server = Server::builder().file("disk", MIB).mode(mode).start()?;
        let uri = server.uri("disk");
        assert_eq!(capabilities(&uri)?, expected, "{mode}");
        assert_eq!(Tool::new("nbdinfo").args(["--is", "read-only", &uri]).run()?.code()?, read_only, "{mode}");
        assert_eq!(server.offers()[0]["read_only"], json!(read_only == 0));
    }
    let server = Server::builder().memory("memory", "1M").volume("volume", MIB).start()?;
    assert_eq!(capabilities(&server.uri("volume"))?, all, "of a volume");
    Ok(())
}

#[test]
fn nbdinfo_refuses_an_export_that_is_not_there() -> Result<()> {
    let server = Server::builder().memory("disk", "1M").start()?;
    let uri = server.uri("disk").replace("/disk?", "/dusk?");
    let ended = Tool::new("nbdinfo").args(["--size", &uri]).run()?;
    assert_ne!(ended.code()?, 0);
    assert!(ended.stderr.contains("No such file or directory"), "{ended}");
    Ok(())
}

#[test]
fn nbdinfo_maps_what_was_written() -> Result<()> {
    let server = Server::builder().memory("memory", "64M").file("file", 64 * MIB).volume("volume", 64 * MIB).start()?;
    for export in ["memory", "file", "volume"] {
        let mut client = server.attach(Style::Structured, export)?;
        let written = client.call(Request::write(8 * MIB, vec![7; 3 << 20]))?;
        assert_eq!((written.error(), client.call(Request::flush())?.error()), (0, 0));
        let uri = server.uri(export);
        let run = |offset: u64, length: u64, kind: u64, description: &str| json!({ "offset": offset, "length": length, "type": kind, "description": description });
        let expected = [
            run(0, 8 * MIB, 3, "hole,zero"),
            run(8 * MIB, 3 * MIB, 0, "data"),
            run(11 * MIB, 53 * MIB, 3, "hole,zero"),
        ];
        assert_eq!(nbdinfo_json(&["--map", "--json", &uri])?, json!(expected), "{export}");
        assert_eq!(nbdinfo_json(&["--map=base:allocation", "--json", &uri])?, json!(expected), "{export}");
        let totals = nbdinfo_json(&["--map", "--totals", "--json", &uri])?;
        let totals: Vec<_> = totals.as_array().context("totals")?.iter().map(|t| (&t["type"], &t["size"])).collect();
        assert_eq!(totals, [(&json!(0), &json!(3 * MIB)), (&json!(3), &json!(61 * MIB))], "{export}");
        let residency = nbdinfo_json(&["--map=x-sterna:residency", "--totals", "--json", &uri])?;
        assert_eq!((&residency[0]["type"], &residency[0]["size"]), (&json!(0), &json!(64 * MIB)), "{export}");
    }
    Ok(())
}

/// A file of 64 MiB, some of it data, some of it zeroes that take space, most of it a hole.
fn source(path: &Path) -> Result<Vec<u8>> {
    let file = File::create(path)?;
    file.set_len(64 * MIB)?;
    let noise: Vec<u8> = (0..MIB).map(|at| (at.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()[0] | 1).collect();
    for at in [0, 5 * MIB + 512, 31 * MIB, 63 * MIB] {
        file.write_all_at(&noise, at)?;
    }
    file.write_all_at(&vec![0; 4 << 20], 40 * MIB)?;
    Ok(fs::read(path)?)
}

#[test]
fn nbdcopy_brings_a_disk_in_and_out_and_across_over_many_connections() -> Result<()> {
    let builder = Server::builder().file("one", 64 * MIB).memory("two", "64M").file("three", 64 * MIB);
    let builder = builder.volume("four", 64 * MIB);
    let (from, back) = (builder.path("source"), builder.path("back"));
    let content = source(&from)?;
    let server = builder.start()?;
    let (from, back) = (from.display().to_string(), back.display().to_string());
    let wide = ["-C", "8", "-T", "8", "-R", "64", "--request-size=131072", "--flush"];
    let copy = |from: &str, to: &str| Tool::new("nbdcopy").args(wide).args([from, to]).succeed();
    copy(&from, &server.uri("one"))?;
    let connections = server.log().matches("attached").count();
    assert!(connections >= 8, "nbdcopy used {connections} connections, not 8");
    assert!(fs::read(server.path("one"))? == content, "what was copied in differs");
    copy(&server.uri("one"), &server.uri("two"))?;
    copy(&server.uri("two"), &server.uri("three"))?;
    assert!(fs::read(server.path("three"))? == content, "what was copied across differs");
    copy(&server.uri("three"), &server.uri("four"))?;
    copy(&server.uri("four"), &back)?;
    assert!(fs::read(&back)? == content, "what was copied out differs");
    server.terminate()?;
    Ok(())
}

#[test]
fn nbdcopy_keeps_holes_and_makes_them_of_zeroes() -> Result<()> {
    let builder = Server::builder().file("disk", 64 * MIB).volume("volume", 64 * MIB);
    let [from, back, volume] = ["source", "back", "volume"].map(|name| builder.path(name));
    source(&from)?;
    let server = builder.start()?;
    for (export, back) in [("disk", &back), ("volume", &volume)] {
        Tool::new("nbdcopy").args([&from.display().to_string(), &server.uri(export)]).succeed()?;
        Tool::new("nbdcopy").args([&server.uri(export), &back.display().to_string()]).succeed()?;
    }
    for path in [server.path("disk"), back, volume] {
        let allocated = fs::metadata(&path)?.blocks() * 512;
        ensure!((4 * MIB..8 * MIB).contains(&allocated), "{} takes {allocated} bytes", path.display());
    }
    Ok(())
}

/// How many requests a script says that the server has refused.
fn refusals(output: &str) -> Result<u64> {
    let line = output.lines().find_map(|line| line.strip_prefix("refusals: "));
    Ok(line.with_context(|| format!("the script did not come to its end: {output}"))?.parse()?)
}

#[test]
fn illegal_requests_have_their_errors_and_the_connection_goes_on() -> Result<()> {
    let builder = Server::builder().memory("memory", "80M").file("file", 80 * MIB).volume("volume", 80 * MIB);
    let server = builder.tcp().start()?;
    let mut refused = 0;
    for uri in [server.uri("memory"), server.uri("file"), server.tcp_uri("memory"), server.uri("volume")] {
        refused += refusals(&nbdsh("illegal_requests.py", &[&uri])?)?;
    }
    assert!(refused > 100, "the script tried only {refused}");
    // An error can also be libnbd's own, of a request that was never sent.
    assert_eq!(server.terminate()?.counter("errors")?, refused);
    Ok(())
}

#[test]
fn read_only_and_standby_exports_refuse_changes_and_serve_reads() -> Result<()> {
    for (mode, looks_writable) in [("read-only", "no"), ("standby", "yes")] {
        let builder = Server::builder();
        let path = builder.path("pattern");
        fs::write(&path, vec![0x5a; 1 << 20])?;
        let server = builder.existing_file("disk", &path).mode(mode).start()?;
        let refused = refusals(&nbdsh("refused_changes.py", &[&server.uri("disk"), looks_writable])?)?;
        assert!(fs::read(&path)?.iter().all(|&byte| byte == 0x5a), "{mode}: the file has changed");
        assert_eq!((refused, server.terminate()?.counter("errors")?), (6, 6), "{mode}");
    }
    Ok(())
}

#[test]
fn libnbd_starts_the_server_with_a_socket_as_systemd_does() -> Result<()> {
    let program = sterna_tests::server::sterna().display().to_string();
    nbdsh("socket_activation.py", &[&program, "nbd", "serve", "--memory", "1M"])?;
    let told = nbdinfo(&["--size", "--", "[", &program, "nbd", "serve", "--memory", "5M", "]"])?;
    assert!(told.lines().any(|line| line.trim() == (5 * MIB).to_string()), "{told}");
    Ok(())
}
