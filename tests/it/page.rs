//! The page at `/app`, as it is served; what it does is shown by `tests/web`.

use crate::app::{with_app, with_settings};
use crate::client::RequestExt;

/// What Chromium sends for an address that somebody types.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7";

#[actix_web::test]
async fn browsers_are_led_from_the_root_to_the_page_and_nobody_else() {
    with_app(async |app| {
        for accept in [BROWSER, "text/html", "application/json, TEXT/HTML;q=0.5"] {
            for method in ["GET", "HEAD"] {
                let answer = app.request(method, "/").header("Accept", accept).answer().await;
                assert_eq!((answer.status, answer.body.as_str()), (303, ""), "{accept}");
                assert_eq!(answer.location_from("/pre/fix/"), "/pre/fix/app", "{accept}");
                assert!(answer.header("vary").is_some_and(|vary| vary.contains("Accept")));
            }
        }
        for accept in ["*/*", "application/json", "text/html;q=0, */*", "text/html; q=0.0,*/*", "text/htmlx", ""] {
            let answer = app.get("/").header("Accept", accept).answer().await;
            assert_eq!(
                (answer.status, answer.json()["status"].as_str()),
                (200, Some("Todo backend running")),
                "{accept}"
            );
            assert!(answer.header("vary").is_some_and(|vary| vary.contains("Accept")));
        }
        assert_eq!(app.get("/").answer().await.status, 200);
        app.request("POST", "/").header("Accept", BROWSER).answer().await.assert_refused(405, "Method Not Allowed");
    })
    .await;
}

#[actix_web::test]
async fn all_that_the_page_names_is_served_and_can_be_kept_for_ever() {
    with_app(async |app| {
        let page = app.get("/app").answer().await;
        assert_eq!((page.status, page.header("cache-control")), (200, Some("no-cache")));
        let named: Vec<&str> = page.body.split('"').filter(|text| text.starts_with("app/")).collect();
        assert_eq!(named.len(), 4, "{named:?}");
        for path in named {
            let file = app.get(&format!("/{path}")).answer().await;
            assert_eq!(file.status, 200, "{path}");
            assert_eq!(file.header("cache-control"), Some("public, max-age=31536000, immutable"), "{path}");
            if path.ends_with(".webmanifest") {
                let manifest: serde_json::Value = serde_json::from_str(&file.body).unwrap();
                let icon = manifest["icons"][0]["src"].as_str().unwrap().to_owned();
                assert!(icon.len() > "icon.svg".len());
                assert_eq!(app.get(&format!("/app/{icon}")).answer().await.status, 200);
            }
        }
        let worker = app.get("/app/sw.js").answer().await;
        assert_eq!((worker.status, worker.header("cache-control")), (200, Some("no-cache")));
        assert_eq!(worker.header("service-worker-allowed"), Some("../app"));
        for path in ["/app", "/app/sw.js"] {
            let policy = app.get(path).answer().await.header("content-security-policy").unwrap().to_owned();
            assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
            assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
        }
        app.get("/app/main.js").answer().await.assert_refused(404, "Not Found");
    })
    .await;
}

#[actix_web::test]
async fn the_page_can_be_switched_off() {
    with_settings(&[("PAGE", "False")], async |app| {
        for path in ["/app", "/app/sw.js", "/app/"] {
            app.get(path).answer().await.assert_refused(404, "Not Found");
        }
        assert_eq!(app.get("/").header("Accept", BROWSER).answer().await.status, 200);
    })
    .await;
}
