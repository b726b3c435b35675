//! The OpenAPI document and the routes that it tells of.

use std::collections::BTreeSet;

use super::*;
use crate::gateway::openapi::ROUTES;
use crate::gateway::{Endpoint, Handler};
use crate::job::{Contract, Defaults, OfferedModel};

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

/// The schema that a gateway with these models has for inputs, and those that it leads to.
async fn inputs(models: &[OfferedModel]) -> Value {
    let usual = GatewaySettings::default();
    let endpoints = models.iter().zip(["a", "b"]).map(|(model, id)| Endpoint {
        id: id.into(),
        handler: Handler::Latentd { models: Some(vec![model.clone()]), contract: Contract::Sd1 },
        ..usual.endpoints[0].clone()
    });
    let house = TestGateway::with(GatewaySettings { endpoints: endpoints.collect(), ..usual.clone() });
    let (_, document) = house.sends(Request::get("/openapi.json").body(Body::empty()).unwrap()).await;
    let document: Value = serde_json::from_str(&document).unwrap();
    document["components"]["schemas"].clone()
}

#[tokio::test(start_paused = true)]
async fn an_input_is_that_of_the_models_of_all_endpoints() {
    let text = br#"{"defaults": {"num_inference_steps": 20}}"#;
    let xl = OfferedModel::new("xl", Defaults::from_json(text, Contract::Sdxl).unwrap());
    let sd = OfferedModel::new("sd", Contract::Sd1);
    let alone = inputs(std::slice::from_ref(&xl)).await;
    let steps = |schema: &Value| schema["properties"]["num_inference_steps"]["default"].clone();
    assert_eq!((steps(&alone["Input"]), &alone["Input"]["properties"]["width"]["multipleOf"]), (20.into(), &8.into()));
    assert!(alone["Input"]["description"].as_str().unwrap().contains("with the defaults of the model xl"));
    assert!(alone.get("Input.sdxl").is_none() && alone["Input"]["properties"].get("num_outputs").is_none());
    let both = inputs(&[xl, sd]).await;
    let links = ["sd1", "sdxl"].map(|name| format!("#/components/schemas/Input.{name}"));
    assert_eq!(both["Input"]["anyOf"], serde_json::json!([{ "$ref": links[0] }, { "$ref": links[1] }]));
    assert_eq!((steps(&both["Input.sd1"]), steps(&both["Input.sdxl"])), (50.into(), 20.into()));
}

#[test]
fn the_committed_document_is_this_one() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert!(
        committed == crate::gateway::openapi(&[]),
        "UPDATE_DOCS=1 cargo test --release --test integration docs:: writes it"
    );
    let text = committed.to_string();
    let names = text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next());
    for name in names {
        assert!(committed["components"]["schemas"][name].is_object(), "{name}");
    }
}
