//! Options as they arrive.

use crate::export::ExportName;
use crate::wire::{Fields, info};

/// The 16 bytes in front of an option's data.
#[derive(Clone, Copy, Debug)]
pub(super) struct OptionHead {
    pub(super) magic: u64,
    pub(super) option: u32,
    pub(super) length: u32,
}

impl OptionHead {
    pub(super) const BYTES: usize = 16;

    pub(super) fn read(input: &[u8]) -> Option<Self> {
        let mut fields = Fields(input);
        Some(Self { magic: fields.u64()?, option: fields.u32()?, length: fields.u32()? })
    }
}

/// What INFO or GO ask to be told besides size and flags. Requests that are not known are ignored, as they have to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ExportRequest {
    pub(super) name: bool,
    pub(super) description: bool,
    pub(super) block_size: bool,
}

impl ExportRequest {
    /// Reads the data of INFO or GO; the error is a text for the client.
    pub(super) fn parse(data: &[u8]) -> Result<(ExportName, Self), &'static str> {
        let mut fields = Fields(data);
        let name = fields.u32().and_then(|length| fields.bytes(length)).ok_or("the name is longer than the option")?;
        let name = ExportName::try_from(name).map_err(|_| "a name is UTF-8 of at most 4096 bytes without NUL")?;
        let count = fields.u16().ok_or("the number of information requests is missing")?;
        if fields.0.len() != usize::from(count) * 2 {
            return Err("the information requests do not fill the option");
        }
        let mut request = Self::default();
        while let Some(kind) = fields.u16() {
            match kind {
                info::NAME => request.name = true,
                info::DESCRIPTION => request.description = true,
                info::BLOCK_SIZE => request.block_size = true,
                _ => {}
            }
        }
        Ok((name, request))
    }
}
