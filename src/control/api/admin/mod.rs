//! The operator's routes, under `/admin`, as the reference relay's tools and `goat` call them, and
//! ours. One file a topic.

#![allow(unused_qualifications, reason = "the macro that describes routes writes them")]

mod accounts;
mod audit;
mod consumers;
mod discovery;
mod domains;
mod hosts;
mod limits;
mod mirror;
mod record;
mod settings;
mod siblings;
mod status;

use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use self::{audit::note_changes, settings::restore as restore_settings};
use super::{Shared, explain::explain};

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(hosts::request_crawl))
        .routes(routes!(hosts::list_hosts))
        .routes(routes!(hosts::get_host))
        .routes(routes!(hosts::block))
        .routes(routes!(hosts::unblock))
        .routes(routes!(hosts::reset_cursor))
        .routes(routes!(hosts::upstream_connections))
        .routes(routes!(hosts::kill_upstream))
        .routes(routes!(limits::change_limits))
        .routes(routes!(limits::set_strictness))
        .routes(routes!(domains::list_bans))
        .routes(routes!(domains::ban))
        .routes(routes!(domains::unban))
        .routes(routes!(domains::list_trusted))
        .routes(routes!(domains::trust))
        .routes(routes!(domains::distrust))
        .routes(routes!(accounts::take_down))
        .routes(routes!(accounts::reverse_takedown))
        .routes(routes!(accounts::list_takedowns))
        .routes(routes!(accounts::get_account))
        .routes(routes!(consumers::list))
        .routes(routes!(consumers::kick))
        .routes(routes!(settings::get_enabled))
        .routes(routes!(settings::set_enabled))
        .routes(routes!(settings::per_day_limit))
        .routes(routes!(settings::set_per_day_limit))
        .routes(routes!(settings::get_settings, settings::set_settings))
        .routes(routes!(siblings::list))
        .routes(routes!(siblings::retry))
        .routes(routes!(discovery::list))
        .routes(routes!(discovery::run))
        .routes(routes!(discovery::refused))
        .routes(routes!(audit::list))
        .routes(routes!(status::signatures))
        .routes(routes!(status::log))
        .routes(routes!(status::stats))
        .route("/admin/explain", axum::routing::get(explain))
        .route("/admin/stats/stream", axum::routing::get(status::stream))
        .routes(routes!(mirror::compact_all))
        .routes(routes!(mirror::compact))
        .routes(routes!(mirror::reset))
        .routes(routes!(mirror::verify))
        .routes(routes!(mirror::resync_progress, mirror::resync))
}
