//! Migration tokens: issued by an operator, and read from a file.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sterna_migrator::token::signed::MAX_TEXT_BYTES;
use sterna_migrator::token::{MigrationToken, SignedToken, Terms, Volumes, Window};
use sterna_proto::admin::ShowVolumeRequest;
use sterna_proto::cluster::ListNodesRequest;
use sterna_proto::migrator::ListVmsRequest;
use sterna_runtime::clock::wall_time;
use sterna_transport::limits::BACKDATING;
use sterna_transport::load_administrator;
use sterna_types::{ByteRate, Epoch, SiteName, VmName, VolumeId, VolumeName};

use super::client::{self, of_migrator};
use crate::admin::client::Node;
use crate::args::target::Target;
use crate::args::vm::Token;
use crate::call::CallError;
use crate::console::output::Output;

/// What a token is wanted for.
pub(super) struct Wanted<'a> {
    /// The VM.
    pub(super) vm: &'a VmName,
    /// Its volumes; none for those that its host's migrator knows.
    pub(super) volumes: &'a [VolumeName],
    /// The site that it leaves; nothing for the one where its volumes are.
    pub(super) from: Option<SiteName>,
    /// The site that it goes to.
    pub(super) to: &'a SiteName,
    /// How fast its memory may be sent at most.
    pub(super) rate: Option<ByteRate>,
}

#[derive(Serialize)]
struct TokenView {
    id: String,
    vm: String,
    from: String,
    to: String,
    not_before_ms: u64,
    not_after_ms: u64,
    max_rate: Option<String>,
    signer: String,
    /// The file.
    token: String,
}

/// Issues a token, and prints it.
///
/// # Errors
/// Why it cannot be issued, for people.
pub(super) async fn print(token: Token, target: &Target, signer: Option<&Path>, json: bool) -> Result<()> {
    let Token { name, to, from, volumes, expires, starts_in, rate } = token;
    let signer =
        signer.context("a migration token is signed by an operator: give the file of one with --identity FILE")?;
    let wanted = Wanted { vm: &name, volumes: &volumes, from, to: &to, rate };
    let signed = issue(&wanted, window(wall_time(), starts_in, expires), target, signer).await?;
    let (token, text) = (signed.token(), signed.to_text());
    let Window { not_before_ms, not_after_ms } = token.window();
    let view = TokenView {
        id: token.id().to_string(),
        vm: token.vm().to_string(),
        from: token.from().to_string(),
        to: token.to().to_string(),
        not_before_ms,
        not_after_ms,
        max_rate: token.max_rate().map(|rate| rate.to_string()),
        signer: signed.signer().to_string(),
        token: text.clone(),
    };
    let mut output = Output::new(json);
    output.result(&view, text.trim_end())?;
    output.flush()
}

/// Issues a token for a migration, as the operator of the file `signer`.
///
/// # Errors
/// What is wanted cannot be found out, or the file is none of an operator.
pub(super) async fn issue(wanted: &Wanted<'_>, window: Window, target: &Target, signer: &Path) -> Result<SignedToken> {
    let (credentials, _) = load_administrator(signer)?;
    let valid_until = credentials.not_after();
    ensure!(
        UNIX_EPOCH + Duration::from_millis(window.not_before_ms) < valid_until && wall_time() < valid_until,
        "the certificate in {} has expired, or will have before the token is valid: have another one made (sterna cluster admin create)",
        signer.display()
    );
    let names =
        if wanted.volumes.is_empty() { known_volumes(wanted.vm, target).await? } else { wanted.volumes.to_vec() };
    let mut node = Node::connect(target).await?;
    let (volumes, home) = whereabouts(&mut node, &names).await?;
    let from = wanted.from.clone().unwrap_or(home);
    let (vm, to) = (wanted.vm.clone(), wanted.to.clone());
    let terms = Terms { vm, volumes, from, to, window, max_rate: wanted.rate };
    let token = MigrationToken::new(credentials.cluster(), terms)?;
    token.sign(&credentials).with_context(|| format!("with the identity in {}", signer.display()))
}

/// Reads a token from a file.
///
/// # Errors
/// It cannot be read, or is none.
pub(super) fn read(path: &Path) -> Result<SignedToken> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot read the migration token {shown}"))?;
    let mut text = String::new();
    // One byte more shows that there is more.
    let bound = MAX_TEXT_BYTES as u64 + 1;
    file.take(bound).read_to_string(&mut text).with_context(|| format!("cannot read the migration token {shown}"))?;
    SignedToken::from_text(&text).with_context(|| format!("{shown} cannot be used"))
}

/// For a migration that is about to begin: until then programs at both hosts may be called that take their time.
pub(super) fn for_now() -> Window {
    window(wall_time(), None, AT_ONCE)
}

/// One that begins so much later than now, and is so long. Clocks that differ a little are no reason to refuse it.
fn window(now: SystemTime, starts_in: Option<Duration>, length: Duration) -> Window {
    match starts_in {
        Some(wait) => Window::beginning(now + wait, length),
        None => {
            let Window { not_after_ms, .. } = Window::beginning(now, length);
            let Window { not_before_ms, .. } =
                Window::beginning(now.checked_sub(BACKDATING).unwrap_or(UNIX_EPOCH), length);
            Window { not_before_ms, not_after_ms }
        }
    }
}

/// The volumes of a VM, as its host's migrator knows them.
async fn known_volumes(vm: &VmName, target: &Target) -> Result<Vec<VolumeName>> {
    let migrator = client::connect(target).await;
    let mut migrator = migrator.context("name the volumes with --volume, or give the command at the VM's host")?;
    let request = ListVmsRequest { name: vm.to_string() };
    let known = migrator.list_vms(request).await.map_err(of_migrator)?.into_inner().vms.into_iter().next();
    let volumes = known.map(|known| known.volumes).unwrap_or_default();
    ensure!(!volumes.is_empty(), "VM '{vm}' is not at this host any more: give the command where it is");
    Ok(volumes.iter().map(|volume| volume.parse()).collect::<Result<_, _>>()?)
}

/// The epochs of volumes, and the site where all of them are.
async fn whereabouts(node: &mut Node, names: &[VolumeName]) -> Result<(Volumes, SiteName)> {
    let nodes = node.cluster.list_nodes(ListNodesRequest {}).await.map_err(CallError::from)?.into_inner().nodes;
    let (mut volumes, mut home) = (Volumes::new(), None::<(&VolumeName, SiteName)>);
    for name in names {
        let request = ShowVolumeRequest { name: name.to_string(), count_map: false };
        let shown = node.client.show_volume(request).await.map_err(CallError::from)?.into_inner();
        let shown = shown.volume.unwrap_or_default();
        let epoch =
            Epoch::from_number(shown.epoch).with_context(|| format!("the node says no epoch of volume '{name}'"))?;
        volumes.insert(VolumeId(shown.id), epoch);
        let owner = nodes.iter().find(|node| node.name == shown.owner);
        let site = owner.with_context(|| {
            format!("the node does not know where '{}' is, which owns volume '{name}'", shown.owner)
        })?;
        let site: SiteName = site.site.parse()?;
        let (first, home) = home.get_or_insert_with(|| (name, site.clone()));
        ensure!(
            *home == site,
            "volume '{first}' is at {home}, and '{name}' at {site}: a VM moves from one site, so move one of them first"
        );
    }
    let (_, home) = home.context("name the volumes that are the VM's disks with --volume")?;
    Ok((volumes, home))
}

/// How long a token is valid that is issued for a migration that begins now.
const AT_ONCE: Duration = Duration::from_secs(30 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_at_once_also_by_a_clock_that_is_a_little_behind() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let hour = Duration::from_secs(3600);
        assert_eq!(window(now, None, hour), Window { not_before_ms: 999_400_000, not_after_ms: 1_003_600_000 });
        let later = Window { not_before_ms: 1_003_600_000, not_after_ms: 1_007_200_000 };
        assert_eq!(window(now, Some(hour), hour), later);
    }

    #[test]
    fn what_is_no_token_is_not_sent_to_anybody() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        assert!(format!("{:#}", read(&path).expect_err("no file")).contains("cannot read the migration token"));
        for (text, why) in
            [("sterna-join-1-00", "this is no migration token"), (&"x".repeat(40_000), "it has 32769 bytes")]
        {
            std::fs::write(&path, text).expect("a file");
            let error = format!("{:#}", read(&path).expect_err(why));
            assert!(error.contains(why) && error.contains("cannot be used"), "{error}");
        }
    }
}
