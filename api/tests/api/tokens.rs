//! Who may call.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use domain_types::CustomerId;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::StatusCode;
use serde_json::{Value, json};
use testkit::eventually;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Node, SECRET, SOON, World, admin_token, claims, customer_token, development_key, new_customer, problem,
    sign,
};

/// The key pair of RFC 8037, appendix A: known to everybody.
const ED25519_PRIVATE: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
const ED25519_PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn ed25519() -> (EncodingKey, String) {
    let mut private = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    private.extend(URL_SAFE_NO_PAD.decode(ED25519_PRIVATE).unwrap());
    let mut public = vec![0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
    public.extend(URL_SAFE_NO_PAD.decode(ED25519_PUBLIC).unwrap());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(public));
    (EncodingKey::from_ed_der(&private), pem)
}

fn with(mut claims: Value, field: &str, value: Value) -> Value {
    claims[field] = value;
    claims
}

fn without(mut claims: Value, field: &str) -> Value {
    claims.as_object_mut().unwrap().remove(field);
    claims
}

/// `header.claims.` without a signature.
fn unsigned(kid: &str, claims: &Value) -> String {
    let header = json!({"alg": "none", "typ": "JWT", "kid": kid}).to_string();
    format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

async fn list_orders(node: &Node, token: &str) -> StatusCode {
    node.get("/v1/orders", Some(token)).await.status()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_valid_token_of_the_right_role_opens_the_door() {
    let world = World::shared().await;
    let (ed25519, ed25519_pem) = ed25519();
    let asymmetric = json!({"kid": "ed", "alg": "EdDSA", "public_key": ed25519_pem});
    world.write_keys(&json!([development_key("dev", SECRET), asymmetric]));
    let node = world.node().await;
    let me = new_customer();
    let good = claims(me, &["customer"], 60);
    assert_eq!(list_orders(&node, &sign(Some("dev"), SECRET, &good)).await, StatusCode::OK);
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("ed".into());
    assert_eq!(list_orders(&node, &encode(&header, &good, &ed25519).unwrap()).await, StatusCode::OK);

    let dev = |claims: &Value| sign(Some("dev"), SECRET, claims);
    let mut longer = Header::new(Algorithm::HS512);
    longer.kid = Some("dev".into());
    let mut critical = Header::new(Algorithm::HS256);
    (critical.kid, critical.crit) = (Some("dev".into()), Some(vec!["unheard-of".into()]));
    let with_header = |header: &Header| encode(header, &good, &EncodingKey::from_secret(SECRET)).unwrap();
    let refused = [
        ("expired", dev(&claims(me, &["customer"], -1))),
        ("other secret", sign(Some("dev"), b"another secret of just 32 bytes!", &good)),
        ("unknown key", sign(Some("other"), SECRET, &good)),
        ("no kid", sign(None, SECRET, &good)),
        ("alg none", unsigned("dev", &good)),
        ("another algorithm than the key's", with_header(&longer)),
        ("a critical extension", with_header(&critical)),
        ("public key as a secret", sign(Some("ed"), ed25519_pem.as_bytes(), &good)),
        ("wrong audience", dev(&with(good.clone(), "aud", json!("other")))),
        ("no audience", dev(&without(good.clone(), "aud"))),
        ("wrong issuer", dev(&with(good.clone(), "iss", json!("other")))),
        ("no issuer", dev(&without(good.clone(), "iss"))),
        ("no expiry", dev(&without(good.clone(), "exp"))),
        ("not yet valid", dev(&with(good.clone(), "nbf", json!(4_000_000_000_u64)))),
        ("roles that are no list", dev(&with(good.clone(), "roles", json!("customer")))),
        ("no customer", dev(&with(good.clone(), "sub", json!("somebody")))),
        ("no token", "x".to_owned()),
        ("empty", String::new()),
    ];
    for (what, token) in refused {
        let response = node.get("/v1/orders", Some(&token)).await;
        assert!(response.headers().contains_key("www-authenticate"), "{what}");
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{what}");
        problem(response, 401, "unauthorized").await;
    }
    let response = node.get("/v1/orders", None).await;
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    problem(response, 401, "unauthorized").await;

    problem(node.get("/v1/orders", Some(&admin_token())).await, 403, "forbidden").await;
    let nobody = dev(&claims(me, &[], 60));
    problem(node.get("/v1/orders", Some(&nobody)).await, 403, "forbidden").await;
    let put = node.request(reqwest::Method::PUT, "/v1/admin/products/A", Some(&customer_token(me)));
    problem(put.json(&json!({})).send().await.unwrap(), 403, "forbidden").await;
    let anonymous = |path: &str| node.request(reqwest::Method::GET, path, None);
    for header in ["x-user-id", "x-customer-id", "x-forwarded-user"] {
        let request = anonymous("/v1/orders").header(header, me.to_string());
        problem(request.send().await.unwrap(), 401, "unauthorized").await;
    }
    let valid = dev(&good);
    for elsewhere in [
        anonymous("/v1/orders")
            .header("cookie", format!("access_token={valid}; Authorization=Bearer {valid}")),
        anonymous(&format!("/v1/orders?access_token={valid}")),
        anonymous("/v1/orders").basic_auth(me, Some(&valid)),
        anonymous("/v1/orders").bearer_auth(&valid).bearer_auth("x"),
    ] {
        problem(elsewhere.send().await.unwrap(), 401, "unauthorized").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_keys_are_used_without_a_restart_and_a_broken_file_changes_nothing() {
    let world = World::shared().await;
    let node = world.node().await;
    let claims = claims(CustomerId(uuid::Uuid::new_v4()), &["customer"], 600);
    let secret = b"the next secret is as long as it";
    let (old, new) = (sign(Some("dev"), SECRET, &claims), sign(Some("next"), secret, &claims));
    assert_eq!(list_orders(&node, &new).await, StatusCode::UNAUTHORIZED);
    world.write_keys(&json!([development_key("next", secret)]));
    eventually(SOON, "the new key is used and the old one is not", async || {
        let answers = (list_orders(&node, &new).await, list_orders(&node, &old).await);
        if answers == (StatusCode::OK, StatusCode::UNAUTHORIZED) {
            Ok(())
        } else {
            Err(format!("{answers:?}"))
        }
    })
    .await;
    world.write_keys(&json!([{"kid": "next", "alg": "none"}]));
    // The file after the broken one is used; until then, and before it, so is the present one.
    world.write_keys(&json!([development_key("next", secret), development_key("dev", SECRET)]));
    eventually(SOON, "the file after the broken one is used", async || {
        assert_eq!(list_orders(&node, &new).await, StatusCode::OK);
        let status = list_orders(&node, &old).await;
        if status == StatusCode::OK { Ok(()) } else { Err(status) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_development_key_is_refused_unless_the_api_listens_on_loopback() {
    let world = World::shared().await;
    let mut settings = world.settings();
    settings.listen = "0.0.0.0:0".parse().unwrap();
    let error = api::run(settings, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(api::KeysError::DevelopmentKey { .. })), "{error:#}");
}
