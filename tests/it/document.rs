//! The OpenAPI document and the routes say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::app::with_app;
use crate::client::RequestExt;

/// Routes that are not part of the document: for Dapr, for Prometheus, the document itself with its readers, and the page.
const NOT_DOCUMENTED: [&str; 9] = [
    "/app",
    "/app/{file}",
    "/dapr/subscribe",
    "/docs",
    "/docs/{file}",
    "/metrics",
    "/openapi.json",
    "/redoc",
    "/redoc/redoc.standalone.js",
];

fn document() -> Value {
    serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap()
}

/// Path to methods, as documented.
pub fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let document = document();
    let methods = |item: &Value| item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
    document["paths"].as_object().unwrap().iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

/// Every path that the sources register by its literal name.
fn registered(directory: &Path, paths: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            registered(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let calls = source.split("Endpoint::new(\"").skip(1);
            paths.extend(calls.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
}

/// Every path that is registered, but for that of the topic.
pub fn registered_paths() -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    registered(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut paths);
    paths
}

#[actix_web::test]
async fn the_served_document_is_the_one_in_docs() {
    with_app(async |app| {
        let served = app.get("/openapi.json").answer().await;
        assert_eq!(served.json(), document(), "write it again: cargo run -- openapi > docs/openapi.json");
    })
    .await;
}

#[test]
fn every_route_is_documented() {
    let expected: BTreeSet<String> =
        documented().into_keys().chain(NOT_DOCUMENTED.into_iter().map(str::to_owned)).collect();
    assert_eq!(registered_paths(), expected);
}

#[actix_web::test]
async fn every_documented_path_allows_exactly_the_documented_methods() {
    with_app(async |app| {
        for (path, mut methods) in documented() {
            if methods.contains("GET") {
                methods.insert("HEAD".to_owned());
            }
            let answer = app.request("TRACE", &path.replace("{id}", "1").replace("{revision}", "1")).answer().await;
            let allowed: BTreeSet<String> = answer.header("allow").unwrap().split(", ").map(str::to_owned).collect();
            assert_eq!((answer.status, allowed), (405, methods), "{path}");
        }
    })
    .await;
}
