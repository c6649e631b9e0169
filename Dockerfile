# One image for every program of Fleetlog; the command decides which one runs.
#
#   docker build -t fleetlog .
#   docker run fleetlog fleetlog-processor --config /etc/fleetlog/fleetlog.toml

FROM rust:1.95-slim-bookworm AS build
# rdkafka compiles librdkafka, with OpenSSL for TLS to the brokers.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libssl-dev make perl pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches outlive a build, so that a changed line does not compile the world again.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked \
        --bin fleetlog \
        --bin fleetlog-ingest-gateway \
        --bin fleetlog-processor \
        --bin fleetlog-aggregator \
        --bin fleetlog-query-api \
    && mkdir /out \
    && cp target/release/fleetlog \
        target/release/fleetlog-ingest-gateway \
        target/release/fleetlog-processor \
        target/release/fleetlog-aggregator \
        target/release/fleetlog-query-api \
        /out/

FROM debian:bookworm-slim
# curl is for the health checks only.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home fleetlog
COPY --from=build /out/ /usr/local/bin/
# What differs from the defaults in a container: it must listen on more than its own loopback. Everything else is
# set by the environment (FLEETLOG__SECTION__KEY), or by mounting another file here.
COPY --chmod=644 <<'TOML' /etc/fleetlog/fleetlog.toml
[admin]
listen = "0.0.0.0:9600"

[gateway]
listen = "0.0.0.0:4318"
grpc_listen = "0.0.0.0:4317"

[query]
listen = "0.0.0.0:8080"
TOML
USER 10001:10001
CMD ["fleetlog", "--help"]
