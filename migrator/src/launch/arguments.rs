//! A QEMU's command line, altered for another host.

use std::path::{Path, PathBuf};

/// What is different at the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differences {
    /// Where the source's node serves its volumes, and where the destination's does.
    pub nbd_socket: Moved,
    /// The directory of the machine's own sockets and files, at both.
    pub directory: Moved,
}

/// A path that is another one at the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// At the source: absolute.
    pub from: PathBuf,
    /// At the destination: absolute.
    pub to: PathBuf,
}

/// A command line that cannot be used at another host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// There is none.
    #[error("QEMU's command line is empty")]
    Empty,
    /// An argument is not text.
    #[error("argument {number} of QEMU's command line is not UTF-8: {}", .bytes.escape_ascii())]
    NotText {
        /// Which, from 0, the program.
        number: usize,
        /// What it is.
        bytes: Vec<u8>,
    },
    /// It goes to the background by itself, where nobody can see to it.
    #[error("QEMU was started with {0}: start it in the foreground, as a service of your service manager")]
    Detached(String),
    /// It reads more of its configuration from a place that this host does not see.
    #[error("QEMU was started with {0}, and what that has is not known here: give it on the command line")]
    Indirect(String),
}

/// The arguments of the destination's QEMU, the program first: those of the source's, where `differences` says nothing else, and so that it
/// stands and waits for its state.
///
/// # Errors
/// [`Unusable`], with what to change about the source's.
pub fn at_destination(source: &[Vec<u8>], differences: &Differences) -> Result<Vec<String>, Unusable> {
    let mut texts = source.iter().enumerate().map(|(number, bytes)| {
        let text = std::str::from_utf8(bytes).map(ToOwned::to_owned);
        text.map_err(|_| Unusable::NotText { number, bytes: bytes.clone() })
    });
    let mut arguments = vec![texts.next().ok_or(Unusable::Empty)??];
    while let Some(argument) = texts.next().transpose()? {
        // QEMU takes both.
        let option = argument.strip_prefix('-').map(|option| option.strip_prefix('-').unwrap_or(option));
        match option {
            Some("S") => {}
            Some("incoming" | "loadvm") => drop(texts.next().transpose()?),
            Some("daemonize") => return Err(Unusable::Detached(argument)),
            Some("readconfig") => return Err(Unusable::Indirect(argument)),
            _ => arguments.push(differences.apply(&argument)),
        }
    }
    arguments.extend(["-S", "-incoming", "defer"].map(str::to_owned));
    Ok(arguments)
}

impl Differences {
    /// The same text with the destination's paths.
    fn apply(&self, text: &str) -> String {
        // What is in the other goes first.
        let mut moved = [&self.nbd_socket, &self.directory];
        moved.sort_by_key(|moved| std::cmp::Reverse(moved.from.as_os_str().len()));
        let mut applied = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((at, moved)) =
            moved.iter().filter_map(|moved| Some((find(rest, &moved.from)?, *moved))).min_by_key(|(at, _)| *at)
        {
            let (before, behind) = rest.split_at(at);
            applied.push_str(before);
            applied.push_str(&moved.to.display().to_string());
            rest = behind.strip_prefix(&moved.from.display().to_string()).unwrap_or(behind);
        }
        applied.push_str(rest);
        applied
    }
}

/// Where a path begins in a text, as a whole path or as the beginning of one: not where other names only begin alike.
fn find(text: &str, path: &Path) -> Option<usize> {
    let path = path.display().to_string();
    let is_end = |c: Option<char>| c.is_none_or(|c| matches!(c, '/' | ',' | '"' | '?' | '&'));
    let is_begin = |c: Option<char>| c.is_none_or(|c| matches!(c, '=' | ':' | '"' | ','));
    text.match_indices(&path)
        .map(|(at, _)| at)
        .find(|at| is_begin(text[..*at].chars().next_back()) && is_end(text[at + path.len()..].chars().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences() -> Differences {
        let moved = |from: &str, to: &str| Moved { from: from.into(), to: to.into() };
        Differences {
            nbd_socket: moved("/var/lib/sterna/nbd.sock", "/srv/sterna/nbd.sock"),
            directory: moved("/run/vms/web", "/srv/sterna/vms/web"),
        }
    }

    fn altered(arguments: &[&str]) -> Result<Vec<String>, Unusable> {
        let arguments: Vec<_> = arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect();
        at_destination(&arguments, &differences())
    }

    #[test]
    fn what_is_at_another_place_is_and_all_else_is_as_it_was() {
        let source = [
            "qemu-system-x86_64",
            "-machine",
            "q35,suppress-vmdesc=on",
            "-blockdev",
            r#"{"driver":"nbd","server":{"type":"unix","path":"/var/lib/sterna/nbd.sock"},"export":"web"}"#,
            "-blockdev",
            "driver=nbd,server.type=unix,server.path=/var/lib/sterna/nbd.sock,export=data",
            "-qmp",
            "unix:/run/vms/web/qmp,server=on,wait=off",
            "-chardev",
            "socket,id=c,path=/run/vms/web/console,logfile=/run/vms/web",
            "-kernel",
            "/boot/vmlinuz",
        ];
        let expected = [
            "qemu-system-x86_64",
            "-machine",
            "q35,suppress-vmdesc=on",
            "-blockdev",
            r#"{"driver":"nbd","server":{"type":"unix","path":"/srv/sterna/nbd.sock"},"export":"web"}"#,
            "-blockdev",
            "driver=nbd,server.type=unix,server.path=/srv/sterna/nbd.sock,export=data",
            "-qmp",
            "unix:/srv/sterna/vms/web/qmp,server=on,wait=off",
            "-chardev",
            "socket,id=c,path=/srv/sterna/vms/web/console,logfile=/srv/sterna/vms/web",
            "-kernel",
            "/boot/vmlinuz",
            "-S",
            "-incoming",
            "defer",
        ];
        assert_eq!(altered(&source).unwrap(), expected);
    }

    #[test]
    fn names_that_begin_alike_are_others() {
        let others =
            ["qemu", "-serial", "file:/run/vms/web-2/log", "-D", "/mnt/run/vms/web/log", "-name", "/run/vms/webmail"];
        assert_eq!(altered(&others).unwrap()[1..others.len()], others[1..]);
    }

    #[test]
    fn a_directory_inside_the_other_goes_first() {
        let nested = Differences {
            nbd_socket: Moved { from: "/run/vms/web/nbd".into(), to: "/n".into() },
            directory: Moved { from: "/run/vms/web".into(), to: "/d".into() },
        };
        assert_eq!(
            nested.apply("path=/run/vms/web/nbd,log=/run/vms/web/log,path=/run/vms/web/nbd"),
            "path=/n,log=/d/log,path=/n"
        );
    }

    #[test]
    fn a_machine_that_came_in_itself_waits_again() {
        let source = ["qemu", "-S", "--incoming", "defer", "-m", "512", "-loadvm", "x"];
        assert_eq!(altered(&source).unwrap(), ["qemu", "-m", "512", "-S", "-incoming", "defer"]);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert_eq!(altered(&[]), Err(Unusable::Empty));
        assert_eq!(altered(&["qemu", "-daemonize"]), Err(Unusable::Detached("-daemonize".to_owned())));
        assert_eq!(altered(&["qemu", "-readconfig", "f"]), Err(Unusable::Indirect("-readconfig".to_owned())));
        let error = at_destination(&[b"qemu".to_vec(), b"\xff".to_vec()], &differences()).unwrap_err();
        assert_eq!(error.to_string(), r"argument 1 of QEMU's command line is not UTF-8: \xff");
    }
}
