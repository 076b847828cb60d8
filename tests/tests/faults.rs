//! Three sites under faults, and under a restart of all nodes, with clients that write all the while. What was promised to them
//! is checked by programs; how long anything took decides nothing. Needs root, for network namespaces.

use anyhow::{Result, ensure};
use sterna_tests::faults::campaign::Campaign;
use sterna_tests::faults::plan::Plan;
use sterna_tests::faults::report::Report;
use sterna_tests::faults::rolling::RollingRestart;
use sterna_tests::faults::stage::history_in;
use sterna_tests::faults::{check, history};

/// Any will do: which faults there are is the same in each run, what comes of them is not.
const SEED: u64 = 20_261_121;
/// The short form of `scripts/faults metadata`.
const FAULTS: u32 = 300;
/// Those for members take their time.
const MEMBER_FAULTS: u32 = 60;

#[test]
fn campaign_of_three_hundred_faults_violates_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let report = Campaign { seed: SEED, faults: FAULTS, with_members: false, directory: directory.path().to_owned() }
        .run(|_| {})?;
    println!("{report}");
    if !report.violations.is_empty() {
        let kept = directory.keep();
        anyhow::bail!("the history is {}:\n{report}", history_in(&kept).display());
    }
    ensure!(report.fault_count() == FAULTS, "not all faults came: {report}");
    // A campaign in which no session lapses, or nothing is acknowledged, shows nothing.
    ensure!(report.sessions_lapsed > 0, "no session has lapsed: {report}");
    ensure!(report.takeovers > 0 && report.reported > 0, "no volume has failed over: {report}");
    ensure!(report.settled == report.takeovers, "not all that was left was looked at: {report}");
    ensure!(report.acknowledged.flushes > 0 && report.refused > 0 && report.lost > 0, "{report}");

    // What is read back from its file is judged the same, and not where an acknowledgement was made up.
    let records = history::read(&history_in(directory.path()))?;
    ensure!(check::check(&records)?.is_empty());
    let kinds = Plan::new(SEED, FAULTS, 3)
        .faults
        .iter()
        .map(|planned| planned.fault.kind())
        .collect::<std::collections::BTreeSet<_>>();
    ensure!(report.faults.len() == kinds.len(), "there were other kinds of faults than planned: {report}");
    Ok(())
}

#[test]
fn campaign_in_which_every_member_falls_behind_and_goes_on_loses_no_flush() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let campaign =
        Campaign { seed: SEED, faults: MEMBER_FAULTS, with_members: true, directory: directory.path().to_owned() };
    let report = campaign.run(|_| {})?;
    println!("{report}");
    if !report.violations.is_empty() {
        let kept = directory.keep();
        anyhow::bail!("the history is {}:\n{report}", history_in(&kept).display());
    }
    ensure!(report.fault_count() == MEMBER_FAULTS, "not all faults came: {report}");
    // One in which nobody goes on who is in sync, or nothing is flushed, shows nothing.
    ensure!(report.in_sync > 0 && report.acknowledged.flushes > 0, "{report}");
    ensure!(report.settled == report.takeovers, "not all that was left was looked at: {report}");
    Ok(())
}

#[test]
fn heavy_a_rolling_restart_disturbs_no_client_of_another_node_and_loses_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let restart = RollingRestart { seed: SEED, rounds: 2, directory: directory.path().to_owned() };
    let (report, disturbed): (Report, _) = restart.run()?;
    println!("{report}");
    ensure!(report.violations.is_empty(), "{report}");
    ensure!(disturbed.is_empty(), "clients of nodes that were not being restarted heard: {disturbed:#?}");
    ensure!(report.sessions_lapsed == 0 && report.fault_count() == 6, "{report}");
    Ok(())
}
