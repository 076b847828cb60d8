//! Tokens as texts.

use super::*;
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, proptest};

use crate::testing::cluster;

fn tokens() -> impl Strategy<Value = JoinToken> {
    let address = any::<(IpAddr, u16)>().prop_map(SocketAddr::from);
    (any::<([u8; 16], [u8; 32], u64, [u8; 16])>(), vec(address, 1..=MAX_TOKEN_ADDRESSES)).prop_map(
        |((cluster, authority, id, secret), addresses)| {
            let (cluster, authority) = (ClusterId::from_bytes(cluster), Fingerprint::from_bytes(authority));
            JoinToken::new(cluster, authority, TokenId(id), TokenSecret(secret), addresses).expect("1 to 8 addresses")
        },
    )
}

fn token() -> JoinToken {
    let addresses = vec!["10.77.0.1:7400".parse().expect("an address"), "[fd00::1]:7400".parse().expect("an address")];
    let authority = Fingerprint::from_bytes([7; 32]);
    JoinToken::new(cluster(1), authority, TokenId(5), TokenSecret([9; 16]), addresses).expect("two addresses")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_token_reads_back_as_it_was_written(token in tokens()) {
        let text = token.to_text();
        prop_assert!(text.len() <= MAX_TOKEN_BYTES);
        let read: JoinToken = format!(" {text}\n").parse().expect("a token");
        prop_assert_eq!(read.to_text(), text);
        prop_assert_eq!((read.cluster(), read.authority()), (token.cluster(), token.authority()));
        prop_assert_eq!(read.id(), token.id());
        prop_assert_eq!(read.secret().as_bytes(), token.secret().as_bytes());
        prop_assert_eq!(read.addresses(), token.addresses());
    }

    #[test]
    fn no_bytes_behind_a_valid_checksum_make_the_parser_panic(mut bytes in vec(any::<u8>(), 0..200)) {
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        let text = format!("sterna-join-1-{}", hex::encode(&bytes));
        if let Ok(token) = text.parse::<JoinToken>() {
            prop_assert_eq!(token.to_text(), text);
        }
    }

    #[test]
    fn no_text_is_taken_for_a_token(text in "(sterna-join-)?[0-9]{0,12}-?\\PC{0,40}") {
        prop_assert!(text.parse::<JoinToken>().is_err());
    }
}

#[test]
fn a_token_with_one_character_wrong_missing_or_too_many_is_refused() {
    let text = token().to_text();
    for at in 0..text.len() {
        let (before, after) = (&text[..at], &text[at + 1..]);
        assert!(format!("{before}{after}").parse::<JoinToken>().is_err(), "the character at {at} is missing");
        for wrong in (0x20..0x7f).map(char::from).chain(['é', '\n']) {
            let inserted = format!("{before}{wrong}{}", &text[at..]);
            assert!(inserted.trim() == text || inserted.parse::<JoinToken>().is_err(), "'{wrong}' was added at {at}");
            if !text[at..].starts_with(wrong) {
                let damaged = format!("{before}{wrong}{after}");
                assert!(damaged.parse::<JoinToken>().is_err(), "'{wrong}' was taken at {at}");
            }
        }
    }
}

#[test]
fn an_error_says_what_is_wrong() {
    let text = token().to_text();
    let error = |text: &str| text.parse::<JoinToken>().expect_err("no token");
    assert_eq!(error("hello"), InvalidToken::NotAToken);
    assert_eq!(error(""), InvalidToken::NotAToken);
    assert_eq!(error(&text.replacen("join-1-", "join-2-", 1)), InvalidToken::Newer { version: 2 });
    assert_eq!(error(&text.replacen("join-1-", "join-01-", 1)), InvalidToken::Damaged);
    assert_eq!(error(&text[..text.len() - 2]), InvalidToken::Damaged);
    assert_eq!(error(&text.to_uppercase()), InvalidToken::NotAToken);
    assert_eq!(error(&(text + &"0".repeat(1 << 20))), InvalidToken::Damaged);
    assert_eq!(error("sterna-join-1"), InvalidToken::Damaged);
}

#[test]
fn a_token_has_one_to_eight_addresses() {
    for count in [0, MAX_TOKEN_ADDRESSES + 1] {
        let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 7400)); count];
        let refused =
            JoinToken::new(cluster(1), Fingerprint::from_bytes([0; 32]), TokenId(1), TokenSecret([0; 16]), addresses);
        assert_eq!(refused.expect_err("no token"), InvalidTokenAddresses { count });
    }
}

#[test]
fn a_hash_knows_its_secret_and_no_other() {
    let secret = TokenSecret::generate().expect("a secret");
    let hash = SecretHash::from_bytes(*secret.hash().as_bytes());
    assert!(hash.matches(&secret));
    assert!(hash.matches(&TokenSecret::from_bytes(*secret.as_bytes())));
    for bit in 0..128 {
        let mut other = *secret.as_bytes();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(!hash.matches(&TokenSecret(other)));
    }
}

#[test]
fn no_secret_is_shown() {
    let shown = format!("{:?}", token());
    assert!(shown.contains("TokenSecret(…)") && !shown.contains("9, 9"), "{shown}");
}

#[test]
fn an_id_is_written_as_16_digits() {
    assert_eq!(TokenId(5).to_string(), "0000000000000005");
    assert_eq!("0000000000000005".parse(), Ok(TokenId(5)));
    for text in ["5", "000000000000000A", "", "00000000000000000"] {
        assert!(text.parse::<TokenId>().is_err(), "{text} was taken for an id");
    }
}
