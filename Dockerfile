# Two images of the server, and one of a sample workload; none is built in CI.
#   docker build -t chanceryd .                    small: a static binary, no shell; keys in files
#   docker build -t chanceryd --target tokens .    with PKCS#11 and PC/SC: keys on tokens; bring your module
#   docker build -t chancery-example --target example .    examples/pod, for deploy/kubernetes/workload.yaml
#   docker run --rm -v chancery:/var/lib/chancery -p 443:8443 chanceryd serve /var/lib/chancery/chancery.yaml
FROM golang:1.27-bookworm AS source
WORKDIR /src
COPY . .
RUN mkdir /state && chown 65532:65532 /state

FROM source AS build-tokens
RUN apt-get update && apt-get install -y --no-install-recommends libpcsclite-dev pkg-config
RUN go build -tags pcsc -trimpath -ldflags="-s -w" -o / ./cmd/chanceryd ./cmd/chancery

FROM debian:bookworm-slim AS tokens
RUN apt-get update && apt-get install -y --no-install-recommends libpcsclite1 opensc-pkcs11 && rm -rf /var/lib/apt/lists/*
COPY --from=build-tokens /chanceryd /chancery /usr/bin/
COPY --from=source --chown=65532:65532 /state /var/lib/chancery
USER 65532:65532
VOLUME /var/lib/chancery
ENTRYPOINT ["/usr/bin/chanceryd"]
CMD ["serve", "/var/lib/chancery/chancery.yaml"]

FROM source AS build-example
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /pod ./examples/pod

FROM scratch AS example
COPY --from=build-example /pod /usr/bin/
USER 65532:65532
ENTRYPOINT ["/usr/bin/pod"]

FROM source AS build
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o / ./cmd/chanceryd ./cmd/chancery

FROM scratch
COPY --from=build /chanceryd /chancery /usr/bin/
COPY --from=source --chown=65532:65532 /state /var/lib/chancery
USER 65532:65532
VOLUME /var/lib/chancery
ENTRYPOINT ["/usr/bin/chanceryd"]
CMD ["serve", "/var/lib/chancery/chancery.yaml"]
