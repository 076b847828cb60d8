//! Any bytes as `sterna.toml`: settings within their bounds, or an error that names the file and says what is wrong.
#![no_main]

use std::path::Path;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sterna_cli::node::config::{Config, ConfigError};

fuzz_target!(|data: &[u8]| {
    check(data);
    // Names of settings are hard to guess.
    for key in KEYS {
        check(&[key.as_bytes(), data].concat());
    }
});

fn check(bytes: &[u8]) {
    match Config::parse(bytes, Path::new("/data/sterna.toml")) {
        Ok(config) => check_bounds(&config),
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("/data/sterna.toml"), "{text}");
            match error {
                ConfigError::Syntax { what, .. } => assert!(!what.is_empty()),
                ConfigError::Value { key, value, remedy, .. } => {
                    assert!(text.contains(key) && text.contains(&value) && text.contains(remedy), "{text}");
                }
                ConfigError::Read { .. } => panic!("there is nothing to read: {text}"),
            }
        }
    }
}

fn check_bounds(config: &Config) {
    let nbd = &config.nbd;
    assert!(nbd.listen.len() <= 64 && nbd.lanes <= 256, "{config:?}");
    let authority = nbd.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
    assert!(nbd.listen.is_empty() || authority.is_some(), "{config:?}");
    let options = &config.storage.options;
    assert!((1 << 20..=16 << 30).contains(&options.seal_after_bytes), "{config:?}");
    assert!((Duration::from_millis(100)..=Duration::from_secs(600)).contains(&options.seal_age), "{config:?}");
    assert!((64 << 20..=64 << 30).contains(&options.journal_limit_bytes), "{config:?}");
    assert!(options.seal_after_bytes * 2 <= options.journal_limit_bytes, "{config:?}");
    assert!((128 << 20..=1 << 40).contains(&options.reserve_bytes), "{config:?}");
    let caches = [options.node_cache_bytes, config.storage.index_cache_bytes as u64];
    for bytes in caches.into_iter().chain([options.segment_cache_bytes]) {
        assert!((1 << 20..=1 << 40).contains(&bytes), "{config:?}");
    }
    assert!((1..=64).contains(&config.storage.seals_at_once), "{config:?}");
}

const KEYS: [&str; 13] = [
    "[nbd]\nlisten = ",
    "[nbd]\nlanes = ",
    "[nbd.tls]\ncertificate = \"a\"\nkey = ",
    "[nbd.access]\nweb = { read_write = ",
    "[journal]\nseal_after = ",
    "[journal]\nseal_age = ",
    "[journal]\nlimit = ",
    "[journal]\nseals_at_once = ",
    "[space]\nreserve = ",
    "[memory]\nsegment_cache = ",
    "[memory]\nnode_cache = ",
    "[memory]\nindex_cache = ",
    "[nbd]\nlanes = 2\n",
];
