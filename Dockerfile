# syntax=docker/dockerfile:1
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag clerk-exporter .
#
# scripts/prove-image checks without Docker that the last stage contains everything the program needs.

ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-bookworm AS builder
WORKDIR /build
# Links glibc statically. This stage runs on the image's platform (natively or emulated), so host and target are the
# same. --target is given all the same, to keep the flags from build scripts and proc macros, which cannot be static.
ENV RUSTFLAGS="-C target-feature=+crt-static"
# Writes the list of the crates into the binary, which scanners of images and buildkit's SBOM read.
RUN RUSTFLAGS='' cargo install --locked --version 0.7.7 cargo-auditable

# Dependencies are a separate layer, valid until a Cargo.toml or Cargo.lock changes. Empty crates stand in for the
# workspace's, with the files that their manifests name.
COPY Cargo.toml Cargo.lock ./
COPY benches benches
COPY crates/clerk-client/Cargo.toml crates/clerk-client/
COPY crates/clerk-quota/Cargo.toml crates/clerk-quota/
COPY crates/clerk-simulator/Cargo.toml crates/clerk-simulator/
COPY crates/clerk-test-support/Cargo.toml crates/clerk-test-support/
COPY crates/file-fingerprint/Cargo.toml crates/file-fingerprint/
COPY crates/prometheus-web/Cargo.toml crates/prometheus-web/
COPY crates/ratelimit-headers/Cargo.toml crates/ratelimit-headers/
COPY xtask/Cargo.toml xtask/
# The names of benches contain no spaces.
# hadolint ignore=SC2013
RUN mkdir src && echo 'fn main() {}' >src/main.rs && touch src/lib.rs \
    && for crate in crates/* xtask; do \
        mkdir "$crate/src" "$crate/benches" && touch "$crate/src/lib.rs" \
        && for bench in $(sed -n '/^\[\[bench\]\]$/{n;s/^name = "\(.*\)"$/\1/p}' "$crate/Cargo.toml"); do \
            touch "$crate/benches/$bench.rs"; \
        done; \
    done \
    && cargo auditable build --release --locked --package clerk-exporter --target "$(rustc --print host-tuple)" \
    && rm -r src

ARG REVISION=unknown
COPY crates crates
COPY src src
# COPY keeps file times. If they are older than the empty crates above, Cargo would not rebuild.
RUN touch src/main.rs src/lib.rs crates/*/src/lib.rs \
    && CLERK_EXPORTER_REVISION="$REVISION" \
        cargo auditable build --release --locked --package clerk-exporter --target "$(rustc --print host-tuple)" \
    && cp "target/$(rustc --print host-tuple)/release/clerk-exporter" /clerk-exporter \
    && /clerk-exporter --version

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=""
LABEL org.opencontainers.image.title="clerk-exporter" \
      org.opencontainers.image.description="See, explain and prevent rate limiting of Clerk's Backend API: a Prometheus exporter" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=builder /clerk-exporter /bin/clerk-exporter
# Numeric, so that Kubernetes can verify that it is not root.
USER 65532:65532
EXPOSE 10429
ENTRYPOINT ["/bin/clerk-exporter"]
