# syntax=docker/dockerfile:1
# Outrigger's image: one binary, no shell, no package manager, not root.
#
#   docker build -t outrigger .
#   docker run --rm outrigger version

FROM rust:1.95-bookworm AS build
# cmake builds zlib-ng for the upstream connector; compilers are in the base image.
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin outrigger

# C libraries and CA certificates, of the same Debian release as the builder.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="outrigger" \
      org.opencontainers.image.description="An HTTP cache that runs beside every service in an Envoy or Istio mesh" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /build/target/release/outrigger /usr/local/bin/outrigger
# A number, so that Kubernetes can check runAsNonRoot, and one of our own, so that Istio can tell our
# traffic from the application's.
USER 15480:15480
# Traffic, and admin (health, readiness, metrics).
EXPOSE 15480 15490
ENTRYPOINT ["/usr/local/bin/outrigger"]
CMD ["run", "--config", "/etc/outrigger/outrigger.yaml"]
