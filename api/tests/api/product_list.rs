//! `GET /v1/products`: filters, orders, pages, and answers that a client has already.

use domain_types::Sku;
use reqwest::{Method, Response, StatusCode};
use schemas::{DailySale, ProductKind, Sale, StockLevel, Topic};
use serde_json::Value;

use crate::support::{Node, World, level, now, problem, read, won};

/// A product of a test's own category.
fn product(category: &str, name: &str, price: i64, kind: ProductKind) -> StockLevel {
    let sku = Sku::new(testkit::unique("SKU", '-').to_uppercase()).unwrap();
    let mut new = level(&sku, 1, won(price));
    new.product.name = name.to_owned();
    new.product.category = category.to_owned();
    new.product.kind = kind;
    new
}

async fn page(node: &Node, query: &str) -> Value {
    let (status, page) = read(node.get(&format!("/v1/products?{query}"), None).await).await;
    assert_eq!(status, StatusCode::OK, "{query}: {page}");
    page
}

fn names(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

/// All pages, one after the other.
async fn all(node: &Node, query: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let page = page(node, &format!("{query}{after}")).await;
        found.extend(names(&page));
        let Some(next) = page["next"].as_str() else { return found };
        after = format!("&after={next}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_products_are_filtered_by_category_kind_price_and_sale_and_sorted_as_asked() {
    let world = World::shared().await;
    let node = world.node().await;
    let (mine, other) = (testkit::unique("c", ' '), testkit::unique("c/é", ' '));
    for (category, name, price, kind, opens_s) in [
        (&mine, "A", 300, ProductKind::Normal, None),
        (&mine, "B", 100, ProductKind::Limited, Some(-60)),
        (&mine, "C", 200, ProductKind::Normal, Some(60)),
        (&mine, "D", 200, ProductKind::Limited, None),
        (&other, "E", 200, ProductKind::Limited, None),
    ] {
        let mut new = product(category, name, price, kind);
        new.product.sale = opens_s.map(|seconds| {
            let at = |s: i64| Some(domain_types::Timestamp::from_millis(now().as_millis() + s * 1_000));
            Sale { opens_at: at(seconds), closes_at: at(seconds + 600), daily: None }
        });
        world.level(new).await;
    }
    world.caught_up(Topic::StockLevels).await;
    let c = format!("category={}", mine.replace(' ', "%20"));
    let e = format!("category={}", other.replace(' ', "+").replace('é', "%C3%A9").replace('/', "%2F"));
    for (query, expected) in [
        (c.clone(), vec!["A", "B", "C", "D"]),
        (e.clone(), vec!["E"]),
        (format!("{c}&kind=normal"), vec!["A", "C"]),
        (format!("{c}&kind=limited"), vec!["B", "D"]),
        (format!("{c}&min_price=200"), vec!["A", "C", "D"]),
        (format!("{c}&max_price=200"), vec!["B", "C", "D"]),
        (format!("{c}&min_price=101&max_price=299"), vec!["C", "D"]),
        (format!("{c}&min_price=300&max_price=100"), vec![]),
        (format!("{c}&on_sale=true"), vec!["A", "B", "D"]),
        (format!("{c}&sort=name"), vec!["A", "B", "C", "D"]),
        (format!("{c}&kind=limited&on_sale=true&max_price=150&sort=-price"), vec!["B"]),
        (format!("{c}&kind=normal&on_sale=true&min_price=100&sort=price"), vec!["A"]),
        (format!("{e}&kind=limited&on_sale=true&min_price=200&max_price=200&sort=-price"), vec!["E"]),
        ("category=nothing-of-this".to_owned(), vec![]),
    ] {
        assert_eq!(all(&node, &query).await, expected, "{query}");
        assert_eq!(all(&node, &format!("{query}&limit=1")).await, expected, "{query}, one by one");
    }
    // Ties are broken by sku; backwards is exactly the opposite.
    let up = all(&node, &format!("{c}&sort=price&limit=1")).await;
    assert_eq!((up[0].as_str(), up[3].as_str()), ("B", "A"));
    let mut down = all(&node, &format!("{c}&sort=-price&limit=2")).await;
    down.reverse();
    assert_eq!(down, up);
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_a_list_refuses_what_it_does_not_know_and_cursors_of_other_lists() {
    let world = World::shared().await;
    let node = world.node().await;
    let category = testkit::unique("c", '-');
    for (name, price) in [("A", 1), ("B", 2), ("C", 3)] {
        world.level(product(&category, name, price, ProductKind::Normal)).await;
    }
    world.caught_up(Topic::StockLevels).await;
    let get = async |query: &str| -> Response { node.get(&format!("/v1/products?{query}"), None).await };
    for (query, pointer, code) in [
        ("colour=red", "colour", "unknown_parameter"),
        ("kind=rare", "kind", "unknown_kind"),
        ("min_price=-1", "min_price", "out_of_range"),
        ("min_price=%2B1", "min_price", "out_of_range"),
        ("max_price=1.5", "max_price", "out_of_range"),
        ("max_price=9223372036854775808", "max_price", "out_of_range"),
        ("on_sale=false", "on_sale", "unknown_value"),
        ("sort=sku", "sort", "unknown_order"),
        ("category=", "category", "invalid_text"),
        ("category=a%00b", "category", "invalid_text"),
        ("kind=normal&kind=limited", "kind", "repeated"),
        ("limit=101", "limit", "out_of_range"),
    ] {
        let found = problem(get(query).await, 422, "invalid_request").await;
        let error = &found["errors"][0];
        assert_eq!(
            (error["pointer"].as_str(), error["code"].as_str()),
            (Some(pointer), Some(code)),
            "{query}"
        );
    }
    let own = format!("category={category}&limit=1");
    let cursor = page(&node, &own).await["next"].as_str().unwrap().to_owned();
    for query in ["", "&sort=price", "&kind=normal", "&min_price=1", "&max_price=9", "&on_sale=true"] {
        let answer = get(&format!("{own}&after={cursor}{query}")).await;
        if query.is_empty() {
            assert_eq!(names(&read(answer).await.1), ["B"]);
        } else {
            let found = problem(answer, 422, "invalid_cursor").await;
            assert_eq!(found["errors"][0]["pointer"], "after", "{query}");
        }
    }
    // Another size of pages is no other list.
    assert_eq!(names(&page(&node, &format!("category={category}&limit=2&after={cursor}")).await), ["B", "C"]);
    problem(get(&format!("limit=1&after={cursor}")).await, 422, "invalid_cursor").await;
    problem(get(&format!("{own}&after={cursor}x")).await, 422, "invalid_cursor").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_pages_lose_and_repeat_nothing_while_prices_and_stock_change() {
    let world = World::shared().await;
    let node = world.node().await;
    let category = testkit::unique("c", '-');
    let mut products: Vec<StockLevel> =
        (0..40).map(|n| product(&category, &format!("N{n:02}"), 1_000 + n, ProductKind::Normal)).collect();
    for new in &products {
        world.level(new.clone()).await;
    }
    world.caught_up(Topic::StockLevels).await;
    let sorts = ["name", "price", "-price"];
    let mut found = [const { Vec::new() }; 3];
    let mut after = [const { Some(String::new()) }; 3];
    for round in 0..100 {
        if after.iter().all(Option::is_none) {
            break;
        }
        for (list, sort) in sorts.into_iter().enumerate() {
            let Some(cursor) = &after[list] else { continue };
            let page = page(&node, &format!("category={category}&sort={sort}&limit=5{cursor}")).await;
            found[list].extend(names(&page));
            after[list] = page["next"].as_str().map(|next| format!("&after={next}"));
        }
        // Every other product becomes cheaper or dearer than all others, and the rest sell; no name changes.
        for (n, level) in products.iter_mut().enumerate() {
            level.version += 1;
            if n % 2 == 0 {
                level.product_version = level.version;
                level.product.price = won(if (n / 2 + round) % 2 == 0 { 1 } else { 9_000 });
            } else {
                level.available -= 1;
            }
            world.level(level.clone()).await;
        }
        world.caught_up(Topic::StockLevels).await;
    }
    let everything: Vec<String> = products.iter().map(|level| level.product.name.clone()).collect();
    assert_eq!(found[0], everything, "a change of price moves nothing in the order of names");
    // In the order of prices, what keeps its price is there exactly once.
    let odd: Vec<String> = everything.iter().skip(1).step_by(2).cloned().collect();
    let kept =
        |list: usize| found[list].iter().filter(|name| odd.contains(name)).cloned().collect::<Vec<_>>();
    assert_eq!(kept(1), odd);
    assert_eq!(kept(2), odd.iter().rev().cloned().collect::<Vec<_>>());
    // Once nothing moves any more, each order has everything once.
    for sort in ["price", "-price"] {
        let mut all = all(&node, &format!("category={category}&sort={sort}&limit=3")).await;
        all.sort();
        assert_eq!(all, everything);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_daily_sale_and_an_instant_are_shown_within_a_second_on_every_node() {
    let world = World::shared().await;
    let (node, other) = world.two_nodes().await;
    let category = testkit::unique("c", '-');
    let mut opening = product(&category, "opening", 1, ProductKind::Limited);
    let mut closing = product(&category, "closing", 1, ProductKind::Limited);
    let mut daily = product(&category, "daily", 1, ProductKind::Limited);
    let at = domain_types::Timestamp::from_millis(now().as_millis() + 4_000);
    let far = |ms: i64| Some(domain_types::Timestamp::from_millis(at.as_millis() + ms));
    opening.product.sale = Some(Sale { opens_at: Some(at), closes_at: far(600_000), daily: None });
    closing.product.sale = Some(Sale { opens_at: far(-600_000), closes_at: Some(at), daily: None });
    // All day but for the minute that began twelve hours ago: open now, in whatever zone.
    let minute = |ms: i64| (at.as_millis() + ms).rem_euclid(86_400_000) / 60_000;
    let clock = |minute: i64| format!("{:02}:{:02}", minute / 60, minute % 60);
    let (closes, opens) = (minute(43_200_000), minute(43_260_000));
    let window = DailySale { opens: clock(opens), closes: clock(closes), time_zone: "UTC".into() };
    daily.product.sale = Some(Sale { opens_at: None, closes_at: None, daily: Some(window) });
    for new in [opening, closing, daily] {
        world.level(new).await;
    }
    world.caught_up(Topic::StockLevels).await;
    let query = format!("category={category}&on_sale=true");
    let mut seen_before = false;
    testkit::eventually(std::time::Duration::from_secs(20), "the instant has passed", async || {
        for node in [&node, &other] {
            let (asked, shown, answered) = (now(), names(&page(node, &query).await), now());
            if answered < at {
                assert_eq!(shown, ["closing", "daily"], "before the instant");
                seen_before = true;
            } else if asked >= at {
                assert_eq!(shown, ["daily", "opening"], "after the instant");
            }
        }
        if now() >= at { Ok(()) } else { Err(now()) }
    })
    .await;
    assert!(seen_before, "the products took too long to be there before the instant");
    for node in [&node, &other] {
        assert_eq!(names(&page(node, &query).await), ["daily", "opening"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_a_client_that_has_the_answer_gets_304_until_a_sale_changes_it() {
    let world = World::shared().await;
    let (node, other) = world.two_nodes().await;
    let category = testkit::unique("c", '-');
    let new = product(&category, "A", 1, ProductKind::Limited);
    world.level(new.clone()).await;
    world.caught_up(Topic::StockLevels).await;
    let ask = async |node: &Node, path: &str, tag: Option<&str>| {
        let request = node.request(Method::GET, path, None);
        let request = match tag {
            Some(tag) => request.header("If-None-Match", tag),
            None => request,
        };
        request.send().await.unwrap()
    };
    let tag_of = |response: &Response| response.headers()["etag"].to_str().unwrap().to_owned();
    for path in [format!("/v1/products/{}", new.sku), format!("/v1/products?category={category}")] {
        let first = ask(&node, &path, None).await;
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()["cache-control"], "public, no-cache");
        let tag = tag_of(&first);
        for node in [&node, &other] {
            let again = ask(node, &path, Some(&tag)).await;
            assert_eq!((again.status(), tag_of(&again)), (StatusCode::NOT_MODIFIED, tag.clone()));
            assert_eq!(again.headers()["cache-control"], "public, no-cache");
            assert_eq!(again.bytes().await.unwrap().len(), 0);
            assert_eq!(ask(node, &path, Some("W/\"x\"")).await.status(), StatusCode::OK);
        }
        let sold_units = if path.contains('?') { 2 } else { 1 };
        let sold = StockLevel { version: 1 + sold_units, available: 10 - sold_units, ..new.clone() };
        world.level(sold).await;
        world.caught_up(Topic::StockLevels).await;
        for node in [&node, &other] {
            let changed = testkit::eventually(crate::support::SOON, "the sale is shown", async || {
                let changed = ask(node, &path, Some(&tag)).await;
                if changed.status() == StatusCode::OK { Ok(changed) } else { Err(changed.status()) }
            })
            .await;
            assert_ne!(tag_of(&changed), tag);
            assert!(
                read(changed).await.1.to_string().contains(&format!("\"available\":{}", 10 - sold_units))
            );
        }
    }
}
