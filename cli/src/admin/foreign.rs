//! Images that are not raw: `qemu-img` reads them, and writes what it finds to a volume over NBD.
//!
//! That volume is called NAME.importing, so that nobody takes it for a complete one; nothing else may be called like that
//! (`args`). In order:
//! 1. what an earlier import of this name has left is deleted;
//! 2. NAME.importing is made, and filled;
//! 3. NAME becomes a clone of it, and then it is deleted.
//!
//! Where that ends before 3., NAME is not there, and the same command begins again. Between the two halves of 3. both are
//! there, and NAME is complete.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sterna_proto::admin;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{ChildStderr, ChildStdout, Command};

use super::Session;
use super::client::CallError;
use super::image::{Fit, Image};
use super::import::{ImportView, note_padding};
use super::views::VolumeView;
use crate::args::values::IMPORTING_SUFFIX;
use crate::args::volume::{ImageFormat, Import};
use crate::console::interrupt::interruptible;
use crate::console::progress::Progress;

/// What `qemu-img info` says.
#[derive(Deserialize)]
struct Info {
    #[serde(rename = "virtual-size")]
    virtual_size: u64,
}

impl Session {
    /// Brings in an image that the node cannot read by itself.
    pub(super) async fn import_foreign(&mut self, import: &Import, image: &Image) -> Result<ImportView> {
        let name = import.name.to_string();
        let staging = format!("{name}{IMPORTING_SUFFIX}");
        let disk_bytes = virtual_size(image).await?;
        let fit = image.fit(disk_bytes)?;
        ensure!(self.volume_of(&name).await?.is_none(), "there is a volume '{name}' already: choose another name");
        note_padding(&fit);
        self.clear(&staging).await?;
        let filled = self.fill(&staging, import, image, &fit).await;
        let volume = match filled {
            Ok(()) => self.finish(&staging, &name).await?,
            Err(error) => {
                return Err(match self.clear(&staging).await {
                    Ok(()) => error,
                    Err(left) => error.context(format!(
                        "'{staging}' is left, and is deleted when the same command begins again ({left:#})"
                    )),
                });
            }
        };
        self.complete(volume).await
    }

    async fn fill(&mut self, staging: &str, import: &Import, image: &Image, fit: &Fit) -> Result<()> {
        let request = admin::CreateVolumeRequest {
            name: staging.to_owned(),
            size_bytes: fit.size.bytes().0,
            durability: import.policies.durability.to_string(),
            attach: import.policies.attach.to_string(),
        };
        self.node.client.create_volume(request).await.map_err(CallError::from)?;
        let progress = Progress::new(format!("importing {}", import.name), self.output.is_json());
        let uri = self.node.uri(staging).context("an image is written over the node's own socket")?;
        let work = convert(image, &uri, fit, &progress);
        interruptible(work, "nothing of it is left; the same command begins again").await
    }

    async fn finish(&mut self, staging: &str, name: &str) -> Result<VolumeView> {
        let request = admin::CloneVolumeRequest { source: staging.to_owned(), name: name.to_owned() };
        let volume = self.node.client.clone_volume(request).await.map_err(CallError::from)?.into_inner();
        self.clear(staging).await.with_context(|| {
            format!("{name} is complete, but '{staging}' is left: delete it with `sterna volume delete {staging}`")
        })?;
        Ok(volume.into())
    }

    /// Deletes a volume, if it is there. Its last client may take a moment to be gone.
    async fn clear(&mut self, staging: &str) -> Result<()> {
        for _ in 1..CLEAR_ATTEMPTS {
            if self.delete_if_there(staging).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(CLEAR_INTERVAL).await;
        }
        Ok(self.delete_if_there(staging).await?)
    }

    async fn delete_if_there(&mut self, name: &str) -> Result<(), CallError> {
        let request = admin::DeleteVolumeRequest { name: name.to_owned(), with_snapshots: false };
        match self.node.client.delete_volume(request).await.map_err(CallError::from) {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// How large the disk in an image is, in bytes.
async fn virtual_size(image: &Image) -> Result<u64> {
    let mut command = qemu_img();
    command.args(["info", "--output=json", "-f", driver(image.format)]).arg(&image.path);
    let ended = command.output().await.map_err(|error| cannot_start(&error, image))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let shown = image.path.display();
    ensure!(
        ended.status.success(),
        "{shown} is no whole {} image ({}): get all of it again, or say --format raw if it is a disk all the same",
        driver(image.format),
        said.trim()
    );
    let info: Info =
        serde_json::from_slice(&ended.stdout).context("`qemu-img info` prints something else than JSON")?;
    Ok(info.virtual_size)
}

/// Writes what an image holds to the export at `uri`, which reads as zeroes.
async fn convert(image: &Image, uri: &str, fit: &Fit, progress: &Progress) -> Result<()> {
    let mut command = qemu_img();
    command.args([
        "convert",
        "-p",
        "-n",
        "--target-is-zero",
        "-W",
        "-m",
        "16",
        "-f",
        driver(image.format),
        "-O",
        "raw",
    ]);
    command.arg(&image.path).arg(uri).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| cannot_start(&error, image))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (watched, said) = tokio::join!(watch(stdout, fit.size.bytes().0, progress), complaint(stderr));
    let said = watched.and(said).context("cannot read what qemu-img says")?;
    let status = child.wait().await.context("cannot wait for qemu-img")?;
    if !status.success() {
        bail!("qemu-img cannot bring in {} ({status}): {}", image.path.display(), said.trim());
    }
    Ok(())
}

/// Shows how far `qemu-img -p` says that it has come: `    (12.34/100%)`, and a carriage return.
async fn watch(stdout: Option<ChildStdout>, total_bytes: u64, progress: &Progress) -> std::io::Result<()> {
    let Some(stdout) = stdout else { return Ok(()) };
    let (mut lines, mut line) = (BufReader::new(stdout), Vec::new());
    loop {
        line.clear();
        if lines.read_until(b'\r', &mut line).await? == 0 {
            return Ok(());
        }
        if let Some(hundredths) = hundredths(&String::from_utf8_lossy(&line)) {
            let done = u128::from(total_bytes) * u128::from(hundredths) / 10_000;
            let done_bytes = u64::try_from(done).unwrap_or(total_bytes);
            progress.set(&admin::Progress { done_bytes, total_bytes });
        }
    }
}

/// What a process says on standard error until it ends, or has said too much; then it is not listened to any more.
async fn complaint(stderr: Option<ChildStderr>) -> std::io::Result<String> {
    let mut said = Vec::new();
    if let Some(stderr) = stderr {
        stderr.take(MAX_MESSAGE_BYTES).read_to_end(&mut said).await?;
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Hundredths of a per cent that a line of `qemu-img -p` tells.
fn hundredths(line: &str) -> Option<u64> {
    let (whole, hundredths) = line.trim().strip_prefix('(')?.strip_suffix("/100%)")?.split_once('.')?;
    let (whole, hundredths): (u64, u64) = (whole.parse().ok()?, hundredths.parse().ok()?);
    (whole <= 100 && hundredths < 100).then_some(whole * 100 + hundredths)
}

fn qemu_img() -> Command {
    let mut command = Command::new("qemu-img");
    command.env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn cannot_start(error: &std::io::Error, image: &Image) -> anyhow::Error {
    let (shown, format) = (image.path.display(), driver(image.format));
    if error.kind() == std::io::ErrorKind::NotFound {
        return anyhow::anyhow!(
            "{shown} is a {format} image, and qemu-img, which reads those, is not installed: install it (on Debian in \
             qemu-utils), or give a raw image"
        );
    }
    anyhow::anyhow!("cannot start qemu-img to read {shown}: {error}")
}

/// What QEMU calls a format.
fn driver(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Raw => "raw",
        ImageFormat::Qcow2 => "qcow2",
        ImageFormat::Vmdk => "vmdk",
        ImageFormat::Vhdx => "vhdx",
        ImageFormat::Vdi => "vdi",
        ImageFormat::Vpc => "vpc",
    }
}

/// How long the node is given to notice that `qemu-img` is gone.
const CLEAR_ATTEMPTS: u32 = 25;
const CLEAR_INTERVAL: Duration = Duration::from_millis(200);

/// As much of what `qemu-img` complains about as anybody would read.
const MAX_MESSAGE_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_of_qemu_img_is_read() {
        assert_eq!(hundredths("    (0.00/100%)\r"), Some(0));
        assert_eq!(hundredths("    (12.34/100%)\r"), Some(1234));
        assert_eq!(hundredths("    (100.00/100%)\r"), Some(10_000));
        for other in ["", "(x/100%)", "(101.00/100%)", "12.34"] {
            assert_eq!(hundredths(other), None, "{other}");
        }
    }
}
