//! Who reads the firehose.

use axum::{Json, extract::State};
use ports::{ConsumerId, ShardCommand};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::api::{
    Shared,
    consumer::ConsumerRecord,
    input::Input,
    reply::{ApiError, Reply, Success, success},
};

/// The connected consumers, with how far each is behind the newest event.
#[utoipa::path(
    get, path = "/admin/consumers/list", tag = "admin: consumers",
    responses((status = 200, body = [ConsumerRecord]))
)]
pub(super) async fn list(State(shared): State<Shared>) -> Reply<Vec<ConsumerRecord>> {
    Ok(Json(shared.consumers.list(shared.log.bounds().newest)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct KickInput {
    /// As in the list.
    id: u64,
}

/// Closes the connection of a consumer, which may come back.
#[utoipa::path(
    post, path = "/admin/consumers/kick", tag = "admin: consumers", params(KickInput),
    responses((status = 200, body = Success))
)]
pub(super) async fn kick(
    State(shared): State<Shared>,
    Input(input): Input<KickInput>,
) -> Reply<Success> {
    let id = ConsumerId(input.id);
    let Some(shard) = shared.consumers.shard_of(id) else {
        let message = format!("there is no consumer {id}; see consumers/list");
        return Err(ApiError::not_found("ConsumerNotFound", message));
    };
    shared.shards.send(shard, ShardCommand::DropConsumer(id));
    success()
}
