//! Who comes in on the admin socket: whoever its permission lets in, though not for ever without a word, and not without number.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use sterna_transport::{Refusals, Watched};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

/// The connections that come in on a socket. They end with what is returned.
pub(in crate::node) fn open(
    listener: UnixListener,
    refusals: Arc<Refusals>,
) -> impl Stream<Item = Result<Watched<UnixStream>, Infallible>> {
    let (sender, accepted) = mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            () = accept(&listener, &refusals, &sender) => {}
            () = sender.closed() => {}
        }
    });
    ReceiverStream::new(accepted)
}

async fn accept(
    listener: &UnixListener,
    refusals: &Arc<Refusals>,
    accepted: &mpsc::Sender<Result<Watched<UnixStream>, Infallible>>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Nobody closes the semaphore.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = Watched::new(stream, &"the admin socket", Arc::clone(refusals)).holding(place);
                if accepted.send(Ok(connection)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // Out of descriptors, say: whoever connects waits meanwhile.
                tracing::warn!(%error, "a connection to the admin socket could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A person has one at a time, a program a few; one more waits until another one has gone.
const MAX_CONNECTIONS: usize = 128;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
