//! What may never be false about parsing and writing, as functions.

use bytes::BytesMut;

use super::parser::MAX_RECORD_BYTES;
use super::{Parser, Record, Writer};

/// Parses any bytes as a stream that comes in pieces of this size, at least 1, and returns the records.
///
/// # Panics
/// What is written of the records is not what was parsed, to the byte; or more is kept waiting than may be.
pub fn identity(stream: &[u8], piece_bytes: usize) -> Vec<Record> {
    let (mut parser, mut writer) = (Parser::new(), Writer::new());
    let (mut buffer, mut written, mut records) = (BytesMut::new(), Vec::new(), Vec::new());
    for piece in stream.chunks(piece_bytes) {
        buffer.extend_from_slice(piece);
        while let Some(record) = parser.next(&mut buffer) {
            writer.write(&record, &mut written).expect("what was parsed can be written");
            records.push(record);
        }
        assert!(buffer.len() < MAX_RECORD_BYTES, "{} bytes wait", buffer.len());
    }
    written.extend_from_slice(&buffer);
    assert!(written == stream, "what is written is not what was parsed");
    records
}
