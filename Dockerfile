# A small image of the server: a static binary, no shell. Not built in CI.
#   docker build -t chanceryd .
#   docker run --rm -v chancery:/var/lib/chancery -p 443:8443 chanceryd serve /var/lib/chancery/chancery.yaml
FROM golang:1.27 AS build
WORKDIR /src
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /chanceryd ./cmd/chanceryd && \
    CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /chancery ./cmd/chancery && \
    mkdir /state && chown 65532:65532 /state

FROM scratch
COPY --from=build /chanceryd /chancery /usr/bin/
COPY --from=build --chown=65532:65532 /state /var/lib/chancery
USER 65532:65532
VOLUME /var/lib/chancery
ENTRYPOINT ["/usr/bin/chanceryd"]
CMD ["serve", "/var/lib/chancery/chancery.yaml"]
