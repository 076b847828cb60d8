//! fio's NBD engine against the server: random requests of many sizes, with a checksum in every block it wrote, which it
//! reads back.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sterna_tests::server::Server;
use sterna_tests::tool::Tool;

/// Runs one job over `size`; the job as fio reports it.
fn fio(uri: &str, pattern: &str, sizes: &str, size: &str) -> Result<Value> {
    let job = [
        "--name=job",
        "--ioengine=nbd",
        "--iodepth=32",
        "--fsync=32",
        "--verify=crc32c",
        "--do_verify=1",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--randseed=7",
        "--output-format=json",
    ];
    let of_this_run = [format!("--uri={uri}"), format!("--rw={pattern}"), sizes.to_owned(), format!("--size={size}")];
    let ended = Tool::new("fio").args(job).args(of_this_run).succeed()?;
    // The engine says that it is connected in front of the report.
    let report = ended.stdout.find('{').map(|at| &ended.stdout[at..]).context("a report")?;
    let report: Value = serde_json::from_str(report).with_context(|| format!("not JSON: {ended}"))?;
    let job = report["jobs"][0].clone();
    ensure!(job["error"] == 0, "fio found an error: {ended}");
    ensure!(job["write"]["total_ios"].as_u64() > Some(100), "fio wrote next to nothing: {ended}");
    Ok(job)
}

#[test]
fn fio_verifies_random_writes_of_mixed_sizes() -> Result<()> {
    let server = Server::builder().file("file", 64 << 20).memory("memory", "64M").volume("volume", 64 << 20).start()?;
    for export in ["file", "memory", "volume"] {
        let job = fio(&server.uri(export), "randwrite", "--bssplit=512/20:4k/40:16k/20:64k/15:256k/5", "48M")?;
        ensure!(job["read"]["io_kbytes"].as_u64() >= Some(48 << 10), "not all was read back: {job}");
    }
    assert_eq!(server.terminate()?.counter("errors")?, 0);
    Ok(())
}

#[test]
fn fio_verifies_random_writes_among_reads() -> Result<()> {
    let builder = Server::builder().file("file", 64 << 20).memory("memory", "64M").volume("volume", 64 << 20);
    let server = builder.tcp().start()?;
    for uri in [server.uri("file"), server.uri("memory"), server.tcp_uri("memory"), server.uri("volume")] {
        fio(&uri, "randrw", "--bsrange=512-64k", "32M")?;
    }
    assert_eq!(server.terminate()?.counter("errors")?, 0);
    Ok(())
}

#[test]
fn fio_verifies_two_jobs_on_two_connections_of_one_disk() -> Result<()> {
    let server = Server::builder().file("file", 64 << 20).volume("volume", 64 << 20).start()?;
    let two = "--bs=4k --offset_increment=32M --numjobs=2".split(' ').map(str::to_owned).collect::<Vec<_>>();
    let fixed = ["--name=job", "--ioengine=nbd", "--iodepth=16", "--rw=randwrite", "--size=16M", "--fsync=64"];
    let checking =
        ["--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0", "--group_reporting"];
    for export in ["file", "volume"] {
        let uri = format!("--uri={}", server.uri(export));
        Tool::new("fio").args(fixed).args(checking).args(&two).args([uri]).succeed()?;
    }
    let counted = server.terminate()?;
    assert!(counted.counter("connections")? >= 2 * 2 && counted.counter("errors")? == 0, "{}", counted.log);
    assert!(counted.counter("requests")? >= 2 * 2 * 2 * 4096, "{}", counted.log);
    Ok(())
}
