//! The process behind a control socket, and what it was started with.

use std::io;
use std::path::{Path, PathBuf};

/// A process of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId(pub u32);

/// What a process was started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments, the first of them its name, as bytes: they are text by custom only.
    pub arguments: Vec<Vec<u8>>,
    /// In which directory it is: relative paths among its arguments are from there, where it has not gone elsewhere since.
    pub directory: PathBuf,
}

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
#[error("what process {} was started with cannot be read from {}: {source}", .process.0, .file.display())]
pub struct Unreadable {
    /// Which process.
    pub process: ProcessId,
    /// Where it is to be read.
    pub file: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl Started {
    /// That of a process that runs. Blocks for as long as the kernel takes.
    ///
    /// # Errors
    /// There is no such process, or it is another user's.
    pub fn of(process: ProcessId) -> Result<Self, Unreadable> {
        let at = Path::new("/proc").join(process.0.to_string());
        let unreadable = |file: &str| {
            let file = at.join(file);
            move |source| Unreadable { process, file, source }
        };
        let program = std::fs::read_link(at.join("exe")).map_err(unreadable("exe"))?;
        let directory = std::fs::read_link(at.join("cwd")).map_err(unreadable("cwd"))?;
        let written = std::fs::read(at.join("cmdline")).map_err(unreadable("cmdline"))?;
        let mut arguments: Vec<_> = written.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        // Each of them ends with a zero.
        arguments.pop();
        Ok(Self { program, arguments, directory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_was_started_with_is_known() {
        let started = Started::of(ProcessId(std::process::id())).unwrap();
        let expected: Vec<_> = std::env::args_os().map(|argument| argument.into_encoded_bytes()).collect();
        assert_eq!(started.arguments, expected);
        assert_eq!(started.program, std::env::current_exe().unwrap());
        assert_eq!(started.directory, std::env::current_dir().unwrap());
    }

    #[test]
    fn a_process_that_is_gone_is_named() {
        let error = Started::of(ProcessId(u32::MAX)).unwrap_err().to_string();
        assert!(error.contains("process 4294967295") && error.contains("/proc/4294967295/exe"), "{error}");
    }
}
