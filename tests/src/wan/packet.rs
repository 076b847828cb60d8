//! What the carrier has to know of a packet: where it goes, and how many bytes it would have on a wire.
//!
//! A frame is what a TUN device with `IFF_VNET_HDR` hands over and takes: a `virtio_net_hdr` of 10 bytes, in the machine's
//! byte order, and an IP packet. The header goes along unchanged, so that the receiving kernel knows what the sending one has
//! left to be done (checksums, segments).
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | flags |
//! | 1 | 1 | type of segmentation, 0 for none |
//! | 2 | 2 | length of the headers, only a hint |
//! | 4 | 2 | payload of each segment |
//! | 6 | 2 | where the transport's header begins, from the IP header's first byte |
//! | 8 | 2 | where the checksum is, from there |

use std::net::Ipv4Addr;

/// What stands before the IP packet.
const HEADER_BYTES: usize = 10;
/// No frame is larger.
pub(super) const FRAME_LIMIT_BYTES: usize = HEADER_BYTES + 65_535;

/// What is known of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) destination: Ipv4Addr,
    /// The IP packet's; of one that is yet to be cut into segments, those of all segments with their headers.
    pub(super) wire_bytes: u64,
}

impl Packet {
    /// Reads a frame; `None` where it holds no IPv4 packet.
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        let (header, ip) = frame.split_at_checked(HEADER_BYTES)?;
        if ip.len() < IPV4_HEADER_BYTES || ip[0] >> 4 != 4 {
            return None;
        }
        let destination = Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]);
        let bytes = ip.len() as u64;
        Some(Self { destination, wire_bytes: bytes + repeated_header_bytes(header, ip).unwrap_or(0) })
    }
}

/// What the headers of all segments but the first come to; `None` where there are no segments, or they cannot be understood.
fn repeated_header_bytes(header: &[u8], ip: &[u8]) -> Option<u64> {
    if header[1] & !ECN == 0 {
        return None;
    }
    let field = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
    let (payload, transport) = (field(4), field(6));
    let transport_bytes = match ip[PROTOCOL_AT] {
        TCP => usize::from(*ip.get(transport + 12)? >> 4) * 4,
        UDP => UDP_HEADER_BYTES,
        _ => return None,
    };
    let headers = transport + transport_bytes;
    let segments = ip.len().checked_sub(headers)?.checked_add(payload.checked_sub(1)?)?.checked_div(payload)?;
    Some((segments.saturating_sub(1) * headers) as u64)
}

/// A bit beside the type of segmentation.
const ECN: u8 = 0x80;
const IPV4_HEADER_BYTES: usize = 20;
const PROTOCOL_AT: usize = 9;
const TCP: u8 = 6;
const UDP: u8 = 17;
const UDP_HEADER_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A TCP packet to 10.77.2.1 with headers of 20 and 32 bytes.
    fn frame(kind: u8, segment: u16, payload: usize) -> Vec<u8> {
        let mut frame = vec![0; HEADER_BYTES + 52 + payload];
        frame[1] = kind;
        frame[4..6].copy_from_slice(&segment.to_ne_bytes());
        frame[6..8].copy_from_slice(&20_u16.to_ne_bytes());
        frame[10] = 0x45;
        frame[10 + PROTOCOL_AT] = TCP;
        frame[26..30].copy_from_slice(&[10, 77, 2, 1]);
        frame[10 + 32] = 0x80;
        frame
    }

    #[test]
    fn a_packet_that_is_to_be_cut_counts_with_the_headers_of_all_its_segments() {
        let destination = Ipv4Addr::new(10, 77, 2, 1);
        assert_eq!(Packet::of(&frame(0, 0, 1448)), Some(Packet { destination, wire_bytes: 1500 }));
        assert_eq!(Packet::of(&frame(1, 1448, 1448 * 44)), Some(Packet { destination, wire_bytes: 1500 * 44 }));
        assert_eq!(Packet::of(&frame(0x81, 1448, 1449)).unwrap().wire_bytes, 1500 + 53);
        assert_eq!(Packet::of(&frame(1, 0, 5000)).unwrap().wire_bytes, 5052, "no segment has nothing in it");
    }

    #[test]
    fn what_is_not_ipv4_is_no_packet() {
        let mut other = frame(0, 0, 10);
        other[10] = 0x60;
        assert_eq!(Packet::of(&other), None);
        assert_eq!(Packet::of(&frame(0, 0, 10)[..29]), None);
        assert_eq!(Packet::of(&[]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Packet::of(&bytes);
        }
    }
}
