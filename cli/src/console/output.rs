//! Standard output: lines for people, or one JSON value in each line for programs.

use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Stdout, Write};

use anyhow::Result;
use serde::Serialize;

/// Where results go.
pub(crate) struct Output {
    json: bool,
    out: BufWriter<Stdout>,
}

/// Standard output takes no more.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub(crate) struct OutputClosed(#[from] io::Error);

impl OutputClosed {
    /// Whether its reader has gone, which is no failure.
    fn is_broken_pipe(&self) -> bool {
        self.0.kind() == ErrorKind::BrokenPipe
    }
}

/// What a command came to, whose reader may have gone: whoever read it, such as `head`, has read enough.
///
/// # Errors
/// The command's, but for that.
pub(crate) fn unless_reader_left(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.downcast_ref::<OutputClosed>().is_some_and(OutputClosed::is_broken_pipe) => Ok(()),
        result => result,
    }
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, out: BufWriter::new(io::stdout()) }
    }

    /// Whether a program reads it.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a result: `value` for programs, else `text`.
    ///
    /// # Errors
    /// [`OutputClosed`].
    pub(crate) fn result(&mut self, value: &impl Serialize, text: impl Display) -> Result<()> {
        if self.json { self.value(value) } else { self.line(text) }
    }

    /// Prints a line for programs.
    ///
    /// # Errors
    /// [`OutputClosed`].
    pub(crate) fn value(&mut self, value: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(value)?;
        self.line(line)
    }

    /// Prints a line.
    ///
    /// # Errors
    /// [`OutputClosed`].
    pub(crate) fn line(&mut self, text: impl Display) -> Result<()> {
        Ok(writeln!(self.out, "{text}").map_err(OutputClosed)?)
    }

    /// Hands on what was printed so far.
    ///
    /// # Errors
    /// [`OutputClosed`].
    pub(crate) fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush().map_err(OutputClosed)?)
    }
}
