//! Programs of the administrator's that are called at the steps of a migration, for what Sterna knows nothing of: paths between hosts, and where
//! the network believes a VM to be.
//!
//! | event | when, and at which end | what its failure means |
//! |---|---|---|
//! | `prepare` | before anything is moved: at the source, then at the destination | the migration is refused, with what the program said last |
//! | `switch` | at the destination as it lets the VM run, beside that; at the source when it knows | it is told; the VM runs |
//! | `finish` | at both ends once all is over, however; also where `prepare` has failed | it is told |
//!
//! Each is given one JSON object on standard input ([`Occasion`]), and so much time. One that takes longer is killed, with all that it has
//! started. A migrator that was ended in between may call `finish` once more, and `switch` too: they have to be content with that.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::volumes::Place;

/// The programs, and how long each may take.
#[derive(Clone, Debug)]
pub struct Hooks {
    /// For [`Event::Prepare`].
    pub prepare: Option<PathBuf>,
    /// For [`Event::Switch`].
    pub switch: Option<PathBuf>,
    /// For [`Event::Finish`].
    pub finish: Option<PathBuf>,
    /// How long each may take.
    pub patience: Duration,
}

/// None, each of which may take ten seconds.
impl Default for Hooks {
    fn default() -> Self {
        Self { prepare: None, switch: None, finish: None, patience: PATIENCE }
    }
}

/// At which step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// Before anything is moved.
    Prepare,
    /// The VM runs at the destination, or is about to.
    Switch,
    /// It is over.
    Finish,
}

/// Which end of a migration calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The host that the VM leaves.
    Source,
    /// The one that it comes to.
    Destination,
}

/// What a program is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Occasion {
    /// Who calls.
    pub role: Role,
    /// Which migration: 32 hexadecimal digits.
    pub migration: String,
    /// The VM.
    pub vm: String,
    /// The volumes that are its disks.
    pub volumes: Vec<String>,
    /// The site and node that it leaves.
    pub from: Where,
    /// Those that it comes to.
    pub to: Where,
    /// With [`Event::Finish`]: `moved`, `kept` or `lost`, as this end knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<&'static str>,
}

/// A place, as programs are told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Where {
    /// The site.
    pub site: String,
    /// The node.
    pub node: String,
}

impl From<&Place> for Where {
    fn from(place: &Place) -> Self {
        Self { site: place.site.to_string(), node: place.node.to_string() }
    }
}

/// A program that has not done what it was called for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HookError {
    /// It cannot be started.
    #[error("the hook {} cannot be started: {source}", program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// Why not.
        source: Arc<std::io::Error>,
    },
    /// It has taken too long, and was killed.
    #[error("the hook {} has taken longer than {patience:?}, and was killed", program.display())]
    Late {
        /// Which.
        program: PathBuf,
        /// How long it may take.
        patience: Duration,
    },
    /// It says that it could not do it.
    #[error("the hook {} has failed with {status}: {said}", program.display())]
    Failed {
        /// Which.
        program: PathBuf,
        /// How it has ended.
        status: ExitStatus,
        /// The last line that it wrote to standard error.
        said: String,
    },
}

impl Hooks {
    /// Calls the program for an event, if there is one, and waits for its end.
    ///
    /// # Errors
    /// [`HookError`].
    ///
    /// # Cancel safety
    /// Dropped, it kills the program.
    pub async fn call(&self, event: Event, occasion: &Occasion) -> Result<(), HookError> {
        let program = match event {
            Event::Prepare => &self.prepare,
            Event::Switch => &self.switch,
            Event::Finish => &self.finish,
        };
        let Some(program) = program else { return Ok(()) };
        #[derive(Serialize)]
        struct Told<'a> {
            event: Event,
            #[serde(flatten)]
            occasion: &'a Occasion,
        }
        let told = serde_json::to_vec(&Told { event, occasion }).expect("an occasion is JSON");
        tracing::info!(program = %program.display(), ?event, migration = occasion.migration, "a hook is called");
        run(program, &told, self.patience).await
    }
}

async fn run(program: &Path, told: &[u8], patience: Duration) -> Result<(), HookError> {
    let failed = |source| HookError::Start { program: program.to_owned(), source: Arc::new(source) };
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut group = Group(child.id());
    let ended = timeout(patience, finish(&mut child, told)).await;
    if matches!(ended, Ok(Ok(_))) {
        // Its number may be another's from now on; what it has left running it wants to run.
        group.0 = None;
    }
    match ended {
        Ok(Ok((status, _))) if status.success() => Ok(()),
        Ok(Ok((status, said))) => Err(HookError::Failed { program: program.to_owned(), status, said }),
        Ok(Err(source)) => Err(failed(source)),
        Err(_) => Err(HookError::Late { program: program.to_owned(), patience }),
    }
}

/// Tells it all, hears what it says, and how it ends.
async fn finish(child: &mut Child, told: &[u8]) -> std::io::Result<(ExitStatus, String)> {
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read it need not.
        let _ = stdin.write_all(told).await;
    }
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(MAX_SAID_BYTES).read_to_end(&mut said).await?;
    }
    let status = child.wait().await?;
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    Ok((status, last.unwrap_or("it has said nothing").trim().to_owned()))
}

/// A program and all that it has started, which end with this as long as it has not ended by itself.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let group = self.0.and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        if let Some(group) = group {
            // Most have ended.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// What a program is given where nobody says otherwise: a VM may be waiting for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// More than a program says that has failed.
const MAX_SAID_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use tokio::time::Instant;

    use super::*;

    fn occasion() -> Occasion {
        let at = |site: &str| Where { site: site.to_owned(), node: format!("{site}-1") };
        Occasion {
            role: Role::Source,
            migration: "00".repeat(16),
            vm: "web".to_owned(),
            volumes: vec!["root".to_owned()],
            from: at("ams"),
            to: at("chi"),
            end: Some("moved"),
        }
    }

    async fn call(script: &str, patience: Duration) -> (Result<(), HookError>, String) {
        let directory = tempfile::tempdir().unwrap();
        let (program, told) = (directory.path().join("hook"), directory.path().join("told"));
        fs::write(&program, format!("#!/bin/sh\ntold={}\n{script}\n", told.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let hooks = Hooks { finish: Some(program), patience, ..Hooks::default() };
        let done = hooks.call(Event::Finish, &occasion()).await;
        (done, fs::read_to_string(told).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_program_is_told_what_it_is_about() {
        let (done, told) = call("cat >$told", Duration::from_secs(30)).await;
        done.unwrap();
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["event"], "finish");
        assert_eq!(told["role"], "source");
        assert_eq!(told["to"], serde_json::json!({ "site": "chi", "node": "chi-1" }));
        assert_eq!(told["end"], "moved");
    }

    #[tokio::test]
    async fn what_it_said_last_is_told() {
        let (done, _) = call("echo no such bridge >&2; exit 3", Duration::from_secs(30)).await;
        let error = done.unwrap_err().to_string();
        assert!(error.contains("no such bridge") && error.contains('3'), "{error}");
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_killed_with_all_that_it_has_started() {
        let begun = Instant::now();
        let (done, told) = call("sleep 1000 & echo $! >$told; wait", Duration::from_millis(500)).await;
        assert!(matches!(done, Err(HookError::Late { .. })), "{done:?}");
        assert!(begun.elapsed() < Duration::from_secs(60));
        let child = format!("/proc/{}/stat", told.trim());
        for _ in 0..1000 {
            // As long as nobody has asked for it, an ended one is a zombie.
            if fs::read_to_string(&child).map_or(true, |stat| stat.contains(") Z ")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("what the hook has started still runs");
    }

    #[tokio::test]
    async fn without_a_program_nothing_is_called_and_one_that_is_not_there_is_named() {
        Hooks::default().call(Event::Prepare, &occasion()).await.unwrap();
        let hooks = Hooks { prepare: Some("/no/such/hook".into()), ..Hooks::default() };
        let error = hooks.call(Event::Prepare, &occasion()).await.unwrap_err().to_string();
        assert!(error.contains("/no/such/hook"), "{error}");
    }
}
