//! Handoffs at random, against what is always true of them.

use super::handoffs::{abort, begin, commit, decline, finish, reclaim, volume};
use super::in_sync::{change, set_sync, take_over};
use super::nodes::with_nodes;
use super::replicas::{VOLUME, published, report, set};
use super::*;
use crate::limits::MAX_VOLUMES_PER_HANDOFF;
use crate::state::handoffs::{ReceivedVolume, VolumeHandoff};
use crate::state::ownership::{HandoffNumber, Ownership};

/// Few ids, so that random commands meet each other.
pub(super) fn any_handoff_command() -> impl Strategy<Value = Command> {
    let node = || (1u64..5).prop_map(NodeId);
    let id = || (0u64..6).prop_map(VolumeId);
    let epoch = || (1u64..4).prop_map(|number| Epoch::from_number(number).unwrap());
    let handoff =
        || (id(), 0u64..3).prop_map(|(volume, number)| VolumeHandoff { volume, handoff: HandoffNumber(number) });
    let handoffs = || collection::vec(handoff(), 0..3);
    let received = (handoff(), 0u8..4, 0u64..20).prop_map(|(VolumeHandoff { volume, handoff }, number, generation)| {
        ReceivedVolume { volume, handoff, contents: Published::of(root(number), Generation(generation)) }
    });
    let names = collection::vec((0u8..5).prop_map(|n| format!("s{n}").parse::<SnapshotName>().unwrap()), 0..3);
    prop_oneof![
        4 => (node(), node(), handoffs()).prop_map(|(by, to, volumes)| Command::BeginHandoff { by, to, volumes }),
        4 => (node(), collection::vec(received, 0..3))
            .prop_map(|(by, volumes)| Command::CommitHandoff { by, volumes }),
        1 => (node(), handoffs()).prop_map(|(by, volumes)| Command::AbortHandoff { by, volumes }),
        1 => (node(), handoffs()).prop_map(|(by, volumes)| Command::DeclineHandoff { by, volumes }),
        1 => (id(), epoch(), node()).prop_map(|(volume, epoch, node)| Command::Reclaim { volume, epoch, node }),
        1 => (id(), epoch(), node(), names).prop_map(|(volume, epoch, node, snapshots)| {
            Command::FinishHydration { volume, epoch, node, snapshots }
        }),
    ]
}

pub(super) fn longest_commands() -> Vec<Command> {
    let (by, to, volume) = (NodeId(u64::MAX), NodeId(u64::MAX), VolumeId(u64::MAX));
    let (node, epoch, handoff) = (by, Epoch::from_number(u64::MAX).unwrap(), HandoffNumber(u64::MAX));
    let contents = Published {
        written_blocks: u64::MAX,
        at: Some(UnixTime { unix_ms: u64::MAX }),
        ..Published::of(root(9), Generation(u64::MAX))
    };
    let snapshots: Vec<SnapshotName> = vec!["x".repeat(63).parse().unwrap(); 100];
    let mut commands = Vec::new();
    for count in [0, 1, MAX_VOLUMES_PER_HANDOFF] {
        let volumes = vec![VolumeHandoff { volume, handoff }; count];
        commands.push(Command::BeginHandoff { by, to, volumes: volumes.clone() });
        commands.push(Command::AbortHandoff { by, volumes: volumes.clone() });
        commands.push(Command::DeclineHandoff { by, volumes });
        commands
            .push(Command::CommitHandoff { by, volumes: vec![ReceivedVolume { volume, handoff, contents }; count] });
    }
    commands.push(Command::Reclaim { volume, epoch, node });
    commands.push(Command::FinishHydration { volume, epoch, node, snapshots });
    commands
}

/// What never happens to a volume's handoffs from one moment to a later one.
pub(super) fn check_step(before: &Metadata, after: &Metadata) {
    for was in before.volumes() {
        let Some(now) = after.volume(was.id) else {
            assert_eq!(was.moving_to, None, "a volume went while it was handed over");
            continue;
        };
        let (moved, is_moving) = (was.moving_to, now.moving_to.is_some());
        let has_begun = moved.is_none() && is_moving;
        let begun = if has_begun { was.last_handoff.next() } else { was.last_handoff };
        assert_eq!(now.last_handoff, begun, "a handoff of volume {} is not counted, or counted twice", now.id);
        if was.epoch == now.epoch {
            assert!(now.sources == was.sources || now.sources.is_empty(), "sources came without a handoff");
            assert!(moved.is_none() || !is_moving || moved == now.moving_to, "a handoff goes elsewhere");
            assert!(moved.is_none() || was.size == now.size, "volume {} grew while it was handed over", now.id);
            continue;
        }
        assert!(!is_moving, "a volume has another epoch, and is still handed over");
        if moved == Some(now.owner) {
            assert_eq!((now.epoch, &now.superseded), (was.epoch.next(), &was.superseded));
            let (source, earlier) = now.sources.split_last().expect("nobody has handed it over");
            assert_eq!((source.node, source.epoch), (was.owner, was.epoch));
            assert_eq!(earlier, was.sources, "a source is lost");
            continue;
        }
        assert!(now.was_taken_over());
        let is_reclaimed = now.owner == was.owner;
        assert!(is_reclaimed || now.is_hydrated());
        if let Some(to) = moved {
            let between = was.epoch.next();
            let last = now.superseded.last().unwrap();
            assert_eq!((now.epoch, last.epoch, last.owner), (between.next(), between, to));
            assert!(before.is_over(to), "a volume was taken from a node that it may have been handed over to");
        } else {
            assert!(now.epoch == was.epoch.next() && !is_reclaimed);
        }
    }
}

/// The next thing that happens to the volume: commands as somebody would give them who knows how it is.
fn likely_commands(metadata: &Metadata, kind: u8, node: u64) -> Vec<Command> {
    let now = volume(metadata);
    let Ownership { owner, epoch, moving_to, last_handoff } = now.ownership();
    let (to, number, node) = (moving_to.unwrap_or(owner), last_handoff.0, NodeId(node));
    let generation = now.published.generation.0 + 1;
    let newer = published(u8::try_from(generation % 250).unwrap(), generation);
    let open = |node| Command::OpenSession { node, knows: MetadataVersion::CURRENT };
    let end = |node| {
        let number = metadata.node(node).unwrap().session.unwrap().number;
        Command::CloseSession { node, number, all_is_published: false }
    };
    let fail_over = || {
        let (site, root) = (metadata.node(node).unwrap().site.clone(), now.published.root);
        Command::FailOver { volume: VOLUME, epoch, site, root, published: None }
    };
    let enters = || {
        let complete = report(node.0, epoch, now.published);
        [open(node), set_sync(node), complete, change(metadata, &[node], &[])]
    };
    match kind {
        0..4 => vec![open(owner), open(node), begin(owner, node, number + 1)],
        4..6 => vec![commit(to, number, newer)],
        6 => vec![commit(to, number, newer), set(1), set(2), set(3), set(4)],
        7 => vec![abort(owner, number)],
        8 => vec![decline(to, number)],
        9 => vec![end(to), open(owner), reclaim(owner, epoch)],
        10 => vec![report(node.0, epoch, now.published), end(owner), end(to), open(node), fail_over()],
        11 => vec![report(node.0, epoch, now.published), end(owner), open(node), fail_over()],
        12 => vec![finish(owner, epoch, &["s0"])],
        13 => vec![set(node.0), report(node.0, epoch, now.published)],
        14 => {
            let Published { root, generation, written_blocks, at } = newer;
            vec![Command::PublishRoots(vec![RootPublication {
                volume: VOLUME,
                epoch,
                root,
                generation,
                written_blocks,
                at,
            }])]
        }
        15 => vec![snapshot(VOLUME, "s0", 1, generation)],
        16 => enters().into(),
        17 => vec![change(metadata, &[], &[node])],
        18 => [enters().as_slice(), &[end(owner), end(to), open(node), take_over(node, epoch)]].concat(),
        19 => vec![end(owner), end(to), open(node), take_over(node, epoch)],
        _ => vec![end(node)],
    }
}

proptest! {
    #[test]
    fn whatever_happens_to_a_volume_that_moves_the_invariants_hold(
        steps in collection::vec((0u8..21, 1u64..5), 1..100),
    ) {
        let mut metadata = with_nodes(4);
        apply(&mut metadata, create_volume("a")).unwrap();
        for (kind, node) in steps {
            for command in likely_commands(&metadata, kind, node) {
                let before = metadata.clone();
                if apply(&mut metadata, command).is_err() {
                    prop_assert_eq!(&metadata, &before);
                }
                prop_assert_eq!(metadata.check(), Ok(()));
                super::check_step(&before, &metadata);
            }
        }
        let json = serde_json::to_string(&metadata).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Metadata>(&json).unwrap(), &metadata);
    }
}
