//! A VM that moves to another site, and one whose migration is given up.

use anyhow::{Result, bail, ensure};
use sterna_proto::migrator::migrate_vm_reply::Step;
use sterna_proto::migrator::{CancelMigrationRequest, MigrateVmRequest, MigrationProgress};

use super::Session;
use super::client::of_migrator;
use super::token::{self, Wanted};
use super::views::{End, ExaminationView, ProgressView, ReportView};
use crate::args::vm::{Migrate, OneVm};
use crate::console::interrupt::interruptible;
use crate::console::progress::Progress;
use crate::console::table::Facts;
use crate::console::text::count;

/// The migrator's last word.
enum Answer {
    /// It was tried.
    Tried(ReportView),
    /// It was only looked at.
    Examined(ExaminationView),
}

impl Session<'_> {
    pub(super) async fn migrate(&mut self, migrate: Migrate) -> Result<()> {
        let Migrate { name, to, node, dry_run, offline, token, rate } = migrate;
        let token = match (token, self.signer) {
            _ if dry_run => Vec::new(),
            (Some(file), _) => token::read(&file)?.to_bytes(),
            (None, Some(signer)) => {
                let wanted = Wanted { vm: &name, volumes: &[], from: None, to: &to, rate };
                token::issue(&wanted, token::for_now(), self.target, signer).await?.to_bytes()
            }
            // Whether one is needed is the migrators' to say.
            (None, None) => Vec::new(),
        };
        let request = MigrateVmRequest {
            name: name.to_string(),
            site: to.to_string(),
            node: node.map(|node| node.to_string()).unwrap_or_default(),
            dry_run,
            is_offline: offline,
            token,
            rate: rate.map_or(0, |rate| rate.0),
        };
        let remains = if dry_run { NOTHING_BEGUN } else { GIVEN_UP };
        match interruptible(self.followed(request), remains).await? {
            Answer::Tried(report) => {
                self.report(&report)?;
                has_moved(&report)
            }
            Answer::Examined(found) => self.examined(&found),
        }
    }

    pub(super) async fn cancel(&mut self, vm: OneVm) -> Result<()> {
        let request = CancelMigrationRequest { name: vm.name.to_string() };
        let reply = self.migrator.cancel_migration(request).await.map_err(of_migrator)?;
        let report = ReportView::from(reply.into_inner());
        self.report(&report)?;
        match report.end {
            End::Kept => Ok(()),
            End::Moved => bail!("it was too late to give the migration up: the VM runs at {}", report.site),
            End::Lost | End::Unknown => has_moved(&report),
        }
    }

    /// Has a VM moved, and shows how far that is, until it has ended.
    ///
    /// # Cancel safety
    /// Dropped, it has the migration given up, as far as that is open still.
    async fn followed(&mut self, request: MigrateVmRequest) -> Result<Answer> {
        let (vm, site) = (request.name.clone(), request.site.clone());
        let mut replies = self.migrator.migrate_vm(request).await.map_err(of_migrator)?.into_inner();
        let progress = Progress::line(format!("{vm} to {site}"), self.output.is_json());
        while let Some(reply) = replies.message().await.map_err(of_migrator)? {
            match reply.step {
                Some(Step::Progress(step)) => {
                    // It may be left out where it is known.
                    let step = MigrationProgress { site: site.clone(), ..step };
                    progress.say(format!("{vm} {}", ProgressView::from(step)));
                }
                Some(Step::Report(report)) => return Ok(Answer::Tried(report.into())),
                Some(Step::Examined(found)) => return Ok(Answer::Examined(ExaminationView::new(vm, site, found))),
                None => {}
            }
        }
        bail!("the migrator ended without a result: it runs another version of sterna")
    }

    fn report(&mut self, report: &ReportView) -> Result<()> {
        self.output.result(report, Facts::new(report.facts("migration")))
    }

    fn examined(&mut self, found: &ExaminationView) -> Result<()> {
        self.output.result(found, found)?;
        let ExaminationView { vm, site, obstacles, .. } = found;
        let obstacles = obstacles.len() as u64;
        ensure!(
            obstacles == 0,
            "{vm} cannot go to {site} as things are: see to the {} first",
            count(obstacles, "obstacle")
        );
        Ok(())
    }
}

/// Whether the VM runs where it was to go.
///
/// # Errors
/// It does not; where it does, and why.
fn has_moved(report: &ReportView) -> Result<()> {
    let why = report.why.as_deref().unwrap_or("the migrator does not say why");
    match report.end {
        End::Moved => Ok(()),
        End::Kept => bail!("the VM runs where it was: {why}"),
        End::Lost => bail!("the VM runs nowhere: its QEMU has ended: {why}"),
        End::Unknown => {
            bail!("it is not known where the VM runs: 'sterna vm list' says it, here or at {}", report.site)
        }
    }
}

/// What remains of a migration that is interrupted.
const GIVEN_UP: &str =
    "the migration is given up, unless the VM was about to go on there: 'sterna vm list' says where it is";

/// What remains where it was only to be looked at.
const NOTHING_BEGUN: &str = "nothing was begun";

#[cfg(test)]
mod tests {
    use sterna_proto::migrator::{MigrationEnd, MigrationReport};

    use super::*;

    #[test]
    fn a_vm_that_does_not_run_there_is_an_error_that_says_why() {
        let ended = |end: MigrationEnd| {
            let report = MigrationReport { end: end.into(), why: "the link is cut".to_owned(), ..Default::default() };
            has_moved(&report.into()).err().map(|error| error.to_string())
        };
        assert_eq!(ended(MigrationEnd::Moved), None);
        assert_eq!(ended(MigrationEnd::Kept).as_deref(), Some("the VM runs where it was: the link is cut"));
        assert_eq!(
            ended(MigrationEnd::Lost).as_deref(),
            Some("the VM runs nowhere: its QEMU has ended: the link is cut")
        );
        assert!(ended(MigrationEnd::Unknown).is_some());
    }
}
