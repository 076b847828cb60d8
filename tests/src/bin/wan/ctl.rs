//! `wan ctl`: tells a wan that is running.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::args::{Ctl, Ends};
use crate::control::{Answer, Request};

/// Says what was asked for, and shows the answer.
///
/// # Errors
/// Nobody listens on the socket, or it could not be done.
pub(crate) fn run(socket: &Path, command: &Ctl) -> Result<()> {
    let report = match ask(socket, &request(command))? {
        Answer::Done(report) => report,
        Answer::Failed(why) => bail!("{why}"),
    };
    let mut stdout = std::io::stdout();
    match command {
        Ctl::Show { json: true } => writeln!(stdout, "{}", serde_json::to_string_pretty(&report)?)?,
        Ctl::Show { json: false } => write!(stdout, "{report}")?,
        Ctl::Cut(_) | Ctl::Heal(_) | Ctl::Set { .. } => {}
    }
    Ok(())
}

fn request(command: &Ctl) -> Request {
    let names = |ends: &Ends| (ends.one.clone(), ends.other.clone(), ends.one_way);
    match command {
        Ctl::Cut(ends) => {
            let (one, other, one_way) = names(ends);
            Request::Cut { one, other, one_way }
        }
        Ctl::Heal(ends) => {
            let (one, other, one_way) = names(ends);
            Request::Heal { one, other, one_way }
        }
        Ctl::Set { ends, settings } => {
            let (one, other, one_way) = names(ends);
            Request::Set { one, other, one_way, change: settings.change() }
        }
        Ctl::Show { .. } => Request::Show {},
    }
}

fn ask(socket: &Path, request: &Request) -> Result<Answer> {
    let connected = UnixStream::connect(socket);
    let what = || format!("no wan listens on {}: start one with `wan up … --control SOCK`", socket.display());
    let mut stream = connected.with_context(what)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    serde_json::from_str(&answer).context("the wan has ended before it answered")
}
