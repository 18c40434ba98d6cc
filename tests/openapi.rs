//! The OpenAPI document against the real binary: what it says of every route holds.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use harness::{ADMIN_KEY, FakePlc, Relay, http, skipped};
use serde_json::Value;

/// Requests to each route, beside those that try each parameter's limits.
const EXAMPLES: &str = "5";

fn schemathesis() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let parts = env::var_os("RELAYERED_REALPARTS")
        .map_or_else(|| root.join("target/realparts"), PathBuf::from);
    Some(parts.join("schemathesis/bin/schemathesis")).filter(|program| program.exists())
}

#[test]
fn requests_made_up_from_the_document_are_answered_as_it_says() {
    let Some(program) = schemathesis() else {
        skipped("openapi", "tests/realparts/install-schemathesis.sh DIR, RELAYERED_REALPARTS=DIR");
        return;
    };
    let relay = Relay::start(&FakePlc::start(), &[]);
    let folder = tempfile::TempDir::new().unwrap();
    let output = Command::new(program)
        .current_dir(folder.path())
        .args(["--config-file", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemathesis.toml")])
        .args(["run", &format!("http://{}/openapi.json", relay.api)])
        .args(["--header", &format!("Authorization: Bearer {ADMIN_KEY}")])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES])
        .args(["--seed", "1", "--generation-deterministic", "--no-shrink"])
        .args(["--suppress-health-check", "all"])
        .args(["--continue-on-failure", "--max-redirects", "0", "--warnings", "off"])
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}\n{errors}");
    assert_eq!(relay.get("/_health").status, 200);
}

#[test]
fn every_admin_route_of_the_document_wants_a_key_and_no_public_one_does() {
    let relay = Relay::start(&FakePlc::start(), &[]);
    let document = relay.get("/openapi.json").json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_ascii_uppercase();
            let reply = http::request(relay.api, &method, path, &[], "").unwrap();
            let admin = path.starts_with("/admin/");
            assert_eq!(reply.status == 401, admin, "{method} {path}: {reply:?}");
            assert_eq!(operation["security"].is_array(), admin, "{method} {path}");
            if admin {
                assert!(reply.headers["www-authenticate"].starts_with("Basic"), "{path}");
                assert_eq!(reply.json()["error"], "AuthenticationRequired", "{path}");
            }
            assert_ne!(operation["description"].as_str(), Some(""), "{method} {path}");
            assert!(operation["responses"]["default"] != Value::Null, "{method} {path}");
        }
    }
}
