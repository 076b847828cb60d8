//! `sterna nbd serve` with arguments that are wrong: exit code 2 where the command line itself is, 1 where what it asks
//! for cannot be done; either way the message names what is at fault, and nothing is served.

use std::fs;

use anyhow::Result;
use sterna_tests::certificates::{Authority, Role};
use sterna_tests::node::is_refusal;
use sterna_tests::server::sterna;
use sterna_tests::tool::Tool;

/// Runs `sterna nbd serve` with these arguments, which have to be refused with this code and with all of these words.
fn refused(args: &[&str], code: i32, words: &[&str]) -> Result<()> {
    let ended = Tool::new(sterna()).args(["nbd", "serve"]).args(args).run()?;
    is_refusal(&ended, code, words)
}

#[test]
fn a_command_line_that_is_wrong_in_itself_is_refused_with_2() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = &directory.path().join("socket").display().to_string();
    refused(&["--socket", socket], 2, &["--file", "--memory"])?;
    for size in ["scratch=20X", "-5", "1.5G", "scratch=", "", "18446744073709551616", "99999999999T"] {
        let value = format!("--memory={size}");
        let number = size.rsplit('=').next().unwrap_or_default();
        refused(&[&value, "--socket", socket], 2, &["--memory", number])?;
    }
    refused(&["--memory", "1M", "--socket", socket, "--mode", "sideways"], 2, &["sideways", "standby"])?;
    refused(&["--memory", "1M", "--listen", "localhost"], 2, &["localhost", "--listen"])?;
    refused(&["--memory", "1M", "--listen", "127.0.0.1:99999"], 2, &["127.0.0.1:99999"])?;
    refused(&["--memory", "1M", "--socket", socket, "--lanes", "257"], 2, &["257"])?;
    refused(&["--memory", "1M", "--socket", socket, "--tls-cert", "a.pem"], 2, &["--tls-key"])?;
    refused(&["--memory", "1M", "--socket", socket, "--tls-key", "a.pem"], 2, &["--tls-cert"])?;
    refused(&["--memory", "1M", "--socket", socket, "--tls-only", "memory"], 2, &["--tls-cert"])?;
    let long = "x".repeat(4097);
    refused(&["--memory", "1M", "--socket", socket, "--description", &long], 2, &["4096"])?;
    refused(&["--memory", "1M", "--socket", socket, "--bogus"], 2, &["--bogus"])?;
    assert!(!fs::exists(socket)?);
    Ok(())
}

#[test]
fn what_cannot_be_served_is_refused_with_1() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).display().to_string();
    let socket = &path("socket");
    fs::write(path("file"), [0; 4096])?;
    refused(&["--file", &path("missing"), "--socket", socket], 1, &[&path("missing")])?;
    refused(&["--file", &path(""), "--socket", socket], 1, &["directory"])?;
    refused(&["--file", &path(""), "--mode", "read-only", "--socket", socket], 1, &["neither a regular file"])?;
    refused(&["--memory", "1M"], 1, &["--socket", "--listen"])?;
    refused(&["--memory", "1M", "--memory", "2M", "--socket", socket], 1, &["'memory'"])?;
    refused(&["--memory", "file=1M", "--file", &path("file"), "--socket", socket], 1, &["'file'"])?;
    refused(&["--memory", "1M", "--socket", socket, "--socket", &path("file")], 1, &[&path("file")])?;
    refused(&["--memory", "1M", "--socket", &path("no/such/place")], 1, &[&path("no/such/place")])?;
    refused(&["--memory", "1M", "--socket", &path("file")], 1, &[&path("file"), "no socket"])?;
    refused(&["--memory", "1M", "--socket", &path(&"x".repeat(200))], 1, &["xxx"])?;
    let long = format!("{}=1M", "n".repeat(4097));
    refused(&["--memory", &long, "--socket", socket], 1, &["4096"])?;
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:10809"] {
        refused(&["--memory", "1M", "--listen", address], 1, &[address, "--tls-cert"])?;
    }
    assert!(fs::read(path("file"))?.len() == 4096 && !fs::exists(socket)?);
    Ok(())
}

#[test]
fn certificates_that_cannot_be_used_are_refused_with_1() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let authority = Authority::new("an authority")?;
    let one = authority.identity(Role::Server, &directory.path().join("one"))?;
    let two = authority.identity(Role::Server, &directory.path().join("two"))?;
    let (certificate, key) = (&one.certificate.display().to_string(), &one.key.display().to_string());
    let empty = &directory.path().join("empty.pem").display().to_string();
    fs::write(empty, "")?;
    let socket = &directory.path().join("socket").display().to_string();
    let serve = ["--memory", "1M", "--socket", socket];
    let with = |more: &[&str], words: &[&str]| refused(&[&serve[..], more].concat(), 1, words);
    with(&["--tls-cert", "nowhere.pem", "--tls-key", key], &["nowhere.pem"])?;
    with(&["--tls-cert", certificate, "--tls-key", "nowhere.pem"], &["nowhere.pem"])?;
    with(&["--tls-cert", empty, "--tls-key", key], &[empty])?;
    with(&["--tls-cert", certificate, "--tls-key", certificate], &[certificate])?;
    with(&["--tls-cert", certificate, "--tls-key", &two.key.display().to_string()], &["certificate"])?;
    with(&["--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", empty], &[empty])?;
    with(&["--tls-cert", certificate, "--tls-key", key, "--tls-only", "other"], &["other"])?;
    let offered = ["--tls-cert", certificate, "--tls-key", key, "--tls", "offered", "--listen", "192.0.2.1:10809"];
    with(&offered, &["192.0.2.1:10809", "--tls-only memory"])?;
    Ok(())
}
