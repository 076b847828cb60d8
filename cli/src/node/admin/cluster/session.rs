//! How long nodes' sessions last.

use std::sync::Arc;
use std::time::Duration;

use sterna_consensus::Metadata;
use sterna_consensus::session::keeper::RENEWALS_PER_SESSION;
use sterna_consensus::session::{holds_for, lapses_after};
use sterna_consensus::state::command::Command;
use sterna_consensus::state::session::SessionLength;
use sterna_proto::cluster;
use tonic::Status;

use crate::node::admin::lookup::metadata;
use crate::node::admin::status::IntoStatus;
use crate::node::node::Node;

/// As they are.
pub(super) async fn show(node: &Node) -> Result<cluster::Sessions, Status> {
    Ok(shown(&*metadata(node).await?))
}

/// Another length, from each session's next renewal on.
pub(super) async fn set_length(
    node: Arc<Node>,
    request: cluster::SetSessionLengthRequest,
) -> Result<cluster::Sessions, Status> {
    let length = SessionLength::try_from(Duration::from_millis(request.length_ms));
    let length = length.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let set = node.metadata.propose(Command::SetSessionLength { length }).await;
    set.map_err(|error| error.about("the length of sessions"))?;
    Ok(shown(&node.metadata.read()))
}

fn shown(metadata: &Metadata) -> cluster::Sessions {
    let length = metadata.session_length();
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    cluster::Sessions {
        length_ms: ms(length.duration()),
        renewal_ms: ms(length.duration() / RENEWALS_PER_SESSION),
        silent_after_ms: ms(holds_for(length)),
        lapsed_after_ms: ms(lapses_after(length)),
    }
}
