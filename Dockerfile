# The image of stspub: one static binary in an almost empty root, for a user without any rights. To build it:
#
#   docker build -t stspub .
#
# docs/deploy.md says how to run it; its root may be read-only, and no capability is needed.

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# "stspub version" says which commit this is, so git's data is in the context.
RUN CGO_ENABLED=0 go build -trimpath -o /out/stspub ./cmd/stspub && mkdir -m 700 /out/empty

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/stspub /usr/local/bin/stspub
# The store and the admin socket. A new volume takes its owner from here.
COPY --from=build --chown=65532:65532 /out/empty /var/lib/stspub
COPY --from=build --chown=65532:65532 /out/empty /run/stspub
VOLUME ["/var/lib/stspub", "/run/stspub"]
USER 65532:65532
EXPOSE 80 443
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s CMD ["/usr/local/bin/stspub", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/stspub"]
CMD ["serve"]
