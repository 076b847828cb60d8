//! What passes of a machine's memory at the source: counted on its way there, and held back on its way home what QEMU would act upon.

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use crate::carry::{Tap, TapError};
use crate::stream::parser::Stage;
use crate::stream::return_path::{Kind, Message};
use crate::stream::{Contents, Parser, Record, Writer};

/// How far a machine's memory has come, by the stream that its QEMU writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryProgress {
    /// How far the stream is.
    pub stage: Stage,
    /// Pages that were sent as they are, each as often as it was.
    pub data_pages: u64,
    /// Pages of zeros.
    pub zero_pages: u64,
    /// Pages that QEMU has sent as deltas.
    pub delta_pages: u64,
    /// Bytes that are no pages: headers, devices.
    pub other_bytes: u64,
    /// Why the rest of the stream passes without being understood, if it does.
    pub not_understood: Option<String>,
    /// What the destination's QEMU has said of it.
    pub answer: Option<Answer>,
}

/// What the destination's QEMU has said at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All was loaded.
    Loaded,
    /// Something could not be, with its number for that.
    Failed(u32),
}

impl Default for MemoryProgress {
    fn default() -> Self {
        Self {
            stage: Stage::Beginning,
            data_pages: 0,
            zero_pages: 0,
            delta_pages: 0,
            other_bytes: 0,
            not_understood: None,
            answer: None,
        }
    }
}

/// The tap of the source's end.
///
/// Of the return path QEMU gets all but two messages. The acknowledgement of the switchover is dropped: the VM is stopped by a command, and
/// never by QEMU. What the destination says at the end is told, and dropped too: QEMU hears it once it is decided where the VM runs.
#[derive(Debug)]
pub struct SourceTap {
    parser: Parser,
    writer: Writer,
    returned: BytesMut,
    progress: watch::Sender<MemoryProgress>,
}

impl SourceTap {
    /// At the beginning of a migration; and how far it comes.
    pub fn new() -> (Self, watch::Receiver<MemoryProgress>) {
        let (progress, told) = watch::channel(MemoryProgress::default());
        (Self { parser: Parser::new(), writer: Writer::new(), returned: BytesMut::new(), progress }, told)
    }

    fn count(progress: &mut MemoryProgress, record: &Record) {
        match record {
            Record::Page(page) => match page.contents {
                Contents::Data(_) => progress.data_pages += 1,
                Contents::Zero => progress.zero_pages += 1,
                Contents::Delta(_) => progress.delta_pages += 1,
            },
            Record::Verbatim(bytes) => progress.other_bytes += bytes.len() as u64,
            Record::Blocks(_) => {}
        }
    }
}

impl Tap for SourceTap {
    fn outgoing(&mut self, read: &mut BytesMut) -> Bytes {
        let mut out = BytesMut::with_capacity(read.len());
        let (parser, writer) = (&mut self.parser, &mut self.writer);
        self.progress.send_modify(|progress| {
            while let Some(record) = parser.next(read) {
                Self::count(progress, &record);
                writer.write(&record, &mut out).expect("what was parsed can be written");
            }
            progress.stage = parser.stage();
            if progress.not_understood.is_none() {
                progress.not_understood = parser.unknown().map(ToString::to_string);
            }
        });
        out.freeze()
    }

    fn incoming(&mut self, piece: Bytes) -> Result<Bytes, TapError> {
        self.returned.extend_from_slice(&piece);
        let mut passing = BytesMut::new();
        while let Some(message) = Message::next(&mut self.returned).map_err(|error| TapError(error.to_string()))? {
            let answer = match message.kind {
                Kind::SwitchoverAck => continue,
                Kind::Shut(0) => Answer::Loaded,
                Kind::Shut(error) => Answer::Failed(error),
                Kind::Pong(_) | Kind::Other(_) => {
                    passing.extend_from_slice(&message.written);
                    continue;
                }
            };
            self.progress.send_modify(|progress| progress.answer = Some(answer));
        }
        Ok(passing.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_comes_back_qemu_hears_nothing_that_it_would_act_upon() {
        let (mut tap, told) = SourceTap::new();
        let mut hears = |piece: &'static [u8]| tap.incoming(Bytes::from_static(piece)).unwrap();
        assert_eq!(hears(b"\0\x07\0\0\0\x02\0\x04\0\0")[..], b""[..]);
        assert_eq!(hears(b"\0\x01\0\x01")[..], b"\0\x02\0\x04\0\0\0\x01"[..]);
        assert_eq!(told.borrow().answer, None);
        assert_eq!(hears(b"\0\x04\0\0\0\x03")[..], b""[..]);
        assert_eq!(told.borrow().answer, Some(Answer::Failed(3)));
        assert!(tap.incoming(Bytes::from_static(b"\xff\xff\xff\xff")).is_err());
    }

    #[test]
    fn what_goes_there_is_counted_and_nothing_else_becomes_of_it() {
        let (mut tap, told) = SourceTap::new();
        let stream = b"QEVM\0\0\0\x03\x08\0\x01\0\0\x55 and so on";
        let mut sent = Vec::new();
        let mut read = BytesMut::new();
        for byte in stream {
            read.extend_from_slice(&[*byte]);
            sent.extend_from_slice(&tap.outgoing(&mut read));
        }
        sent.extend_from_slice(&tap.last(&mut read));
        assert_eq!(sent, stream);
        let progress = told.borrow();
        assert_eq!((progress.stage, progress.other_bytes), (Stage::Beginning, stream.len() as u64));
        assert_eq!(progress.not_understood.as_deref(), Some("a record of type 0x55"));
    }
}
