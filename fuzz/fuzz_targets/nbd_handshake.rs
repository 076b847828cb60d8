//! Any bytes, in any pieces, to the handshake. The first byte chooses the TLS terms and the length of the pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_nbd_server::checks;
use sterna_nbd_server::handshake::TlsTerms;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, input)) = data.split_first() else { return };
    let terms = [TlsTerms::Off, TlsTerms::Offered, TlsTerms::Required][usize::from(choice % 3)];
    checks::handshake(terms, input, usize::from(choice / 3) + 1);
});
