//! What all paths have in common: methods, HEAD, `Allow`, trailing slashes, unknown paths.

use serde_json::json;

use crate::app::{PREFIXES, with_app};
use crate::client::RequestExt;

/// Every path and what it allows. `ID` stands for a todo's id.
const AT_THE_ROOT: [(&str, &str); 6] = [
    ("/", "GET, HEAD"),
    ("/app", "GET, HEAD"),
    ("/app/sw.js", "GET, HEAD"),
    ("/health", "GET, HEAD"),
    ("/dapr/subscribe", "GET, HEAD"),
    ("/events/todos", "POST"),
];
const UNDER_BOTH: [(&str, &str); 14] = [
    ("/auth/login", "POST"),
    ("/auth/token", "POST"),
    ("/todos", "GET, HEAD, POST, DELETE"),
    ("/todos/ID", "GET, HEAD, PUT, PATCH, DELETE"),
    ("/todos/ID/restore", "POST"),
    ("/trash", "GET, HEAD, DELETE"),
    ("/trash/ID", "DELETE"),
    ("/batch", "POST"),
    ("/changes", "GET, HEAD"),
    ("/changes/1/undo", "POST"),
    ("/events", "GET, HEAD"),
    ("/todos/ID/history", "GET, HEAD"),
    ("/export", "GET, HEAD"),
    ("/import", "POST"),
];

fn every_path(id: &str) -> Vec<(String, &'static str)> {
    let both =
        PREFIXES.into_iter().flat_map(|prefix| UNDER_BOTH.map(|(path, allow)| (format!("{prefix}{path}"), allow)));
    let root = AT_THE_ROOT.map(|(path, allow)| (path.to_owned(), allow));
    root.into_iter().chain(both).map(|(path, allow)| (path.replace("ID", id), allow)).collect()
}

#[actix_web::test]
async fn other_methods_are_405_with_all_that_are_allowed() {
    with_app(async |app| {
        for (path, allow) in every_path("1") {
            let allowed: Vec<&str> = allow.split(", ").collect();
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"] {
                if allowed.contains(&method) {
                    continue;
                }
                let answer = app.request(method, &path).answer().await;
                assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
                if method == "HEAD" {
                    assert_eq!((answer.status, answer.body.as_str()), (405, ""), "{path}");
                } else {
                    answer.assert_refused(405, "Method Not Allowed");
                }
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn head_answers_as_get_without_the_body() {
    with_app(async |app| {
        let token = app.token("demo");
        let id = app.create(&token, json!({"title": "x"})).await.to_string();
        for (path, _) in every_path(&id).into_iter().filter(|(_, allow)| allow.contains("GET")) {
            let path = match path {
                // It has no end.
                path if path.ends_with("/events") => continue,
                path if path.ends_with("/changes") => format!("{path}?since={}-0", app.store().epoch()),
                path => path,
            };
            let get = app.get(&path).bearer_auth(&token).answer().await;
            // Raw, because a client library would not show a body if there was one.
            let head = app
                .raw(format!(
                    "HEAD {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
                ))
                .await;
            assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
            for name in ["content-type", "content-length", "cache-control", "vary"] {
                assert_eq!(head.header(name), get.header(name), "{name} of {path}");
            }
            // Of an export, nobody knows the length before it is sent.
            let length = (!path.ends_with("/export")).then(|| get.body.len().to_string());
            assert_eq!(head.header("content-length"), length.as_deref(), "{path}");
        }
    })
    .await;
}

#[actix_web::test]
async fn head_on_errors_has_no_body_either() {
    with_app(async |app| {
        let token = app.token("demo");
        for (path, authorization, status) in [
            ("/todos", "", 401),
            ("/todos/7", token.as_str(), 404),
            ("/todos/x", token.as_str(), 422),
            ("/nope", "", 404),
        ] {
            let authorization = format!("Authorization: Bearer {authorization}");
            let head = app
                .raw(format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n{authorization}\r\nConnection: close\r\n\r\n"))
                .await;
            assert_eq!((head.status, head.body.as_str()), (status, ""), "{path}");
            assert_eq!(head.header("content-type"), Some("application/json"), "{path}");
        }
    })
    .await;
}

#[actix_web::test]
async fn a_trailing_slash_on_get_and_head_is_307_and_keeps_the_query() {
    with_app(async |app| {
        for (path, _) in every_path("1").into_iter().filter(|(path, _)| path != "/") {
            for method in ["GET", "HEAD"] {
                for query in ["", "?completed=true&q=a%20b%2F", "?next=//evil.example/"] {
                    let answer = app.request(method, &format!("{path}/{query}")).answer().await;
                    assert_eq!((answer.status, answer.body.as_str()), (307, ""), "{method} {path}/{query}");
                    let target = format!("{path}{query}");
                    assert_eq!(answer.location_from(&format!("{path}/{query}")), target, "{method}");
                    // Behind a proxy that serves the service under a prefix.
                    let behind = answer.location_from(&format!("/pre/fix{path}/{query}"));
                    assert_eq!(behind, format!("/pre/fix{target}"), "{method}");
                }
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn a_trailing_slash_on_other_methods_is_404_and_does_nothing() {
    with_app(async |app| {
        let token = app.token("demo");
        let id = app.create(&token, json!({"title": "stays"})).await.to_string();
        for (path, _) in every_path(&id).into_iter().filter(|(path, _)| path != "/") {
            for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
                let call = app.request(method, &format!("{path}/")).bearer_auth(&token);
                call.send_json(json!({"title": "changed"})).await.assert_refused(404, "Not Found");
            }
        }
        let todos = app.todos("demo");
        assert_eq!(todos.iter().map(|todo| todo.title.as_ref()).collect::<Vec<_>>(), ["stays"]);
        assert_eq!(app.published().await.len(), 1);
    })
    .await;
}

#[actix_web::test]
async fn unknown_paths_are_404_with_and_without_a_token() {
    with_app(async |app| {
        let token = app.token("admin");
        for path in [
            "/nope",
            "/nope/",
            "/todo",
            "/todos/1/x",
            "/todos/1/x/",
            "//todos",
            "/Todos",
            "/auth",
            "/auth/",
            "/auth/logout",
            "/event",
            "/v1",
            "/v1/",
            "/v1/nope",
            "/v1/v1/todos",
            "/v2/todos",
        ] {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
                for token in [None, Some(&token)] {
                    let call = app.request(method, path);
                    let call = if let Some(token) = token { call.bearer_auth(token) } else { call };
                    call.answer().await.assert_refused(404, "Not Found");
                }
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn health_and_dapr_routes_are_only_at_the_root() {
    with_app(async |app| {
        for (path, allow) in AT_THE_ROOT {
            let method = allow.split(',').next().unwrap();
            app.request(method, &format!("/v1{path}")).answer().await.assert_refused(404, "Not Found");
        }
    })
    .await;
}

#[actix_web::test]
async fn a_redirect_never_leaves_the_service() {
    with_app(async |app| {
        for target in
            ["//evil.example/", "//evil.example/todos/", "/\\evil.example/", "//evil.example//", "/%2F/", "http:/"]
        {
            let answer = app.raw(format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
            assert!(matches!(answer.status, 400 | 404), "{target}: {answer:?}");
            assert_eq!(answer.header("location"), None, "{target}");
        }
    })
    .await;
}

#[actix_web::test]
async fn paths_that_are_no_utf8_get_the_same_kind_of_error() {
    with_app(async |app| {
        let token = app.token("demo");
        for prefix in PREFIXES {
            let answer = app.get(&format!("{prefix}/todos/%FF%FE")).bearer_auth(&token).answer().await;
            assert_eq!(answer.status, 422, "{answer:?}");
            assert_eq!(answer.json()["detail"][0]["loc"], json!(["path", "id"]));
            app.get(&format!("{prefix}/%FF")).answer().await.assert_refused(404, "Not Found");
        }
    })
    .await;
}

#[actix_web::test]
async fn several_trailing_slashes_redirect_like_one() {
    with_app(async |app| {
        for (path, target) in [("/todos//", "/todos"), ("/v1/todos/1///?q=a", "/v1/todos/1?q=a")] {
            let answer = app.get(path).answer().await;
            assert_eq!((answer.status, answer.location_from(path).as_str()), (307, target));
        }
    })
    .await;
}
