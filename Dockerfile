# syntax=docker/dockerfile:1
# Outrigger's image: one binary, no shell, no package manager, not root. What it promises (user, ports,
# files, environment, signals) is in charts/outrigger/README.md, "The image".
#
#   docker build -t outrigger .
#   docker run --rm outrigger --version

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
# The caches outlive a build, so a change of the source builds that alone. The target directory is gone
# when the step ends: the binary is copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/usr/local/cargo/git \
    --mount=type=cache,target=/build/target,sharing=locked \
    cargo build --release --locked --bin outrigger \
    && install -D -m 0755 target/release/outrigger /image/usr/local/bin/outrigger
# The final image has no shell to make directories with.
RUN install -d -m 0750 -o 15480 -g 15480 /image/var/lib/outrigger /image/run/outrigger

# C libraries and CA certificates, of the same Debian release as the builder.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="outrigger" \
      org.opencontainers.image.description="An HTTP cache that runs beside every service in an Envoy or Istio mesh" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image/usr/local/bin/outrigger /usr/local/bin/outrigger
COPY --from=build --chown=15480:15480 /image/var/lib/outrigger /var/lib/outrigger
COPY --from=build --chown=15480:15480 /image/run/outrigger /run/outrigger
# A number, so that Kubernetes can check runAsNonRoot, and one of our own, so that Istio can tell our
# traffic from the application's.
USER 15480:15480
# Inbound, outbound, admin, metrics.
EXPOSE 15480 15481 15490 15491
# The process drains on SIGTERM.
STOPSIGNAL SIGTERM
# Kubernetes has its own probes.
HEALTHCHECK NONE
ENTRYPOINT ["/usr/local/bin/outrigger"]
CMD ["run"]
