//! A VM's volumes, as the node beside the migrator has them: who owns them, and their way to another site.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use sterna_proto::admin::admin_client::AdminClient;
use sterna_proto::admin::move_in_steps_request::Step as Ask;
use sterna_proto::admin::move_volumes_reply::Step as Told;
use sterna_proto::admin::{
    self, HandOver, MoveInStepsRequest, MoveReady, MoveResult, MoveVolumesRequest, PrepareMove, ShowVolumeRequest,
};
use sterna_types::{Epoch, NodeId, NodeName, SiteName, VolumeId, VolumeName};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::phase::Volumes;
use crate::token;

/// A node that answers for volumes.
#[derive(Clone, Debug)]
pub struct Node {
    client: AdminClient<Channel>,
    place: Place,
}

/// Where volumes and a VM are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The site.
    pub site: SiteName,
    /// Which of its nodes.
    pub node: NodeName,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, node } = self;
        write!(f, "{node} at {site}")
    }
}

/// What a node could not be asked, or has answered.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// It has refused, or does not answer.
    #[error("{}", .0.message())]
    Status(Box<Status>),
    /// It has said what it does not say.
    #[error("the node has said what is none of its answers: {0}")]
    Unexpected(String),
}

impl From<Status> for NodeError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Node {
    /// The node behind this channel.
    ///
    /// # Errors
    /// [`NodeError`]: it does not answer.
    ///
    /// # Cancel safety
    /// Dropped, it changes nothing.
    pub async fn meet(channel: Channel) -> Result<Self, NodeError> {
        let mut client = AdminClient::new(channel);
        let status = client.status(admin::StatusRequest {}).await?.into_inner();
        let place = Place { site: parsed(&status.site)?, node: parsed(&status.node)? };
        Ok(Self { client, place })
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The migrators at a site that can be reached, or the one beside this node of it.
    ///
    /// # Errors
    /// [`NodeError`]: it does not answer, or there is no such site or node.
    ///
    /// # Cancel safety
    /// Dropped, it changes nothing.
    pub async fn find_migrators(
        &self,
        site: &SiteName,
        node: Option<&NodeName>,
    ) -> Result<Vec<FoundMigrator>, NodeError> {
        let request = admin::FindMigratorsRequest {
            site: site.to_string(),
            node: node.map(ToString::to_string).unwrap_or_default(),
        };
        let found = self.client.clone().find_migrators(request).await?.into_inner().migrators;
        let understood = found.into_iter().map(|found| {
            let place = Place { site: site.clone(), node: parsed(&found.node)? };
            Ok(FoundMigrator { place, node: NodeId(found.node_id), address: parsed(&found.address)? })
        });
        understood.collect()
    }

    /// Where volumes are, by what the metadata says now: [`Volumes::Here`] where this node owns all of them and hands none over, and
    /// [`Volumes::There`] where it owns none. Anything between is [`Volumes::UnderWay`].
    ///
    /// # Errors
    /// [`NodeError`]: it does not answer, or does not know one of them.
    ///
    /// # Cancel safety
    /// Dropped, it changes nothing.
    pub async fn whereabouts(&self, volumes: &[VolumeName]) -> Result<Volumes, NodeError> {
        let (mut owned, mut passing) = (0, 0);
        for volume in volumes {
            let request = ShowVolumeRequest { name: volume.to_string(), count_map: false };
            let shown = self.client.clone().show_volume(request).await?.into_inner().volume.unwrap_or_default();
            owned += usize::from(shown.owner == self.place.node.as_str());
            passing += usize::from(!shown.moving_to.is_empty());
        }
        Ok(match owned {
            _ if passing > 0 => Volumes::UnderWay,
            owned if owned == volumes.len() => Volumes::Here,
            0 => Volumes::There,
            _ => Volumes::UnderWay,
        })
    }

    /// How volumes of this node are used, and what of them is at a site already.
    ///
    /// # Errors
    /// [`NodeError`]: it does not answer, or does not know one of them.
    ///
    /// # Cancel safety
    /// Dropped, it changes nothing.
    pub async fn use_of(&self, volumes: &[VolumeName], site: &SiteName) -> Result<Use, NodeError> {
        let mut sum = Use::default();
        for volume in volumes {
            let (mut client, name) = (self.client.clone(), volume.to_string());
            let shown =
                client.show_volume(ShowVolumeRequest { name: name.clone(), count_map: true }).await?.into_inner();
            let replicas =
                client.list_replicas(admin::ListReplicasRequest { volume: name }).await?.into_inner().replicas;
            let there = replicas.iter().find(|replica| replica.site == site.as_str() && replica.complete.is_some());
            let (open, map) = (shown.open.unwrap_or_default(), shown.map.unwrap_or_default());
            let lacking = there.map_or(map.mapped_bytes, |replica| replica.behind_bytes);
            sum.hot_bytes += open.hot_bytes.min(lacking);
            sum.lacking_bytes += lacking;
            sum.warm_bytes += open.warm_bytes.min(lacking);
        }
        Ok(sum)
    }

    /// Volumes with the epochs that they are in, by what the metadata says now.
    ///
    /// # Errors
    /// [`NodeError`]: it does not answer, or does not know one of them.
    ///
    /// # Cancel safety
    /// Dropped, it changes nothing.
    pub async fn epochs(&self, volumes: &[VolumeName]) -> Result<token::Volumes, NodeError> {
        let mut epochs = token::Volumes::new();
        for volume in volumes {
            let request = ShowVolumeRequest { name: volume.to_string(), count_map: false };
            let shown = self.client.clone().show_volume(request).await?.into_inner().volume.unwrap_or_default();
            let epoch = Epoch::from_number(shown.epoch);
            let epoch = epoch.ok_or_else(|| NodeError::Unexpected(format!("volume '{volume}' has no epoch")))?;
            epochs.insert(VolumeId(shown.id), epoch);
        }
        Ok(epochs)
    }

    /// Waits until this node serves volumes, which another one has handed over; that is known here before the metadata says it.
    ///
    /// # Errors
    /// [`NodeError`]: it does not answer any more, or one of them is deleted.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn until_served(&self, volumes: &[VolumeName]) -> Result<(), NodeError> {
        let volumes = volumes.iter().map(ToString::to_string).collect();
        self.client.clone().await_volumes(admin::AwaitVolumesRequest { volumes }).await?;
        Ok(())
    }

    /// Has who was attached to volumes here before they were handed over go on with them, now that they are back.
    ///
    /// # Errors
    /// [`NodeError`]: it does not answer, or does not own them.
    ///
    /// # Cancel safety
    /// Dropped, it is done or not; again it does the same.
    pub async fn resume_clients(&self, volumes: &[VolumeName]) -> Result<(), NodeError> {
        let volumes = volumes.iter().map(ToString::to_string).collect();
        self.client.clone().resume_clients(admin::ResumeClientsRequest { volumes }).await?;
        Ok(())
    }

    /// Begins to bring volumes of this node to another one: what is hot of them where a VM goes with them, and nothing where they go back. They
    /// are prepared, and then handed over, when it is told so; who drops what is returned before that keeps them.
    pub fn pass(&self, volumes: &[VolumeName], to: &Place, purpose: Purpose) -> Passage {
        let (require, token) = match purpose {
            Purpose::Migration(token) => ("hot", Some(token)),
            Purpose::Return => ("none", None),
        };
        let request = MoveVolumesRequest {
            volumes: volumes.iter().map(ToString::to_string).collect(),
            site: to.site.to_string(),
            node: to.node.to_string(),
            require: require.to_owned(),
        };
        let (ask, asked) = mpsc::channel(REQUESTS);
        let (tell, told) = watch::channel(PassageState::Bringing { bytes: 0 });
        let mut client = self.client.clone();
        let first = MoveInStepsRequest { step: Some(Ask::Bring(request)), token };
        let said = ask.clone();
        let listening = tokio::spawn(async move {
            let ended = async {
                said.send(first).await.map_err(|_| Status::cancelled("nobody waits for it"))?;
                let replies = client.move_in_steps(ReceiverStream::new(asked)).await?.into_inner();
                listen(replies, &tell).await
            };
            let result = ended.await.map_err(|status| Arc::new(NodeError::from(status)));
            tell.send_replace(result.map_or_else(PassageState::Failed, PassageState::Passed));
        });
        Passage { ask, told, _listening: AbortOnDropHandle::new(listening) }
    }
}

/// Why volumes go to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A VM goes with them, by this token; it is empty where there is none.
    Migration(Vec<u8>),
    /// They were handed over for a VM that does not come to run here.
    Return,
}

/// Volumes on their way to another site.
#[derive(Debug)]
pub struct Passage {
    ask: mpsc::Sender<MoveInStepsRequest>,
    told: watch::Receiver<PassageState>,
    _listening: AbortOnDropHandle<()>,
}

/// How far volumes have come on their way.
#[derive(Clone, Debug)]
pub enum PassageState {
    /// What is hot is brought there: so many bytes until now.
    Bringing {
        /// Bytes.
        bytes: u64,
    },
    /// It is there, and kept up to date; they can be prepared.
    Brought {
        /// Bytes.
        bytes: u64,
    },
    /// The other node has made room, and what is left is one message.
    Ready(MoveReady),
    /// Its node owns them.
    Passed(MoveResult),
    /// Nothing was handed over, or it is not known: the metadata knows.
    Failed(Arc<NodeError>),
}

impl Passage {
    /// How far it is now.
    pub fn look(&mut self) -> PassageState {
        self.told.borrow_and_update().clone()
    }

    /// Waits until it is further than at the last look, or nothing more is heard of it.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn changed(&mut self) -> bool {
        self.told.changed().await.is_ok()
    }

    /// Has the other node make room, once what is hot is there.
    ///
    /// # Cancel safety
    /// As of [`hand_over`](Self::hand_over).
    pub async fn prepare(&self) {
        self.say(Ask::Prepare(PrepareMove {})).await;
    }

    /// Has them handed over. From here on it is for the metadata to say whose they are.
    ///
    /// # Cancel safety
    /// Dropped before it returns, the word may have been given or not.
    pub async fn hand_over(&self) {
        self.say(Ask::HandOver(HandOver {})).await;
    }

    async fn say(&self, step: Ask) {
        // Where nobody takes it the passage has ended, and its state says how.
        let _ = self.ask.send(MoveInStepsRequest { step: Some(step), token: None }).await;
    }
}

async fn listen(
    mut replies: Streaming<admin::MoveVolumesReply>,
    tell: &watch::Sender<PassageState>,
) -> Result<MoveResult, Status> {
    while let Some(reply) = replies.message().await? {
        match reply.step {
            Some(Told::Progress(progress)) => {
                tell.send_replace(PassageState::Bringing { bytes: progress.done_bytes });
            }
            Some(Told::Brought(brought)) => {
                tell.send_replace(PassageState::Brought { bytes: brought.pre_copied_bytes });
            }
            Some(Told::Ready(ready)) => {
                tell.send_replace(PassageState::Ready(ready));
            }
            Some(Told::Result(result)) => return Ok(result),
            None => {}
        }
    }
    Err(Status::unavailable("the node has said nothing more"))
}

/// How volumes are used, in bytes, of what a site lacks of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// What is brought there before they go there.
    pub hot_bytes: u64,
    /// What is read too, and not brought: it is written as much.
    pub warm_bytes: u64,
    /// All that it lacks.
    pub lacking_bytes: u64,
}

/// A migrator that can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundMigrator {
    /// The node beside it.
    pub place: Place,
    /// That node's number.
    pub node: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
}

fn parsed<T: FromStr>(text: &str) -> Result<T, NodeError>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|error: T::Err| NodeError::Unexpected(error.to_string()))
}

/// What is to move, that it is to be prepared, and when.
const REQUESTS: usize = 3;
