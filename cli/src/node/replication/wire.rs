//! Chunks as messages: domain types from messages, and back. Whatever is wrong with a message is refused here.

use std::ops::Range;

use sterna_proto::node;
use sterna_storage_node::bundle::{Bundle, Excerpt};
use sterna_storage_node::chunk_store::ChunkKind;
use sterna_storage_node::gaps::{Gap, MAX_PREDECESSORS, MAX_WANTED, Wanted};
use sterna_types::ChunkId;
use tonic::Status;

/// What one site asks another one for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The chunks. Of what kind they are is known to who asks, but for nodes with what is below them.
    pub(super) gaps: Vec<Gap>,
    /// Whether bundles are read there.
    pub(super) bundled: bool,
    /// Whether all of these are nodes, and what is below them is wanted too.
    pub(super) with_below: bool,
}

/// A request for bundles of these.
pub(super) fn request(gaps: &[Gap], with_below: bool) -> node::FetchRequest {
    let predecessors = |(of, gap): (u32, &Gap)| {
        let excerpts: Vec<_> = gap.predecessors.iter().map(excerpt_message).collect();
        (!excerpts.is_empty()).then_some(node::Predecessors { of, excerpts })
    };
    node::FetchRequest {
        ids: gaps.iter().map(|gap| gap.wanted.id.as_bytes().to_vec()).collect(),
        bundled: true,
        predecessors: (0..).zip(gaps).filter_map(predecessors).collect(),
        with_below,
    }
}

/// What is asked for.
pub(super) fn parse_request(message: node::FetchRequest) -> Result<Asked, Status> {
    let node::FetchRequest { ids, bundled, predecessors, with_below } = message;
    if ids.len() > MAX_WANTED {
        let given = ids.len();
        return Err(Status::invalid_argument(format!("{given} chunks in one request; {MAX_WANTED} are the most")));
    }
    let kind = if with_below { ChunkKind::Node } else { ChunkKind::Data };
    let gap = |id: Vec<u8>| Ok::<_, Status>(Gap::from(Wanted { id: chunk_id(&id)?, kind }));
    let mut gaps = ids.into_iter().map(gap).collect::<Result<Vec<_>, _>>()?;
    for node::Predecessors { of, excerpts } in predecessors {
        let unknown = || Status::invalid_argument(format!("predecessors of chunk {of}, which is not asked for"));
        let gap = usize::try_from(of).ok().and_then(|of| gaps.get_mut(of)).ok_or_else(unknown)?;
        if gap.predecessors.len() + excerpts.len() > MAX_PREDECESSORS {
            return Err(Status::invalid_argument(format!("a chunk has {MAX_PREDECESSORS} predecessors at most")));
        }
        let excerpts = excerpts.into_iter().map(excerpt).collect::<Result<Vec<_>, _>>()?;
        gap.predecessors.extend(excerpts);
    }
    Ok(Asked { gaps, bundled, with_below })
}

/// A bundle as a message.
pub(super) fn bundle_message(bundle: &Bundle) -> node::Bundle {
    let Bundle { lengths, prefix, frame } = bundle;
    node::Bundle {
        lengths: lengths.clone(),
        prefix: prefix.iter().map(excerpt_message).collect(),
        frame: frame.to_vec(),
    }
}

/// A bundle from a message.
pub(super) fn bundle(message: node::Bundle) -> Result<Bundle, Status> {
    let node::Bundle { lengths, prefix, frame } = message;
    let prefix = prefix.into_iter().map(excerpt).collect::<Result<_, _>>()?;
    Ok(Bundle { lengths, prefix, frame: frame.into() })
}

/// The name of a chunk.
pub(super) fn chunk_id(bytes: &[u8]) -> Result<ChunkId, Status> {
    let wrong = |_| Status::invalid_argument("the id of a chunk has 32 bytes");
    <[u8; 32]>::try_from(bytes).map(ChunkId::from_bytes).map_err(wrong)
}

fn excerpt_message(excerpt: &Excerpt) -> node::Excerpt {
    let Excerpt { chunk, bytes: Range { start, end } } = excerpt;
    let end = if *end == u32::MAX { 0 } else { *end };
    node::Excerpt { chunk: chunk.as_bytes().to_vec(), start: *start, end }
}

fn excerpt(message: node::Excerpt) -> Result<Excerpt, Status> {
    let node::Excerpt { chunk, start, end } = message;
    let end = if end == 0 { u32::MAX } else { end };
    if start > end {
        return Err(Status::invalid_argument(format!("bytes {start} to {end} of a chunk are none")));
    }
    Ok(Excerpt { chunk: chunk_id(&chunk)?, bytes: start..end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(of: u8) -> ChunkId {
        ChunkId::from_bytes([of; 32])
    }

    #[test]
    fn a_request_reads_back_as_it_was_written() {
        let gap = |of, kind, predecessors: &[Excerpt]| Gap {
            wanted: Wanted { id: id(of), kind },
            predecessors: predecessors.to_vec(),
        };
        let data = vec![
            gap(1, ChunkKind::Data, &[]),
            gap(2, ChunkKind::Data, &[Excerpt { chunk: id(7), bytes: 4096..8192 }, Excerpt::all_of(id(8))]),
        ];
        let nodes = vec![gap(3, ChunkKind::Node, &[Excerpt::all_of(id(9))])];
        for (gaps, with_below) in [(data, false), (nodes, true)] {
            let read = parse_request(request(&gaps, with_below)).expect("a request");
            assert_eq!(read, Asked { gaps, bundled: true, with_below });
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let refused = |message| parse_request(message).expect_err("it is wrong").message().to_owned();
        let good = || request(&[Gap::from(Wanted { id: id(1), kind: ChunkKind::Data })], false);
        let ids = vec![vec![1; 32]; MAX_WANTED + 1];
        assert_eq!(
            refused(node::FetchRequest { ids, ..good() }),
            format!("4097 chunks in one request; {MAX_WANTED} are the most")
        );
        assert_eq!(refused(node::FetchRequest { ids: vec![vec![1; 31]], ..good() }), "the id of a chunk has 32 bytes");
        let excerpt = |chunk: Vec<u8>, start, end| node::Excerpt { chunk, start, end };
        let with = |of, excerpts: Vec<node::Excerpt>| {
            refused(node::FetchRequest { predecessors: vec![node::Predecessors { of, excerpts }], ..good() })
        };
        assert_eq!(with(1, vec![]), "predecessors of chunk 1, which is not asked for");
        assert_eq!(with(0, vec![excerpt(vec![1; 32], 5, 4)]), "bytes 5 to 4 of a chunk are none");
        assert_eq!(with(0, vec![excerpt(vec![1; 3], 0, 4)]), "the id of a chunk has 32 bytes");
        let many = vec![excerpt(vec![1; 32], 0, 4); MAX_PREDECESSORS + 1];
        assert_eq!(with(0, many), "a chunk has 32 predecessors at most");
    }
}
