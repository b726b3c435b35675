//! The OpenAPI document and the routes that it tells of.

use std::collections::BTreeSet;

use super::*;
use crate::gateway::openapi::ROUTES;

/// Every route that the gateway has is one of the document's, and the other way round.
#[tokio::test(start_paused = true)]
async fn the_document_tells_of_all_routes_and_no_others() {
    let house = TestGateway::with(GatewaySettings {
        poll_hold: Duration::from_millis(1),
        limits: false,
        ..GatewaySettings::default()
    });
    let mut paths: Vec<&str> = ROUTES.iter().map(|route| route.path).collect();
    paths.dedup();
    for path in paths {
        for method in ["get", "post", "put", "delete"] {
            let told = ROUTES.iter().any(|route| route.path == path && route.method == method);
            let asked = path.replace("{id}", "j").replace("{worker}", "w");
            let asked = house.sends(request(&method.to_uppercase(), &format!("{asked}?wait=1"), &[], "")).await;
            // Any method is a heartbeat.
            assert!(told != (asked.0 == 405) || path.starts_with("/ping"), "{method} {path}: {asked:?}");
            assert!(!asked.1.contains("no such route"), "{method} {path}");
        }
    }
    let source = include_str!("../routes.rs");
    let routed: BTreeSet<&str> = source.split("at(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(routed, ROUTES.iter().map(|route| route.path).collect());
}

#[test]
fn the_committed_document_is_this_one() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert!(
        committed == crate::gateway::openapi(None),
        "UPDATE_DOCS=1 cargo test --release --test integration docs:: writes it"
    );
    let text = committed.to_string();
    let names = text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next());
    for name in names {
        assert!(committed["components"]["schemas"][name].is_object(), "{name}");
    }
}
