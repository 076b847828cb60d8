//! URIs of exports, as `doc/uri.md` of the NetworkBlockDevice project has them.

use std::net::SocketAddr;
use std::path::Path;

/// The URI of an export behind a Unix socket, whose path is absolute.
pub(crate) fn unix(socket: &Path, export: &str) -> String {
    let path = socket.to_string_lossy().split('/').map(percent_encoded).collect::<Vec<_>>().join("/");
    format!("nbd+unix:///{}?socket={path}", percent_encoded(export))
}

/// The URI of an export behind a TCP address.
pub(crate) fn tcp(address: SocketAddr, export: &str) -> String {
    format!("nbd://{address}/{}", percent_encoded(export))
}

fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_mean_something_else_is_encoded() {
        assert_eq!(unix(Path::new("/d/a b/nbd.sock"), "web-1"), "nbd+unix:///web-1?socket=/d/a%20b/nbd.sock");
        assert_eq!(tcp(([127, 0, 0, 1], 10809).into(), "a?b"), "nbd://127.0.0.1:10809/a%3Fb");
    }
}
