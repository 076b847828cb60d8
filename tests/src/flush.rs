//! A FLUSH is for all connections (NBD_FLAG_CAN_MULTI_CONN): what one has written, another may make durable.

use anyhow::{Result, ensure};
use sterna_nbd_server::wire::command;

use crate::client::{Request, Style};
use crate::disk_server::Disk;

/// Changes 16 MiB of a disk on one connection, and flushes on another. [`check`] says what is there then.
///
/// # Errors
/// The server refuses something.
pub fn write_on_one_and_flush_on_another(disk: &Disk) -> Result<()> {
    let ((mut one, _), (mut two, _)) = (disk.attach(Style::Simple)?, disk.attach(Style::Extended)?);
    let writes = (0..BLOCKS).map(|index| Request::write(u64::from(index) * STEP, vec![index + 1; 4096]));
    let zeroes = Request::new(command::WRITE_ZEROES, u64::from(ZEROED) * STEP, 4096);
    let trim = Request::new(command::TRIM, u64::from(TRIMMED) * STEP, 4096);
    for request in writes.chain([zeroes, trim]) {
        let error = one.call(request)?.error();
        ensure!(error == 0, "a change was answered with {error}");
    }
    let error = two.call(Request::flush())?.error();
    ensure!(error == 0, "the flush was answered with {error}");
    Ok(())
}

/// Checks what was flushed, with `read` for the 4 KiB at an offset.
///
/// # Errors
/// Something else is there, or it cannot be read.
pub fn check(mut read: impl FnMut(u64) -> Result<Vec<u8>>) -> Result<()> {
    for index in 0..BLOCKS {
        let expected = if [ZEROED, TRIMMED].contains(&index) { 0 } else { index + 1 };
        ensure!(read(u64::from(index) * STEP)? == [expected; 4096], "the block at {index} MiB is not what was flushed");
    }
    Ok(())
}

/// One block is written in each MiB.
const BLOCKS: u8 = 16;
const STEP: u64 = 1 << 20;
/// Blocks that are written, and zeroed or given back before the flush.
const ZEROED: u8 = 3;
const TRIMMED: u8 = 5;
