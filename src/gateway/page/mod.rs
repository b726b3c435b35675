//! The page at `/`, to play with: files in the binary, and what they are told of this gateway. It asks only what any client may.

use axum::Router;
use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Endpoint;
use crate::hex;
use crate::job::OfferedModel;

/// A file of the page: its route, its type, its text.
type File = (&'static str, &'static str, &'static str);

macro_rules! modules {
    ($($name:literal)*) => {
        [$((concat!("/page/", $name), "text/javascript; charset=utf-8", include_str!($name))),*]
    };
}

/// What holds the page together.
const FRAME: [File; 3] = [
    ("/", "text/html; charset=utf-8", include_str!("index.html")),
    ("/page/style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("/page/icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

/// What it does.
const MODULES: [File; 14] = modules! {
    "api.js" "card.js" "curl.js" "dom.js" "form.js" "image.js" "jobs.js" "json.js" "key.js" "main.js" "mask.js" "names.js" "state.js" "viewer.js"
};

/// Nothing from elsewhere, no script in the text, no frame around it. Pictures are kept as `data:` and `blob:`.
const POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// What every reply says. Browsers ask each time whether their copy is still the one, so that a new binary is a new page at once.
const PAGE_HEADERS: [(HeaderName, &str); 4] = [
    (CACHE_CONTROL, "no-cache"),
    (CONTENT_SECURITY_POLICY, POLICY),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// The routes of the page, for whoever comes; keys are asked for by what it calls.
pub(super) fn routes(endpoints: &[Endpoint]) -> Router {
    let files = FRAME.into_iter().chain(MODULES);
    let router = files.fold(Router::new(), |router, (path, kind, text)| {
        router.route(path, answering(kind, Bytes::from_static(text.as_bytes())))
    });
    router.route("/page/settings.json", answering("application/json", settings(endpoints).into()))
}

/// What the page cannot know: the names of endpoints, and of each the models that are known here, with the schema of their inputs. The
/// first is that of jobs which name none; without a name where no model is known.
fn settings(endpoints: &[Endpoint]) -> String {
    let form = |model: &OfferedModel| {
        let mut form = model.defaults.form(model.refined);
        form["name"] = Some(model.name.as_str()).filter(|name| !name.is_empty()).into();
        form
    };
    let endpoint = |endpoint: &Endpoint| {
        let models: Vec<Value> = endpoint.handler.models().iter().map(form).collect();
        json!({ "id": endpoint.id, "models": models })
    };
    json!({ "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>() }).to_string()
}

fn answering(kind: &'static str, text: Bytes) -> axum::routing::MethodRouter {
    let tag = format!("\"{}\"", hex::encode(&Sha256::digest(&text)[..12]));
    get(move |headers: HeaderMap| std::future::ready(answer(kind, text.clone(), &tag, &headers)))
}

/// The file, or that a browser's copy of it is still the one.
fn answer(kind: &'static str, text: Bytes, tag: &str, asked: &HeaderMap) -> Response {
    let known = asked.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(',')).map(|value| value.trim().trim_start_matches("W/"));
    let mut reply = if known.any(|value| value == tag || value == "*") {
        (StatusCode::NOT_MODIFIED, Body::empty()).into_response()
    } else {
        ([(CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response()
    };
    for (name, value) in PAGE_HEADERS {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(tag) {
        reply.headers_mut().insert(ETAG, tag);
    }
    reply
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::body::to_bytes;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::gateway::{GatewaySettings, Handler};
    use crate::job::{Contract, Defaults, Kind};

    async fn asked(path: &str, tag: Option<&str>) -> Response {
        let mut request = Request::get(path);
        if let Some(tag) = tag {
            request = request.header(IF_NONE_MATCH, tag);
        }
        routes(&GatewaySettings::default().endpoints).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    fn files() -> impl Iterator<Item = File> {
        FRAME.into_iter().chain(MODULES)
    }

    /// What stands between the quotes after each `before`.
    fn quoted<'a>(text: &'a str, before: &'static str) -> impl Iterator<Item = &'a str> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next())
    }

    #[tokio::test]
    async fn what_the_files_name_is_served() {
        for (path, _, text) in files() {
            let names =
                quoted(text, "src=\"page/").chain(quoted(text, "href=\"page/")).chain(quoted(text, "from \"./"));
            for name in names {
                assert_eq!(asked(&format!("/page/{name}"), None).await.status(), 200, "{path} names {name}");
            }
        }
    }

    #[tokio::test]
    async fn every_file_says_what_it_is_and_what_it_may_do() {
        for (path, kind, text) in files() {
            let reply = asked(path, None).await;
            assert_eq!(
                (reply.status().as_u16(), &reply.headers()[CONTENT_TYPE]),
                (200, &HeaderValue::from_static(kind))
            );
            for (name, value) in PAGE_HEADERS {
                assert_eq!(reply.headers()[&name], value, "{path}: {name}");
            }
            assert_eq!(to_bytes(reply.into_body(), usize::MAX).await.unwrap(), text);
        }
    }

    #[tokio::test]
    async fn a_copy_that_is_still_the_one_is_not_sent_again() {
        let tag = asked("/", None).await.headers()[ETAG].to_str().unwrap().to_owned();
        assert_ne!(tag, asked("/page/style.css", None).await.headers()[ETAG]);
        for (sent, status) in
            [(tag.clone(), 304), (format!("\"x\", W/{tag}"), 304), ("*".into(), 304), ("\"x\"".into(), 200)]
        {
            let reply = asked("/", Some(&sent)).await;
            assert_eq!(
                (reply.status().as_u16(), &reply.headers()[ETAG]),
                (status, &HeaderValue::from_str(&tag).unwrap())
            );
            let bytes = to_bytes(reply.into_body(), usize::MAX).await.unwrap();
            assert_eq!(bytes.is_empty(), status == 304, "{sent}");
        }
    }

    #[tokio::test]
    async fn the_page_knows_its_endpoint_and_what_workers_take() {
        let reply = asked("/page/settings.json", None).await;
        let settings: Value = serde_json::from_slice(&to_bytes(reply.into_body(), usize::MAX).await.unwrap()).unwrap();
        let endpoint = &settings["endpoints"][0];
        let model = &endpoint["models"][0];
        assert_eq!((&endpoint["id"], &model["name"]), (&json!("stable-diffusion-v1"), &Value::Null));
        assert_eq!(model["input"]["properties"]["width"]["enum"][8], 768);
        assert_eq!(model["input"]["properties"]["scheduler"]["enum"].as_array().unwrap().len(), 19);
        assert_eq!(model["parts"]["mask_paste"], "mask");
    }

    #[test]
    fn the_form_has_the_fields_of_the_contract_of_its_endpoint_or_model() {
        let models =
            vec![OfferedModel::new("sd", Contract::Sd1), OfferedModel::new("xl", Contract::Sdxl).with_refiner(false)];
        let usual = &GatewaySettings::default().endpoints[0];
        let endpoint =
            |models| Endpoint { handler: Handler::Latentd { models, contract: Contract::Sdxl }, ..usual.clone() };
        let settings = settings(&[endpoint(None), endpoint(Some(models))]);
        let settings: Value = serde_json::from_str(&settings).unwrap();
        let model = |endpoint: usize, model: usize| &settings["endpoints"][endpoint]["models"][model];
        for xl in [model(0, 0), model(1, 1)] {
            let width = &xl["input"]["properties"]["width"];
            assert_eq!(
                (&width["multipleOf"], &width["default"], &width["enum"]),
                (&json!(8), &json!(1024), &Value::Null)
            );
            assert_eq!(xl["unused"]["width"], "image_url");
        }
        // A refiner has a use for them, and where none is known of there may be one.
        let of_refiner =
            |xl: &Value| (xl["parts"]["strength"].clone(), xl["input"]["properties"]["refine"]["default"].clone());
        assert_eq!(of_refiner(model(0, 0)), (Value::Null, json!("strength")));
        assert_eq!(of_refiner(model(1, 1)), (json!("image_url"), Value::Null));
        assert_eq!((&model(0, 0)["name"], &model(1, 1)["name"]), (&Value::Null, &json!("xl")));
        assert_eq!(model(1, 0)["input"]["properties"]["num_outputs"]["default"], 1);
    }

    #[test]
    fn the_form_begins_with_the_defaults_of_the_models_that_are_known() {
        let text = br#"{"defaults": {"num_inference_steps": 20}, "placeholder": "a red apple"}"#;
        let defaults = Defaults::from_json(text, Contract::Sd1).unwrap();
        let models = vec![OfferedModel::new("emoji", defaults), OfferedModel::new("plain", Contract::Sd1)];
        let handler = Handler::Latentd { models: Some(models), contract: Contract::Sd1 };
        let endpoints: Vec<Endpoint> = GatewaySettings::default()
            .endpoints
            .into_iter()
            .map(|endpoint| Endpoint { handler: handler.clone(), ..endpoint })
            .collect();
        let settings: Value = serde_json::from_str(&settings(&endpoints)).unwrap();
        let models = &settings["endpoints"][0]["models"];
        let steps = |model: usize| &models[model]["input"]["properties"]["num_inference_steps"]["default"];
        assert_eq!((&models[0]["name"], &models[0]["placeholder"]), (&json!("emoji"), &json!("a red apple")));
        assert_eq!((steps(0), steps(1), &models[1]["placeholder"]), (&json!(20), &json!(50), &Value::Null));
    }

    #[test]
    fn every_control_of_the_form_is_a_field_of_the_contract_and_repeats_none_of_its_bounds() {
        let (_, _, page) = FRAME[0];
        let mut found = Vec::new();
        for tag in page.split('<').filter(|tag| tag.contains(" name=\"")) {
            let name = quoted(tag, " name=\"").next().unwrap();
            if name == "viewport" || name.contains('-') {
                continue;
            }
            assert!(Contract::ALL.iter().any(|contract| contract.field(name).is_some()), "{name}");
            found.push(name);
            let copied = [" min=", " max=", " maxlength=", " value="].into_iter().find(|copied| tag.contains(copied));
            assert_eq!(copied, None, "{name}");
        }
        // All but images, which are dropped or painted, and one without effect; by the name that the page has for it.
        let others =
            quoted(include_str!("names.js").split("OTHERS = {").nth(1).unwrap().split('}').next().unwrap(), ": \"");
        let others: Vec<&str> = others.collect();
        assert_eq!(others, ["num_images", "image_url", "strength"]);
        for field in Contract::ALL.iter().flat_map(|contract| contract.table().fields) {
            let has = found.contains(&field.name) || others.contains(&field.name);
            assert!(has || field.name == "nsfw" || matches!(field.kind, Kind::Image(_)), "{}", field.name);
        }
    }

    #[test]
    fn files_are_short_and_make_no_html_of_text() {
        for (path, _, text) in files() {
            assert!(text.lines().filter(|line| !line.trim().is_empty()).count() <= 300, "{path} is too long");
            let inline =
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=", " onclick="];
            assert_eq!(inline.iter().find(|word| text.contains(*word)), None, "{path}");
        }
    }
}
