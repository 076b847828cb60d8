//! What is made of the description of the command line: completions that a shell reads, and the manual.

use std::fs;

use anyhow::{Context, Result, ensure};
use sterna_tests::server::sterna;
use sterna_tests::tool::Tool;

#[test]
fn completions_are_scripts_that_complete() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let script = directory.path().join("sterna");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let printed = Tool::new(sterna()).args(["completions", shell]).succeed()?.stdout;
        assert!(printed.contains("volume") && printed.contains("snapshot"), "{shell}: {printed}");
        if shell == "bash" {
            fs::write(&script, printed)?;
        }
    }
    let script = script.display().to_string();
    Tool::new("bash").args(["-n", &script]).succeed()?;
    let complete = format!(
        "set -e; source '{script}'; COMP_WORDS=(sterna volume sn); COMP_CWORD=2; _sterna sterna sn volume; \
         echo \"${{COMPREPLY[*]}}\""
    );
    assert_eq!(Tool::new("bash").args(["-c", &complete]).succeed()?.stdout.trim(), "snapshot");
    let ended = Tool::new(sterna()).args(["completions", "tcsh"]).run()?;
    ensure!(ended.code()? == 2 && ended.stderr.contains("tcsh") && ended.stderr.contains("fish"), "{ended}");
    Ok(())
}

#[test]
fn every_command_has_a_page_in_the_manual() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let manual = directory.path().join("a/new/man1");
    Tool::new(sterna()).args(["man", &manual.display().to_string()]).succeed()?;
    let help = Tool::new(sterna()).args(["volume", "--help"]).succeed()?.stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> =
        commands.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next()).collect();
    ensure!(commands.contains(&"create") && commands.contains(&"verify"), "{commands:?}");
    for command in commands.into_iter().filter(|&command| command != "help") {
        let page = fs::read_to_string(manual.join(format!("sterna-volume-{command}.1")))
            .with_context(|| format!("there is no page for `sterna volume {command}`"))?;
        assert!(page.contains(".TH") && page.contains("SYNOPSIS"), "{page}");
    }
    for page in ["sterna.1", "sterna-node-run.1", "sterna-cluster-status.1", "sterna-nbd-serve.1", "sterna-gc.1"] {
        ensure!(fs::exists(manual.join(page))?, "there is no {page}");
    }
    let file = directory.path().join("file");
    fs::write(&file, "")?;
    let ended = Tool::new(sterna()).args(["man", &file.display().to_string()]).run()?;
    ensure!(ended.code()? == 1 && ended.stderr.contains("file"), "{ended}");
    Ok(())
}
