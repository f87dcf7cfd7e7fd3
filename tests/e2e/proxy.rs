//! Behind a real nginx that compresses.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::Process;
use crate::replica::Received;
use crate::stack::{Client, Stack, free_port, tool, wait_until_listening};

/// An nginx in front of the service, and a client of it.
struct Proxy {
    _nginx: Process,
    _directory: tempfile::TempDir,
    client: Client,
}

impl Proxy {
    async fn start(stack: &Stack) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let root = directory.path().display();
        let mut settings = format!("pid {root}/pid; error_log stderr; daemon off;\n");
        let mut http =
            format!("access_log off; default_type application/octet-stream; client_body_temp_path {root}/body;\n");
        for kind in ["proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(http, "{kind}_temp_path {root}/{kind};").unwrap();
        }
        write!(
            settings,
            "events {{ }}
            http {{
                {http}
                gzip on; gzip_proxied any; gzip_min_length 0; gzip_types application/json;
                server {{
                    listen 127.0.0.1:{port};
                    location / {{ proxy_pass http://127.0.0.1:{}; proxy_http_version 1.1; }}
                }}
            }}",
            stack.service_port()
        )
        .unwrap();
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, settings).unwrap();
        let mut command = std::process::Command::new(tool("NGINX"));
        command.arg("-e").arg("stderr").arg("-p").arg(directory.path()).arg("-c").arg(&file);
        let mut nginx = Process::start("nginx", &mut command);
        wait_until_listening(&mut nginx, port, "nginx");
        let client = Stack::client_at(port, "demo", "demo123").await;
        Self { _nginx: nginx, _directory: directory, client }
    }

    /// The body, the entity tag and whether nginx has compressed it.
    async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        tag: Option<(&str, &str)>,
    ) -> (u16, String, bool) {
        let mut headers = vec![("Accept-Encoding", "gzip")];
        headers.extend(tag);
        let answer = self.client.respond(method, path, body, &headers).await.unwrap();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), header("etag").unwrap_or_default(), header("content-encoding").is_some())
    }
}

#[actix_web::test]
async fn a_stream_behind_a_proxy_comes_at_once() {
    let mut stack = Stack::new();
    stack.start_service();
    let proxy = Proxy::start(&stack).await;
    let mut stream = proxy.client.respond("GET", "/events", None, &[("Accept-Encoding", "gzip")]).await.unwrap();
    assert_eq!((stream.status().as_u16(), stream.headers().get("content-encoding")), (200, None));
    let mut received = Received::default();
    for kind in ["ready", "created", "updated"] {
        let event = loop {
            if let Some(event) = received.next() {
                break event;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(10), stream.chunk()).await;
            received.add(&chunk.expect("it is not held back").unwrap().expect("it goes on"));
        };
        assert_eq!(event.kind, kind);
        match kind {
            "ready" => _ = proxy.client.create("new").await,
            "created" => _ = proxy.client.send("PUT", "/todos/1", Some(json!({"completed": true}))).await,
            _ => {}
        }
    }
}

#[actix_web::test]
async fn edits_behind_a_proxy_that_compresses_find_their_versions() {
    let stack = Stack::started();
    let proxy = Proxy::start(&stack).await;
    let id = proxy.client.create(&"compressible ".repeat(15)).await;
    let path = format!("/todos/{id}");
    let (status, mut tag, is_compressed) = proxy.ask("GET", &path, None, None).await;
    assert_eq!((status, is_compressed), (200, true), "{tag}");
    assert!(tag.starts_with("W/"), "nginx has made the tag weak, which is what this is about: {tag}");
    for (method, change) in [("PUT", json!({"completed": true})), ("PATCH", json!({"priority": 3}))] {
        let stale = tag.clone();
        let (status, next, _) = proxy.ask(method, &path, Some(change.clone()), Some(("If-Match", &tag))).await;
        assert_eq!(status, 200, "{method}");
        let (refused, ..) =
            proxy.ask(method, &path, Some(json!({"completed": false})), Some(("If-Match", &stale))).await;
        assert_eq!(refused, 412, "{method}");
        tag = next;
    }
    for path in [path.as_str(), "/todos"] {
        let (_, tag, is_compressed) = proxy.ask("GET", path, None, None).await;
        assert!(is_compressed);
        let (status, same, _) = proxy.ask("GET", path, None, Some(("If-None-Match", &tag))).await;
        assert_eq!(status, 304, "{path}");
        assert_eq!(same.trim_start_matches("W/"), tag.trim_start_matches("W/"), "{path}");
    }
    let (status, ..) = proxy.ask("DELETE", &path, None, Some(("If-Match", &tag))).await;
    assert_eq!(status, 204);
}
