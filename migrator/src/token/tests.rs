//! What a token allows, and each thing that it does not.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use sterna_proto::migrator as wire;
use sterna_transport::{Authority, Credentials, PrivateKey, Role, Subject};
use sterna_types::{ByteRate, ClusterId, Epoch, NodeId, SiteName, VmName, VolumeId};

use super::admission::verified;
use super::ledger::{Ledger, Unusable};
use super::signed::{MAX_BYTES, MAX_TEXT_BYTES};
use super::{
    Claim, Demand, InvalidTerms, InvalidToken, IssueError, LONGEST_MIGRATION, MAX_WINDOW, MigrationToken, NotAdmitted,
    SignedToken, Stage, Terms, Volumes, Window,
};
use crate::peer::MigrationId;

const HOUR: Duration = Duration::from_secs(3600);

/// A cluster with an operator and a node, and a migration that is about to begin there.
struct Scene {
    authority: Authority,
    operator: Credentials,
    node: Credentials,
    vm: VmName,
    volumes: Volumes,
    from: SiteName,
    to: SiteName,
    /// The middle of the window of its tokens.
    now: SystemTime,
}

fn credentials(authority: &Authority, subject: &Subject, lifetime: Duration) -> Credentials {
    let key = PrivateKey::generate().expect("a key");
    let certificate = authority.sign(&key.request().expect("a request"), subject, lifetime).expect("a certificate");
    Credentials::new(key, certificate, vec![authority.certificate().clone()]).expect("they belong together")
}

fn administrator(role: Role) -> Subject {
    Subject::Administrator { name: "anna".parse().expect("a name"), role }
}

fn volumes(volumes: &[(u64, u64)]) -> Volumes {
    let volume = |&(id, epoch): &(u64, u64)| (VolumeId(id), Epoch::from_number(epoch).expect("an epoch"));
    volumes.iter().map(volume).collect()
}

impl Scene {
    fn new(cluster: u8) -> Self {
        let authority = Authority::create(ClusterId::from_bytes([cluster; 16])).expect("an authority");
        Self {
            operator: credentials(&authority, &administrator(Role::Operator), 24 * HOUR),
            node: credentials(&authority, &Subject::Node(NodeId(1)), 24 * HOUR),
            authority,
            vm: "web-1".parse().expect("a name"),
            volumes: volumes(&[(3, 1), (7, 4)]),
            from: "ams".parse().expect("a name"),
            to: "chi".parse().expect("a name"),
            now: sterna_runtime::clock::wall_time(),
        }
    }

    fn terms(&self) -> Terms {
        Terms {
            vm: self.vm.clone(),
            volumes: self.volumes.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            window: Window::beginning(self.now - HOUR, 2 * HOUR),
            max_rate: Some(ByteRate(50_000_000)),
        }
    }

    fn unsigned(&self) -> MigrationToken {
        MigrationToken::new(self.operator.cluster(), self.terms()).expect("a token")
    }

    fn signed(&self) -> SignedToken {
        self.unsigned().sign(&self.operator).expect("a signature")
    }

    fn claim(&self) -> Claim<'_> {
        let Self { vm, volumes, from, to, .. } = self;
        Claim { vm: Some(vm), volumes, from, to, rate: None, stage: Stage::Beginning }
    }

    /// Why a token is refused, as somebody would read it; nothing where it is not.
    fn refusal_at(&self, token: &SignedToken, claim: &Claim<'_>, now: SystemTime) -> Option<String> {
        let checked = verified(&token.to_bytes(), Demand::Required, claim, &self.node, now);
        checked.err().map(|error| error.to_string())
    }

    fn refusal(&self, claim: &Claim<'_>) -> Option<String> {
        self.refusal_at(&self.signed(), claim, self.now)
    }
}

#[track_caller]
fn says(refusal: Option<String>, words: &[&str]) {
    let refusal = refusal.expect("it was accepted");
    for word in words {
        assert!(refusal.contains(word), "'{word}' is not in: {refusal}");
    }
}

#[test]
fn a_token_allows_what_it_was_issued_for() {
    let scene = Scene::new(1);
    assert_eq!(scene.refusal(&scene.claim()), None);
    // Storage nodes know no VM, and look later too.
    for stage in [Stage::Beginning, Stage::UnderWay] {
        assert_eq!(scene.refusal(&Claim { vm: None, stage, ..scene.claim() }), None);
    }
    assert_eq!(scene.refusal(&Claim { rate: Some(ByteRate(50_000_000)), ..scene.claim() }), None);
    let admin = credentials(&scene.authority, &administrator(Role::Admin), HOUR);
    let token = scene.unsigned().sign(&admin).expect("an admin may what an operator may");
    assert_eq!(scene.refusal_at(&token, &scene.claim(), scene.now), None);
}

#[test]
fn a_token_is_good_within_its_window_only() {
    let scene = Scene::new(1);
    let (token, claim) = (scene.signed(), scene.claim());
    let at = |now| scene.refusal_at(&token, &claim, now);
    let minute = Duration::from_secs(60);
    assert_eq!(at(scene.now - Duration::from_secs(500)), None);
    says(at(scene.now + HOUR + minute), &["has expired", "60 s ago", "another one issued"]);
    // Before it the certificate was not valid either, so the window is put off.
    let window = Window::beginning(scene.now + HOUR, HOUR);
    let later = MigrationToken::new(scene.operator.cluster(), Terms { window, ..scene.terms() });
    let later = later.expect("a token").sign(&scene.operator).expect("a signature");
    says(scene.refusal_at(&later, &claim, scene.now + HOUR - minute), &["not valid yet", "in 60 s"]);
    for at in [HOUR, 2 * HOUR] {
        assert_eq!(scene.refusal_at(&later, &claim, scene.now + at), None);
    }
}

#[test]
fn what_has_begun_in_its_window_may_go_on_after_it() {
    let scene = Scene::new(1);
    // The certificate is over then, and was not when it began.
    let operator = credentials(&scene.authority, &administrator(Role::Operator), 2 * HOUR);
    let token = scene.unsigned().sign(&operator).expect("a signature");
    let claim = Claim { vm: None, stage: Stage::UnderWay, ..scene.claim() };
    let end = scene.now + HOUR;
    assert_eq!(scene.refusal_at(&token, &claim, end + 12 * HOUR), None);
    says(scene.refusal_at(&token, &claim, end + LONGEST_MIGRATION + HOUR), &["has expired"]);
    let beginning = Claim { stage: Stage::Beginning, ..claim };
    says(scene.refusal_at(&token, &beginning, end + Duration::from_secs(1)), &["has expired"]);
}

#[test]
fn what_a_token_was_not_issued_for_is_refused() {
    let scene = Scene::new(1);
    let (vm, site): (VmName, SiteName) = ("web-2".parse().expect("a name"), "fra".parse().expect("a name"));
    says(scene.refusal(&Claim { vm: Some(&vm), ..scene.claim() }), &["for VM 'web-1'", "'web-2' is to move"]);
    says(scene.refusal(&Claim { from: &site, ..scene.claim() }), &["at site 'ams'", "at 'fra'"]);
    says(scene.refusal(&Claim { to: &site, ..scene.claim() }), &["to site 'chi'", "not to 'fra'"]);
    // Given to those at its other end.
    let (from, to) = (&scene.to, &scene.from);
    says(scene.refusal(&Claim { from, to, ..scene.claim() }), &["at site 'ams'", "at 'chi'"]);
    let too_fast = Claim { rate: Some(ByteRate(50_000_001)), ..scene.claim() };
    says(scene.refusal(&too_fast), &["allows 400Mbit", "lower --rate"]);
}

#[test]
fn a_token_is_for_all_volumes_and_no_other_in_their_epochs() {
    let scene = Scene::new(1);
    for (moving, words) in [
        (volumes(&[(3, 1), (8, 4)]), ["volume 8 is to move", "does not name it"]),
        (volumes(&[(3, 1), (7, 4), (8, 1)]), ["volume 8 is to move", "does not name it"]),
        (volumes(&[(3, 1)]), ["names volume 7", "not to move"]),
        (volumes(&[]), ["names volume 3", "not to move"]),
        (volumes(&[(3, 1), (7, 5)]), ["epoch 4 of volume 7", "in epoch 5"]),
        (volumes(&[(3, 1), (7, 3)]), ["epoch 4 of volume 7", "in epoch 3"]),
    ] {
        says(scene.refusal(&Claim { volumes: &moving, ..scene.claim() }), &words);
    }
}

#[test]
fn who_may_not_move_volumes_signs_no_tokens() {
    let scene = Scene::new(1);
    let viewer = credentials(&scene.authority, &administrator(Role::Viewer), HOUR);
    for (signer, name) in [(&viewer, "anna.viewer"), (&scene.node, "node-1")] {
        let refused = scene.unsigned().sign(signer).expect_err("nobody would accept it").to_string();
        assert!(refused.contains(name) && refused.contains("'operator' or 'admin'"), "{refused}");
        let token = scene.unsigned().sign_as(signer).expect("a signature");
        says(scene.refusal_at(&token, &scene.claim(), scene.now), &["is signed by", name, "'operator' or 'admin'"]);
    }
}

#[test]
fn an_operator_of_another_cluster_or_of_a_foreign_authority_or_of_yesterday_is_nobody() {
    let (scene, other, impostor) = (Scene::new(1), Scene::new(2), Scene::new(1));
    says(scene.refusal_at(&other.signed(), &scene.claim(), scene.now), &["for cluster 0202", "this is 0101"]);
    // The right cluster in the token does not help.
    let mixed = scene.unsigned().sign_as(&other.operator).expect("a signature");
    says(scene.refusal_at(&mixed, &scene.claim(), scene.now), &["for cluster 0202"]);
    let refused = scene.unsigned().sign(&other.operator).expect_err("it is of another cluster");
    assert!(matches!(refused, IssueError::OtherCluster { .. }), "{refused}");
    let foreign = impostor.refusal_at(&scene.signed(), &impostor.claim(), scene.now);
    says(foreign, &["no authority of this cluster has certified", "anna.operator"]);
    let brief = credentials(&scene.authority, &administrator(Role::Operator), Duration::from_secs(1));
    let token = scene.unsigned().sign(&brief).expect("a signature");
    let minute = Duration::from_secs(60);
    let expired = scene.refusal_at(&token, &scene.claim(), scene.now + minute);
    says(expired, &["the certificate of anna.operator", "has expired", "sterna cluster admin create"]);
}

#[test]
fn a_token_with_any_other_byte_is_refused() {
    let scene = Scene::new(1);
    let bytes = scene.signed().to_bytes();
    let refused = |bytes: &[u8]| verified(bytes, Demand::Required, &scene.claim(), &scene.node, scene.now).is_err();
    assert!(!refused(&bytes));
    for at in 0..bytes.len() {
        for bit in [1, 0x80] {
            let mut altered = bytes.clone();
            altered[at] ^= bit;
            assert!(refused(&altered), "byte {at}, bit {bit}");
        }
        assert!(refused(&bytes[..at]), "the first {at} bytes");
    }
    assert!(refused(&[bytes.as_slice(), &[0]].concat()));
}

#[test]
fn a_token_with_any_other_field_is_not_what_was_signed() {
    let scene = Scene::new(1);
    let envelope = wire::SignedMigrationToken::decode(scene.signed().to_bytes().as_slice()).expect("a token");
    let token = wire::MigrationToken::decode(envelope.token.as_slice()).expect("what was signed");
    let alterations: [fn(&mut wire::MigrationToken); 10] = [
        |token| token.id[0] ^= 1,
        |token| token.vm = "web-2".to_owned(),
        |token| token.volumes[0].volume = 2,
        |token| token.volumes[1].epoch = 5,
        |token| token.volumes.truncate(1),
        |token| token.from_site = "fra".to_owned(),
        |token| token.to_site = "fra".to_owned(),
        |token| token.not_before_ms -= 1,
        |token| token.not_after_ms += 1,
        |token| token.max_rate = 0,
    ];
    for alter in alterations {
        let mut altered = token.clone();
        alter(&mut altered);
        let envelope = wire::SignedMigrationToken { token: altered.encode_to_vec(), ..envelope.clone() };
        let checked = verified(&envelope.encode_to_vec(), Demand::Required, &scene.claim(), &scene.node, scene.now);
        let refusal = checked.err().map(|error| error.to_string());
        says(refusal, &["is not what anna.operator", "altered"]);
    }
    // The signature of another token of the same operator.
    let other = wire::SignedMigrationToken::decode(scene.signed().to_bytes().as_slice()).expect("a token");
    let mixed = wire::SignedMigrationToken { signature: other.signature, ..envelope };
    assert!(verified(&mixed.encode_to_vec(), Demand::Required, &scene.claim(), &scene.node, scene.now).is_err());
}

#[test]
fn another_encoding_of_the_same_is_not_read() {
    let scene = Scene::new(1);
    let envelope = wire::SignedMigrationToken::decode(scene.signed().to_bytes().as_slice()).expect("a token");
    let token = wire::MigrationToken::decode(envelope.token.as_slice()).expect("what was signed");
    let mut backwards = token.clone();
    backwards.volumes.reverse();
    let mut twice = token.clone();
    twice.volumes.push(token.volumes[0]);
    // A field that a later version might have: it may be a condition.
    let later = [envelope.token.as_slice(), &[0x78, 1]].concat();
    for payload in [backwards.encode_to_vec(), twice.encode_to_vec(), later] {
        let signature = scene.operator.sign_statement(super::signed::PURPOSE, &payload).expect("a signature");
        let read = wire::SignedMigrationToken { token: payload, signature, ..envelope.clone() };
        let error = SignedToken::from_bytes(&read.encode_to_vec()).expect_err("it says it in another way");
        assert!(error.to_string().contains("does not know"), "{error}");
    }
}

#[test]
fn a_file_reads_back_as_it_was_written() {
    let token = Scene::new(1).signed();
    let text = token.to_text();
    assert!(text.starts_with("-----BEGIN STERNA MIGRATION TOKEN-----\n"), "{text}");
    assert_eq!(SignedToken::from_text(&text).expect("the token"), token);
    assert_eq!(SignedToken::from_text(&format!("for web-1:\n\n{text}\n")).expect("the token"), token);
    let certificate = token.certificate.to_pem();
    for other in ["", "sterna-join-1-00", &text[..text.len() / 2], &certificate] {
        let error = SignedToken::from_text(other).expect_err(other);
        assert!(matches!(error, InvalidToken::NotAToken), "{error}");
    }
    let long = "x".repeat(MAX_TEXT_BYTES + 1);
    assert!(matches!(SignedToken::from_text(&long), Err(InvalidToken::TooLong { .. })));
    assert!(matches!(SignedToken::from_bytes(&[0; MAX_BYTES + 1]), Err(InvalidToken::TooLong { .. })));
}

#[test]
fn the_largest_token_fits_its_bounds() {
    let scene = Scene::new(1);
    let most: Vec<_> = (0..256).map(|volume| (u64::MAX - volume, u64::MAX)).collect();
    let name = "a".repeat(63);
    let site: SiteName = name.parse().expect("a name");
    let terms = Terms {
        vm: name.parse().expect("a name"),
        volumes: volumes(&most),
        from: site.clone(),
        to: site,
        ..scene.terms()
    };
    let token = MigrationToken::new(scene.operator.cluster(), terms).expect("a token");
    let text = token.sign(&scene.operator).expect("a signature").to_text();
    assert!(SignedToken::from_text(&text).is_ok());
}

#[test]
fn terms_that_no_token_has_are_refused() {
    let scene = Scene::new(1);
    let refused = |terms| match MigrationToken::new(scene.operator.cluster(), terms) {
        Err(IssueError::Terms(error)) => error,
        other => panic!("{other:?}"),
    };
    let many: Vec<_> = (1..=257).map(|volume| (volume, 1)).collect();
    for volumes in [Volumes::new(), volumes(&many)] {
        let count = volumes.len();
        assert_eq!(refused(Terms { volumes, ..scene.terms() }), InvalidTerms::Volumes { count });
    }
    let backwards = Window { not_before_ms: 2, not_after_ms: 1 };
    assert_eq!(refused(Terms { window: backwards, ..scene.terms() }), InvalidTerms::Window);
    let length = MAX_WINDOW + Duration::from_secs(1);
    let long = Window::beginning(scene.now, length);
    assert_eq!(refused(Terms { window: long, ..scene.terms() }), InvalidTerms::LongWindow { length });
}

#[test]
fn without_a_token_it_depends_on_the_host() {
    let scene = Scene::new(1);
    let without = |demand| verified(&[], demand, &scene.claim(), &scene.node, scene.now);
    assert!(matches!(without(Demand::Optional), Ok(None)));
    let error = without(Demand::Required).expect_err("it takes one");
    assert!(matches!(error, NotAdmitted::Missing), "{error}");
    assert!(error.to_string().contains("sterna vm token"), "{error}");
    // One that is given is looked at in any case.
    let after = scene.now + 2 * HOUR;
    assert!(verified(&scene.signed().to_bytes(), Demand::Optional, &scene.claim(), &scene.node, after).is_err());
}

#[test]
fn a_token_is_used_once_also_after_a_restart() {
    let (scene, directory) = (Scene::new(1), tempfile::tempdir().expect("a directory"));
    let path = directory.path().join("tokens");
    let [token, other] = [scene.unsigned(), scene.unsigned()];
    let (first, second) = (MigrationId([1; 16]), MigrationId([2; 16]));
    {
        let ledger = Ledger::open(&path, scene.now).expect("a ledger");
        ledger.use_up(&token, first, scene.now).expect("its first use");
        // A message that is sent twice is no second use.
        ledger.use_up(&token, first, scene.now).expect("the same use");
        let error = ledger.use_up(&token, second, scene.now).expect_err("its second use").to_string();
        assert!(error.contains(&token.id().to_string()) && error.contains(&first.to_string()), "{error}");
    }
    let ledger = Ledger::open(&path, scene.now + HOUR).expect("the ledger");
    let again = ledger.use_up(&token, second, scene.now + HOUR);
    assert!(matches!(again, Err(Unusable::Used { .. })), "{again:?}");
    ledger.use_up(&other, second, scene.now + HOUR).expect("another token");
}

#[test]
fn a_token_is_remembered_until_its_window_has_ended() {
    let (scene, directory) = (Scene::new(1), tempfile::tempdir().expect("a directory"));
    let files = || std::fs::read_dir(directory.path()).expect("a directory").count();
    let ledger = Ledger::open(directory.path(), scene.now).expect("a ledger");
    ledger.use_up(&scene.unsigned(), MigrationId([1; 16]), scene.now).expect("a use");
    let end = scene.now + HOUR;
    drop(Ledger::open(directory.path(), end + LONGEST_MIGRATION).expect("the ledger"));
    assert_eq!(files(), 1);
    drop(Ledger::open(directory.path(), end + LONGEST_MIGRATION + HOUR).expect("the ledger"));
    assert_eq!(files(), 0);
    assert_eq!(
        Window::beginning(UNIX_EPOCH + HOUR, HOUR),
        Window { not_before_ms: 3_600_000, not_after_ms: 7_200_000 }
    );
}
