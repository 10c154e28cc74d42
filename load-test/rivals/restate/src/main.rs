//! The saga as Restate's documentation has it: a service that calls virtual objects, one for each product, with the charge as a
//! journalled side effect. Stock lives in Restate's own store. The load comes over Restate's ingress, from this process too.

mod load;

use clap::Parser;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use restate_sdk::hyper::HyperEndpoint;
use restate_sdk::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Units of each product: more than can be sold.
const UNITS: u64 = 1_000_000_000;

/// What there is of a product.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Units {
    available: u64,
    held: u64,
    sold: u64,
}

/// A virtual object: one at a time for each key, as a row lock would have it.
struct Stock;

impl Stock {
    async fn units(ctx: &ObjectContext<'_>) -> Result<Units, TerminalError> {
        let stored = ctx.get::<Json<Units>>("units").await?;
        Ok(stored.map_or(Units { available: UNITS, held: 0, sold: 0 }, Json::into_inner))
    }
}

#[restate_sdk::object]
impl Stock {
    #[handler]
    async fn reserve(&self, ctx: ObjectContext<'_>) -> Result<bool, TerminalError> {
        let Units { available, held, sold } = Self::units(&ctx).await?;
        if available == 0 {
            return Ok(false);
        }
        ctx.set("units", Json(Units { available: available - 1, held: held + 1, sold }));
        Ok(true)
    }

    #[handler]
    async fn confirm(&self, ctx: ObjectContext<'_>) -> Result<(), TerminalError> {
        let Units { available, held, sold } = Self::units(&ctx).await?;
        ctx.set("units", Json(Units { available, held: held - 1, sold: sold + 1 }));
        Ok(())
    }

    #[handler]
    async fn release(&self, ctx: ObjectContext<'_>) -> Result<(), TerminalError> {
        let Units { available, held, sold } = Self::units(&ctx).await?;
        ctx.set("units", Json(Units { available: available + 1, held: held - 1, sold }));
        Ok(())
    }

    #[handler]
    async fn books(&self, ctx: ObjectContext<'_>) -> Result<Json<Units>, TerminalError> {
        Ok(Json(Self::units(&ctx).await?))
    }
}

/// An order of one unit.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    sku: String,
    is_declined: bool,
}

struct Saga;

#[restate_sdk::service]
impl Saga {
    #[handler]
    async fn place(&self, ctx: Context<'_>, order: Json<Order>) -> Result<String, HandlerError> {
        let Json(Order { sku, is_declined }) = order;
        if !ctx.object_client::<StockClient>(sku.clone()).reserve().call().await? {
            return Ok("REJECTED".to_owned());
        }
        let is_approved = ctx.run(|| async move { Ok(!is_declined) }).name("charge").await?;
        let stock = ctx.object_client::<StockClient>(sku);
        Ok(if is_approved {
            stock.confirm().call().await?;
            "PAID".to_owned()
        } else {
            stock.release().call().await?;
            "PAYMENT_FAILED".to_owned()
        })
    }
}

/// Serves the handlers. The SDK's own server leaves Nagle's algorithm on, which costs 40 ms now and then.
async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let endpoint = HyperEndpoint::new(Endpoint::builder().bind(Stock).bind(Saga).build());
    loop {
        let (stream, _peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let endpoint = endpoint.clone();
        tokio::spawn(async move {
            let served = http2::Builder::new(TokioExecutor::default()).serve_connection(TokioIo::new(stream), endpoint);
            if let Err(error) = served.await {
                eprintln!("a connection ended: {error}");
            }
        });
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let load = load::Load::parse();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(listener));
    load.register(&format!("http://{address}/")).await?;
    load.run().await
}
