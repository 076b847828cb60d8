//! What nodes tell each other about handoffs: domain types from messages, and back. Whatever is wrong with a message is refused here.

use std::collections::BTreeMap;
use std::ops::Range;

use sterna_consensus::limits::MAX_VOLUMES_PER_HANDOFF;
use sterna_consensus::state::ownership::HandoffNumber;
use sterna_consensus::state::volume::{Generation, Published, UnixTime};
use sterna_proto::node;
use sterna_storage_node::heat::Heat;
use sterna_storage_node::trace::Traces;
use sterna_storage_node::volume::{Released, Tail, Volume, VolumeError};
use sterna_types::device::ReadOutcome;
use sterna_types::{BLOCK_SIZE, ByteOffset, ByteRange, ChunkId, Epoch, Root, VolumeId};
use tonic::Status;

/// One handoff of one volume, as its two nodes know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passing {
    /// The volume.
    pub(super) volume: VolumeId,
    /// Which of its handoffs.
    pub(super) handoff: HandoffNumber,
    /// The epoch that it ends.
    pub(super) epoch: Epoch,
}

/// A volume that is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Release {
    /// Which, and by which handoff.
    pub(super) passing: Passing,
    /// What is in its root.
    pub(super) contents: Published,
    /// How many blocks of data writes are in that and in the tail.
    pub(super) written_blocks: u64,
    /// What is newer.
    pub(super) tail: Tail,
    /// The data of that, where it is little; empty where it has to be fetched.
    pub(super) tail_data: Vec<TailPart>,
}

/// Parts of a volume that are to be at another node before it goes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Which.
    pub(super) volume: VolumeId,
    /// What it holds.
    pub(super) root: Root,
    /// Runs of its blocks, class by class; in each in order, and none overlaps another.
    pub(super) classes: Vec<Vec<Range<u64>>>,
}

/// How a volume is used where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Used {
    /// How often which part of it, as it is kept.
    pub(super) heat: Vec<u8>,
    /// What is touched first after an attach.
    pub(super) traces: Traces,
}

/// Some data of a tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TailPart {
    /// Where it begins.
    pub(super) first_block: u64,
    /// Whole blocks.
    pub(super) data: Vec<u8>,
}

impl Passing {
    /// As a message.
    pub(super) fn to_message(self) -> node::VolumeHandoff {
        let Self { volume, handoff, epoch } = self;
        node::VolumeHandoff { volume: volume.0, handoff: handoff.0, epoch: epoch.number() }
    }

    /// From a message.
    fn parse(message: node::VolumeHandoff) -> Result<Self, Status> {
        let node::VolumeHandoff { volume, handoff, epoch } = message;
        let epoch = Epoch::from_number(epoch).ok_or_else(|| Status::invalid_argument("no volume has epoch 0"))?;
        Ok(Self { volume: VolumeId(volume), handoff: HandoffNumber(handoff), epoch })
    }

    /// From the messages of one request: some, each volume once, at most [`MAX_VOLUMES_PER_HANDOFF`].
    pub(super) fn parse_all(messages: Vec<node::VolumeHandoff>) -> Result<Vec<Self>, Status> {
        check_count(messages.len())?;
        let all = messages.into_iter().map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        check_each_once(all.iter().map(|passing| passing.volume))?;
        Ok(all)
    }
}

impl Parts {
    /// As a message.
    pub(super) fn to_message(&self) -> node::VolumeParts {
        let range = |blocks: &Range<u64>| node::BlockRange { first: blocks.start, count: blocks.end - blocks.start };
        let ranges = |class: &Vec<Range<u64>>| node::BlockRanges { ranges: class.iter().map(range).collect() };
        let parts = self.classes.iter().map(ranges).collect();
        node::VolumeParts { volume: self.volume.0, root: root_bytes(self.root), parts }
    }

    fn parse(message: node::VolumeParts) -> Result<Self, Status> {
        let node::VolumeParts { volume, root, parts } = message;
        let invalid =
            || Status::invalid_argument("parts of a volume are in order, none is empty, and none overlaps another");
        let class = |ranges: node::BlockRanges| {
            let mut next = 0;
            let range = |node::BlockRange { first, count }| {
                let end = first.checked_add(count).filter(|_| first >= next && count > 0)?;
                next = end;
                Some(first..end)
            };
            ranges.ranges.into_iter().map(range).collect::<Option<Vec<_>>>().ok_or_else(invalid)
        };
        let classes = parts.into_iter().map(class).collect::<Result<_, _>>()?;
        Ok(Self { volume: VolumeId(volume), root: parse_root(root)?, classes })
    }

    /// From the messages of one request: of some volumes, each once, at most [`MAX_VOLUMES_PER_HANDOFF`] and [`MAX_PARTS`].
    pub(super) fn parse_all(messages: Vec<node::VolumeParts>) -> Result<Vec<Self>, Status> {
        check_count(messages.len())?;
        // A class without any is walked too.
        let parts = messages.iter().flat_map(|volume| &volume.parts).map(|class| class.ranges.len().max(1));
        let given: usize = parts.sum();
        if given > MAX_PARTS {
            return Err(Status::invalid_argument(format!("{given} parts of volumes; {MAX_PARTS} are the most")));
        }
        let all = messages.into_iter().map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        check_each_once(all.iter().map(|parts| parts.volume))?;
        Ok(all)
    }
}

/// How volumes are used, from the messages of one request about these handoffs.
pub(super) fn parse_use(
    messages: Vec<node::VolumeHeat>,
    passings: &[Passing],
) -> Result<BTreeMap<VolumeId, Used>, Status> {
    let parse = |node::VolumeHeat { volume, heat, traces }| {
        let volume = VolumeId(volume);
        if !passings.iter().any(|passing| passing.volume == volume) {
            return Err(Status::invalid_argument(format!("volume {volume} is not handed over")));
        }
        let invalid = |what: &str, error: &dyn std::error::Error| {
            Status::invalid_argument(format!("the {what} of volume {volume}: {error}"))
        };
        Heat::check(&heat).map_err(|error| invalid("heat", &error))?;
        // An earlier program knows of none.
        let traces = if traces.is_empty() { Ok(Traces::default()) } else { Traces::parse(&traces) };
        Ok((volume, Used { heat, traces: traces.map_err(|error| invalid("traces", &error))? }))
    };
    messages.into_iter().map(parse).collect()
}

fn root_bytes(root: Root) -> Vec<u8> {
    root.top().map(|top| top.as_bytes().to_vec()).unwrap_or_default()
}

fn parse_root(bytes: Vec<u8>) -> Result<Root, Status> {
    match (bytes.is_empty(), <[u8; 32]>::try_from(bytes)) {
        (true, _) => Ok(Root::EMPTY),
        (false, Ok(top)) => Ok(Root::at(ChunkId::from_bytes(top))),
        (false, Err(_)) => Err(Status::invalid_argument("a root has 32 bytes")),
    }
}

impl Release {
    /// What was `released`, as of now, with the data of its tail that is to go along.
    pub(super) fn new(passing: Passing, released: Released, tail_data: Vec<TailPart>, at: UnixTime) -> Self {
        let Released { sealed, written_blocks, tail } = released;
        let generation = Generation(sealed.generation);
        let contents = Published { root: sealed.root, generation, written_blocks: sealed.written_blocks, at: Some(at) };
        Self { passing, contents, written_blocks, tail, tail_data }
    }

    /// As a message.
    pub(super) fn to_message(&self) -> node::ReleasedVolume {
        let Published { root, generation, written_blocks, at } = self.contents;
        node::ReleasedVolume {
            all_written_blocks: self.written_blocks,
            handoff: Some(self.passing.to_message()),
            root: root_bytes(root),
            generation: generation.0,
            written_blocks,
            at_unix_ms: at.map_or(0, |at| at.unix_ms),
            tail: self.tail.encode(),
            tail_data: self.tail_data.iter().map(TailPart::to_message).collect(),
        }
    }

    fn parse(message: node::ReleasedVolume) -> Result<Self, Status> {
        let node::ReleasedVolume {
            handoff,
            root,
            generation,
            written_blocks,
            all_written_blocks,
            at_unix_ms,
            tail,
            tail_data,
        } = message;
        let passing = Passing::parse(handoff.ok_or_else(|| Status::invalid_argument("no handoff is named"))?)?;
        let root = parse_root(root)?;
        let at = (at_unix_ms > 0).then_some(UnixTime { unix_ms: at_unix_ms });
        let contents = Published { root, generation: Generation(generation), written_blocks, at };
        let tail = Tail::parse(&tail).map_err(|error| Status::invalid_argument(format!("its tail: {error}")))?;
        let tail_data = tail_data.into_iter().map(TailPart::parse).collect::<Result<_, _>>()?;
        Ok(Self { passing, contents, written_blocks: all_written_blocks, tail, tail_data })
    }

    /// From the messages of one request: some, each volume once, at most [`MAX_VOLUMES_PER_HANDOFF`].
    pub(super) fn parse_all(messages: Vec<node::ReleasedVolume>) -> Result<Vec<Self>, Status> {
        check_count(messages.len())?;
        let all = messages.into_iter().map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        check_each_once(all.iter().map(|release| release.passing.volume))?;
        Ok(all)
    }
}

impl TailPart {
    /// All data of the tail of a released volume. Blocks for reads of its journal.
    pub(super) fn all_of(volume: &Volume, tail: &Tail) -> Result<Vec<Self>, VolumeError> {
        let read = |blocks: Range<u64>| {
            let range = ByteRange::between(ByteOffset(blocks.start * BLOCK_SIZE), ByteOffset(blocks.end * BLOCK_SIZE));
            let mut data = vec![0; usize::try_from(range.length()).expect("who reads it knows that it is little")];
            match volume.read(range, &mut data)? {
                ReadOutcome::Filled => {}
                ReadOutcome::Zeroes => data.fill(0),
            }
            Ok(Self { first_block: blocks.start, data })
        };
        tail.data().map(read).collect()
    }

    fn to_message(&self) -> node::TailPart {
        node::TailPart { first_block: self.first_block, data: self.data.clone() }
    }

    fn parse(message: node::TailPart) -> Result<Self, Status> {
        let node::TailPart { first_block, data } = message;
        let length = data.len() as u64;
        let is_possible = first_block.checked_mul(BLOCK_SIZE).and_then(|start| start.checked_add(length)).is_some();
        if data.is_empty() || !length.is_multiple_of(BLOCK_SIZE) || !is_possible {
            let what = format!("{length} bytes from block {first_block} on are no blocks of a volume");
            return Err(Status::invalid_argument(what));
        }
        Ok(Self { first_block, data })
    }
}

fn check_count(given: usize) -> Result<(), Status> {
    if (1..=MAX_VOLUMES_PER_HANDOFF).contains(&given) {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "{given} volumes in one handoff; 1 to {MAX_VOLUMES_PER_HANDOFF} are possible"
    )))
}

fn check_each_once(volumes: impl Iterator<Item = VolumeId>) -> Result<(), Status> {
    let mut volumes: Vec<_> = volumes.collect();
    let given = volumes.len();
    volumes.sort_unstable();
    volumes.dedup();
    if volumes.len() == given { Ok(()) } else { Err(Status::invalid_argument("a volume is named twice")) }
}

/// The most runs of blocks that are pre-copied at a time, of all volumes of a handoff together.
pub(super) const MAX_PARTS: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use sterna_storage_node::volume::SealedState;

    fn passing(volume: u64) -> Passing {
        Passing { volume: VolumeId(volume), handoff: HandoffNumber(3), epoch: Epoch::FIRST.next() }
    }

    #[test]
    fn a_release_reads_back_as_it_was_written() {
        for root in [Root::EMPTY, Root::at(ChunkId::from_bytes([7; 32]))] {
            let sealed = SealedState { root, generation: 5, written_blocks: 6 };
            let release = Release::new(
                passing(1),
                Released { sealed, written_blocks: 8, tail: Tail::EMPTY },
                vec![TailPart { first_block: 3, data: vec![1; 8192] }],
                UnixTime { unix_ms: 9 },
            );
            let read = Release::parse_all(vec![release.to_message()]).expect("a release");
            assert_eq!(read, [release]);
        }
    }

    #[test]
    fn what_is_no_release_is_refused() {
        let good = || {
            let sealed = SealedState { root: Root::EMPTY, generation: 5, written_blocks: 6 };
            let released = Released { sealed, written_blocks: 8, tail: Tail::EMPTY };
            Release::new(passing(1), released, Vec::new(), UnixTime { unix_ms: 9 }).to_message()
        };
        let refused = |messages| Release::parse_all(messages).expect_err("it is wrong").message().to_owned();
        assert!(refused(vec![]).starts_with("0 volumes"));
        assert_eq!(refused(vec![good(), good()]), "a volume is named twice");
        assert_eq!(refused(vec![node::ReleasedVolume { root: vec![1; 31], ..good() }]), "a root has 32 bytes");
        assert!(refused(vec![node::ReleasedVolume { tail: vec![1; 8], ..good() }]).starts_with("its tail: 8 bytes"));
        assert_eq!(refused(vec![node::ReleasedVolume { handoff: None, ..good() }]), "no handoff is named");
        for (first_block, length) in [(1, 0), (1, 4095), (u64::MAX / BLOCK_SIZE, 4096)] {
            let tail_data = vec![node::TailPart { first_block, data: vec![1; length] }];
            let what = format!("{length} bytes from block {first_block} on are no blocks of a volume");
            assert_eq!(refused(vec![node::ReleasedVolume { tail_data, ..good() }]), what);
        }
        let handoff = Some(node::VolumeHandoff { epoch: 0, ..passing(1).to_message() });
        assert_eq!(refused(vec![node::ReleasedVolume { handoff, ..good() }]), "no volume has epoch 0");
    }

    #[test]
    fn parts_read_back_as_they_were_written_and_what_is_none_is_refused() {
        let root = Root::at(ChunkId::from_bytes([7; 32]));
        let parts = |classes: &[&[Range<u64>]]| {
            let classes = classes.iter().map(|class| class.to_vec()).collect();
            Parts { volume: VolumeId(1), root, classes }
        };
        let good = parts(&[&[5..6, 6..9], &[0..5, 7..8]]);
        assert_eq!(Parts::parse_all(vec![good.to_message()]).expect("parts"), [good]);
        let refused = |messages| Parts::parse_all(messages).expect_err("they are wrong").message().to_owned();
        let wrong: [&[Range<u64>]; 3] = [&[5..7, 6..9], &[6..9, 0..1], &[5..5, 6..7]];
        for class in wrong {
            let what = "parts of a volume are in order, none is empty, and none overlaps another";
            assert_eq!(refused(vec![parts(&[class]).to_message()]), what, "{class:?}");
        }
        let many: Vec<_> = (0..=MAX_PARTS as u64).map(|block| block..block + 1).collect();
        assert_eq!(refused(vec![parts(&[&many]).to_message()]), "65537 parts of volumes; 65536 are the most");
        assert_eq!(refused(vec![parts(&[]).to_message(), parts(&[]).to_message()]), "a volume is named twice");
    }

    #[test]
    fn heat_and_traces_are_those_of_what_is_handed_over() {
        let heat = vec![1, 6, 0, 0];
        let used = |volume, heat: &[u8], traces: &[u8]| {
            vec![node::VolumeHeat { volume, heat: heat.to_vec(), traces: traces.to_vec() }]
        };
        let parsed = |messages| parse_use(messages, &[passing(1)]).map_err(|status| status.message().to_owned());
        let traces = Traces::parse(b"STtr\x01\x01\x01\x01\x03\x08\x07").expect("traces");
        let expected = Used { heat: heat.clone(), traces: traces.clone() };
        assert_eq!(parsed(used(1, &heat, &traces.encode())), Ok([(VolumeId(1), expected)].into()));
        let expected = Used { heat: heat.clone(), traces: Traces::default() };
        assert_eq!(parsed(used(1, &heat, &[])), Ok([(VolumeId(1), expected)].into()), "by an earlier program");
        assert!(parsed(used(2, &heat, &[])).expect_err("another").ends_with("is not handed over"));
        assert!(parsed(used(1, &[9], &[])).expect_err("none").starts_with("the heat of volume"));
        assert!(parsed(used(1, &heat, &[9])).expect_err("none").starts_with("the traces of volume"));
    }
}
