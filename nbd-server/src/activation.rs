//! Sockets that systemd, or whoever starts programs in its manner, has opened already (`sd_listen_fds(3)`).

use std::io;

use listenfd::ListenFd;

use crate::server::Listener;

/// The listening sockets that this process was started with, Unix and TCP; none where it was started without.
///
/// The environment says so to one process and one time: a second call returns none.
///
/// # Errors
/// A descriptor that is neither a listening Unix socket nor a listening TCP socket.
pub fn inherited_listeners() -> io::Result<Vec<Listener>> {
    let mut inherited = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..inherited.len() {
        // Asking for the wrong kind leaves the descriptor where it is.
        let listener = match inherited.take_unix_listener(index) {
            Ok(unix) => unix.map(Listener::Unix),
            Err(_) => inherited.take_tcp_listener(index)?.map(Listener::Tcp),
        };
        listeners.extend(listener);
    }
    Ok(listeners)
}
