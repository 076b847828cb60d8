//! The near end of a guest's second serial port; the far end, and the protocol, is `tests/guest/agent.sh`.

use std::fmt::{self, Write as _};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// What the guest's terminal holds for a shell that does not read yet, less what escapes take.
const LONGEST_COMMAND_BYTES: usize = 8 << 10;

/// Twice the agent's own bound on output, for hexadecimal, and some more.
const LONGEST_LINE_BYTES: usize = 3 << 20;

/// What a command has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status.
    pub status: i32,
    /// Its standard output and standard error.
    pub text: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit status {}\n--- output\n{}\n---", self.status, self.text)
    }
}

/// The connection to a guest's agent. One command at a time, each with a number; once one has not been answered in time
/// nothing more can be asked.
pub(super) struct Agent {
    port: UnixStream,
    received: Vec<u8>,
    last: u64,
    lost: bool,
}

impl Agent {
    /// Waits until the agent says that it is ready.
    pub(super) fn greet(port: UnixStream, limit: Duration) -> Result<Self> {
        let mut agent = Self { port, received: Vec::new(), last: 0, lost: false };
        let deadline = Instant::now() + limit;
        // Whatever else came out of the port before that was not from the agent.
        while agent.line(deadline)?.trim() != "ready" {}
        Ok(agent)
    }

    /// The same agent at another port: the guest has moved, and knows nothing of it.
    pub(super) fn moved_to(self, port: UnixStream) -> Self {
        Self { port, received: Vec::new(), ..self }
    }

    /// Has a shell in the guest run this.
    pub(super) fn run(&mut self, command: &str, limit: Duration) -> Result<Output> {
        ensure!(!self.lost, "the agent has not answered before");
        ensure!(command.len() <= LONGEST_COMMAND_BYTES, "a command of {} bytes", command.len());
        self.lost = true;
        self.last += 1;
        let number = self.last.to_string();
        self.port.write_all(format!("{number} {}\n", escaped(command)).as_bytes())?;
        let line = self.line(Instant::now() + limit).with_context(|| format!("the guest does not end `{command}`"))?;
        let mut words = line.split_whitespace();
        let (done, answered) = (words.next(), words.next());
        ensure!(done == Some("done") && answered == Some(&number), "the agent answers `{line}`");
        let status = words.next().context("an answer has a status")?.parse()?;
        let text = decoded(words.next().unwrap_or_default())?;
        self.lost = false;
        Ok(Output { status, text })
    }

    fn line(&mut self, deadline: Instant) -> Result<String> {
        loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            ensure!(self.received.len() <= LONGEST_LINE_BYTES, "the agent says too much");
            self.receive(deadline)?;
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "the guest did not answer in time");
        self.port.set_read_timeout(Some(left))?;
        let mut bytes = [0; 16 << 10];
        match self.port.read(&mut bytes) {
            Ok(0) => bail!("the guest has ended"),
            Ok(count) => self.received.extend_from_slice(&bytes[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

fn escaped(command: &str) -> String {
    command.bytes().fold(String::new(), |mut escaped, byte| {
        let _ = write!(escaped, "\\0{byte:03o}");
        escaped
    })
}

fn decoded(hexadecimal: &str) -> Result<String> {
    let digits = hexadecimal.as_bytes();
    ensure!(digits.len().is_multiple_of(2), "half a byte of output");
    let byte = |pair: &[u8]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    let bytes = digits.chunks(2).map(byte).collect::<Result<Vec<u8>>>()?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The agent's own shell, at the other end of a pair of sockets instead of a serial port.
    fn answers(lines: &'static str) -> Result<Agent> {
        let (near, mut far) = UnixStream::pair()?;
        far.write_all(lines.as_bytes())?;
        std::thread::spawn(move || std::io::copy(&mut far, &mut std::io::sink()));
        Agent::greet(near, Duration::from_secs(10))
    }

    #[test]
    fn a_command_is_escaped_as_printf_understands_it() -> Result<()> {
        let command = "echo '%s \\n \"é\"'\n";
        let printed =
            crate::tool::Tool::new("sh").args(["-c", "printf '%b' \"$1\"", "sh", &escaped(command)]).succeed()?;
        assert_eq!(printed.stdout, command);
        Ok(())
    }

    #[test]
    fn an_answer_has_status_and_output() -> Result<()> {
        let mut agent = answers("noise\r\nready\ndone 1 3 68690a\ndone 2 0\n")?;
        let limit = Duration::from_secs(10);
        assert_eq!(agent.run("exit 3", limit)?, Output { status: 3, text: "hi\n".into() });
        assert_eq!(agent.run("true", limit)?, Output { status: 0, text: String::new() });
        Ok(())
    }

    #[test]
    fn an_answer_to_another_command_is_refused_and_nothing_is_asked_after_it() -> Result<()> {
        let mut agent = answers("ready\ndone 7 0\ndone 2 0\n")?;
        assert!(agent.run("true", Duration::from_secs(10)).is_err());
        assert!(agent.run("true", Duration::from_secs(10)).is_err());
        Ok(())
    }

    #[test]
    fn a_command_that_is_not_answered_is_waited_for_only_so_long() -> Result<()> {
        let mut agent = answers("ready\n")?;
        assert!(agent.run("sleep 1000", Duration::from_millis(10)).is_err());
        Ok(())
    }
}
