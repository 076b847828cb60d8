//! What other migrators ask of a host.

use std::sync::Arc;

use sterna_proto::migrator::carry_request::Step as Request;
use sterna_proto::migrator::migrations_server::Migrations;
use sterna_proto::migrator::{
    AskReply, AskRequest, CarryReply, CarryRequest, ExamineReply, ExamineRequest, GiveUpRequest, PrepareReply,
    PrepareRequest, ProbeReply, ProbeRequest,
};
use sterna_types::names::InvalidName;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::{Host, Incoming};
use crate::peer::{Outcome, carry_here};
use crate::probe;
use crate::service::asked_rate;
use crate::volumes::Place;

/// What other migrators ask of a host.
#[derive(Clone)]
pub struct MigrationsService(pub Arc<Host>);

#[tonic::async_trait]
impl Migrations for MigrationsService {
    type CarryStream = ReceiverStream<Result<CarryReply, Status>>;
    type ProbeStream = ReceiverStream<Result<ProbeReply, Status>>;

    async fn examine(&self, request: tonic::Request<ExamineRequest>) -> Result<Response<ExamineReply>, Status> {
        let announced = self.0.announced(request.into_inner().vm)?;
        Ok(Response::new(ExamineReply { obstacles: self.0.try_out(&announced).await?, prediction: None }))
    }

    async fn prepare(&self, request: tonic::Request<PrepareRequest>) -> Result<Response<PrepareReply>, Status> {
        let PrepareRequest { migration, vm, from_site, from_node, token, rate } = request.into_inner();
        let (id, known) = self.0.find(&migration)?;
        if known.is_some() {
            return Ok(Response::new(PrepareReply::default()));
        }
        let invalid = |error: InvalidName| Status::invalid_argument(error.to_string());
        let from = Place { site: from_site.parse().map_err(invalid)?, node: from_node.parse().map_err(invalid)? };
        let (announced, rate) = (self.0.announced(vm)?, asked_rate(rate)?);
        // Who asks may go away; what has begun is brought to an end.
        let host = Arc::clone(&self.0);
        let taking = tokio::spawn(async move {
            host.admit(id, &announced, &from, &token, rate).await?;
            host.take_in(id, announced, from).await
        });
        let obstacles = taking.await.map_err(|panic| Status::internal(panic.to_string()))??;
        Ok(Response::new(PrepareReply { obstacles }))
    }

    async fn carry(
        &self,
        request: tonic::Request<Streaming<CarryRequest>>,
    ) -> Result<Response<Self::CarryStream>, Status> {
        let mut requests = request.into_inner();
        let Some(CarryRequest { step: Some(Request::From(from)) }) = requests.message().await? else {
            return Err(Status::invalid_argument("the first message says which migration is carried"));
        };
        let (_, known) = self.0.find(&from.migration)?;
        let known = known.ok_or_else(|| Status::not_found("no such migration comes here"))?;
        let carrier = known.carrier.ok_or_else(|| Status::failed_precondition("it is over"))?;
        let (replies, stream) = mpsc::channel(REPLIES);
        let outcome = known.outcome.subscribe();
        tokio::spawn(async move {
            let end = carry_here(&from, requests, replies, &carrier, outcome).await;
            tracing::info!(%end, "a connection of a migration to here has ended");
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn probe(
        &self,
        request: tonic::Request<Streaming<ProbeRequest>>,
    ) -> Result<Response<Self::ProbeStream>, Status> {
        let (replies, stream) = mpsc::channel(REPLIES);
        tokio::spawn(probe::answer(request.into_inner(), replies));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn ask(&self, request: tonic::Request<AskRequest>) -> Result<Response<AskReply>, Status> {
        let (_, known) = self.0.find(&request.into_inner().migration)?;
        Ok(Response::new(reply(known.as_ref())))
    }

    async fn give_up(&self, request: tonic::Request<GiveUpRequest>) -> Result<Response<AskReply>, Status> {
        let GiveUpRequest { migration, why } = request.into_inner();
        let (id, known) = self.0.find(&migration)?;
        if let Some(known) = &known {
            tracing::info!(migration = %id, %why, "the source gives a migration up");
            known.decide().await;
        }
        Ok(Response::new(reply(known.as_ref())))
    }

    async fn forget(&self, request: tonic::Request<GiveUpRequest>) -> Result<Response<AskReply>, Status> {
        let (id, known) = self.0.find(&request.into_inner().migration)?;
        match &known {
            Some(known) => {
                known.decide().await;
                known.forgotten.send_replace(true);
            }
            None => self.0.never(id),
        }
        Ok(Response::new(reply(known.as_ref())))
    }
}

fn reply(known: Option<&Incoming>) -> AskReply {
    let outcome = known.map_or(Outcome::Unknown, |known| *known.outcome.borrow());
    let waited = known.and_then(|known| *known.waited.borrow());
    let waited_for_volumes_us = waited.map(|waited| u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
    let mut reply = AskReply { waited_for_volumes_us, ..AskReply::default() };
    reply.set_outcome(outcome.into());
    reply
}

/// Of the return path, and how far it is: little.
const REPLIES: usize = 4;
