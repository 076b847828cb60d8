//! The client of the `nbd` crate against the server: one more independent one, and the oldest manner there is
//! (EXPORT_NAME with its 124 zeroes, simple replies, one request at a time).

use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};

use anyhow::Result;
use nbd::client::{NbdClient, NbdExt, handshake};
use sterna_tests::server::Server;

#[test]
fn the_nbd_crate_reads_what_it_wrote() -> Result<()> {
    let server =
        Server::builder().file("file", 1 << 20).memory("memory", "1M").volume("volume", 1 << 20).tcp().start()?;
    for export in ["file", "memory", "volume"] {
        let mut stream = server.connect_for(export)?;
        let described = handshake(&mut stream, export.as_bytes())?;
        assert_eq!(described.size, 1 << 20);
        assert!(!described.readonly && !described.rotational && described.send_trim && described.send_flush);
        let mut disk = NbdClient::new(stream, &described);
        disk.seek(SeekFrom::Start(1000))?;
        disk.write_all(b"written over NBD")?;
        disk.flush()?;
        disk.seek(SeekFrom::Start(1008))?;
        let mut back = [0xff; 16];
        disk.read_exact(&mut back)?;
        assert_eq!(&back, b"over NBD\0\0\0\0\0\0\0\0");
        disk.seek(SeekFrom::Start(0))?;
        disk.trim(4096)?;
        disk.read_exact(&mut back)?;
        let mut all = Vec::new();
        disk.read_to_end(&mut all)?;
        assert!(back.iter().chain(&all).all(|&byte| byte == 0) && all.len() == (1 << 20) - 16);
    }
    let mut stream = server.connect_tcp("file")?;
    assert_eq!(handshake(&mut stream, b"")?.size, 1 << 20, "the empty name is the default export");
    Ok(())
}

#[test]
fn the_nbd_crate_is_told_that_an_export_is_read_only() -> Result<()> {
    let server = Server::builder().file("file", 1 << 20).mode("read-only").start()?;
    let mut stream = server.connect()?;
    let described = handshake(&mut stream, b"file")?;
    assert!(described.readonly && !described.send_trim);
    let mut disk = NbdClient::new(stream, &described);
    assert_eq!(disk.write(b"no").expect_err("a write").kind(), ErrorKind::PermissionDenied);
    let mut all = Vec::new();
    disk.read_to_end(&mut all)?;
    assert_eq!(all.len(), 1 << 20);
    Ok(())
}

#[test]
fn a_name_that_is_not_served_closes_the_connection() -> Result<()> {
    let server = Server::builder().memory("memory", "1M").start()?;
    let error = handshake(server.connect()?, b"another").expect_err("there is no such export");
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
    Ok(())
}
