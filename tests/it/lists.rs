//! `GET /todos` with parameters: which todos a list has, in which order, and its pages.

use std::pin::pin;

use futures_util::StreamExt;
use futures_util::future::{Either, join_all, select};
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};

use crate::app::{TestApp, with_app, with_settings};
use crate::client::{Answer, RequestExt};

async fn get(app: &TestApp, query: &str) -> Answer {
    app.get(&format!("/todos?{query}")).bearer_auth(app.token("demo")).answer().await
}

async fn list(app: &TestApp, query: &str) -> Answer {
    let answer = get(app, query).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    answer
}

fn ids(answer: &Answer) -> Vec<i64> {
    answer.json().as_array().unwrap().iter().map(|todo| todo["id"].as_i64().unwrap()).collect()
}

#[track_caller]
fn assert_lists(query: &str, answer: &Answer, expected: &[i64]) {
    assert_eq!(ids(answer), expected, "{query}");
    assert_eq!(answer.header("x-total-count"), Some(&*expected.len().to_string()), "{query}");
    assert_eq!(answer.header("link"), None, "{query}");
}

async fn create_all(app: &TestApp, todos: impl IntoIterator<Item = Value>) {
    for todo in todos {
        app.create(&app.token("demo"), todo).await;
    }
}

#[actix_web::test]
async fn a_list_has_what_matches_all_parameters() {
    with_app(async |app| {
        create_all(
            app,
            [
                json!({"title": "Buy milk", "description": "two litres", "tags": ["shop", "café"], "priority": 4}),
                json!({"title": "Buy bread", "completed": true, "tags": ["shop"], "due_at": "2025-01-31"}),
                json!({"title": "Read", "priority": 0, "due_at": "2025-01-31T10:00:00+01:00"}),
                json!({"title": "Write", "priority": 2, "due_at": "2025-02-01T00:00:00Z"}),
            ],
        )
        .await;
        app.create(&app.token("user"), json!({"title": "Buy milk"})).await;
        let table: &[(&str, &[i64])] = &[
            ("", &[1, 2, 3, 4]),
            ("unknown=1&Q=x&offset=2", &[1, 2, 3, 4]),
            ("completed=true", &[2]),
            ("completed=false", &[1, 3, 4]),
            ("completed=true&completed=false", &[1, 3, 4]),
            ("priority=0", &[3]),
            ("priority=4&priority=2", &[1, 4]),
            ("priority=1", &[]),
            ("tag=shop", &[1, 2]),
            ("tag=shop&tag=cafe%CC%81", &[1]),
            ("tag=+shop+", &[1, 2]),
            ("tag=Shop", &[]),
            ("due_before=2025-01-31", &[]),
            ("due_before=2025-02-01", &[2, 3]),
            ("due_before=2025-02-01T00:00:00.001Z", &[2, 3, 4]),
            ("due_after=2025-01-31", &[2, 3, 4]),
            ("due_after=2025-01-31T10:00:00%2B01:00", &[3, 4]),
            // The plus sign of an offset, not encoded.
            ("due_after=2025-01-31T10:00:00+01:00", &[3, 4]),
            ("due_after=2025-01-31T09:00:00.001Z&due_before=2025-02-02", &[4]),
            ("updated_since=2020-01-01", &[1, 2, 3, 4]),
            ("updated_since=9999-01-01", &[]),
            ("q=buy", &[1, 2]),
            ("q=&tag=shop", &[1, 2]),
            ("q=+BUY+m+", &[1]),
            ("q=LITRES", &[1]),
            ("q=buy&completed=false", &[1]),
            ("q=milktwo", &[]),
        ];
        for (query, expected) in table {
            assert_lists(query, &list(app, query).await, expected);
        }
    })
    .await;
}

#[actix_web::test]
async fn a_search_finds_texts_of_any_script() {
    with_app(async |app| {
        let titles =
            ["Straße fegen", "İstanbul, ıspanak", "今日牛乳を買う", "Café crème", "ΟΔΟΣ", "ＦＵＬＬ　width", "Ёлка"];
        create_all(app, titles.map(|title| json!({ "title": title }))).await;
        let table: &[(&str, &[i64])] = &[
            ("STRASSE", &[1]),
            ("straẞe", &[1]),
            ("ß", &[1]),
            ("istanbul", &[]),
            ("İSTANBUL", &[2]),
            ("ıspanak", &[2]),
            ("ISPANAK", &[]),
            ("牛乳", &[3]),
            ("乳を買", &[3]),
            ("cafe", &[]),
            ("CAFÉ", &[4]),
            ("cafe\u{301}", &[4]),
            ("οδός", &[]),
            ("οδος", &[5]),
            ("full width", &[6]),
            ("ёлк", &[7]),
            ("елк", &[]),
        ];
        for (text, expected) in table {
            let answer = list(app, &serde_urlencoded::to_string([("q", text)]).unwrap()).await;
            assert_lists(text, &answer, expected);
        }
        // What is found follows what changes.
        app.patch("/todos/1").bearer_auth(app.token("demo")).send_json(json!({"title": "Gasse fegen"})).await;
        app.delete("/todos/3").bearer_auth(app.token("demo")).answer().await;
        for (query, expected) in [("q=strasse", &[][..]), ("q=GASSE", &[1]), ("q=%E7%89%9B", &[])] {
            assert_lists(query, &list(app, query).await, expected);
        }
    })
    .await;
}

#[actix_web::test]
async fn a_list_is_sorted_by_what_is_asked_for() {
    with_app(async |app| {
        create_all(
            app,
            [
                json!({"title": "b", "priority": 1, "order": 2.5}),
                json!({"title": "A", "completed": true}),
                json!({"title": "c", "priority": 4, "due_at": "2025-02-01", "order": -1}),
                json!({"title": "a", "priority": 1, "due_at": "2025-01-01"}),
            ],
        )
        .await;
        let table: &[(&str, &[i64])] = &[
            ("sort=id", &[1, 2, 3, 4]),
            ("sort=-id", &[4, 3, 2, 1]),
            ("sort=title", &[2, 4, 1, 3]),
            ("sort=-title", &[3, 1, 2, 4]),
            ("sort=completed,-priority,title", &[3, 4, 1, 2]),
            ("sort=completed&sort=-priority&sort=title", &[3, 4, 1, 2]),
            ("sort=priority", &[1, 4, 3, 2]),
            ("sort=-priority", &[3, 1, 4, 2]),
            ("sort=due_at", &[4, 3, 1, 2]),
            ("sort=-due_at", &[3, 4, 1, 2]),
            ("sort=order", &[3, 1, 2, 4]),
            ("sort=-created_at,-id", &[4, 3, 2, 1]),
            ("sort=-id&priority=1", &[4, 1]),
        ];
        for (query, expected) in table {
            assert_lists(query, &list(app, query).await, expected);
        }
        app.patch("/todos/2").bearer_auth(app.token("demo")).send_json(json!({"completed": false})).await;
        assert_eq!(ids(&list(app, "sort=-updated_at").await)[0], 2);
    })
    .await;
}

/// Follows the links from a first page to the last.
async fn pages(app: &TestApp, first: &str) -> Vec<Answer> {
    let (mut pages, mut next) = (Vec::new(), Some(first.to_owned()));
    while let Some(path) = next {
        let page = app.get(&path).bearer_auth(app.token("demo")).answer().await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        next = page.next_from(&path);
        pages.push(page);
        assert!(pages.len() < 100, "it ends");
    }
    pages
}

#[actix_web::test]
async fn links_lead_through_all_pages_of_a_list() {
    with_app(async |app| {
        create_all(app, (1..=10).map(|n| json!({"title": format!("a & b {n}"), "priority": n % 3}))).await;
        for (query, expected) in [
            ("limit=4", vec![vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10]]),
            ("limit=5", vec![vec![1, 2, 3, 4, 5], vec![6, 7, 8, 9, 10]]),
            ("limit=1000", vec![(1..=10).collect()]),
            ("limit=3&sort=-priority,-id&q=A+%26+B", vec![vec![8, 5, 2], vec![10, 7, 4], vec![1, 9, 6], vec![3]]),
            ("limit=2&priority=2&etags=true", vec![vec![2, 5], vec![8]]),
            ("limit=2&tag=x", vec![vec![]]),
        ] {
            for prefix in ["", "/v1"] {
                let pages = pages(app, &format!("{prefix}/todos?{query}")).await;
                assert_eq!(pages.iter().map(ids).collect::<Vec<_>>(), expected, "{query}");
                let total = expected.iter().map(Vec::len).sum::<usize>().to_string();
                for page in &pages {
                    assert_eq!(page.header("x-total-count"), Some(&*total), "{query}");
                    let has_etags = page.json().as_array().unwrap().iter().all(|todo| todo.get("etag").is_some());
                    assert_eq!(has_etags, query.contains("etags") || total == "0", "{query}");
                }
            }
        }
        // HEAD says the same.
        let page = list(app, "limit=4").await;
        let head = app.request("HEAD", "/todos?limit=4").bearer_auth(app.token("demo")).answer().await;
        for name in ["link", "x-total-count", "etag", "sync-token", "content-type", "content-length"] {
            assert_eq!((head.header(name).is_some(), head.header(name)), (true, page.header(name)), "{name}");
        }
        assert_eq!((head.status, &*head.body), (200, ""));
    })
    .await;
}

#[actix_web::test]
async fn pages_go_on_whatever_happens_to_their_todos() {
    with_app(async |app| {
        let token = app.token("demo");
        create_all(app, (1..=6).map(|n| json!({"title": format!("{n}"), "priority": n % 2}))).await;
        let first = list(app, "limit=2&sort=-priority").await;
        assert_eq!(ids(&first), [1, 3]);
        // The last of the page is deleted, others move to and fro, and there is a new one.
        app.delete("/todos/3").bearer_auth(&token).answer().await;
        app.patch("/todos/5").bearer_auth(&token).send_json(json!({"priority": null})).await;
        app.patch("/todos/2").bearer_auth(&token).send_json(json!({"priority": 4})).await;
        app.create(&token, json!({"title": "7", "priority": 1})).await;
        let path = first.next_from("/todos").unwrap();
        let rest = pages(app, &path).await;
        assert_eq!(rest.iter().flat_map(ids).collect::<Vec<_>>(), [7, 4, 6, 5]);
        // What has happened since the first page is what a client has to ask for: all pages say where that was.
        for page in &rest {
            assert_eq!(page.header("sync-token"), first.header("sync-token"));
            assert_ne!(page.header("sync-token"), list(app, "").await.header("sync-token"));
            assert_ne!(page.header("etag"), first.header("etag"));
        }
        // Another length of pages is no other list, and neither is another order of the parameters.
        let cursor = path.split("cursor=").nth(1).unwrap();
        let page = list(app, &format!("cursor={cursor}&etags=true&limit=1000&unknown=2&sort=-priority")).await;
        assert_eq!(ids(&page), [7, 4, 6, 5]);
        assert_eq!(ids(&list(app, &format!("cursor={cursor}&sort=-priority")).await), [7, 4, 6, 5]);
    })
    .await;
}

#[actix_web::test]
async fn a_page_has_a_tag_of_its_own() {
    with_app(async |app| {
        create_all(app, (1..=3).map(|n| json!({"title": format!("{n}")}))).await;
        let next = list(app, "limit=1").await.next_from("/todos").unwrap();
        let next = next.split('?').nth(1).unwrap();
        let queries = ["", "limit=1", "limit=2", next, "q=1", "q=2", "sort=-id", "etags=true", "limit=1&etags=true"];
        let answers = join_all(queries.map(|query| list(app, query))).await;
        let mut tags: Vec<_> = answers.iter().map(|answer| answer.header("etag").unwrap().to_owned()).collect();
        for (query, tag) in queries.iter().zip(&tags) {
            let again = app.get(&format!("/todos?{query}&unknown=1")).bearer_auth(app.token("demo"));
            let again = again.header("If-None-Match", tag).answer().await;
            assert_eq!((again.status, &*again.body, again.header("etag")), (304, "", Some(tag.as_str())), "{query}");
        }
        let other =
            app.get("/todos?q=2").bearer_auth(app.token("demo")).header("If-None-Match", &tags[4]).answer().await;
        assert_eq!((other.status, ids(&other)), (200, vec![2]));
        let stale = app.get("/todos?q=2").bearer_auth(app.token("demo")).header("If-Match", &tags[4]).answer().await;
        stale.assert_refused(412, "Precondition Failed");
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), queries.len());
    })
    .await;
}

fn error(kind: &str, place: Value, msg: &str, input: &str, ctx: Option<Value>) -> Value {
    let mut loc = vec![json!("query")];
    loc.extend(place.as_array().cloned().unwrap_or(vec![place]));
    let mut error = json!({"type": kind, "loc": loc, "msg": msg, "input": input});
    if let Some(ctx) = ctx {
        error["ctx"] = ctx;
    }
    error
}

#[actix_web::test]
async fn misspelt_values_are_refused_all_at_once() {
    with_app(async |app| {
        let query = format!(
            "completed=yes&priority=5&priority=high&tag=&tag={}&due_before=soon&due_after=2025-02-30&updated_since=&\
             sort=due&limit=0&cursor=abc&etags=2&q={}",
            "x".repeat(51),
            "x".repeat(201)
        );
        let answer = get(app, &query).await;
        let date = "Input should be a date (2025-01-31) or a time with its offset from UTC (2025-01-31T10:30:00+01:00)";
        let boolean = "Input should be a valid boolean, unable to interpret input";
        let integer = "Input should be a valid integer, unable to parse string as an integer";
        let fields = "names of fields, each once, separated by commas, with or without '-' before them: 'id', 'title', \
            'completed', 'created_at', 'updated_at', 'due_at', 'priority', 'order'";
        let cursor =
            "Value error, this is no cursor of a list with these parameters: leave it out to begin with the first page";
        let at = |name: &str| json!(name);
        let most = |length: usize| Some(json!({ "max_length": length }));
        let short = "String should have at least 1 character";
        let long = "String should have at most 200 characters";
        let long_tag = "String should have at most 50 characters";
        answer.assert_refused(
            422,
            json!([
                error("value_error", at("cursor"), cursor, "abc", None),
                error("string_too_long", at("q"), long, &"x".repeat(201), most(200)),
                error("string_too_short", json!(["tag", 0]), short, "", Some(json!({"min_length": 1}))),
                error("string_too_long", json!(["tag", 1]), long_tag, &"x".repeat(51), most(50)),
                error(
                    "less_than_equal",
                    json!(["priority", 0]),
                    "Input should be less than or equal to 4",
                    "5",
                    Some(json!({"le": 4}))
                ),
                error("int_parsing", json!(["priority", 1]), integer, "high", None),
                error("bool_parsing", at("completed"), boolean, "yes", None),
                error("datetime_parsing", at("due_before"), date, "soon", None),
                error("datetime_parsing", at("due_after"), date, "2025-02-30", None),
                error("datetime_parsing", at("updated_since"), date, "", None),
                error(
                    "enum",
                    at("sort"),
                    &format!("Input should be {fields}"),
                    "due",
                    Some(json!({ "expected": fields }))
                ),
                error(
                    "greater_than_equal",
                    at("limit"),
                    "Input should be greater than or equal to 1",
                    "0",
                    Some(json!({"ge": 1}))
                ),
                error("bool_parsing", at("etags"), boolean, "2", None),
            ]),
        );
        let too_many = get(app, &format!("{}{}", "tag=x&".repeat(21), "priority=1&".repeat(6))).await;
        assert_eq!(too_many.problems(), ["too_long tag", "too_long priority"]);
        let enough = format!("{}{}", "tag=x&".repeat(20), "priority=1&".repeat(5));
        assert_lists(&enough, &list(app, &enough).await, &[]);
        let too_many = get(app, "limit=1001").await;
        assert_eq!(too_many.problems(), ["less_than_equal limit"]);
    })
    .await;
}

#[actix_web::test]
async fn a_cursor_is_for_the_list_that_gave_it() {
    with_app(async |app| {
        create_all(app, (1..=3).map(|n| json!({"title": format!("{n}")}))).await;
        let next = list(app, "limit=1&sort=-id").await.next_from("/todos").unwrap();
        let cursor = next.split("cursor=").nth(1).unwrap();
        let refused = ["", "sort=id&", "sort=-id,title&", "sort=-id&q=1&", "sort=-id&completed=false&"];
        let cursors = [cursor.to_owned(), format!("{cursor}A"), cursor[1..].to_owned(), String::new()];
        for (list, cursor) in
            refused.map(|list| (list, &cursors[0])).into_iter().chain(cursors[1..].iter().map(|it| ("sort=-id&", it)))
        {
            let answer = get(app, &format!("{list}cursor={cursor}")).await;
            assert_eq!(answer.problems(), ["value_error cursor"], "{list}{cursor}");
        }
        // It is a place, not a secret: for others it is one in their own list.
        app.create(&app.token("user"), json!({"title": "x"})).await;
        let other = app.get(&next).bearer_auth(app.token("user")).answer().await;
        assert_eq!((other.status, ids(&other)), (200, vec![]));
    })
    .await;
}

#[actix_web::test]
async fn a_query_is_short_enough_for_the_next_page() {
    with_app(async |app| {
        create_all(app, [json!({"title": "\u{1d11e}".repeat(200)}), json!({"title": "x"})]).await;
        let tags = |count: usize| format!("&tag={}", "%F0%9D%84%9E".repeat(45)).repeat(count);
        let too_long = get(app, &format!("limit=1{}", tags(14))).await;
        too_long.assert_refused(414, "The query is longer than 7416 bytes");
        // Without pages, it may be as long as any query.
        assert_eq!(get(app, &tags(14)).await.status, 200);
        assert_eq!(get(app, &format!("limit=1{}", tags(13))).await.status, 200);
        // Whatever is in a cursor.
        let pages =
            pages(app, "/todos?limit=1&sort=-title,completed,-created_at,updated_at,due_at,priority,order").await;
        assert_eq!(pages.iter().flat_map(ids).collect::<Vec<_>>(), [1, 2]);
    })
    .await;
}

#[actix_web::test]
async fn a_list_of_many_todos_is_selected_beside_other_requests() {
    with_settings(&[("RATE_LIMIT_USER", "0")], async |app| {
        let token = app.token("demo");
        for batch in 0..12 {
            let create =
                |n| json!({"op": "create", "todo": {"title": format!("todo {}", batch * 100 + n), "priority": n % 5}});
            let operations: Vec<Value> = (0..100).map(create).collect();
            let answer = app.post("/batch").bearer_auth(&token).send_json(json!({ "operations": operations })).await;
            assert_eq!(answer.status, 200);
        }
        let queries =
            ["q=TODO+11&limit=1000", "sort=-priority,title&limit=7", "priority=3", "sort=-id", "limit=1000", ""];
        let answers = join_all(queries.map(|query| list(app, query))).await;
        let counts: Vec<_> = answers.iter().map(|it| (ids(it).len(), it.header("x-total-count").unwrap())).collect();
        assert_eq!(counts, [(111, "111"), (7, "1200"), (240, "240"), (1200, "1200"), (1000, "1200"), (1200, "1200")]);
        let all = pages(app, "/todos?sort=-priority,title&limit=500").await;
        assert_eq!(all.iter().flat_map(ids).collect::<std::collections::BTreeSet<_>>().len(), 1200);
        // They wait for their user's turn, however many there are.
        let many = join_all((0..30).map(|_| list(app, "sort=title&limit=1"))).await;
        assert!(many.iter().all(|answer| ids(answer) == [1]));
    })
    .await;
}

#[actix_web::test]
async fn a_search_of_long_texts_does_not_hold_up_others() {
    with_app(async |app| {
        // Folding makes 18 characters of each of these.
        let long = json!({"title": "x", "description": "\u{fdfa}".repeat(10_000)});
        create_all(app, vec![long; 6]).await;
        let mut searches = FuturesUnordered::from_iter((0..8).map(|_| list(app, "q=y")));
        let others = async {
            for _ in 0..5 {
                assert_eq!(app.get("/health").answer().await.status, 200);
            }
        };
        match select(pin!(others), searches.next()).await {
            Either::Left(_) => {}
            Either::Right(_) => panic!("a search was answered sooner"),
        }
        while let Some(answer) = searches.next().await {
            assert_lists("q=y", &answer, &[]);
        }
    })
    .await;
}
