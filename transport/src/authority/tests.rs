//! What is in the certificates that an authority makes.

use super::*;
use crate::subject::Role;
use crate::testing::{administrator, cluster, node};

const HOUR: Duration = Duration::from_secs(3600);

fn authority() -> Authority {
    Authority::create(cluster(1)).expect("an authority")
}

fn request() -> CertificateRequest {
    PrivateKey::generate().expect("a key").request().expect("a request")
}

#[test]
fn an_authority_says_whose_it_is_and_may_sign_for_nobody_else() {
    let authority = authority();
    let certificate = parse(authority.certificate().der()).expect("a certificate");
    assert_eq!(authority.cluster(), cluster(1));
    assert_eq!(certificate.subject().to_string(), format!("CN=Sterna cluster {}", cluster(1)));
    let constraints = certificate.basic_constraints().expect("one").expect("basic constraints");
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = certificate.key_usage().expect("one").expect("key usage");
    assert!(usage.critical && usage.value.key_cert_sign() && !usage.value.digital_signature());
    let names = certificate.name_constraints().expect("one").expect("name constraints");
    assert!(names.critical && format!("{:?}", names.value).contains(&format!("{}.sterna", cluster(1))));
    let lifetime = authority.certificate().validity();
    assert!(lifetime.not_before < SystemTime::now() - BACKDATING / 2);
    assert!(lifetime.not_after > SystemTime::now() + AUTHORITY_LIFETIME - HOUR);
}

#[test]
fn a_node_may_be_both_ends_and_an_administrator_only_one() {
    let authority = authority();
    for (subject, server) in [(node(3), true), (administrator("anna", Role::Operator), false)] {
        let signed = authority.sign(&request(), &subject, HOUR).expect("a certificate");
        assert_eq!(signed.identity(), &Identity { cluster: cluster(1), subject });
        let certificate = parse(signed.der()).expect("a certificate");
        assert!(!certificate.is_ca());
        let usage = certificate.extended_key_usage().expect("one").expect("extended key usage").value;
        assert_eq!((usage.server_auth, usage.client_auth, usage.any), (server, true, false));
        let names = certificate.subject_alternative_name().expect("one").expect("names").value;
        assert_eq!(names.general_names.len(), 1);
    }
}

#[test]
fn only_the_key_of_a_request_is_taken() {
    let mut params = CertificateParams::new(vec!["node-1.example".to_owned()]).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key");
    let request = CertificateRequest::from_der(params.serialize_request(&key).expect("a request").der());
    let signed = authority().sign(&request.expect("the request"), &node(7), HOUR).expect("a certificate");
    assert_eq!(signed.identity().subject, node(7));
    let certificate = parse(signed.der()).expect("a certificate");
    assert!(!certificate.is_ca());
    assert!(!certificate.key_usage().expect("one").expect("key usage").value.key_cert_sign());
    assert_eq!(certificate.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));
}

#[test]
fn no_two_certificates_have_one_serial_number() {
    let (authority, request) = (authority(), request());
    let serials = [(); 2].map(|()| {
        let signed = authority.sign(&request, &node(1), HOUR).expect("a certificate");
        parse(signed.der()).expect("a certificate").raw_serial().to_owned()
    });
    assert_ne!(serials[0], serials[1]);
    assert!(serials.iter().all(|serial| serial.len() <= 17));
}

#[test]
fn a_certificate_ends_no_later_than_its_authority() {
    let authority = authority();
    let signed = authority.sign(&request(), &node(1), Duration::MAX).expect("a certificate");
    assert_eq!(signed.not_after(), authority.certificate().validity().not_after);
}

#[test]
fn an_authority_that_has_ended_signs_nothing() {
    let authority = authority();
    let ended = authority.certificate().validity().not_after;
    let moments = Moments { not_before: ended, not_after: ended + HOUR };
    let refused = authority.sign_between(&request(), &node(1), moments).expect_err("an authority that has ended");
    assert!(matches!(refused, AuthorityError::Ended { .. }), "{refused}");
}

#[test]
fn a_certificate_is_to_be_renewed_after_two_thirds_of_its_time() {
    let moments =
        Moments { not_before: SystemTime::UNIX_EPOCH + 10 * HOUR, not_after: SystemTime::UNIX_EPOCH + 40 * HOUR };
    let signed = authority().sign_between(&request(), &node(1), moments).expect("a certificate");
    assert_eq!(signed.renewal_due_at(), SystemTime::UNIX_EPOCH + 30 * HOUR);
    assert_eq!(signed.not_after(), SystemTime::UNIX_EPOCH + 40 * HOUR);
}

#[test]
fn an_authority_reads_back_as_it_was_written() {
    let authority = authority();
    let read = Authority::from_pem(&authority.to_pem()).expect("the authority");
    assert_eq!(read.certificate(), authority.certificate());
    let signed = read.sign(&request(), &node(1), HOUR).expect("a certificate");
    assert_eq!(signed.identity().cluster, cluster(1));
}

#[test]
fn an_authority_with_the_key_of_another_is_refused() {
    let [one, other] = [authority(), authority()];
    let key = sections::encode(sections::PRIVATE_KEY, one.key.to_pkcs8());
    let refused = Authority::from_pem(&(key.clone() + &other.certificate.to_pem())).expect_err("a key of another");
    assert!(matches!(refused, InvalidAuthorityText::Mismatch));
    assert!(matches!(Authority::from_pem(&key), Err(InvalidAuthorityText::Sections(_))));
    assert!(matches!(Authority::from_pem(""), Err(InvalidAuthorityText::Sections(_))));
    let twice = one.to_pem() + &one.certificate.to_pem();
    assert!(matches!(Authority::from_pem(&twice), Err(InvalidAuthorityText::Certificates { count: 2 })));
}

#[test]
fn a_nodes_certificate_is_no_authority() {
    let signed = authority().sign(&request(), &node(1), HOUR).expect("a certificate");
    assert!(matches!(AuthorityCertificate::from_der(signed.der()), Err(InvalidAuthority::NoAuthority)));
}

#[test]
fn no_secret_is_shown() {
    let authority = authority();
    let shown = format!("{authority:?} {:?}", authority.key);
    assert!(!shown.contains(&format!("{:?}", authority.key.to_pkcs8())) && shown.contains("PrivateKey(…)"), "{shown}");
}
