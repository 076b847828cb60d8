//! Files after crashes, and files that others may read.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::testing::{cluster, credentials, node};

struct Fixture {
    // Gone with the test.
    _directory: tempfile::TempDir,
    files: CredentialFiles,
    authority: Authority,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().expect("a directory");
    let files = CredentialFiles::new(directory.path().join("tls"));
    Fixture { _directory: directory, files, authority: Authority::create(cluster(1)).expect("an authority") }
}

impl Fixture {
    fn credentials(&self) -> Credentials {
        credentials(&self.authority, node(1))
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").mode() & 0o7777
}

#[test]
fn what_is_stored_is_loaded_and_nobody_else_may_read_it() {
    let fixture = fixture();
    let (files, stored) = (&fixture.files, fixture.credentials());
    assert!(matches!(files.load(), Err(FilesError::Missing { .. })));
    files.store(&stored).expect("it can be stored");
    assert_eq!(files.load().expect("credentials").to_pem(), stored.to_pem());
    assert_eq!(mode(&files.directory), 0o700);
    assert_eq!(mode(&files.identity_path()), 0o600);

    assert!(files.load_authority().expect("no error").is_none());
    files.store_authority(&fixture.authority).expect("it can be stored");
    assert_eq!(mode(&files.authority_path()), 0o600);
    let authority = files.load_authority().expect("no error").expect("the authority");
    assert_eq!(authority.fingerprint(), fixture.authority.fingerprint());
    for _ in 0..2 {
        files.remove_authority().expect("it can be removed");
        assert!(files.load_authority().expect("no error").is_none());
    }
}

#[test]
fn after_a_crash_at_any_step_the_old_or_the_new_credentials_are_there() {
    let fixture = fixture();
    let (files, old, new) = (&fixture.files, fixture.credentials(), fixture.credentials());
    let (path, text) = (files.identity_path(), new.to_pem());
    files.store(&old).expect("it can be stored");
    // In the middle of step 1, at each length that what was written may have; then after it, and so after step 2.
    for length in (0..text.len()).step_by(97).chain([text.len()]) {
        drop(write_new(&beside(&path), &text.as_bytes()[..length]).expect("step 1"));
        assert_eq!(files.load().expect("the old credentials").to_pem(), old.to_pem());
    }
    // After step 3. Whether the rename is durable then is the file system's choice; both outcomes are those above.
    fs::rename(beside(&path), &path).expect("step 3");
    assert_eq!(files.load().expect("the new credentials").to_pem(), text);
    // And storing goes on from each of these states.
    for left_behind in ["", "half a k"] {
        fs::write(beside(&path), left_behind).expect("what a crash leaves");
        files.store(&old).expect("it can be stored");
        assert_eq!(files.load().expect("the credentials").to_pem(), old.to_pem());
        assert!(!beside(&path).exists());
        assert_eq!(mode(&path), 0o600);
    }
}

#[test]
fn a_file_that_others_may_read_is_refused_with_what_to_do() {
    let fixture = fixture();
    let files = &fixture.files;
    files.store(&fixture.credentials()).expect("it can be stored");
    files.store_authority(&fixture.authority).expect("it can be stored");
    for bits in [0o644, 0o640, 0o604, 0o660, 0o602, 0o610] {
        for path in [files.identity_path(), files.authority_path()] {
            fs::set_permissions(&path, PermissionsExt::from_mode(bits)).expect("it is ours");
        }
        let refused = files.load().expect_err("others may read it");
        assert!(matches!(refused, FilesError::Exposed { mode, .. } if mode == bits), "{refused}");
        let advice = format!("its mode is 0{bits:o}");
        assert!(refused.to_string().contains(&advice) && refused.to_string().contains("chmod 600"), "{refused}");
        assert!(matches!(files.load_authority(), Err(FilesError::Exposed { .. })));
    }
    fs::set_permissions(files.identity_path(), PermissionsExt::from_mode(0o400)).expect("it is ours");
    files.load().expect("nobody else may read it");
}

#[test]
fn a_file_of_something_else_is_refused() {
    let fixture = fixture();
    let files = &fixture.files;
    files.store(&fixture.credentials()).expect("it can be stored");
    for contents in ["", "something else", &fixture.authority.to_pem()] {
        fs::write(files.identity_path(), contents).expect("it is ours");
        assert!(matches!(files.load(), Err(FilesError::Credentials { .. })));
    }
    fs::write(files.identity_path(), " ".repeat(1 << 20)).expect("it is ours");
    assert!(matches!(files.load(), Err(FilesError::TooLong { .. })));
    fs::write(files.identity_path(), [0xff; 20]).expect("it is ours");
    assert!(matches!(files.load(), Err(FilesError::Io { what: "read", .. })));
}

#[test]
fn an_administrators_file_may_have_any_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(cluster(1)).expect("an authority");
    let (path, stored) = (directory.path().join("anna.pem"), credentials(&authority, node(1)));
    let node = SocketAddr::from(([10, 77, 0, 1], 7400));
    store_administrator(&path, &stored, node).expect("it can be stored");
    assert_eq!(mode(&path), 0o600);
    let (loaded, named) = load_administrator(&path).expect("credentials");
    assert_eq!((loaded.to_pem(), named), (stored.to_pem(), node));
    replace(&path, stored.to_pem().as_bytes()).expect("it can be replaced");
    assert!(matches!(load_administrator(&path), Err(FilesError::NoNode { .. })));
}
