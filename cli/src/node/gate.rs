//! Stands before all services of a server: looks at who makes each call, and says what was refused, and whose message was none.
//!
//! ```text
//! call ──> by whom? ── may ──> service ──> its answer; one about a message that could not be read is told in the log
//!             └── may not ──> PERMISSION_DENIED, and a line in the log
//! ```

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sterna_transport::{ConnectInfo, Peer, RefusalReason, Refusals, Role};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::access::{self, Needs};

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Where other nodes come in, and administrators with their certificates.
    Network,
    /// On the admin socket: whoever is here may do everything.
    Socket,
}

/// Puts a gate before services.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    door: Door,
    refusals: Arc<Refusals>,
    /// Cancelled when the node shuts down: administrators are not heard any more, other nodes are for a while.
    stopping: CancellationToken,
}

impl Gate {
    /// One at this door, whose refusals are counted and logged there.
    pub(super) fn new(door: Door, refusals: Arc<Refusals>, stopping: CancellationToken) -> Self {
        Self(Arc::new(Rules { door, refusals, stopping }))
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, service: S) -> Gated<S> {
        Gated { rules: Arc::clone(&self.0), service }
    }
}

/// Services behind a gate.
#[derive(Clone, Debug)]
pub(super) struct Gated<S> {
    rules: Arc<Rules>,
    service: S,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (rules, caller) = (Arc::clone(&self.rules), Caller::of(&request));
        if let Err(status) = rules.admit(&caller) {
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        let answer = self.service.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            rules.look_at(&caller, &answer);
            Ok(answer)
        })
    }
}

/// Who calls, and what.
struct Caller {
    info: Option<ConnectInfo>,
    path: String,
}

impl Caller {
    fn of(request: &Request<Body>) -> Self {
        let path = request.uri().path().chars().take(MAX_PATH_CHARS).collect();
        Self { info: request.extensions().get::<ConnectInfo>().cloned(), path }
    }
}

impl Rules {
    fn admit(&self, caller: &Caller) -> Result<(), Status> {
        if self.door == Door::Socket {
            return Ok(());
        }
        let stranger = Peer::Stranger;
        let peer = caller.info.as_ref().map_or(&stranger, |info| &info.peer);
        let needs = access::check(peer, &caller.path).map_err(|denial| {
            self.refused(RefusalReason::NotAllowed, caller, &denial);
            Status::permission_denied(format!("{peer} is refused: {denial}"))
        })?;
        match needs {
            Needs::Role(_) if self.stopping.is_cancelled() => Err(Status::unavailable("the node is shutting down")),
            Needs::Role(role) if role > Role::Viewer => {
                let address = caller.info.as_ref().map(|info| info.address);
                tracing::info!(%peer, ?address, call = caller.path, "an administrator over the network");
                Ok(())
            }
            Needs::Token | Needs::Node | Needs::Role(_) | Needs::Socket => Ok(()),
        }
    }

    /// A message that is too long, or cannot be read: the service has never seen it.
    fn look_at(&self, caller: &Caller, answer: &Response<Body>) {
        let Some(status) = Status::from_header_map(answer.headers()) else { return };
        if matches!(status.code(), Code::OutOfRange | Code::Internal) {
            self.refused(RefusalReason::BadMessage, caller, &status.message());
        }
    }

    fn refused(&self, reason: RefusalReason, caller: &Caller, what: &dyn Display) {
        match &caller.info {
            Some(info) => self.refusals.record_call(reason, &info.peer, &info.address, &caller.path, what),
            None => self.refusals.record_call(reason, &"whoever may", &"the admin socket", &caller.path, what),
        }
    }
}

/// Ours have half of it; longer ones are nobody's, and are not kept for the log.
const MAX_PATH_CHARS: usize = 100;
