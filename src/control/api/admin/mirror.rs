//! Routes of a relay that keeps copies of repositories. This one keeps none: each says so, in a way
//! that scripts written for such relays can tell from a failure.

use http::StatusCode;

use crate::api::reply::ApiError;

fn disabled() -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        "MirrorDisabled",
        "this relay keeps no copies of repositories: there is nothing to compact, reset, verify or \
         resync. Events are verified as they pass",
    )
}

macro_rules! mirror_routes {
    ($($(#[doc = $doc:literal])* $method:ident $name:ident $path:literal,)*) => {
        $(
            $(#[doc = $doc])*
            #[utoipa::path(
                $method, path = $path, tag = "admin: mirror",
                responses((status = 400, description = "`MirrorDisabled`",
                           body = crate::api::reply::ErrorBody))
            )]
            pub(super) async fn $name() -> ApiError {
                disabled()
            }
        )*
    };
}

mirror_routes! {
    /// Compacts all repositories of a mirror.
    post compact_all "/admin/repo/compactAll",
    /// Compacts one repository of a mirror.
    post compact "/admin/repo/compact",
    /// Forgets one repository of a mirror.
    post reset "/admin/repo/reset",
    /// Checks one repository of a mirror.
    post verify "/admin/repo/verify",
    /// How far a mirror's resync of a host is.
    get resync_progress "/admin/pds/resync",
    /// Starts a mirror's resync of a host.
    post resync "/admin/pds/resync",
}
