//! Tokens, nodes, sessions, and the layout.

use sterna_types::{NodeName, SiteName, TokenId};

use super::*;
use crate::limits::{MAX_TOKENS, MAX_VOTERS};
use crate::state::command::{Admission, NewToken};
use crate::state::layout::{LayoutRevision, NodeChange};
use crate::state::session::{SessionNumber, SessionState};
use crate::state::token::Digest;

/// A cluster in which there can be many nodes.
pub(super) fn raised() -> Metadata {
    raised_to(MetadataVersion::CURRENT)
}

fn raised_to(version: MetadataVersion) -> Metadata {
    let mut metadata = begun();
    apply(&mut metadata, Command::RaiseVersion { version }).unwrap();
    metadata
}

fn at(unix_ms: u64) -> UnixTime {
    UnixTime { unix_ms }
}

pub(crate) fn new_token(number: u64) -> NewToken {
    let secret = Digest([u8::try_from(number % 7).unwrap(); 32]);
    NewToken { id: TokenId(number), secret, at: at(1_000), expires: at(2_000), site: None }
}

pub(crate) fn admission(token: u64, name: &str, site: &str) -> Admission {
    Admission {
        token: TokenId(token),
        secret: new_token(token).secret,
        at: at(1_500),
        knows: MetadataVersion::CURRENT,
        key: Digest([9; 32]),
        name: name.parse().unwrap(),
        site: site.parse().unwrap(),
        address: "10.77.0.2:7400".parse().unwrap(),
    }
}

pub(super) fn longest_admission() -> Command {
    let long = "x".repeat(63);
    let address = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535".parse().unwrap();
    Command::AdmitNode(Admission {
        token: TokenId(u64::MAX),
        at: at(u64::MAX),
        knows: MetadataVersion(u32::MAX),
        address,
        ..admission(6, &long, &long)
    })
}

/// A cluster of this many nodes, each at a site of its own and with a session.
pub(crate) fn with_nodes(count: u64) -> Metadata {
    with_nodes_that_know(MetadataVersion::CURRENT, count)
}

/// The same, of nodes that know an earlier version.
pub(crate) fn with_nodes_that_know(knows: MetadataVersion, count: u64) -> Metadata {
    let mut metadata = raised_to(knows);
    for number in 2..=count {
        apply(&mut metadata, Command::CreateToken(new_token(number))).unwrap();
        let (name, site) = (format!("n{number}"), format!("s{number}"));
        let admit = Command::AdmitNode(Admission { knows, ..admission(number, &name, &site) });
        assert_eq!(apply(&mut metadata, admit), Ok(Outcome::Admitted { node: NodeId(number) }));
    }
    for number in 1..=count {
        open_session_that_knows(&mut metadata, NodeId(number), knows);
    }
    metadata
}

pub(super) fn open_session(metadata: &mut Metadata, node: NodeId) -> SessionNumber {
    open_session_that_knows(metadata, node, MetadataVersion::CURRENT)
}

fn open_session_that_knows(metadata: &mut Metadata, node: NodeId, knows: MetadataVersion) -> SessionNumber {
    match apply(metadata, Command::OpenSession { node, knows }) {
        Ok(Outcome::Session { number, .. }) => number,
        other => panic!("{other:?}"),
    }
}

pub(super) fn layout_revision(outcome: Result<Outcome, Refusal>) -> LayoutRevision {
    match outcome {
        Ok(Outcome::Layout { revision }) => revision,
        other => panic!("{other:?}"),
    }
}

/// Few ids, so that random commands meet each other.
pub(super) fn any_node_command() -> impl Strategy<Value = Command> {
    let node = || (1u64..6).prop_map(NodeId);
    let number = || (1u64..4).prop_map(SessionNumber);
    let current = MetadataVersion::CURRENT;
    let version = || prop_oneof![2 => Just(current), 1 => (1..current.0).prop_map(MetadataVersion)];
    let change = (0u8..6, node(), node()).prop_map(|(kind, node, other)| match kind {
        0 => NodeChange::Promote(node),
        1 => NodeChange::Demote(node),
        2 => NodeChange::Drain(node),
        3 => NodeChange::Undrain(node),
        4 => NodeChange::Remove(node),
        _ => NodeChange::Replace(node, other),
    });
    let admit = (0u64..8, 0u64..3000, 0u8..6, 0u8..3, 0u8..2).prop_map(|(token, when, name, site, key)| {
        let admission = admission(token, &format!("n{name}"), &format!("s{site}"));
        Command::AdmitNode(Admission { at: at(when), key: Digest([key; 32]), ..admission })
    });
    let token = (0u64..8, 0u64..3000, 0u64..3000).prop_map(|(token, when, expires)| {
        Command::CreateToken(NewToken { at: at(when), expires: at(expires), ..new_token(token) })
    });
    prop_oneof![
        1 => version().prop_map(|version| Command::RaiseVersion { version }),
        4 => token,
        6 => admit,
        1 => (0u64..8).prop_map(|token| Command::RevokeToken { token: TokenId(token) }),
        4 => (node(), version()).prop_map(|(node, knows)| Command::OpenSession { node, knows }),
        4 => (node(), number()).prop_map(|(node, number)| Command::RenewSession { node, number }),
        1 => (node(), number(), any::<bool>()).prop_map(|(node, number, all_is_published)| {
            Command::CloseSession { node, number, all_is_published }
        }),
        3 => (node(), number(), 0u64..3)
            .prop_map(|(node, number, renewals)| Command::LapseSession { node, number, renewals }),
        4 => change.prop_map(Command::StageChange),
        1 => Just(Command::DiscardChanges),
        3 => (0u64..30).prop_map(|revision| Command::ApplyChanges { revision: LayoutRevision(revision) }),
    ]
}

/// What never happens to nodes and owners from one moment to a later one.
pub(super) fn check_step(before: &Metadata, after: &Metadata) {
    for node in before.nodes() {
        let Some(now) = after.node(node.id) else {
            assert!(before.volumes().all(|volume| volume.owner != node.id), "a node went that owned a volume");
            let is_needed = |volume: &Arc<Volume>| {
                volume.moving_to == Some(node.id) || volume.sources.iter().any(|source| source.node == node.id)
            };
            assert!(
                !before.volumes().any(is_needed),
                "a node went that a volume was handed over to, or is fetched from"
            );
            continue;
        };
        assert_eq!(now.name, node.name);
        let (Some(was), Some(is)) = (node.session, now.session) else {
            assert!(node.session.is_none(), "a session is forgotten");
            continue;
        };
        assert!(was.number <= is.number, "the number of a session fell");
        let went_on = was.number == is.number && is.renewals > was.renewals;
        assert!(!went_on || was.state == SessionState::Live, "a lapsed session was renewed");
    }
    for volume in after.volumes() {
        let was = before.volume(volume.id);
        if let Some(was) = was.filter(|was| was.owner != volume.owner && was.moving_to != Some(volume.owner)) {
            let session = before.node(was.owner).unwrap().session.unwrap();
            assert_ne!(session.state, SessionState::Live, "a volume was taken from a node that may be serving it");
        }
    }
    assert!(before.layout.revision <= after.layout.revision && before.version() <= after.version());
}

#[test]
fn a_cluster_has_many_nodes_only_from_the_version_on_that_knows_them() {
    let mut metadata = begun();
    let (required, current) = (MetadataVersion::MANY_NODES, MetadataVersion::FIRST);
    let token = Command::CreateToken(new_token(1));
    assert_eq!(apply(&mut metadata, token.clone()), Err(Refusal::NeedsVersion { required, current }));
    let too_high = MetadataVersion(MetadataVersion::CURRENT.0 + 1);
    let refusal = apply(&mut metadata, Command::RaiseVersion { version: too_high });
    assert_eq!(refusal, Err(Refusal::UnknownVersion { version: too_high }));
    apply(&mut metadata, Command::RaiseVersion { version: required }).unwrap();
    apply(&mut metadata, token).unwrap();
    apply(&mut metadata, Command::RaiseVersion { version: current }).unwrap();
    assert_eq!(metadata.version(), required, "a version never falls");
}

#[test]
fn a_token_lets_one_node_in_and_answers_it_again() {
    let mut metadata = raised();
    apply(&mut metadata, Command::CreateToken(new_token(1))).unwrap();
    let first = admission(1, "chi-1", "chi");
    let admitted = Ok(Outcome::Admitted { node: NodeId(2) });
    assert_eq!(apply(&mut metadata, Command::AdmitNode(first.clone())), admitted);
    assert_eq!(apply(&mut metadata, Command::AdmitNode(first.clone())), admitted, "its answer may have been lost");
    let used = Err(Refusal::TokenUsed { token: TokenId(1), node: NodeId(2) });
    let other_key = Admission { key: Digest([1; 32]), ..first };
    assert_eq!(apply(&mut metadata, Command::AdmitNode(other_key)), used);
    assert_eq!(apply(&mut metadata, Command::AdmitNode(admission(1, "icn-1", "icn"))), used);
    assert_eq!(metadata.nodes().count(), 2);
    assert_eq!(metadata.sites().map(|site| site.name.as_str()).collect::<Vec<_>>(), ["ams", "chi"]);
}

#[test]
fn whoever_has_no_valid_token_is_not_let_in() {
    let mut metadata = raised();
    let token = NewToken { site: Some("chi".parse().unwrap()), ..new_token(1) };
    apply(&mut metadata, Command::CreateToken(token)).unwrap();
    let good = admission(1, "chi-1", "chi");
    let (id, knows) = (TokenId(1), MetadataVersion::FIRST);
    for (bad, refusal) in [
        (Admission { token: TokenId(2), ..good.clone() }, Refusal::NoSuchToken { token: TokenId(2) }),
        (Admission { secret: Digest([77; 32]), ..good.clone() }, Refusal::NoSuchToken { token: id }),
        (Admission { at: at(2_000), ..good.clone() }, Refusal::TokenExpired { token: id }),
        (
            Admission { site: "icn".parse::<SiteName>().unwrap(), ..good.clone() },
            Refusal::TokenForOtherSite { token: id, site: "chi".parse().unwrap() },
        ),
        (
            Admission { name: "ams-1".parse::<NodeName>().unwrap(), ..good.clone() },
            Refusal::NodeNameTaken { name: "ams-1".parse().unwrap() },
        ),
        (Admission { knows, ..good.clone() }, Refusal::NewcomerTooOld { knows, required: MetadataVersion::CURRENT }),
    ] {
        assert_eq!(apply(&mut metadata, Command::AdmitNode(bad)), Err(refusal));
    }
    apply(&mut metadata, Command::RevokeToken { token: id }).unwrap();
    let refusal = apply(&mut metadata, Command::AdmitNode(good));
    assert_eq!(refusal, Err(Refusal::NoSuchToken { token: id }));
}

#[test]
fn expired_tokens_make_room_for_new_ones() {
    let mut metadata = raised();
    let most = u64::try_from(MAX_TOKENS).unwrap();
    for number in 0..most {
        apply(&mut metadata, Command::CreateToken(new_token(number))).unwrap();
    }
    let one_more = new_token(most);
    assert_eq!(apply(&mut metadata, Command::CreateToken(one_more.clone())), Err(Refusal::TooManyTokens));
    let later = NewToken { at: at(2_000), expires: at(3_000), ..one_more };
    apply(&mut metadata, Command::CreateToken(later)).unwrap();
    assert_eq!(metadata.tokens().count(), 1);
}

#[test]
fn a_session_that_was_renewed_in_time_does_not_lapse_and_one_that_lapsed_is_not_renewed() {
    let mut metadata = with_nodes(2);
    let node = NodeId(2);
    let number = metadata.node(node).unwrap().session.unwrap().number;
    let lapse = |renewals| Command::LapseSession { node, number, renewals };
    apply(&mut metadata, Command::RenewSession { node, number }).unwrap();
    assert_eq!(apply(&mut metadata, lapse(0)), Err(Refusal::SessionRenewed { node, number }));
    apply(&mut metadata, lapse(1)).unwrap();
    let refusal = apply(&mut metadata, Command::RenewSession { node, number });
    assert_eq!(refusal, Err(Refusal::SessionLapsed { node, number }));

    let next = open_session(&mut metadata, node);
    assert_eq!(next, SessionNumber(number.0 + 1));
    for old in [
        Command::RenewSession { node, number },
        lapse(1),
        Command::CloseSession { node, number, all_is_published: false },
    ] {
        assert_eq!(apply(&mut metadata, old), Err(Refusal::OtherSession { node, given: number, current: next }));
    }
    assert!(metadata.node(node).unwrap().session.unwrap().is_live());
}

#[test]
fn changes_are_made_together_and_only_as_they_were_shown() {
    let mut metadata = with_nodes(4);
    let stage = |metadata: &mut Metadata, change| apply(metadata, Command::StageChange(change));
    layout_revision(stage(&mut metadata, NodeChange::Promote(NodeId(2))));
    let shown = layout_revision(stage(&mut metadata, NodeChange::Promote(NodeId(3))));
    assert_eq!(metadata.layout().voters, [NodeId(1)].into());
    let current = layout_revision(stage(&mut metadata, NodeChange::Drain(NodeId(4))));
    let refusal = apply(&mut metadata, Command::ApplyChanges { revision: shown });
    assert_eq!(refusal, Err(Refusal::LayoutHasChanged { given: shown, current }));
    let applied = layout_revision(apply(&mut metadata, Command::ApplyChanges { revision: current }));
    assert_eq!(metadata.layout().voters, [NodeId(1), NodeId(2), NodeId(3)].into());
    assert!(metadata.layout().draining.contains(&NodeId(4)) && metadata.layout().staged.is_empty());
    let again = apply(&mut metadata, Command::ApplyChanges { revision: current });
    assert_eq!(again, Err(Refusal::LayoutHasChanged { given: current, current: applied }));

    let volume = NewVolume { owner: NodeId(4), ..new_volume("a", Origin::Blank) };
    let refusal = apply(&mut metadata, Command::CreateVolume(volume));
    assert_eq!(refusal, Err(Refusal::Draining { node: NodeId(4) }));
}

#[test]
fn a_node_goes_for_good_and_another_one_has_its_voice() {
    let mut metadata = with_nodes(3);
    apply(&mut metadata, create_volume("a")).unwrap();
    let stage = |metadata: &mut Metadata, change| apply(metadata, Command::StageChange(change));
    let (first, second) = (NodeId(1), NodeId(2));
    let owns = Err(Refusal::OwnsVolumes { node: first, count: 1 });
    assert_eq!(stage(&mut metadata, NodeChange::Replace(first, second)), owns);
    apply(&mut metadata, Command::DeleteVolume { volume: VolumeId(1), with_snapshots: false }).unwrap();
    let itself = stage(&mut metadata, NodeChange::Replace(first, first));
    assert_eq!(itself, Err(Refusal::ReplacesItself { node: first }));
    assert_eq!(stage(&mut metadata, NodeChange::Demote(first)), Err(Refusal::NoVoters));
    let revision = layout_revision(stage(&mut metadata, NodeChange::Replace(first, second)));
    assert_eq!(stage(&mut metadata, NodeChange::Promote(first)), Err(Refusal::NoSuchNode { node: first }));
    apply(&mut metadata, Command::ApplyChanges { revision }).unwrap();
    assert_eq!(metadata.layout().voters, [second].into());
    assert!(metadata.node(first).is_none());
    apply(&mut metadata, Command::CreateToken(new_token(9))).unwrap();
    let admit = Command::AdmitNode(admission(9, "ams-2", "ams"));
    assert_eq!(apply(&mut metadata, admit), Ok(Outcome::Admitted { node: NodeId(4) }), "no id is given out again");
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn there_are_never_more_voters_than_there_may_be() {
    let mut metadata = with_nodes(u64::try_from(MAX_VOTERS).unwrap() + 1);
    for number in 2..=u64::try_from(MAX_VOTERS).unwrap() {
        apply(&mut metadata, Command::StageChange(NodeChange::Promote(NodeId(number)))).unwrap();
    }
    let last = NodeId(u64::try_from(MAX_VOTERS).unwrap() + 1);
    let refusal = apply(&mut metadata, Command::StageChange(NodeChange::Promote(last)));
    assert_eq!(refusal, Err(Refusal::TooManyVoters));
}

#[test]
fn a_link_has_the_limit_that_was_set_last_and_none_once_it_is_lifted() {
    let mut metadata = with_nodes(3);
    let set = |metadata: &mut Metadata, from: &str, to: &str, limit| {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        apply(metadata, Command::SetLinkLimit { from, to, limit })
    };
    let limit = |metadata: &Metadata, from: &str, to: &str| {
        let mut sites = metadata.sites();
        let site = sites.find(|site| site.name.to_string() == from).unwrap();
        site.limits.get(&to.parse().unwrap()).copied()
    };
    for rate in [ByteRate(1), ByteRate(2)] {
        set(&mut metadata, "ams", "s2", Some(rate)).unwrap();
        assert_eq!((limit(&metadata, "ams", "s2"), limit(&metadata, "s2", "ams")), (Some(rate), None));
    }
    let site = "ams".parse().unwrap();
    assert_eq!(set(&mut metadata, "ams", "ams", None), Err(Refusal::NoLink { site }));
    let site = "nowhere".parse().unwrap();
    assert_eq!(set(&mut metadata, "s2", "nowhere", None), Err(Refusal::NoSuchSite { site }));
    set(&mut metadata, "ams", "s2", None).unwrap();
    assert_eq!(limit(&metadata, "ams", "s2"), None);
    let mut earlier = begun();
    let command = Command::SetLinkLimit { from: "ams".parse().unwrap(), to: "s2".parse().unwrap(), limit: None };
    assert!(matches!(apply(&mut earlier, command), Err(Refusal::NeedsVersion { .. })));
}
