# One image with every program; a container's command chooses. Built by compose.yaml.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
# The cache keeps compiled dependencies between builds; the programs are copied out, because it is no part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bins \
        -p api -p order-orchestrator -p stock-worker -p payment-worker -p firstcome \
    && mkdir /programs \
    && cd target/release \
    && cp api order-orchestrator stock-worker payment-worker firstcome /programs/

FROM debian:12.11-slim
# curl asks /readyz in health checks; the certificates are for a payment provider over HTTPS; the Kafka client needs libssl.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin firstcome
COPY --from=build /programs/ /usr/local/bin/
USER 10001:10001
WORKDIR /
