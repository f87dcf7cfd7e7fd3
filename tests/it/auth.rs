//! `/auth/login`, `/auth/token`, and what a token opens.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::app::{Clock, PREFIXES, TestApp, with_app, with_config, with_settings};
use crate::client::{Answer, RequestExt};
use crate::clock::with_clock;

const WRONG: &str = "Invalid username or password";

/// Asserts that the answer has a token that opens `/todos`.
async fn assert_logged_in(app: &TestApp, answer: Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.json();
    assert_eq!(body["token_type"], "bearer");
    let todos = app.get("/todos").bearer_auth(body["access_token"].as_str().unwrap()).answer().await;
    assert_eq!((todos.status, todos.body.as_str()), (200, "[]"));
    body
}

fn missing(place: &str, names: &[&str]) -> Value {
    let problem =
        |name: &&str| json!({"type": "missing", "loc": [place, name], "msg": "Field required", "input": null});
    names.iter().map(problem).collect()
}

#[actix_web::test]
async fn the_demo_users_log_in_by_query() {
    with_app(async |app| {
        for prefix in PREFIXES {
            for (username, password) in [("admin", "admin123"), ("user", "user123"), ("demo", "demo123")] {
                let path = format!("{prefix}/auth/login?username={username}&password={password}");
                let body = assert_logged_in(app, app.post(&path).answer().await).await;
                assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["access_token", "token_type"]);
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn a_login_can_be_a_form_or_json() {
    with_app(async |app| {
        for prefix in PREFIXES {
            let path = format!("{prefix}/auth/login");
            let form = app.post(&path).send_form("username=demo&password=demo123&scope=").await;
            assert_logged_in(app, form).await;
            let json = app.post(&path).send_json(json!({"username": "demo", "password": "demo123", "x": 1})).await;
            assert_logged_in(app, json).await;
            let form = app.post(&path).header("Content-Type", "Application/X-WWW-Form-Urlencoded; charset=UTF-8");
            assert_logged_in(app, form.body("username=d%65mo&password=demo123").answer().await).await;
        }
    })
    .await;
}

#[actix_web::test]
async fn an_unknown_user_and_a_wrong_password_get_the_same_answer() {
    with_app(async |app| {
        let mut answers = Vec::new();
        for (username, password) in [
            ("demo", "wrong"),
            ("nobody", "demo123"),
            ("demo", ""),
            ("", ""),
            ("Demo", "Demo123"),
            ("demo", "demo123 "),
        ] {
            let query = format!("/auth/login?username={username}&password={}", password.replace(' ', "%20"));
            let body = json!({"username": username, "password": password});
            let form = format!("username={username}&password={}", password.replace(' ', "+"));
            answers.push(app.post(&query).answer().await);
            answers.push(app.post("/auth/login").send_json(body).await);
            answers.push(app.post("/auth/login").send_form(&form).await);
        }
        for answer in &answers {
            answer.assert_refused(401, WRONG);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            let names = |answer: &Answer| answer.headers.keys().map(|name| name.to_string()).collect::<BTreeSet<_>>();
            assert_eq!(names(answer), names(&answers[0]));
        }
    })
    .await;
}

#[actix_web::test]
async fn a_login_without_name_or_password_is_422() {
    with_app(async |app| {
        for (query, names) in [
            ("", &["username", "password"][..]),
            ("?username=demo", &["password"]),
            ("?password=demo123", &["username"]),
            ("?user=demo&pass=x", &["username", "password"]),
        ] {
            let answer = app.post(&format!("/auth/login{query}")).answer().await;
            answer.assert_refused(422, missing("query", names));
        }
        app.post("/auth/login").send_form("username=demo").await.assert_refused(422, missing("body", &["password"]));
        let empty = app.post("/auth/login").send_json(json!({})).await;
        empty.assert_refused(422, missing("body", &["username", "password"]));
    })
    .await;
}

#[actix_web::test]
async fn a_login_body_that_is_no_object_of_strings_is_422() {
    with_app(async |app| {
        let answer = app.post("/auth/login").send_json(json!({"username": 5, "password": null})).await;
        let no_string = |name| {
            let msg = "Input should be a valid string";
            json!({"type": "string_type", "loc": ["body", name], "msg": msg, "input": null})
        };
        answer.assert_refused(422, json!([no_string("username"), no_string("password")]));
        let answer = app.post("/auth/login").send_json(json!(["demo", "demo123"])).await;
        assert_eq!((answer.status, &answer.json()["detail"][0]["type"]), (422, &json!("model_attributes_type")));
        let answer = app.post("/auth/login").json_bytes("{\"username\":").answer().await;
        assert_eq!((answer.status, &answer.json()["detail"][0]["type"]), (422, &json!("json_invalid")));
        let answer = app.post("/auth/login").json_bytes(vec![b'{', 0xff]).answer().await;
        answer.assert_refused(400, "There was an error parsing the body");
    })
    .await;
}

#[actix_web::test]
async fn a_refused_login_never_shows_what_was_sent() {
    with_app(async |app| {
        let bodies = [
            r#"{"username":"demo","password":"s3cret-s3cret"}"#,
            r#"{"username":"demo","password":["s3cret-s3cret"]}"#,
            r#"{"username":{"password":"s3cret-s3cret"},"password":1}"#,
            r#"{"password":"s3cret-s3cret"}"#,
            r#"["demo","s3cret-s3cret"]"#,
            r#""s3cret-s3cret""#,
            r#"{"username":"demo","password":s3cret-s3cret"#,
            "username=demo&password=s3cret-s3cret",
            "s3cret-s3cret",
        ];
        // A string without a type is text/plain to fetch.
        for media_type in ["text/plain;charset=UTF-8", "application/json", "application/xml", "multipart/form-data", ""]
        {
            for body in bodies {
                for path in ["/auth/login", "/auth/login?username=demo", "/v1/auth/login", "/auth/token"] {
                    let answer = app.post(path).header("Content-Type", media_type).body(body).answer().await;
                    let refused = (400..500).contains(&answer.status);
                    assert!(refused && !answer.body.contains("s3cret"), "{media_type} {body} {path}: {answer:?}");
                }
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn a_query_wins_over_a_body_and_the_last_of_two_values_wins() {
    with_app(async |app| {
        let query = app.post("/auth/login?username=demo&password=demo123");
        assert_logged_in(app, query.send_json(json!({"username": "user", "password": "x"})).await).await;
        let twice = app.post("/auth/login?username=user&username=demo&password=x&password=demo123").answer().await;
        assert_logged_in(app, twice).await;
    })
    .await;
}

#[actix_web::test]
async fn the_password_grant_gives_a_token_with_its_lifetime() {
    with_settings(&[("ACCESS_TOKEN_EXPIRE_MINUTES", "7")], async |app| {
        for prefix in PREFIXES {
            let path = format!("{prefix}/auth/token");
            let form = "grant_type=password&username=user&password=user123&scope=&client_id=x&client_secret=";
            let body = assert_logged_in(app, app.post(&path).send_form(form).await).await;
            assert_eq!(body["expires_in"], 420);
        }
    })
    .await;
}

#[actix_web::test]
async fn the_token_endpoint_refuses_as_rfc_6749_says() {
    with_app(async |app| {
        let refused = |answer: &Answer, code: &str, what: &str| {
            let body = answer.json();
            assert_eq!((answer.status, &body["error"]), (400, &json!(code)), "{what}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
            assert_eq!(answer.header("www-authenticate"), None, "{what}");
            // RFC 6749, section 5.2: no '"' and no '\'.
            let description = body["error_description"].as_str().unwrap();
            assert!(!description.is_empty() && !description.contains(['"', '\\']), "{what}");
            assert_eq!(body["detail"], body["error_description"], "{what}");
        };
        for (form, code) in [
            ("", "invalid_request"),
            ("username=user&password=user123", "invalid_request"),
            ("grant_type=&username=user&password=user123", "invalid_request"),
            ("grant_type=password", "invalid_request"),
            ("grant_type=password&username=user", "invalid_request"),
            ("grant_type=password&password=user123", "invalid_request"),
            ("grant_type=password&username=&password=user123", "invalid_request"),
            ("grant_type=password&username=user&password=", "invalid_request"),
            ("grant_type=password&grant_type=password&username=user&password=user123", "invalid_request"),
            ("grant_type=password&username=user&username=user&password=user123", "invalid_request"),
            ("grant_type=password&username=user&password=user123&password=user123", "invalid_request"),
            ("grant_type=password&username=user&password=user123&scope=a&scope=b", "invalid_request"),
            ("grant_type=client_credentials&username=user&password=user123", "unsupported_grant_type"),
            ("grant_type=authorization_code&code=x", "unsupported_grant_type"),
            ("grant_type=PASSWORD&username=user&password=user123", "unsupported_grant_type"),
            ("grant_type=password&username=user&password=wrong", "invalid_grant"),
            ("grant_type=password&username=nobody&password=user123", "invalid_grant"),
        ] {
            for prefix in PREFIXES {
                refused(&app.post(&format!("{prefix}/auth/token")).send_form(form).await, code, form);
            }
        }
        let json = json!({"grant_type": "password", "username": "user", "password": "user123"});
        refused(&app.post("/auth/token").send_json(json).await, "invalid_request", "JSON");
        let form = "grant_type=password&username=user&password=user123";
        refused(&app.post("/auth/token").body(form).answer().await, "invalid_request", "no Content-Type");
        // RFC 6749, section 2.3.1: never in the request URI.
        refused(&app.post(&format!("/auth/token?{form}")).send_form("").await, "invalid_request", "query");
    })
    .await;
}

#[actix_web::test]
async fn the_token_endpoint_tells_no_unknown_user_from_a_wrong_password() {
    with_app(async |app| {
        let ask = |username| {
            let form = format!("grant_type=password&username={username}&password=wrong");
            let call = app.post("/auth/token");
            async move { call.send_form(&form).await }
        };
        let (known, unknown) = (ask("user").await, ask("nobody").await);
        assert_eq!((known.status, &known.body), (unknown.status, &unknown.body));
    })
    .await;
}

#[actix_web::test]
async fn requests_without_a_usable_authorization_header_are_not_authenticated() {
    with_app(async |app| {
        let token = app.token("demo");
        let malformed: [(&str, Vec<u8>); 14] = [
            ("none", Vec::new()),
            ("empty", b"Authorization: \r\n".into()),
            ("only the scheme", b"Authorization: Bearer\r\n".into()),
            ("a scheme and a space", b"Authorization: Bearer \r\n".into()),
            ("only spaces after the scheme", b"Authorization: Bearer    \r\n".into()),
            ("only the token", format!("Authorization: {token}\r\n").into()),
            ("another scheme", format!("Authorization: Token {token}\r\n").into()),
            ("basic", b"Authorization: Basic ZGVtbzpkZW1vMTIz\r\n".into()),
            ("no space", format!("Authorization: Bearer{token}\r\n").into()),
            ("a tab", format!("Authorization: Bearer\t{token}\r\n").into()),
            ("a colon", format!("Authorization: Bearer: {token}\r\n").into()),
            ("quotes around all", format!("Authorization: \"Bearer {token}\"\r\n").into()),
            ("two headers", format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n").into()),
            ("no ASCII", [b"Authorization: Bearer ".as_slice(), &[0xe4, 0xf6, 0xfc], b"\r\n"].concat()),
        ];
        for (what, header) in malformed {
            for line in
                ["GET /todos", "GET /v1/todos", "POST /todos", "GET /todos/1", "PUT /todos/1", "DELETE /v1/todos/x"]
            {
                let start = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n");
                let answer = app.raw([start.as_bytes(), &header, b"\r\n"].concat()).await;
                assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{what}, {line}");
                answer.assert_refused(401, "Not authenticated");
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn bad_tokens_are_invalid_tokens() {
    with_app(async |app| {
        let good = app.token("demo");
        let user = app.account("demo").unwrap();
        let issued_with =
            |variable| app.keys_with(&[variable]).issue(&user, None, Clock::system().now().seconds()).unwrap();
        for token in [
            "nonsense".to_owned(),
            format!("{good}x"),
            format!("{good} {good}"),
            format!("{good}, Bearer {good}"),
            good.split('.').next().unwrap().to_owned(),
            format!("\"{good}\""),
            "A".repeat(8000),
            issued_with(("SECRET_KEY", "another")),
            issued_with(("ALGORITHM", "HS512")),
        ] {
            for (method, path) in [("GET", "/todos"), ("POST", "/v1/todos"), ("DELETE", "/todos/1")] {
                let answer = app.request(method, path).bearer_auth(&token).answer().await;
                answer.assert_refused(401, "Invalid or expired token");
                assert_eq!(
                    answer.header("www-authenticate"),
                    Some(r#"Bearer error="invalid_token", error_description="Invalid or expired token""#)
                );
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn the_schemes_case_and_more_spaces_do_not_matter() {
    with_app(async |app| {
        let token = app.token("demo");
        for value in [format!("bearer {token}"), format!("BEARER {token}"), format!("Bearer   {token}  ")] {
            assert_eq!(app.get("/todos").header("Authorization", &value).answer().await.status, 200, "{value:?}");
        }
    })
    .await;
}

#[actix_web::test]
async fn a_token_ends_when_its_time_is_over() {
    let (config, now) = with_clock(&[("ACCESS_TOKEN_EXPIRE_MINUTES", "1")]);
    with_config(config, async |app| {
        let login = app.post("/auth/login?username=demo&password=demo123").answer().await.json();
        let token = login["access_token"].as_str().unwrap();
        now.fetch_add(60_000, Ordering::Relaxed);
        assert_eq!(app.get("/todos").bearer_auth(token).answer().await.status, 200, "the leeway is 5 s");
        now.fetch_add(5_000, Ordering::Relaxed);
        app.get("/todos").bearer_auth(token).answer().await.assert_refused(401, "Invalid or expired token");
    })
    .await;
}

#[actix_web::test]
async fn a_token_is_checked_before_the_rest_of_the_request() {
    with_app(async |app| {
        for (method, path, body) in [
            ("POST", "/todos", "{"),
            ("PUT", "/todos/x", "null"),
            ("DELETE", "/todos/x", ""),
            ("POST", "/v1/todos", ""),
        ] {
            let answer = app.request(method, path).json_bytes(body).answer().await;
            answer.assert_refused(401, "Not authenticated");
        }
    })
    .await;
}
