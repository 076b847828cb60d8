//! Our program under strace: its system calls watched, or made to fail.

use std::path::Path;
use std::process::Command;

use crate::server::sterna;

/// The command that runs our program; where there are expressions (`trace=…`, `inject=…`), under strace, which writes what it
/// sees to `output`.
pub(crate) fn command(expressions: &[String], output: &Path) -> Command {
    if expressions.is_empty() {
        return Command::new(sterna());
    }
    let mut command = Command::new("strace");
    // Detached (-D), so that the child that is started here becomes the program and not the watcher.
    command.args(["-D", "-f", "-qq", "-o"]).arg(output);
    command.args(expressions.iter().flat_map(|expression| ["-e", expression])).arg(sterna());
    command
}

/// How many system calls begin in what strace has seen. One that another thread interrupts has two lines; signals and ends of
/// threads have lines too.
pub fn count(seen: &str) -> usize {
    let is_call = |line: &&str| !["resumed>", "+++ ", "--- "].iter().any(|other| line.contains(other));
    seen.lines().filter(is_call).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_counted_once_and_nothing_else_is() {
        let seen = "7 recvfrom(9, \"x\", 8, 0, NULL, NULL) = 1\n8 futex(0x1, FUTEX_WAIT <unfinished ...>\n\
                    7 pread64(4, \"y\", 4096, 0) = 4096\n8 <... futex resumed>) = 0\n8 +++ exited with 0 +++\n\
                    7 --- SIGTERM {si_signo=SIGTERM} ---\n";
        assert_eq!(count(seen), 3);
    }
}
