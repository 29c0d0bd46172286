# The image of all roles: operator, agent and command line. `make image` makes the same file system and configuration
# without a container engine (tools/ociimage); a test compares the two.
# The build stage fetches Debian packages and wheels, each by the hash in tools/ociimage/packages and requirements.lock.
FROM debian:bookworm-slim@sha256:96e378d7e6531ac9a15ad505478fcc2e69f371b10f5cdf87857c4b8188404716 AS build
RUN apt-get update -qq \
 && apt-get install -qq -y --no-install-recommends python3 python3-pip
WORKDIR /source
COPY requirements.lock pyproject.toml LICENSE ./
COPY tools/testos tools/testos
COPY tools/ociimage tools/ociimage
COPY operator operator
RUN PYTHONPATH=operator:tools PYTHONDONTWRITEBYTECODE=1 python3 -m ociimage root /image

FROM scratch
COPY --from=build /image/ /
LABEL org.opencontainers.image.title="careen" \
      org.opencontainers.image.description="Operating systems that update themselves across a cluster" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.source="https://github.com/careen-dev/careen" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH="/usr/bin:/usr/sbin" \
    HOME="/tmp" \
    LANG="C.UTF-8" \
    PYTHONUNBUFFERED="1" \
    PYTHONDONTWRITEBYTECODE="1" \
    SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt"
# A number, so that a pod's runAsNonRoot can be checked. A container with a read-only root needs a writable /tmp.
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["careen"]
