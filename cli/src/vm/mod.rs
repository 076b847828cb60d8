//! The commands about VMs, which the migrator of this host carries out, asked of it over its socket.
//!
//! * [`client`]: the connection.
//! * [`migrate`]: a VM that moves, and one that is not to. [`token`]: that it may.
//! * [`views`]: what a VM, a migration and what stands against one look like, for people and for programs.

mod client;
mod migrate;
mod token;
mod views;

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use sterna_proto::migrator::vms_client::VmsClient;
use sterna_proto::migrator::{AddVmRequest, ListVmsRequest, RemoveVmRequest};
use tonic::transport::Channel;

use crate::args::VmCommand;
use crate::args::target::Target;
use crate::args::vm::{Add, OneVm};
use crate::call;
use crate::console::output::{Output, unless_reader_left};
use crate::console::table::{Facts, Table};
use client::of_migrator;
use views::VmView;

/// Has the migrator beside a node do it, and prints what comes of it.
///
/// # Errors
/// What went wrong, for people: with the value, and with what to do.
pub(crate) fn run(command: VmCommand, target: &Target, signer: Option<&Path>, json: bool) -> Result<()> {
    let result = call::runtime()?.block_on(async {
        if let VmCommand::Token(token) = command {
            return token::print(token, target, signer, json).await;
        }
        let migrator = client::connect(target).await?;
        let mut session = Session { migrator, target, signer, output: Output::new(json) };
        let done = session.run(command).await;
        // What was found before it failed is told, too.
        done.and(session.output.flush())
    });
    unless_reader_left(result)
}

/// One command on its way.
struct Session<'a> {
    migrator: VmsClient<Channel>,
    /// The node beside it.
    target: &'a Target,
    /// Who issues tokens.
    signer: Option<&'a Path>,
    output: Output,
}

impl Session<'_> {
    async fn run(&mut self, command: VmCommand) -> Result<()> {
        match command {
            VmCommand::Add(add) => self.add(add).await,
            VmCommand::Remove(vm) => self.remove(vm).await,
            VmCommand::List => self.list().await,
            VmCommand::Show(vm) => self.show(vm).await,
            VmCommand::Migrate(migrate) => self.migrate(migrate).await,
            VmCommand::Cancel(vm) => self.cancel(vm).await,
            VmCommand::Token(_) => unreachable!("it takes no migrator, and was carried out"),
        }
    }

    async fn add(&mut self, add: Add) -> Result<()> {
        let shown = add.qmp.display();
        let qmp = std::path::absolute(&add.qmp).with_context(|| format!("'{shown}' is no path of a socket"))?;
        let qmp = qmp.to_str().with_context(|| format!("the path {shown} is not UTF-8: choose another"))?.to_owned();
        let volumes = add.volumes.iter().map(ToString::to_string).collect();
        let request = AddVmRequest { name: add.name.to_string(), qmp, volumes };
        let vm = VmView::from(self.migrator.add_vm(request).await.map_err(of_migrator)?.into_inner());
        let text = format!("added {}: {}, with {}", vm.name, vm.state_text(), vm.volumes.join(", "));
        self.output.result(&vm, text)
    }

    async fn remove(&mut self, vm: OneVm) -> Result<()> {
        let name = vm.name.to_string();
        self.migrator.remove_vm(RemoveVmRequest { name: name.clone() }).await.map_err(of_migrator)?;
        let text = format!("the migrator knows nothing of {name} any more");
        self.output.result(&json!({ "removed": name }), text)
    }

    async fn list(&mut self) -> Result<()> {
        let mut table = Table::new(["VM", "STATE", "VOLUMES", "MIGRATION"]);
        for vm in self.known(String::new()).await? {
            if self.output.is_json() {
                self.output.value(&vm)?;
                continue;
            }
            let migration = vm.migration.as_ref().map_or_else(|| "-".to_owned(), |migration| migration.summary());
            let (state, volumes) = (vm.state_text().to_owned(), vm.volumes.join(", "));
            table.row([vm.name, state, volumes, migration]);
        }
        if self.output.is_json() { Ok(()) } else { self.output.line(table) }
    }

    async fn show(&mut self, vm: OneVm) -> Result<()> {
        let name = vm.name.to_string();
        let found = self.known(name.clone()).await?.into_iter().next();
        let vm =
            found.with_context(|| format!("no VM '{name}' is known here: 'sterna vm list' names those that are"))?;
        if self.output.is_json() {
            return self.output.value(&vm);
        }
        self.output.line(Facts::new(vm.facts()))?;
        let Some(last) = &vm.last else { return Ok(()) };
        self.output.line("")?;
        self.output.line(Facts::new(last.facts("last migration")))
    }

    /// The VMs that the migrator knows: the one of this name, or all where there is none.
    async fn known(&mut self, name: String) -> Result<Vec<VmView>> {
        let reply = self.migrator.list_vms(ListVmsRequest { name }).await.map_err(of_migrator)?;
        Ok(reply.into_inner().vms.into_iter().map(VmView::from).collect())
    }
}
