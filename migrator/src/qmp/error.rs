//! What goes wrong between us and QEMU.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::limits::{EXCERPT_BYTES, MAX_COMMAND_BYTES};

/// A command has not succeeded, or nobody knows whether it has.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU has answered with an error.
    #[error("QEMU refuses {command}: {desc} ({class})")]
    Refused {
        /// The command's name.
        command: String,
        /// QEMU's class of error. Nearly all are `GenericError`; `CommandNotFound` is one of the few that tell more.
        class: String,
        /// What QEMU says to people.
        desc: String,
    },
    /// No answer has come. QEMU may have carried out the command, or may still.
    #[error("QEMU has not answered {command} within {patience:?}")]
    NoAnswer {
        /// The command's name.
        command: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// There was no way to send the command, because QEMU does not read or has not answered those before. It is not sent later.
    #[error("{command} could not be sent to QEMU within {patience:?}")]
    NotSent {
        /// The command's name.
        command: String,
        /// How long it was tried.
        patience: Duration,
    },
    /// The command was to be carried out out of band, and this QEMU does not offer that. It was not sent.
    #[error("QEMU does not offer to carry out {command} out of band")]
    NoOutOfBand {
        /// The command's name.
        command: String,
    },
    /// The command with its arguments is longer than [`MAX_COMMAND_BYTES`]. It was not sent.
    #[error("{command} has {bytes} bytes with its arguments, and may have {MAX_COMMAND_BYTES}")]
    TooLong {
        /// The command's name.
        command: String,
        /// How long it is.
        bytes: usize,
    },
    /// The connection has ended before the answer came. QEMU may have carried out the command.
    #[error("the connection to QEMU has ended before {command} was answered")]
    Ended {
        /// The command's name.
        command: String,
        /// How it has ended.
        #[source]
        end: End,
    },
    /// QEMU has carried out the command, and what it returns is not what we know of it.
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
}

/// What QEMU says has not the form that it is documented to have.
#[derive(Clone, Debug, thiserror::Error)]
#[error("what QEMU says with {what} cannot be understood: {why}, in {text}")]
pub struct Unexpected {
    /// The command or the event.
    pub what: String,
    /// What is wrong.
    pub why: String,
    /// What QEMU says, or the beginning of it.
    pub text: String,
}

/// How a connection has ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum End {
    /// QEMU has closed it, and most likely has ended itself.
    #[error("QEMU has closed the connection")]
    Closed,
    /// The socket has failed.
    #[error("the socket has failed")]
    Failed(#[source] Arc<io::Error>),
    /// What came is no JSON object. We have hung up.
    #[error("what came is not QMP: {why}, in {text}")]
    Malformed {
        /// What is wrong.
        why: String,
        /// What came, or the beginning of it.
        text: String,
    },
    /// What came is longer than we read. We have hung up.
    #[error("{what} is longer than {limit_bytes} bytes")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// How long it may be.
        limit_bytes: usize,
    },
    /// We have let go of it: the last handle was dropped, or the runtime shuts down.
    #[error("the connection was let go")]
    LetGo,
}

/// There is no connection to QEMU.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens at this path, or not to us.
    #[error("cannot connect to {}", path.display())]
    Unreachable {
        /// The socket's path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Nobody has greeted, or nobody took the first command. QEMU serves one client of a socket at a time: another may be connected.
    #[error("no QEMU has answered there within {patience:?}; is another client connected to it?")]
    Silent {
        /// How long it was waited for.
        patience: Duration,
    },
    /// What is at the other end does not greet as QMP does.
    #[error("what listens there is not QMP: it greets with {greeting}")]
    NotQmp {
        /// How it greets, or the beginning of that.
        greeting: String,
    },
    /// The connection has ended before the greeting came.
    #[error("the connection has ended before QEMU has greeted")]
    Ended(#[source] End),
    /// QEMU has greeted, and did not go on to take commands.
    #[error("QEMU does not begin to take commands")]
    NoCommands(#[source] QmpError),
}

/// The object that QEMU has said with this command or event, as a type of ours.
///
/// # Errors
/// [`Unexpected`], if it is not of this type.
pub(super) fn understand<T: for<'de> Deserialize<'de>>(what: &str, said: &Value) -> Result<T, Unexpected> {
    // serde would take an empty list for an object all of whose fields may be left out.
    let understood = if said.is_object() {
        T::deserialize(said).map_err(|error| error.to_string())
    } else {
        Err("no object".to_owned())
    };
    understood.map_err(|why| Unexpected { what: what.to_owned(), why, text: excerpt(said.to_string().as_bytes()) })
}

/// The beginning of a text that may be long and may be no text, in one line.
pub(super) fn excerpt(text: &[u8]) -> String {
    let shown = &text[..text.len().min(EXCERPT_BYTES)];
    let shown = String::from_utf8_lossy(shown.trim_ascii()).escape_debug().to_string();
    if text.len() > EXCERPT_BYTES { format!("{shown}... ({} bytes)", text.len()) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_line_whatever_it_is_of() {
        assert_eq!(excerpt(b"\x1b[2Jhello\nthere\r\n"), "\\u{1b}[2Jhello\\nthere");
        assert_eq!(excerpt(b"\xff"), "\u{fffd}");
        let long = excerpt(&[b'x'; 5000]);
        assert!(long.ends_with("xx... (5000 bytes)") && long.len() < EXCERPT_BYTES + 20, "{long}");
    }
}
