//! Disk images on their way in. A raw one the node reads by itself; `qemu-img` brings in the others ([`foreign`]).
//!
//! Either way the volume can be used only once all of it is there, and the same command begins again what was interrupted.
//!
//! [`foreign`]: super::foreign

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sterna_proto::admin::{self, import_volume_reply};

use super::Session;
use super::client::{CallError, for_each};
use super::contents::NO_RESULT;
use super::image::{Fit, Image};
use super::views::VolumeView;
use crate::args::volume::{ImageFormat, Import};
use crate::console::interrupt::{Interrupted, interruptible};
use crate::console::progress::Progress;
use crate::console::text::{about, count};

/// An image that has come in.
#[derive(Serialize)]
pub(crate) struct ImportView {
    pub(crate) volume: VolumeView,
    pub(crate) data_bytes: u64,
    /// Only where the node has counted it.
    pub(crate) new_bytes: Option<u64>,
}

impl Session {
    pub(super) async fn import(&mut self, import: Import) -> Result<()> {
        self.node.is_here("an import")?;
        let image = Image::open(&import.file, import.format)?;
        let view = match image.format {
            ImageFormat::Raw => self.import_raw(&import, &image).await?,
            _ => self.import_foreign(&import, &image).await?,
        };
        let new = view.new_bytes.map(|new| format!(", {} of it new", about(new))).unwrap_or_default();
        let VolumeView { name, .. } = &view.volume;
        let (size, data) = (view.volume.size(), about(view.data_bytes));
        let uri = self.node.uri(name).map(|uri| format!(", {uri}")).unwrap_or_default();
        let text = format!("imported {name}: {size}, {data} of data{new}{uri}");
        self.output.result(&view, text)
    }

    async fn import_raw(&mut self, import: &Import, image: &Image) -> Result<ImportView> {
        let fit = image.fit_raw()?;
        note_padding(&fit);
        let path = image.path.to_str();
        let path = path.with_context(|| format!("the path {} is not UTF-8: choose another", image.path.display()))?;
        let request = admin::ImportVolumeRequest {
            name: import.name.to_string(),
            path: path.to_owned(),
            durability: import.policies.durability.to_string(),
            attach: import.policies.attach.to_string(),
        };
        let begun = Cell::new(false);
        let work = async {
            let replies = self.node.client.import_volume(request).await.map_err(CallError::from)?.into_inner();
            let progress = Progress::new(format!("importing {}", import.name), self.output.is_json());
            let mut result = None;
            for_each(replies, |reply| {
                // Only who has the name reports anything: a volume of this name is the one that is being imported.
                begun.set(true);
                match reply.step {
                    Some(import_volume_reply::Step::Progress(step)) => progress.set(&step),
                    Some(import_volume_reply::Step::Result(step)) => result = Some(step),
                    None => {}
                }
                Ok(())
            })
            .await?;
            result.context(NO_RESULT)
        };
        let result = match interruptible(work, "the same command begins again").await {
            Err(error) if error.is::<Interrupted>() => {
                return self.interrupted(import.name.as_str(), begun.get()).await;
            }
            result => result?,
        };
        let volume = result.volume.context(NO_RESULT)?.into();
        Ok(ImportView { volume, data_bytes: result.data_bytes, new_bytes: Some(result.new_bytes) })
    }
}

impl Session {
    /// What has become of an import that the node was told to end, once the node has done that: it may have been too late.
    /// Where it had not reported anything (`begun`), a volume that can be used may be another's.
    async fn interrupted(&mut self, name: &str, begun: bool) -> Result<ImportView> {
        for _ in 0..END_ATTEMPTS {
            match self.volume_of(name).await? {
                None => bail!(Interrupted::leaving("nothing of it is left; the same command begins again")),
                Some(volume) if volume.state == READY && begun => return self.complete(volume.into()).await,
                Some(volume) if volume.state == READY => break,
                Some(_) => tokio::time::sleep(END_INTERVAL).await,
            }
        }
        bail!(Interrupted::leaving(format!("{name} cannot be used; the same command begins again")))
    }

    /// An image that has come in without being counted on its way.
    pub(super) async fn complete(&mut self, volume: VolumeView) -> Result<ImportView> {
        let request = admin::ShowVolumeRequest { name: volume.name.clone(), count_map: true };
        let shown = self.node.client.show_volume(request).await.map_err(CallError::from)?.into_inner();
        let data_bytes = shown.map.map_or(0, |map| map.mapped_bytes);
        Ok(ImportView { volume, data_bytes, new_bytes: None })
    }

    /// The volume of this name, if there is one.
    pub(super) async fn volume_of(&mut self, name: &str) -> Result<Option<admin::Volume>, CallError> {
        let request = admin::ShowVolumeRequest { name: name.to_owned(), count_map: false };
        match self.node.client.show_volume(request).await.map_err(CallError::from) {
            Ok(reply) => Ok(reply.into_inner().volume),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Says on standard error that the volume is larger than its image.
pub(super) fn note_padding(fit: &Fit) {
    if fit.padding > 0 {
        let padding = count(fit.padding, "byte");
        eprintln!("sterna: note: the image ends within a block of 4096 bytes: {padding} of zeroes are put behind it");
    }
}

/// How long the node is given to notice that an import has been interrupted.
const END_ATTEMPTS: u32 = 50;
const END_INTERVAL: Duration = Duration::from_millis(100);

/// The state of a volume that can be used.
const READY: &str = "ready";
